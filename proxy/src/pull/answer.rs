//! Replies, as the engines understand them.

use std::time::Duration;

use http::header::{ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LINK, WARNING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use larder_oci::{ContentRange, Digest, ErrorBody, ErrorCode, media_type};

use crate::hop;
use crate::origin::FILTERS;
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::source::{Listing, SourceError, Verdict};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A whole or partial blob, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it; its length if known.
    Whole(Option<u64>),
    /// These bytes of so many.
    Part { first: u64, end: u64, total: u64 },
}

/// The settings do not let it be served.
pub(super) fn refused() -> Reply {
    refusal(StatusCode::NOT_FOUND, "refused")
}

/// Empty, at once. `status` is 404 or 502.
pub(super) fn refusal(status: StatusCode, result: &'static str) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Reply::new(status, headers, Body::Empty, Outcome::new(ReplySource::None, result))
}

/// What the origin's failure means for the engine: 404 where the origin, asked directly, is the better or the only one to
/// say no; 502 where it is in trouble. A header says what the origin said, for a node that asked its cluster cache.
pub(super) fn of_error(error: &SourceError) -> Reply {
    let reply = match error {
        SourceError::NotFound => refusal(StatusCode::NOT_FOUND, "not_found"),
        SourceError::NeedsCredentials { .. } => refusal(StatusCode::NOT_FOUND, "denied"),
        SourceError::Refused { reason } => Reply { rule: Some(reason.clone()), ..refused() },
        SourceError::RateLimited { .. } => refusal(StatusCode::BAD_GATEWAY, "rate_limited"),
        SourceError::Timeout => refusal(StatusCode::BAD_GATEWAY, "timeout"),
        SourceError::Protocol { .. } | SourceError::Mismatch { .. } => refusal(StatusCode::BAD_GATEWAY, "wrong"),
        SourceError::Server { .. }
        | SourceError::Unreachable { .. }
        | SourceError::CircuitOpen
        | SourceError::Broken { .. } => refusal(StatusCode::BAD_GATEWAY, "unavailable"),
    };
    // Our own rules are no word of the origin's.
    if matches!(error, SourceError::Refused { .. }) { reply } else { said(reply, error.verdict()) }
}

/// Whether the reply rests on this word of the origin's.
pub(super) fn says(reply: &Reply, verdict: Verdict) -> bool {
    reply.headers.get(hop::ORIGIN).is_some_and(|said| said == verdict.as_str())
}

/// The refusal of a blob that its repository does not have, with the code for it (distribution specification, "Error Codes").
pub(super) fn unknown_blob(mut reply: Reply) -> Reply {
    let body = ErrorBody::new(ErrorCode::BlobUnknown, "the registry does not have this blob").to_json();
    reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers.insert(CONTENT_LENGTH, body.len().into());
    reply.body = Body::Bytes(body.into());
    reply
}

/// With what the origin said, or failed to say.
fn said(mut reply: Reply, verdict: Verdict) -> Reply {
    reply.headers.insert(hop::ORIGIN, HeaderValue::from_static(verdict.as_str()));
    reply
}

/// A manifest, or its headers alone.
pub(super) fn manifest(digest: &Digest, content_type: &str, size: u64, body: Body, outcome: Outcome) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, text(content_type, media_type::OCI_MANIFEST));
    headers.insert(CONTENT_LENGTH, size.into());
    identify(&mut headers, digest);
    Reply::new(StatusCode::OK, headers, body, outcome)
}

/// A blob, or its headers alone.
pub(super) fn blob(digest: &Digest, extent: Extent, body: Body, outcome: Outcome) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    identify(&mut headers, digest);
    let status = match extent {
        Extent::Whole(length) => {
            if let Some(length) = length {
                headers.insert(CONTENT_LENGTH, length.into());
            }
            StatusCode::OK
        }
        Extent::Part { first, end, total } => {
            headers.insert(CONTENT_LENGTH, end.saturating_sub(first).into());
            let range = ContentRange { first, last: end.saturating_sub(1), total: Some(total) };
            headers.insert(CONTENT_RANGE, text(&range.to_string(), "bytes */*"));
            StatusCode::PARTIAL_CONTENT
        }
    };
    Reply::new(status, headers, body, outcome)
}

/// The range lies outside a blob of `total` bytes (RFC 9110 §15.5.17).
pub(super) fn out_of_range(total: u64) -> Reply {
    let mut reply = refusal(StatusCode::RANGE_NOT_SATISFIABLE, "out_of_range");
    reply.headers.insert(CONTENT_RANGE, text(&format!("bytes */{total}"), "bytes */*"));
    reply
}

/// A list.
pub(super) fn listing(listing: Listing, outcome: Outcome) -> Reply {
    let Listing { bytes, media_type, link, filters, unconfirmed } = listing;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, text(&media_type, "application/json"));
    headers.insert(CONTENT_LENGTH, bytes.len().into());
    for (name, value) in [(LINK, link), (FILTERS, filters)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    let reply = Reply::new(StatusCode::OK, headers, Body::Bytes(bytes), outcome);
    match unconfirmed {
        Some(unsure) => stale(reply, unsure.said, unsure.age),
        None => reply,
    }
}

/// Says that the answer was not confirmed, in headers that engines leave alone and people's programs show (distribution specification,
/// "Warnings": code 299, agent `-`; RFC 9111 §5.1).
pub(super) fn stale(reply: Reply, verdict: Verdict, age: Option<Duration>) -> Reply {
    let mut reply = said(reply, verdict);
    let warning =
        format!("299 - \"stale: Larder serves what it knew last, the registry answered {}\"", verdict.as_str());
    reply.headers.insert(WARNING, text(&warning, "299 - \"stale\""));
    if let Some(age) = age {
        reply.headers.insert(AGE, age.as_secs().into());
    }
    reply.outcome.result = "stale";
    reply
}

/// A HEAD gets the headers of the GET.
pub(super) fn to_method(mut reply: Reply, method: &Method) -> Reply {
    if method == Method::HEAD {
        reply.body = Body::Empty;
    }
    reply
}

fn identify(headers: &mut HeaderMap, digest: &Digest) {
    if let Ok(value) = HeaderValue::from_str(digest.as_str()) {
        headers.insert(CONTENT_DIGEST, value);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(ETAG, value);
    }
}

fn text(value: &str, otherwise: &'static str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_404_or_502_and_empty_whatever_the_origin_said() {
        let errors = [
            SourceError::NotFound,
            SourceError::NeedsCredentials { status: 401 },
            SourceError::RateLimited { retry_after: None },
            SourceError::Server { status: 503 },
            SourceError::Timeout,
            SourceError::Unreachable { reason: String::new() },
            SourceError::CircuitOpen,
            SourceError::Refused { reason: String::new() },
            SourceError::Protocol { reason: String::new() },
            SourceError::Broken { reason: String::new() },
        ];
        for error in errors {
            let reply = of_error(&error);
            assert!(matches!(reply.status.as_u16(), 404 | 502), "{error}: {}", reply.status);
            assert_eq!(reply.headers[CONTENT_LENGTH], "0");
            assert!(matches!(reply.body, Body::Empty));
            assert_eq!(reply.rule.is_some(), matches!(error, SourceError::Refused { .. }), "{error}");
        }
    }

    #[test]
    fn a_part_names_its_last_byte_and_the_whole() {
        let digest = Digest::of(larder_oci::Algorithm::Sha256, b"x");
        let extent = Extent::Part { first: 10, end: 20, total: 100 };
        let reply = blob(&digest, extent, Body::Empty, Outcome::new(ReplySource::Store, "hit"));
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(reply.headers[CONTENT_RANGE], "bytes 10-19/100");
        assert_eq!(reply.headers[CONTENT_LENGTH], "10");
        assert_eq!(out_of_range(100).headers[CONTENT_RANGE], "bytes */100");
    }
}
