//! The few HTTP requests that a test makes itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// A reply, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The head as text.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Reply> {
    request("GET", address, target, headers)
}

/// One POST of JSON on a connection of its own.
pub fn post(address: SocketAddr, target: &str, json: &str) -> Result<Reply> {
    send(
        "POST",
        address,
        target,
        &[("content-type", "application/json"), ("content-length", &json.len().to_string())],
        json,
    )
}

/// One request on a connection of its own.
pub fn request(method: &str, address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Reply> {
    send(method, address, target, headers, "")
}

fn send(method: &str, address: SocketAddr, target: &str, headers: &[(&str, &str)], body: &str) -> Result<Reply> {
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    socket.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head.push_str(body);
    socket.write_all(head.as_bytes())?;
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply)?;
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").context("reply has no head")?;
    let body = reply.split_off(end + 4);
    let head = String::from_utf8_lossy(&reply).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("reply has no status")?;
    Ok(Reply { status, head, body })
}

/// The sum of a metric over all its labels, or what it is with exactly the labels that are named.
pub fn metric(page: &str, name: &str) -> Result<f64> {
    let named = |line: &&str| line.split(['{', ' ']).next() == Some(name) || line.split(' ').next() == Some(name);
    let values: Vec<f64> =
        page.lines().filter(named).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    ensure!(!values.is_empty(), "there is no metric {name}:\n{page}");
    Ok(values.iter().sum())
}

/// A port of 127.0.0.1 that nobody else takes: below those that the kernel gives to connections, and each one given once in this process.
pub fn free_address() -> Result<SocketAddr> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Two test programs at once begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(FIRST + offset)?));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port from {FIRST} on is free")
}
