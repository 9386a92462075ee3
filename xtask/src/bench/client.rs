//! A client that costs little: one socket, one buffer that is used again, bytes only counted.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use larder_oci::media_type::ACCEPT_MANIFESTS;
use nix::sys::socket::{setsockopt, sockopt};

/// No peer may keep the benchmark waiting for longer without a byte: one that answers only when it has all takes a while.
const PATIENCE: Duration = Duration::from_mins(2);

/// As much as a registry client reads at a time.
const BUFFER: usize = 256 * 1024;

/// A connection that is kept alive.
pub(super) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    host: SocketAddr,
    /// Bytes of the body that came with the head.
    at_hand: u64,
    /// Bytes of the body that are still to be taken.
    left: u64,
}

impl Client {
    pub(super) fn connect(host: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&host, Duration::from_secs(5))
            .with_context(|| format!("failed to connect to {host}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, buffer: vec![0; BUFFER], host, at_hand: 0, left: 0 })
    }

    /// One whose kernel holds little for it, so that a slow reader is slow for the server too.
    pub(super) fn connect_narrow(host: SocketAddr) -> Result<Self> {
        let mut client = Self::connect(host)?;
        setsockopt(&client.socket, sockopt::RcvBuf, &(32 * 1024)).context("failed to make the receive buffer small")?;
        client.buffer = vec![0; 16 * 1024];
        Ok(client)
    }

    /// Sends a GET and reads the head of its reply; gives the status.
    pub(super) fn ask(&mut self, target: &str, range: Option<&str>) -> Result<u16> {
        ensure!(self.left == 0, "the last body was not taken to its end");
        let range = range.map(|range| format!("range: {range}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {}\r\nuser-agent: larder-bench\r\naccept: {ACCEPT_MANIFESTS}, */*\r\n{range}\r\n",
            self.host
        );
        self.socket.write_all(request.as_bytes())?;
        let mut filled = 0;
        let end = loop {
            let space =
                self.buffer.get_mut(filled..).filter(|space| !space.is_empty()).context("the head is too long")?;
            match self.socket.read(space)? {
                0 => bail!("{} closed the connection instead of answering {target}", self.host),
                read => filled += read,
            }
            let arrived = self.buffer.get(..filled).unwrap_or_default();
            if let Some(end) = arrived.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        ensure!(status == 200 || status == 206, "{} says to {target}:\n{head}", self.host);
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        self.left = length.with_context(|| format!("{} does not say how long {target} is:\n{head}", self.host))?;
        self.at_hand = (filled - end) as u64;
        ensure!(self.at_hand <= self.left, "more bytes than were announced");
        Ok(status)
    }

    /// Takes at most `most` bytes, waiting for the first of them; 0 at the body's end.
    pub(super) fn take(&mut self, most: u64) -> Result<u64> {
        let most = most.min(self.left);
        let taken = if self.at_hand > 0 {
            let taken = self.at_hand.min(most);
            self.at_hand -= taken;
            taken
        } else if most == 0 {
            0
        } else {
            let most = usize::try_from(most).unwrap_or(BUFFER).min(self.buffer.len());
            let space = self.buffer.get_mut(..most).unwrap_or_default();
            let read = loop {
                match self.socket.read(space) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
            ensure!(read > 0, "{} closed the connection with {} bytes still to come", self.host, self.left);
            read as u64
        };
        self.left -= taken;
        Ok(taken)
    }

    /// Takes the body to its end. When its first byte was there.
    pub(super) fn take_all(&mut self) -> Result<Instant> {
        self.take(u64::MAX)?;
        let first = Instant::now();
        while self.left > 0 {
            self.take(u64::MAX)?;
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use larder_test_origin::Origin;

    use super::*;

    #[test]
    fn takes_exactly_the_body_and_can_be_used_again() {
        let origin = Origin::start();
        let digest = origin.push_blob("team/app", vec![7; 1_000_000].into());
        let path = format!("/v2/team/app/blobs/{digest}");
        let mut client = Client::connect(origin.address()).unwrap();
        for (range, status, expected) in [(None, 200, 1_000_000), (Some("bytes=400000-"), 206, 600_000)] {
            assert_eq!(client.ask(&path, range).unwrap(), status);
            let mut taken = client.take(10).unwrap();
            assert_eq!(taken, 10);
            while let more @ 1.. = client.take(u64::MAX).unwrap() {
                taken += more;
            }
            assert_eq!(taken, expected);
        }
        assert_eq!(origin.log().len(), 2);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let origin = Origin::start();
        let error = Client::connect(origin.address()).unwrap().ask("/v2/team/app/manifests/v1", None).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
