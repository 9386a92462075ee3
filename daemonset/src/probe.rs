//! Asks whoever listens on the proxy's address whether he is our proxy, by a challenge that only our key answers.
//!
//! Blocking and bounded, because who asks is the thread that has to act within a second whatever the runtime does. The
//! answering side is `larder_proxy::server::probe`.

use larder_node_agent::confirm::{BoxFuture, SeenProbe};
use larder_node_agent::listener;
use larder_node_agent::liveness::Probe;
use larder_proxy::server::probe::{ProbeAnswer, ProbeKey, ProbeQuestion};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No honest answer is longer.
const LONGEST_ANSWER: usize = 8 * 1024;

/// A node with a registry directory for each of a thousand registries has a long status.
const LONGEST_PAGE: usize = 4 * 1024 * 1024;

enum Asked {
    Ours(ProbeAnswer),
    Stranger,
    Refused,
    Missed,
}

/// One probe of `address`, answered or given up within `limit`. Whose a silence is, is for the caller to know.
pub(crate) fn probe(address: SocketAddr, key: &ProbeKey, limit: Duration) -> Probe {
    match ask(address, key, "", limit) {
        Asked::Ours(answer) => Probe::Ours { stalled: Duration::from_millis(answer.stalled_ms) },
        Asked::Stranger => Probe::Stranger {
            who: listener::owner(address)
                .map_or_else(|| "a process that cannot be seen".to_owned(), |who| who.to_string()),
        },
        Asked::Refused => Probe::Refused,
        Asked::Missed => Probe::Missed { by: None },
    }
}

fn ask(address: SocketAddr, key: &ProbeKey, seen: &str, limit: Duration) -> Asked {
    let Ok(question) = ProbeQuestion::fresh(seen) else { return Asked::Missed };
    match exchange(address, question.target(), Instant::now() + limit, LONGEST_ANSWER) {
        // A proxy that is dying, or has no place left, says nothing and closes. A stranger says something.
        Ok(answer) if answer.is_empty() => Asked::Missed,
        Ok(answer) => match body(&answer).and_then(ProbeAnswer::parse) {
            Some(answer) if key.verifies(&question, &answer) => Asked::Ours(answer),
            _ => Asked::Stranger,
        },
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Asked::Refused,
        // A proxy that is dying resets what it had accepted; the next probe says more.
        Err(_) => Asked::Missed,
    }
}

/// A page of an admin server on this node.
pub(crate) fn get(address: SocketAddr, target: &str, limit: Duration) -> io::Result<Vec<u8>> {
    let answer = exchange(address, target, Instant::now() + limit, LONGEST_PAGE)?;
    body(&answer).map(<[u8]>::to_vec).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The whole answer, or as much of it as `longest` allows, or an error once `deadline` has passed.
fn exchange(address: SocketAddr, target: &str, deadline: Instant, longest: usize) -> io::Result<Vec<u8>> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let length = stream.read(&mut buffer)?;
        answer.extend(buffer.get(..length).unwrap_or_default());
        if length == 0 || is_complete(&answer) || answer.len() > longest {
            return Ok(answer);
        }
    }
}

/// The same whatever its status is: what is not ready says why.
pub(crate) fn page(address: SocketAddr, target: &str, limit: Duration) -> io::Result<Vec<u8>> {
    let answer = exchange(address, target, Instant::now() + limit, LONGEST_PAGE)?;
    split(&answer).map(|(_, body)| body.to_vec()).ok_or_else(|| ErrorKind::InvalidData.into())
}

fn is_complete(answer: &[u8]) -> bool {
    let Some((head, body)) = split(answer) else { return false };
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

fn split(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((answer.get(..end)?, answer.get(end + 4..)?))
}

fn body(answer: &[u8]) -> Option<&[u8]> {
    let (head, body) = split(answer)?;
    head.starts_with(b"HTTP/1.1 200").then_some(body)
}

/// Asks our proxy whether it saw a canary.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) address: SocketAddr,
    pub(crate) key: ProbeKey,
}

impl SeenProbe for Seen {
    fn seen(&self, nonce: &str) -> BoxFuture<'_, Result<bool, String>> {
        let (address, key, nonce) = (self.address, self.key.clone(), nonce.to_owned());
        Box::pin(async move {
            let asked = move || ask(address, &key, &nonce, Duration::from_secs(2));
            match tokio::task::spawn_blocking(asked).await {
                Ok(Asked::Ours(answer)) => Ok(answer.seen),
                Ok(Asked::Stranger) => Err(format!("{address} is not ours")),
                Ok(Asked::Refused) => Err(format!("nobody listens on {address}")),
                Ok(Asked::Missed) | Err(_) => Err(format!("{address} gave no answer")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ProbeKey, probe};
    use larder_node_agent::liveness::Probe;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::time::{Duration, Instant};
    use zeroize::Zeroizing;

    const LIMIT: Duration = Duration::from_millis(200);

    fn key() -> ProbeKey {
        ProbeKey::from_bytes(Zeroizing::new([7; 32]))
    }

    /// Answers one connection with `answer`, or keeps it open without a word.
    fn listener(answer: Option<&'static [u8]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            match answer {
                Some(answer) => stream.write_all(answer).unwrap(),
                // Until the other side gives up.
                None => assert_eq!(stream.read(&mut request).unwrap(), 0),
            }
        });
        address
    }

    #[test]
    fn whoever_does_not_know_the_key_is_a_stranger_with_a_name() {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n{\"mac\":\"00\",\"stalled_ms\":0,\"seen\":true,\"version\":\"1\"}",
        ];
        for answer in answers {
            match probe(listener(Some(answer)), &key(), LIMIT) {
                Probe::Stranger { .. } => {}
                other => panic!("{other:?} for {}", String::from_utf8_lossy(answer)),
            }
        }
    }

    #[test]
    fn who_closes_without_a_word_is_missed_and_no_stranger() {
        assert_eq!(probe(listener(Some(b"")), &key(), LIMIT), Probe::Missed { by: None });
    }

    #[test]
    fn silence_is_missed_within_the_limit() {
        let begun = Instant::now();
        assert_eq!(probe(listener(None), &key(), LIMIT), Probe::Missed { by: None });
        assert!(begun.elapsed() < LIMIT + Duration::from_millis(150), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(probe(address, &key(), LIMIT), Probe::Refused);
    }
}
