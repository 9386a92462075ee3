//! Questions about blobs, and the stream of their bytes.
//!
//! A stream ends well only after as many bytes as the headers announced; whoever reads it verifies the digest.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::header::{ACCEPT, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use larder_oci::{ContentRange, Digest};
use tokio::time::Instant;

use super::body;
use super::client::Answer;
use super::observe::{Lane, RequestKind};
use super::question::{Question, expect_whole};
use super::queue::Turn;
use crate::source::{BlobHead, BlobStream, SourceError};

/// HEAD of a blob.
pub(crate) struct HeadBlob(pub(crate) Digest);

/// GET of a blob, or of the rest of it.
pub(crate) struct GetBlob {
    pub(crate) digest: Digest,
    pub(crate) from: u64,
    pub(crate) etag: Option<String>,
    /// The body is broken after this long without a byte.
    pub(crate) silence: Duration,
}

impl Question for HeadBlob {
    type Answer = BlobHead;
    const KIND: RequestKind = RequestKind::Blob;

    fn method(&self) -> Method {
        Method::HEAD
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.0)
    }

    fn headers(&self) -> Result<HeaderMap, SourceError> {
        Ok(accept())
    }

    async fn understand(&self, answer: Answer, _: Instant) -> Result<BlobHead, SourceError> {
        expect_whole(&answer)?;
        Ok(BlobHead { size: body::length(&answer.headers) })
    }
}

impl Question for GetBlob {
    type Answer = BlobStream;
    const KIND: RequestKind = RequestKind::Blob;
    const LANE: Lane = Lane::Blob;

    /// Until its last byte; who reads need not ask whether there is more.
    fn hold(answer: BlobStream, turn: Turn) -> BlobStream {
        let BlobStream { first, total, etag, body } = answer;
        let mut left = total.map(|total| total.saturating_sub(first));
        let mut turn = Some(turn).filter(|_| left != Some(0));
        let body = body.map(move |piece| {
            if let (Some(left), Ok(piece)) = (&mut left, &piece) {
                *left = left.saturating_sub(piece.len() as u64);
            }
            if piece.is_err() || left == Some(0) {
                drop(turn.take());
            }
            piece
        });
        BlobStream { first, total, etag, body: body.boxed() }
    }

    fn method(&self) -> Method {
        Method::GET
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest)
    }

    fn headers(&self) -> Result<HeaderMap, SourceError> {
        let mut headers = accept();
        if self.from > 0 {
            let nonsense = |_| SourceError::Protocol { reason: "its ETag fits in no header".into() };
            headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={}-", self.from)).map_err(nonsense)?);
            if let Some(etag) = self.etag.as_deref().filter(|etag| is_strong(etag)) {
                headers.insert(IF_RANGE, HeaderValue::from_str(etag).map_err(nonsense)?);
            }
        }
        Ok(headers)
    }

    async fn understand(&self, answer: Answer, _: Instant) -> Result<BlobStream, SourceError> {
        let piece = Piece::of(answer.status, &answer.headers, self.from)?;
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).filter(|etag| is_strong(etag));
        Ok(BlobStream {
            first: piece.first,
            total: piece.total,
            etag: etag.map(ToOwned::to_owned),
            body: stream(answer.body, piece.length, self.silence),
        })
    }
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))])
}

/// RFC 9110 §13.1.5: a weak one cannot say whether bytes are the same.
fn is_strong(etag: &str) -> bool {
    etag.len() >= 2 && etag.starts_with('"') && etag.ends_with('"')
}

/// Which bytes an answer holds.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    first: u64,
    length: Option<u64>,
    total: Option<u64>,
}

impl Piece {
    /// Exactly what was asked for (from `from` to the end), or the whole.
    fn of(status: StatusCode, headers: &HeaderMap, from: u64) -> Result<Self, SourceError> {
        let length = body::length(headers);
        if status != StatusCode::PARTIAL_CONTENT {
            return Ok(Self { first: 0, length, total: length });
        }
        let nonsense = |what: &str| SourceError::Protocol { reason: format!("a partial answer {what}") };
        if from == 0 {
            return Err(nonsense("to a request without a range"));
        }
        let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let range = range.ok_or_else(|| nonsense("without a Content-Range"))?;
        let range = ContentRange::parse(range).map_err(|error| nonsense(&error.to_string()))?;
        let whole_rest = range.total.is_none_or(|total| range.last.checked_add(1) == Some(total));
        if range.first != from || !whole_rest {
            return Err(nonsense(&format!("({range}) to a request for what follows byte {from}")));
        }
        let announced = (range.last - range.first).saturating_add(1);
        if length.is_some_and(|length| length != announced) {
            return Err(nonsense(&format!("({range}) of another length")));
        }
        Ok(Self { first: from, length: Some(announced), total: range.total })
    }
}

struct Body {
    incoming: Incoming,
    left: Option<u64>,
    silence: Duration,
}

impl Body {
    /// `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let until = Instant::now() + self.silence;
        loop {
            let frame = tokio::time::timeout_at(until, self.incoming.frame()).await;
            let Ok(frame) = frame else {
                return Err(broken(format!("no byte for {} s", self.silence.as_secs_f64())));
            };
            let Some(frame) = frame else {
                return match self.left {
                    Some(left) if left > 0 => Err(broken(format!("it ended {left} bytes early"))),
                    _ => Ok(None),
                };
            };
            let Ok(piece) = frame.map_err(|error| body::broken(&error))?.into_data() else { continue };
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or_else(|| broken("it holds more bytes than announced".into()))?;
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }
}

fn broken(reason: String) -> SourceError {
    SourceError::Broken { reason }
}

fn stream(
    incoming: Incoming,
    length: Option<u64>,
    silence: Duration,
) -> BoxStream<'static, Result<Bytes, SourceError>> {
    let body = Body { incoming, left: length, silence };
    stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match body.next().await {
            Ok(piece) => piece.map(|piece| (Ok(piece), Some(body))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(status: u16, headers: &[(&'static str, &str)], from: u64) -> Result<Piece, SourceError> {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        Piece::of(StatusCode::from_u16(status).unwrap(), &headers, from)
    }

    #[test]
    fn which_bytes_an_answer_holds() {
        let whole = Piece { first: 0, length: Some(100), total: Some(100) };
        assert_eq!(piece(200, &[("content-length", "100")], 0), Ok(whole));
        assert_eq!(piece(200, &[], 40), Ok(Piece { first: 0, length: None, total: None }));
        let rest = Ok(Piece { first: 40, length: Some(60), total: Some(100) });
        assert_eq!(piece(206, &[("content-range", "bytes 40-99/100"), ("content-length", "60")], 40), rest);
        assert_eq!(piece(206, &[("content-range", "bytes 40-99/100")], 40), rest);
        let unknown = Ok(Piece { first: 40, length: Some(60), total: None });
        assert_eq!(piece(206, &[("content-range", "bytes 40-99/*")], 40), unknown);
    }

    #[test]
    fn partial_answers_that_are_not_what_was_asked_for() {
        let table: [(&[(&str, &str)], u64); 8] = [
            (&[("content-range", "bytes 0-99/100")], 0),
            (&[], 40),
            (&[("content-range", "bytes 41-99/100")], 40),
            (&[("content-range", "bytes 39-99/100")], 40),
            (&[("content-range", "bytes 40-98/100")], 40),
            (&[("content-range", "bytes 40-100/100")], 40),
            (&[("content-range", "bytes 40-99/100"), ("content-length", "59")], 40),
            (&[("content-range", "lines 40-99/100")], 40),
        ];
        for (headers, from) in table {
            assert!(matches!(piece(206, headers, from), Err(SourceError::Protocol { .. })), "{headers:?}");
        }
    }

    #[test]
    fn only_strong_etags_are_sent() {
        let sent = |etag: &str, from| {
            let silence = Duration::from_secs(1);
            let digest = Digest::of(larder_oci::Algorithm::Sha256, b"");
            let question = GetBlob { digest, from, etag: Some(etag.into()), silence };
            let headers = question.headers().unwrap();
            (headers.contains_key(RANGE), headers.contains_key(IF_RANGE))
        };
        assert_eq!(sent("\"abc\"", 5), (true, true));
        assert_eq!(sent("W/\"abc\"", 5), (true, false));
        assert_eq!(sent("abc", 5), (true, false));
        assert_eq!(sent("\"abc\"", 0), (false, false));
    }
}
