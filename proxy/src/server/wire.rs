//! From a [`Reply`] to the socket: the only module that touches the bytes of a body.
//!
//! A stored file comes in chunks that were checked (`store::CheckedRange`), a live body as it arrives, both at the reader's
//! pace. A body never ends with an error: one that cannot be completed, because the origin broke off or our disk has lost
//! what it held, asks `socket` for a cut, which comes after everything before it was flushed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::account::Account;
use super::socket::SocketState;
use crate::reply::{Body, LiveBody, Reply};
use crate::store::CheckedRange;

/// Makes the response of a reply. The account is closed when the last byte was handed to the socket.
pub(super) fn respond(
    reply: Reply,
    method: &Method,
    mut account: Account,
    state: &Arc<SocketState>,
) -> Response<WireBody> {
    let Reply { status, headers, body, outcome, rule: _, observer } = reply;
    account.answered(status, outcome, observer);
    // Whatever was prepared, there is none after these (RFC 9110 §9.3.2, §15.4.5).
    let body = if method == Method::HEAD || status == StatusCode::NOT_MODIFIED { Body::Empty } else { body };
    let (source, remaining) = match body {
        Body::Empty => (Source::Empty, Some(0)),
        Body::Bytes(bytes) => (Source::Bytes(bytes.clone()), Some(bytes.len() as u64)),
        Body::File(range) => {
            let length = range.remaining();
            (Source::File(range), Some(length))
        }
        Body::Live(live) => {
            let length = live.length();
            (Source::Live(live), length)
        }
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if method != Method::HEAD && status != StatusCode::NOT_MODIFIED {
        match remaining {
            Some(length) => response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length)),
            None => response.headers_mut().remove(CONTENT_LENGTH),
        };
    }
    let state = Arc::clone(state);
    let account = if remaining == Some(0) {
        state.finished(account);
        None
    } else {
        Some(account)
    };
    response.map(|()| WireBody { source, remaining, account, state })
}

/// A body on its way to hyper.
pub(super) struct WireBody {
    source: Source,
    /// Bytes still to come, where the length is known.
    remaining: Option<u64>,
    /// Open until the last byte.
    account: Option<Account>,
    state: Arc<SocketState>,
}

enum Source {
    Empty,
    Bytes(Bytes),
    File(CheckedRange),
    Live(LiveBody),
    /// The body could not be completed; hyper flushes while this is pending for ever, and then `connection` closes.
    Cut,
}

impl WireBody {
    fn cut(&mut self, reason: &dyn std::fmt::Display) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(mut account) = self.account.take() {
            account.span().in_scope(|| tracing::debug!(%reason, "the body cannot be completed"));
            account.cut();
        }
        self.source = Source::Cut;
        self.state.request_cut();
        Poll::Pending
    }

    fn finish(&mut self) {
        if let Some(account) = self.account.take() {
            self.state.finished(account);
        }
    }
}

impl HttpBody for WireBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.source {
            Source::Cut => return Poll::Pending,
            Source::Empty => None,
            Source::Bytes(bytes) => (!bytes.is_empty()).then(|| Ok(std::mem::take(bytes))),
            Source::File(range) => ready!(range.poll_next(context)),
            Source::Live(live) => ready!(Pin::new(live).poll_next(context)),
        };
        match next {
            Some(Ok(mut bytes)) => {
                if let Some(remaining) = self.remaining {
                    // Never more than was announced: it would be taken for the next reply.
                    bytes.truncate(usize::try_from(remaining).unwrap_or(usize::MAX));
                    self.remaining = Some(remaining - bytes.len() as u64);
                }
                if let Some(account) = &mut self.account {
                    account.sent(bytes.len());
                }
                if self.remaining == Some(0) {
                    self.finish();
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => self.cut(&error),
            None if self.remaining.is_none_or(|remaining| remaining == 0) => {
                self.finish();
                Poll::Ready(None)
            }
            None => self.cut(&"it ended early"),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
