//! One connection: HTTP/1.1 with keep-alive until either side ends it, and an end that is a FIN.
//!
//! However it ends (the client's wish, a drain, a cut body, a client that takes nothing any more) the socket is closed
//! gently (`linger`). Bounded: the head's size and time, the time without progress of the client. Next: `handler`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::gate::Peer;
use super::handler::Handler;
use super::linger::close_gently;
use super::socket::{Socket, SocketState};
use super::strangers::Stranger;
use super::stream::Stream;

/// Largest head of a request, and what hyper buffers before it waits for the socket.
const BUFFER: usize = 32 * 1024;

/// From the end of one request to the end of the next one's head.
const HEAD: Duration = Duration::from_secs(30);

/// How long a client may take nothing of what lies ready for it.
const NO_PROGRESS: Duration = Duration::from_mins(5);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// When connections have to end.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// Finish the reply that is under way, then close.
    pub(super) drain: CancellationToken,
    /// Close now.
    pub(super) now: CancellationToken,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: Stream,
    peer: Peer,
    stranger: Option<Arc<Stranger>>,
    handler: Arc<Handler>,
    ending: Ending,
) {
    let state = Arc::new(SocketState::of(stranger));
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        Arc::clone(&handler).handle(request, peer, Arc::clone(&state))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(Socket::new(stream, Arc::clone(&state)), service);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            end = poll_fn(|context| match std::pin::Pin::new(&mut connection).poll(context) {
                Poll::Pending if state.cut_due() => Poll::Ready(Ok(())),
                other => other,
            }) => {
                if let Err(error) = end {
                    tracing::debug!(%error, "connection ended");
                }
                break;
            }
            () = ending.now.cancelled() => break,
            () = ending.drain.cancelled(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
            _ = look.tick() => {
                if state.blocked_for() > NO_PROGRESS {
                    tracing::debug!("the client takes nothing any more");
                    break;
                }
            }
        }
    }
    close_gently(connection.into_parts().io.into_stream()).await;
}
