//! A connection's socket as hyper sees it, with what has to be known about it beside HTTP.
//!
//! hyper throws away what it has buffered, even the head, when a body ends with an error. So a body never does: it asks for a
//! cut ([`SocketState::request_cut`]) and stays pending. hyper then flushes, and calls `poll_flush` of this socket exactly when
//! its own buffer is empty. That is the moment in which the cut is due and in which finished bodies count as delivered.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::account::Account;
use super::strangers::Stranger;
use super::stream::Stream;

#[derive(Debug, Default)]
struct Inner {
    cut_requested: bool,
    cut_due: bool,
    finished: Vec<Account>,
    blocked_since: Option<Instant>,
}

/// What body, socket and connection tell each other. All three are polled by one task, so the lock is never contended.
#[derive(Debug, Default)]
pub(super) struct SocketState {
    inner: Mutex<Inner>,
    stranger: Option<Arc<Stranger>>,
}

impl SocketState {
    /// That of a connection on which nobody was let in yet, if that has to be.
    pub(super) fn of(stranger: Option<Arc<Stranger>>) -> Self {
        Self { inner: Mutex::default(), stranger }
    }

    /// Somebody may ask on this connection.
    pub(super) fn let_in(&self) {
        if let Some(stranger) = &self.stranger {
            stranger.let_in();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body cannot go on: close once everything before was written.
    pub(super) fn request_cut(&self) {
        self.lock().cut_requested = true;
    }

    /// Everything before the cut was written.
    pub(super) fn cut_due(&self) -> bool {
        self.lock().cut_due
    }

    /// A body was handed to hyper completely; it counts as delivered with the next flush.
    pub(super) fn finished(&self, account: Account) {
        self.lock().finished.push(account);
    }

    /// For how long the client has taken nothing of what lies ready for it.
    pub(super) fn blocked_for(&self) -> Duration {
        self.lock().blocked_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn flushed(&self) {
        let mut inner = self.lock();
        inner.cut_due = inner.cut_requested;
        let finished = std::mem::take(&mut inner.finished);
        drop(inner);
        finished.into_iter().for_each(Account::delivered);
    }

    fn wrote<T>(&self, result: &Poll<T>) {
        let mut inner = self.lock();
        if result.is_pending() {
            inner.blocked_since.get_or_insert_with(Instant::now);
        } else {
            inner.blocked_since = None;
        }
    }
}

/// The socket that hyper reads and writes.
#[derive(Debug)]
pub(super) struct Socket {
    io: TokioIo<Stream>,
    state: Arc<SocketState>,
}

impl Socket {
    pub(super) fn new(stream: Stream, state: Arc<SocketState>) -> Self {
        Self { io: TokioIo::new(stream), state }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.io.into_inner()
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.state.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.state.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        if matches!(result, Poll::Ready(Ok(()))) {
            self.state.flushed();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
