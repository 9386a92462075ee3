//! Bodies of answers, bounded.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::source::SourceError;

/// Reads a whole document of at most `limit` bytes.
pub(crate) async fn read(body: Incoming, limit: usize, until: Instant) -> Result<Bytes, SourceError> {
    tokio::time::timeout_at(until, collect(body, limit)).await.map_err(|_| SourceError::Timeout)?
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, SourceError> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if collected.len() + piece.len() > limit {
            return Err(SourceError::Protocol { reason: format!("the answer is longer than {limit} bytes") });
        }
        collected.extend_from_slice(&piece);
    }
    Ok(collected.freeze())
}

/// Reads what little there is, so that the connection can be used again; a long or slow rest is not worth it.
pub(crate) async fn drain(body: Incoming) {
    const WORTH_READING: usize = 16 * 1024;
    const WORTH_WAITING: Duration = Duration::from_millis(100);
    // Whether it worked shows in the next request.
    let _ = read(body, WORTH_READING, Instant::now() + WORTH_WAITING).await;
}

/// hyper ends a body with an error when it is shorter than announced.
pub(crate) fn broken(error: &hyper::Error) -> SourceError {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    SourceError::Broken { reason: innermost.to_string() }
}

/// `Content-Length`. hyper has refused an answer with several that differ.
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
