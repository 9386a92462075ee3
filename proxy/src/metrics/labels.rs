//! By what the metrics are told apart: a type for each set of labels.

use prometheus_client::encoding::EncodeLabelSet;

#[cfg(doc)]
use super::Metrics;

/// Labels of [`Metrics::requests`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// [`Metrics::registry_label`]; empty when the request named none.
    pub registry: String,
    /// `manifest`, `blob`, `tags`, `referrers`, `base`, `probe`, `canary` or `none`.
    pub kind: &'static str,
    /// `store`, `origin` or `none` ([`crate::reply::ReplySource`]).
    pub source: &'static str,
    /// The word of [`crate::reply::Outcome::result`].
    pub outcome: &'static str,
}

/// Labels of [`Metrics::origin_requests`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OriginLabels {
    /// [`Metrics::registry_label`].
    pub registry: String,
    /// `manifest`, `blob`, `listing`, `token` or `probe`.
    pub kind: &'static str,
    /// One word for what came of it: `ok`, `not_found`, `denied`, `rate_limited`, `server_error`, `timeout`, …
    pub outcome: &'static str,
}

/// Labels of what is counted per registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RegistryLabels {
    /// [`Metrics::registry_label`].
    pub registry: String,
}

/// Labels of what is counted per registry and lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabels {
    /// [`Metrics::registry_label`].
    pub registry: String,
    /// `document` or `blob` ([`crate::origin::Lane`]).
    pub lane: &'static str,
}

/// Labels of [`Metrics::stale_answers`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StaleLabels {
    /// [`Metrics::registry_label`].
    pub registry: String,
    /// What the origin said instead: the verdict, `not_found`, `timeout`, …
    pub reason: &'static str,
}

/// Labels of [`Metrics::response_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    /// `store`, `origin` or `none`.
    pub source: &'static str,
}

/// Labels of [`Metrics::time_to_first_byte`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FirstByteLabels {
    /// As in [`RequestLabels`].
    pub kind: &'static str,
    /// As in [`RequestLabels`].
    pub source: &'static str,
}

/// Labels of [`Metrics::bucket_requests`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BucketLabels {
    /// As it is billed: `get`, `put`, `list`, `part`, … ([`crate::store::bucket::Operation`]).
    pub operation: &'static str,
    /// `ok`, `denied`, `slow_down`, `failed` or `unanswered` ([`crate::store::bucket::Outcome`]).
    pub outcome: &'static str,
}

/// Labels of what has a reason and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One word.
    pub reason: &'static str,
}

/// Labels of [`Metrics::cluster_cache_questions`] and [`Metrics::cache_token_reviews`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Of questions: `ok`, `stale`, what the registry said (`not_found`, …), `unauthorized`, `unanswered`, `settings`, `own` or `redirected`,
    /// and then `unfollowed` if the bucket did not give the blob. Of tokens: `accepted`, `refused`, `unanswered`, and by saved keys
    /// `saved_keys_accepted`, `saved_keys_refused`.
    pub outcome: &'static str,
}

/// Of a number that some processes have and others do not.
pub type NoLabels = [(&'static str, &'static str); 0];
