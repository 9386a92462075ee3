//! What a test asks of Azure itself: a container, which the store never makes, and what is in it.
//!
//! Signed with the account's key, as "Authorize with Shared Key" says it (2015-02-21 and later: an empty body has no length).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::kind::AZURE;

const VERSION: &str = "2023-11-03";
/// No clock is compared with it.
const DATE: &str = "Sat, 01 Jan 2000 00:00:00 GMT";

/// Makes an empty container.
pub(crate) fn create_container(server: SocketAddr, name: &str) -> Result<()> {
    let answer = ask(server, "PUT", name, &[("restype", "container")])?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "no container was made: {answer}");
    Ok(())
}

/// Whether there is an object whose name begins so.
pub(crate) fn has(server: SocketAddr, container: &str, beginning: &str) -> Result<bool> {
    let answer = ask(server, "GET", container, &[("comp", "list"), ("prefix", beginning), ("restype", "container")])?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "no list: {answer}");
    Ok(answer.contains("<Name>"))
}

/// `query` in the order of its names.
fn ask(server: SocketAddr, method: &str, container: &str, query: &[(&str, &str)]) -> Result<String> {
    let [(_, account), (_, key)] = AZURE;
    let of = |between: char| move |(name, value): &(&str, &str)| format!("{name}{between}{value}");
    let resource = query.iter().map(of(':')).collect::<Vec<_>>().join("\n");
    let signed = format!(
        "{method}\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{DATE}\nx-ms-version:{VERSION}\n/{account}/{account}/{container}\n{resource}"
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(key)?).context("the account's key")?;
    mac.update(signed.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let query = query.iter().map(of('=')).collect::<Vec<_>>().join("&");
    let mut stream = TcpStream::connect(server)?;
    write!(
        stream,
        "{method} /{account}/{container}?{query} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Length: 0\r\n\
         x-ms-date: {DATE}\r\nx-ms-version: {VERSION}\r\nAuthorization: SharedKey {account}:{signature}\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
