//! The network side of the pull path: from an engine's connection to a [`Reply`](crate::reply::Reply) on its socket.
//!
//! `bind` takes the addresses → `front` (a thread of its own) accepts, looks at the first bytes, answers TLS and probes →
//! `connection` (HTTP/1.1 on the runtime) → `handler` → `route` (pure) → [`Answer`], which is `pull` → `wire` writes.
//!
//! Invariants: no body byte is touched but in `wire`; a connection ends with FIN, never with RST while bytes that we sent are
//! under way; everything a client can make us hold is bounded. Refusing is quick, since behind every refusal an engine is
//! waiting to ask the origin instead.

mod account;
pub(crate) mod bind;
mod connection;
mod front;
pub mod gate;
mod handler;
mod linger;
mod paging;
pub mod probe;
pub mod route;
mod sniff;
mod socket;
pub(crate) mod strangers;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bind::BindError;
pub use handler::{Answer, Asked};

use self::connection::Ending;
use self::front::{Accepted, Front, Speech};
use self::gate::Gate;
use self::handler::Handler;
use self::probe::Probe;
use self::stream::Stream;
use crate::metrics::Metrics;

/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a server is made of, beside its addresses.
pub struct ServerParts {
    /// Whoever answers requests for images.
    pub answer: Arc<dyn Answer>,
    /// The keyed challenge.
    pub probe: Arc<Probe>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// The pseudonym that our own requests carry in `Via`; a request that comes in with it is a loop.
    pub via: String,
    /// Connections served at once; beyond them a connection is refused.
    pub connections: usize,
    /// How long replies under way may take after a stop, before they are cut.
    pub drain: Duration,
    /// `None`: it serves its own node, which has no secrets from it.
    pub service: Option<Service>,
}

/// What a server needs that serves others than its own node.
pub struct Service {
    /// Who may ask.
    pub gate: Gate,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How long it goes on after a stop as before, telling everybody that it is about to stop.
    pub notice: Duration,
}

/// A server that has its addresses and serves nobody yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Takes the addresses. Until [`Server::serve`] runs, connections wait: do not let that be long.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        Ok(Self { listeners: bind::bind(addresses)? })
    }

    /// The real addresses, where port 0 was asked for or an address was left out.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop`, then goes on until whoever answers has finished ([`Answer::finish`]), and then lets replies under way
    /// finish; all of it bounded by [`ServerParts::drain`]. From when it has finished on, a new connection is refused by the kernel.
    /// An error means that accepting ended by itself.
    pub async fn serve(self, parts: ServerParts, stop: CancellationToken) -> io::Result<()> {
        let ServerParts { answer, probe, metrics, via, connections, drain, service } = parts;
        let (gate, tls, notice) = match service {
            None => (None, None, Duration::ZERO),
            Some(Service { gate, tls, notice }) => (Some(gate), tls.map(TlsAcceptor::from), notice),
        };
        let speech = match (&gate, &tls) {
            (None, _) => Speech::Node,
            (Some(_), None) => Speech::Plain,
            (Some(_), Some(_)) => Speech::Tls,
        };
        let (accepted, mut incoming) = mpsc::unbounded_channel();
        let closing = CancellationToken::new();
        // Also when this future is dropped: the front thread must not outlive it.
        let _closed = closing.clone().drop_guard();
        let front = Front {
            listeners: self.listeners,
            probe: Arc::clone(&probe),
            metrics: Arc::clone(&metrics),
            waiting: front::WAITING,
            places: Arc::new(Semaphore::new(connections)),
            accepted,
            speech,
            giving_way: front::GIVING_WAY,
            stop: closing.clone(),
        };
        let ending = Ending { drain: closing.clone(), now: CancellationToken::new() };
        let beating = tokio::spawn({
            let probe = Arc::clone(&probe);
            async move { probe.beat().await }
        });
        let mut front_end = front.start()?;
        let mut finished = pin!(finished(Arc::clone(&answer), stop.clone(), notice, drain));
        let handler = Arc::new(Handler { answer, probe, metrics: Arc::clone(&metrics), via, gate, stop });
        let tracker = TaskTracker::new();
        let mut until = None;
        let result = loop {
            tokio::select! {
                next = incoming.recv() => match next {
                    Some(connection) => spawn(&tracker, connection, tls.as_ref(), &handler, &metrics, &ending),
                    None => break (&mut front_end).await.unwrap_or_else(|_| Err(io::Error::other("the front thread panicked"))),
                },
                end = &mut finished => {
                    until = Some(end);
                    break Ok(());
                }
            }
        };
        closing.cancel();
        // What the front thread handed over before it stopped is served, too.
        while let Some(connection) = incoming.recv().await {
            spawn(&tracker, connection, tls.as_ref(), &handler, &metrics, &ending);
        }
        tracker.close();
        let until = until.unwrap_or_else(|| Instant::now() + drain);
        if tokio::time::timeout_at(until, tracker.wait()).await.is_err() {
            tracing::warn!(connections = tracker.len(), "not done in time, cut");
            ending.now.cancel();
            tracker.wait().await;
        }
        beating.abort();
        result
    }
}

/// Ends some time after `stop`, when the answers have finished; with the end of the drain.
async fn finished(answer: Arc<dyn Answer>, stop: CancellationToken, notice: Duration, drain: Duration) -> Instant {
    stop.cancelled().await;
    let until = Instant::now() + drain;
    if tokio::time::timeout_at(until, async { tokio::join!(answer.finish(), sleep(notice)) }).await.is_err() {
        tracing::warn!("images that clients were promised are not done in time");
    }
    until
}

fn spawn(
    tracker: &TaskTracker,
    connection: Accepted,
    tls: Option<&TlsAcceptor>,
    handler: &Arc<Handler>,
    metrics: &Arc<Metrics>,
    ending: &Ending,
) {
    let Accepted { stream, place, stranger, tls: begins_tls } = connection;
    let tls = tls.filter(|_| begins_tls).cloned();
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "connection lost before it was served");
            return;
        }
    };
    let (handler, ending, open) = (Arc::clone(handler), ending.clone(), Open::new(metrics));
    tracker.spawn(async move {
        let peer = stream.peer_addr().ok().map(|peer| peer.ip());
        let serving = async {
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                    Ok(Err(error)) => return tracing::debug!(%error, "no TLS with a client"),
                    Err(_) => return tracing::debug!("a client did not end its TLS handshake in time"),
                },
            };
            connection::serve(stream, peer, stranger.clone(), handler, ending).await;
        };
        match &stranger {
            None => serving.await,
            Some(stranger) => tokio::select! {
                () = serving => {}
                () = stranger.sent_away() => tracing::debug!("a stranger's connection gives way to another"),
            },
        }
        drop((open, place));
    });
}

/// Counts a connection while it lives, also when its task is unwound.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
