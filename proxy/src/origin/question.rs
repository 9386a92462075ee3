//! What can be asked of a repository, apart from whom: each question says what is sent and understands what comes back.
//!
//! Understanding is part of asking an endpoint: one that lies is passed over for the next, like one that does not answer.

use http::{HeaderMap, Method};
use tokio::time::Instant;

use super::client::Answer;
use super::observe::{Lane, RequestKind};
use super::queue::Turn;
use crate::source::SourceError;

/// One kind of question.
pub(crate) trait Question: Send + Sync {
    /// What it is answered with.
    type Answer: Send;
    /// For whoever counts.
    const KIND: RequestKind;

    /// With whom it waits for its turn.
    const LANE: Lane = Lane::Document;

    /// For an answer that is still arriving: keeps the turn until it is there.
    fn hold(answer: Self::Answer, turn: Turn) -> Self::Answer {
        drop(turn);
        answer
    }

    fn method(&self) -> Method;

    /// Below the repository: `manifests/latest`.
    fn path(&self) -> String;

    /// Without the question mark.
    fn query(&self) -> Option<&str> {
        None
    }

    /// Those that only this question sends.
    fn headers(&self) -> Result<HeaderMap, SourceError>;

    /// The status is 200 or 206.
    fn understand(
        &self,
        answer: Answer,
        until: Instant,
    ) -> impl Future<Output = Result<Self::Answer, SourceError>> + Send;
}

/// A media type without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!essence.is_empty()).then_some(essence)
}

/// Anything but 200 to a question without a range.
pub(crate) fn expect_whole(answer: &Answer) -> Result<(), SourceError> {
    if answer.status == http::StatusCode::OK {
        return Ok(());
    }
    Err(SourceError::Protocol { reason: format!("status {} to a request without a range", answer.status.as_u16()) })
}
