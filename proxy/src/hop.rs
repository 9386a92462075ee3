//! What a node and the cluster cache tell each other beside the distribution API: how much time there is, and whose answer it is.
//!
//! Decision 17 says why. A request has its time with it ([`TIMEOUT`]); the cache's own budgets lie inside it ([`inner`]), so that what it
//! last knew arrives before the node gives up. An answer that rests on what the origin said, or failed to say, names that
//! ([`ORIGIN`], a [`Verdict`](crate::source::Verdict)): whatever comes without it and is no content is the cache's own trouble. For a blob
//! that lies in a bucket the cache may name that place in its stead, to one that follows ([`REDIRECT`], decision 26).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// In a request: how many milliseconds whoever asks still waits for the head of the answer.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("larder-timeout-ms");

/// In an answer: what the origin said instead of confirming it, or why it is a refusal.
pub(crate) const ORIGIN: HeaderName = HeaderName::from_static("larder-origin");

/// In an answer: whoever gave it is about to stop, and wants to be left alone.
pub(crate) const DRAINING: HeaderName = HeaderName::from_static("larder-draining");

/// In a request: the fingerprint of what the one who asks was told of this registry
/// ([`RegistrySettings::fingerprint`](crate::settings::RegistrySettings::fingerprint)), if that is anything. In its answer: that of the one
/// who answers, or [`NO_SETTINGS`]. Where they differ it is refused (decision 20).
pub(crate) const SETTINGS: HeaderName = HeaderName::from_static("larder-settings");

/// Nothing was said of the registry.
pub(crate) const NO_SETTINGS: &str = "none";

/// In a request: [`FOLLOWS`] if whoever asks follows a redirect to where the blob is kept, [`FOLLOWS_NOT`] if it wants the bytes here.
pub(crate) const REDIRECT: HeaderName = HeaderName::from_static("larder-redirect");

/// See [`REDIRECT`].
pub(crate) const FOLLOWS: HeaderValue = HeaderValue::from_static("yes");

/// See [`REDIRECT`].
pub(crate) const FOLLOWS_NOT: HeaderValue = HeaderValue::from_static("no");

/// In a redirect to where a blob is kept: how many bytes it has.
pub(crate) const LENGTH: HeaderName = HeaderName::from_static("larder-length");

/// Less than this nobody can be held to.
const SHORTEST: Duration = Duration::from_millis(20);

/// The value of [`TIMEOUT`].
pub(crate) fn timeout_header(within: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(within.as_millis()).unwrap_or(u64::MAX))
}

/// How long the answer may take to be in time for whoever sent these headers.
pub(crate) fn within(headers: &HeaderMap) -> Option<Duration> {
    let milliseconds = headers.get(TIMEOUT)?.to_str().ok()?.parse().ok()?;
    Some(inner(Duration::from_millis(milliseconds)))
}

/// What is left of the time that somebody waits, for whoever answers: an eighth is for the way back.
fn inner(waiting: Duration) -> Duration {
    waiting.saturating_sub(waiting / 8).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_due_before_the_one_who_asks_gives_up() {
        for milliseconds in [30_u64, 250, 3000, 9000] {
            let waiting = Duration::from_millis(milliseconds);
            let headers = HeaderMap::from_iter([(TIMEOUT, timeout_header(waiting))]);
            assert!(within(&headers).unwrap() < waiting, "{waiting:?}");
        }
        assert_eq!(within(&HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_static("0"))])), Some(SHORTEST));
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(within(&HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_str(wrong).unwrap())])), None);
        }
    }
}
