//! What is answered, as a value: status, headers, body, and what it was for the record.
//!
//! `pull` makes a [`Reply`], `server` writes it to the socket. Nothing between the two touches the bytes of a stored
//! blob but the check that they are what was stored: [`Body::File`] is a range of a file, read as the socket takes it.
//!
//! Invariants that a writer may rely on:
//! - `headers` already hold `Content-Length` whenever the length is known, and always for a HEAD, whose body is
//!   [`Body::Empty`] whatever `Content-Length` says. Without it (only [`Body::Live`] of unknown length) the body is chunked.
//! - `headers` never hold `Content-Encoding`, `Transfer-Encoding`, `Connection` or `Date`.
//! - A body that ends with an error must be cut, after what came before it was flushed, and with FIN rather than RST:
//!   engines resume after a short body and fail after a reset.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use http::{HeaderMap, StatusCode};

use crate::store::CheckedRange;

/// An answer to one request.
#[derive(Debug)]
pub struct Reply {
    /// Status. A refusal is 404 or 502 and nothing else: anything else makes an engine wait, retry here, or give up.
    pub status: StatusCode,
    /// All headers that the body's writer does not make itself.
    pub headers: HeaderMap,
    /// What follows the headers.
    pub body: Body,
    /// For metrics and the request's span.
    pub outcome: Outcome,
    /// Which of our own rules refuses, in words. For whoever set us up, and not for the client: it may say what an address leads to.
    pub rule: Option<String>,
    /// Who is told how it ends.
    pub observer: Option<Box<dyn ReplyObserver>>,
}

impl Reply {
    /// A reply whose end concerns nobody.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Body, outcome: Outcome) -> Self {
        Self { status, headers, body, outcome, rule: None, observer: None }
    }
}

/// Told how a reply ends. Dropped without a word where the client left.
pub trait ReplyObserver: fmt::Debug + Send + Sync {
    /// The last byte was handed to the socket.
    fn delivered(&mut self);

    /// The body could not be completed.
    fn cut(&mut self);
}

/// Where the bytes of a body come from.
#[derive(Debug)]
pub enum Body {
    /// No body; also that of every HEAD.
    Empty,
    /// A few bytes in memory: manifests, listings, errors.
    Bytes(Bytes),
    /// A range of a stored blob; holding it keeps the blob from being evicted. Like a [`LiveBody`] it may end with an error:
    /// when the disk has damaged what was stored.
    File(CheckedRange),
    /// Bytes that are still arriving.
    Live(LiveBody),
}

/// A stream of chunks, pulled at the reader's own pace, with its exact length if that is known.
pub struct LiveBody {
    length: Option<u64>,
    chunks: BoxStream<'static, io::Result<Bytes>>,
}

impl LiveBody {
    /// A body of exactly `length` bytes unless it ends with an error. Dropping it is how a reader leaves.
    pub fn new(length: Option<u64>, chunks: BoxStream<'static, io::Result<Bytes>>) -> Self {
        Self { length, chunks }
    }

    /// The exact number of bytes that a complete body has.
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

impl Stream for LiveBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl fmt::Debug for LiveBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LiveBody").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Who the bytes, or the decision, came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplySource {
    /// The store of this proxy.
    Store,
    /// The origin, in this request or in one that it joined.
    Origin,
    /// Nobody: a refusal, or an answer of the proxy's own.
    None,
}

impl ReplySource {
    /// The label of metrics and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Origin => "origin",
            Self::None => "none",
        }
    }
}

/// What an answer was, for metrics and the request's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Where the bytes came from.
    pub source: ReplySource,
    /// One word out of a small fixed set: `hit`, `miss`, `joined`, `stale`, `refused`, …
    pub result: &'static str,
}

impl Outcome {
    /// An outcome; `result` is one word.
    pub const fn new(source: ReplySource, result: &'static str) -> Self {
        Self { source, result }
    }
}
