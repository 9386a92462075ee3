//! The front thread: accepts, looks at the first bytes, answers what must never wait, hands the rest to the runtime.
//!
//! It has an operating-system thread and a small runtime of its own and does nothing that can take time, so a proxy
//! whose runtime is busy is not taken for a hung one, and a client that starts TLS is told at once. Invariant: no socket
//! waits here without a limit, and no more than [`WAITING`] of them wait at all. When they do, the one that has waited
//! longest gives way to the one that comes: a probe or a request says within milliseconds what it is, so whoever holds
//! connections open without a word costs nobody an answer. A connection beyond the bound of the runtime's is refused and
//! closed, which sends the engine to the origin at once. Next: `connection`.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::linger::close_gently;
use super::probe::Probe;
use super::sniff::{LONGEST_PROBE, Opening, classify, probe_query};
use super::strangers::{Stranger, Strangers};
use crate::metrics::{Metrics, ReasonLabels};

/// Connections that have not said yet what they are, or are being told that they are refused.
pub(super) const WAITING: usize = 1024;

/// Until the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Between the first byte and enough of them to tell a probe from a request.
const CLEAR: Duration = Duration::from_secs(1);

/// How often a connection that is not clear yet is looked at again: a peek cannot wait for more than it saw.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// For reading a probe's head and writing its answer.
const PROBE: Duration = Duration::from_secs(2);

/// Until a stranger's connection has ended that gives way: on a busy machine the runtime takes its time for that.
pub(super) const GIVING_WAY: Duration = Duration::from_secs(5);

const TLS_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// As Go's servers say it.
const TLS_WANTED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 37\r\nConnection: close\r\n\r\nThis port speaks TLS: ask by https.\r\n";
/// As every refusal of ours: 404 or 502, which each engine takes for "ask the origin".
const BUSY: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A connection with its place among the bounded number of them.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) place: OwnedSemaphorePermit,
    /// Nobody has been let in on it yet, where that has to be.
    pub(super) stranger: Option<Arc<Stranger>>,
    /// It begins with a TLS handshake.
    pub(super) tls: bool,
}

/// What a proxy speaks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    /// Plain HTTP with its own node, whose agent probes it.
    Node,
    /// Plain HTTP with others.
    Plain,
    /// TLS with others.
    Tls,
}

/// What the front thread works with.
pub(super) struct Front {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) probe: Arc<Probe>,
    pub(super) metrics: Arc<Metrics>,
    /// How many connections may wait here, [`WAITING`].
    pub(super) waiting: usize,
    /// Places of connections that the runtime serves.
    pub(super) places: Arc<Semaphore>,
    pub(super) accepted: mpsc::UnboundedSender<Accepted>,
    pub(super) speech: Speech,
    /// How long one that comes waits for another that gives way, [`GIVING_WAY`].
    pub(super) giving_way: Duration,
    pub(super) stop: CancellationToken,
}

impl Front {
    /// Starts the thread. The receiver resolves when it ends, with the reason if it was not asked to.
    pub(super) fn start(self) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("front".to_owned()).spawn(move || {
            let run = || -> io::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
                runtime.block_on(self.serve())
            };
            // Nobody left to tell means that the process is ending anyway.
            let _ = ended.send(run());
        })?;
        Ok(end)
    }

    async fn serve(self) -> io::Result<()> {
        let Self { listeners, probe, metrics, waiting, places, accepted, speech, giving_way, stop } = self;
        let (waiting, strangers) = (Waiting::new(waiting), Strangers::default());
        let desk = Arc::new(Desk { probe, metrics, places, waiting, speech, strangers, giving_way, accepted });
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.spawn(accept(listener, Arc::clone(&desk)));
        }
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            // Accepting has no end of its own, so this one was unwound by a panic.
            _ = accepting.join_next() => Err(io::Error::other("accepting connections ended")),
        }
    }
}

struct Desk {
    probe: Arc<Probe>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    waiting: Waiting,
    speech: Speech,
    /// Who gives way when all places are taken.
    strangers: Strangers,
    giving_way: Duration,
    accepted: mpsc::UnboundedSender<Accepted>,
}

/// Those that wait, in the order in which they came.
struct Waiting {
    most: usize,
    tasks: Mutex<VecDeque<AbortHandle>>,
}

impl Waiting {
    fn new(most: usize) -> Self {
        Self { most, tasks: Mutex::default() }
    }

    /// One more; true if the one that has waited longest had to go for it.
    fn enter(&self, task: AbortHandle) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.front().is_some_and(AbortHandle::is_finished) {
            tasks.pop_front();
        }
        if tasks.len() >= self.most {
            tasks.retain(|task| !task.is_finished());
        }
        let oldest = if tasks.len() >= self.most { tasks.pop_front() } else { None };
        tasks.push_back(task);
        oldest.inspect(AbortHandle::abort).is_some()
    }
}

async fn accept(listener: tokio::net::TcpListener, desk: Arc<Desk>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let receiving = {
                    let desk = Arc::clone(&desk);
                    tokio::spawn(async move { desk.receive(stream).await })
                };
                if desk.waiting.enter(receiving.abort_handle()) {
                    desk.refused("bound");
                }
            }
            Err(error) => {
                // Out of descriptors, mostly: accepting again at once would only burn the processor.
                tracing::warn!(%error, "connection not accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Desk {
    fn refused(&self, reason: &'static str) {
        self.metrics.connections_refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    async fn receive(&self, stream: TcpStream) {
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        match opening(&stream).await {
            Ok(Opening::Tls) if self.speech == Speech::Tls => self.hand_over(stream, true).await,
            Ok(Opening::Tls) => {
                self.refused("tls");
                answer(stream, TLS_REFUSED).await;
            }
            Ok(_) if self.speech == Speech::Tls => {
                self.refused("plain");
                answer(stream, TLS_WANTED).await;
            }
            Ok(Opening::Probe) if self.speech == Speech::Node => {
                let _ = timeout(PROBE, self.answer_probe(stream)).await;
            }
            Ok(Opening::Probe | Opening::Request | Opening::Unclear) => self.hand_over(stream, false).await,
            Err(_) => self.refused("idle"),
        }
    }

    async fn hand_over(&self, stream: TcpStream, tls: bool) {
        let Some((place, stranger)) = self.place().await else {
            answer(stream, BUSY).await;
            return;
        };
        match stream.into_std() {
            // A receiver that is gone means that the runtime stopped serving: the closed socket says so.
            Ok(stream) => drop(self.accepted.send(Accepted { stream, place, stranger, tls })),
            Err(error) => tracing::warn!(%error, "connection lost before it was served"),
        }
    }

    /// A place, and who takes it. Whoever waits for one is a stranger already, and gives way to those that come after him: otherwise all who come before the first
    /// of them has ended would be refused.
    async fn place(&self) -> Option<(OwnedSemaphorePermit, Option<Arc<Stranger>>)> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some((place, self.stranger()));
        }
        self.refused("bound");
        if !self.strangers.send_one_away() {
            return None;
        }
        let stranger = self.stranger();
        let sent_away = async {
            match &stranger {
                Some(stranger) => stranger.sent_away().await,
                None => std::future::pending().await,
            }
        };
        let place = tokio::select! {
            biased;
            () = sent_away => return None,
            place = timeout(self.giving_way, Arc::clone(&self.places).acquire_owned()) => place,
        };
        let Ok(Ok(place)) = place else {
            self.refused("bound");
            return None;
        };
        Some((place, stranger))
    }

    /// One more of them, where anybody has to be let in.
    fn stranger(&self) -> Option<Arc<Stranger>> {
        (self.speech != Speech::Node).then(|| self.strangers.add())
    }

    async fn answer_probe(&self, mut stream: TcpStream) {
        let mut head = Vec::with_capacity(512);
        let query = loop {
            match (&mut stream).take(LONGEST_PROBE as u64 + 1 - head.len() as u64).read_buf(&mut head).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            match probe_query(&head) {
                Some(query) => break query,
                None if head.len() > LONGEST_PROBE => return,
                None => {}
            }
        };
        let probed = self.probe.answer(&query);
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            probed.status,
            probed.json.len()
        );
        answer(stream, &[head.as_bytes(), probed.json.as_bytes()].concat()).await;
    }
}

/// Waits for enough bytes to tell. An error is a client that left or never said anything.
async fn opening(stream: &TcpStream) -> io::Result<Opening> {
    let mut first = [0; 32];
    let mut length = timeout(FIRST_BYTE, stream.peek(&mut first)).await??;
    let clear = tokio::time::Instant::now() + CLEAR;
    loop {
        let bytes = first.get(..length).unwrap_or_default();
        match classify(bytes) {
            Opening::Unclear if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Opening::Unclear if tokio::time::Instant::now() < clear => {
                sleep(LOOK_AGAIN).await;
                length = stream.peek(&mut first).await?;
            }
            other => return Ok(other),
        }
    }
}

async fn answer(mut stream: TcpStream, bytes: &[u8]) {
    if stream.write_all(bytes).await.is_ok() {
        close_gently(stream).await;
    }
}

#[cfg(test)]
mod tests;
