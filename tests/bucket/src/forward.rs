//! A corporate proxy: plain requests in absolute form and tunnels (CONNECT), for one name, which means one server.

use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

/// What clients have to know by heart: `user:secret` as Basic.
const AUTHORIZATION: &str = "basic dxnlcjpzzwnyzxq=";

/// The proxy. It stays until the process ends.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    forwarded: Arc<AtomicUsize>,
    tunnelled: Arc<AtomicUsize>,
}

impl Forward {
    /// Everything that is asked of `name` goes to `server`; any other name, and whoever does not know the password, is refused.
    pub fn to(name: &str, server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, name) = (listener.local_addr()?, name.to_owned());
        let (forwarded, tunnelled) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (Arc::clone(&forwarded), Arc::clone(&tunnelled));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (name, counts) = (name.clone(), counts.clone());
                std::thread::spawn(move || _ = serve(&name, server, client, &counts));
            }
        });
        Ok(Self { address, forwarded, tunnelled })
    }

    /// For `HTTP_PROXY` and `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://user:secret@{}", self.address)
    }

    /// Requests in absolute form, and tunnels, until now.
    pub fn seen(&self) -> (usize, usize) {
        (self.forwarded.load(Ordering::Relaxed), self.tunnelled.load(Ordering::Relaxed))
    }
}

fn serve(
    name: &str,
    server: SocketAddr,
    mut client: TcpStream,
    (forwarded, tunnelled): &(Arc<AtomicUsize>, Arc<AtomicUsize>),
) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head)?;
    let known = head.to_ascii_lowercase().contains(&format!("proxy-authorization: {AUTHORIZATION}"));
    let (method, rest) = head.split_once(' ').unwrap_or_default();
    if !known {
        client.write_all(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?;
        return Ok(());
    }
    let mut upstream = TcpStream::connect(server)?;
    if method == "CONNECT" && rest.starts_with(&format!("{name}:")) {
        tunnelled.fetch_add(1, Ordering::Relaxed);
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else if let Some(path) =
        rest.strip_prefix(&format!("http://{name}")).and_then(|rest| rest.find('/').map(|at| &rest[at..]))
    {
        // One request for each connection: whatever follows would have to be understood.
        forwarded.fetch_add(1, Ordering::Relaxed);
        let lines = path.split("\r\n").filter(|line| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("proxy-") && !line.starts_with("connection:")
        });
        let lines: Vec<&str> = lines.collect();
        let head = lines.join("\r\n").replacen("\r\n", "\r\nConnection: close\r\n", 1);
        upstream.write_all(format!("{method} {head}").as_bytes())?;
    } else {
        client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    std::io::copy(&mut upstream, &mut client)?;
    let _ = client.shutdown(Shutdown::Both);
    Ok(())
}
