//! A registry as `GET /v1/registries` shows it. Pure.

use std::time::Duration;

use larder_oci::Registry;
use serde::Serialize;
use tokio::time::Instant;

use crate::origin::{Row, Standing};

/// A registry as it is shown. Times are milliseconds that have passed since, so that nobody's clock matters.
#[derive(Debug, Serialize)]
pub(super) struct RegistryView {
    registry: String,
    /// Answers, whatever they were but 5xx.
    answered: RowView,
    failed: RowView,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    /// Milliseconds until it answers: the median of the last questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaView>,
    /// For how many milliseconds more it is left in peace, after a 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    peace: Option<u64>,
}

#[derive(Debug, Serialize)]
struct RowView {
    times: u64,
    in_a_row: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ago: Option<u64>,
}

#[derive(Debug, Serialize)]
struct FailureView {
    endpoint: String,
    why: &'static str,
    error: String,
}

#[derive(Debug, Serialize)]
struct QuotaView {
    limit: Option<u64>,
    remaining: Option<u64>,
    /// Seconds.
    window: Option<u64>,
    ago: u64,
    /// Milliseconds until all of it is there again, where the registry says that.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<u64>,
}

impl RegistryView {
    pub(super) fn new(registry: &Registry, standing: &Standing, now: Instant) -> Self {
        let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ago = |at: Instant| whole(now.saturating_duration_since(at));
        let row = |row: Row| RowView {
            times: row.times,
            in_a_row: row.unbroken,
            first_ago: row.since_and_at.map(|(since, _)| ago(since)),
            last_ago: row.since_and_at.map(|(_, at)| ago(at)),
        };
        Self {
            registry: registry.to_string(),
            answered: row(standing.answered),
            failed: row(standing.failed),
            failure: standing.failure.as_ref().map(|(endpoint, why, error)| FailureView {
                endpoint: endpoint.clone(),
                why: why.as_str(),
                error: error.clone(),
            }),
            latency: standing.latency().map(whole),
            quota: standing.quota.map(|(quota, at)| QuotaView {
                limit: quota.limit,
                remaining: quota.remaining,
                window: quota.window.map(|window| window.as_secs()),
                ago: ago(at),
                reset: quota.reset.map(|left| at + left).filter(|reset| *reset > now).map(|reset| whole(reset - now)),
            }),
            peace: standing.peace.filter(|until| *until > now).map(|until| whole(until - now)),
        }
    }
}
