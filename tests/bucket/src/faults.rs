//! A TCP proxy in front of a server that can be told to do what networks and servers do on a bad day.
//!
//! Threads, one for each direction of a connection: what a fault does to bytes is plain to see, and no runtime of the test's is involved.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// What happens to bytes, on new connections and on those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every request gets 503.
    Unavailable,
    /// Every request with a condition gets 501.
    NoConditions,
    /// Every request with a condition gets 409, and does nothing.
    Conflict,
    /// Requests are taken and never answered.
    Silent,
    /// Connections are refused, and those that are open are cut.
    Away,
    /// Answers come at so many bytes a second.
    Slow(usize),
    /// Requests go through at so many bytes a second.
    SlowUp(usize),
    /// An answer is cut after so many bytes.
    Cut(usize),
    /// The byte of an answer at this offset (its head counted) is another one.
    Corrupt(usize),
}

/// The proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    fault: Mutex<Fault>,
    ended: AtomicBool,
    touched: AtomicUsize,
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }
}

impl Faults {
    /// In front of `server`, without any fault.
    pub fn before(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            fault: Mutex::new(Fault::None),
            ended: AtomicBool::new(false),
            touched: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || connection(&shared, &client));
            }
        });
        Ok(Self { address, shared })
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How often a fault was felt: a test in which none was proves nothing.
    pub fn touched(&self) -> usize {
        self.shared.touched.load(Ordering::Relaxed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.set(Fault::Away);
        let _ = TcpStream::connect(self.address);
    }
}

fn connection(shared: &Arc<Shared>, client: &TcpStream) {
    if shared.fault() == Fault::Away {
        shared.touch();
        return;
    }
    let Ok(server) = TcpStream::connect(shared.server) else { return };
    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
    // Where the answer to the last request begins.
    let answered = Arc::new(AtomicUsize::new(0));
    let (sharing, restart) = (Arc::clone(shared), Arc::clone(&answered));
    let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || {
        requests(&sharing, from_client, to_server, to_client, &restart);
    });
    answers(shared, from_server, client, &answered);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// What says that an object must be new: with S3 and Azure, and with Google.
const CONDITIONS: [&[u8]; 2] = [b"if-none-match", b"x-goog-if-generation-match"];

fn has(bytes: &[u8], name: &[u8]) -> bool {
    bytes.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name))
}

/// Bytes at a time, and the pause that goes with them.
fn pace(rate: usize) -> (usize, Duration) {
    let piece = (rate / 50).clamp(1, 64 << 10);
    let nanoseconds = 1_000_000_000 * piece as u64 / rate.max(1) as u64;
    (piece, Duration::from_nanos(nanoseconds))
}

fn requests(shared: &Shared, mut from: TcpStream, mut to: TcpStream, mut back: TcpStream, answered: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    // Idle connections notice a fault, too.
    let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if shared.fault() == Fault::Away {
                    break;
                }
                continue;
            }
            Err(_) => break,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        let conditional = || CONDITIONS.iter().any(|name| has(bytes, name));
        let status = match shared.fault() {
            Fault::Away => break,
            Fault::Silent => {
                shared.touch();
                continue;
            }
            Fault::Unavailable => Some("503 Service Unavailable"),
            Fault::NoConditions if conditional() => Some("501 Not Implemented"),
            Fault::Conflict if conditional() => Some("409 Conflict"),
            Fault::SlowUp(rate) => {
                shared.touch();
                let (piece, pause) = pace(rate);
                let mut sent = true;
                for part in bytes.chunks(piece) {
                    sent &= to.write_all(part).is_ok();
                    std::thread::sleep(pause);
                    if !sent || shared.ended.load(Ordering::Relaxed) {
                        break;
                    }
                }
                if !sent {
                    break;
                }
                continue;
            }
            _ => None,
        };
        if let Some(status) = status {
            shared.touch();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = back.write_all(answer.as_bytes());
            let _ = back.shutdown(Shutdown::Write);
            // What is still being sent is taken, so that the answer is not lost to a reset.
            while matches!(from.read(&mut buffer), Ok(1..)) {}
            break;
        }
        answered.store(0, Ordering::Relaxed);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = back.shutdown(Shutdown::Both);
}

fn answers(shared: &Shared, mut from: TcpStream, mut to: &TcpStream, answered: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match shared.fault() {
            Fault::Slow(rate) => {
                let (piece, pause) = pace(rate);
                std::thread::sleep(pause);
                piece.min(buffer.len())
            }
            _ => buffer.len(),
        };
        let Some(space) = buffer.get_mut(..length) else { return };
        let Ok(read @ 1..) = from.read(space) else { return };
        let before = answered.fetch_add(read, Ordering::Relaxed);
        let Some(bytes) = space.get_mut(..read) else { return };
        match shared.fault() {
            Fault::Away => return,
            Fault::Silent => {
                shared.touch();
                continue;
            }
            Fault::Cut(after) if before + read > after => {
                shared.touch();
                let _ = to.write_all(bytes.get(..after.saturating_sub(before)).unwrap_or_default());
                return;
            }
            Fault::Corrupt(offset) => {
                if let Some(byte) = offset.checked_sub(before).and_then(|offset| bytes.get_mut(offset)) {
                    shared.touch();
                    *byte = !*byte;
                }
            }
            Fault::Slow(_) => shared.touch(),
            _ => {}
        }
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}
