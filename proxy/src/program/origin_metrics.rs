//! What happens on the wire towards origins, as metrics and as how each registry is doing.

use std::sync::Arc;
use std::time::Duration;

use larder_oci::Registry;
use tokio::time::Instant;

use crate::metrics::{Metrics, OriginLabels};
use crate::origin::{Heard, Lane, Observer, RateLimit, RequestKind, RequestOutcome, Standings};

/// Counts what the origin tells.
#[derive(Debug)]
pub(super) struct OriginMetrics {
    metrics: Arc<Metrics>,
    standings: Arc<Standings>,
}

impl OriginMetrics {
    pub(super) fn new(metrics: Arc<Metrics>, standings: Arc<Standings>) -> Self {
        Self { metrics, standings }
    }
}

impl Observer for OriginMetrics {
    fn request(&self, registry: &Registry, kind: RequestKind, outcome: RequestOutcome) {
        if matches!(outcome, RequestOutcome::Status(_)) {
            self.metrics.note_registry(registry);
        }
        let registry = self.metrics.registry_label(registry);
        let labels = OriginLabels { registry, kind: kind.as_str(), outcome: word(outcome) };
        self.metrics.count_origin_request(&labels);
    }

    fn heard(&self, registry: &Registry, heard: Heard) {
        self.standings.heard(registry, heard, Instant::now());
    }

    fn rate_limit(&self, registry: &Registry, quota: RateLimit) {
        self.standings.quota(registry, quota, Instant::now());
        let labels = self.metrics.registry_labels(registry);
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        if let Some(limit) = quota.limit {
            self.metrics.origin_quota_limit.get_or_create(&labels).set(number(limit));
        }
        if let Some(remaining) = quota.remaining {
            self.metrics.origin_quota_remaining.get_or_create(&labels).set(number(remaining));
        }
    }

    fn queue(&self, registry: &Registry, lane: Lane, waiting: usize) {
        let labels = self.metrics.lane_labels(registry, lane);
        self.metrics.origin_queue.get_or_create(&labels).set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    fn waited(&self, registry: &Registry, lane: Lane, waited: Duration, hurried: bool) {
        let labels = self.metrics.lane_labels(registry, lane);
        self.metrics.observe_queue(&labels, waited);
        if hurried {
            self.metrics.origin_queue_hurried.get_or_create(&labels).inc();
        }
    }

    fn held_back(&self, registry: &Registry, held: Duration) {
        let labels = self.metrics.registry_labels(registry);
        self.metrics.origin_held_back.get_or_create(&labels).inc_by(held.as_secs_f64());
    }

    fn circuit(&self, registry: &Registry, open: bool) {
        self.metrics.origin_circuit_open.get_or_create(&self.metrics.registry_labels(registry)).set(i64::from(open));
    }
}

fn word(outcome: RequestOutcome) -> &'static str {
    match outcome {
        RequestOutcome::Status(200..=399) => "ok",
        RequestOutcome::Status(401 | 403) => "denied",
        RequestOutcome::Status(404) => "not_found",
        RequestOutcome::Status(429) => "rate_limited",
        RequestOutcome::Status(500..) => "server_error",
        RequestOutcome::Status(_) => "other",
        RequestOutcome::Unreachable => "unreachable",
        RequestOutcome::Timeout => "timeout",
        RequestOutcome::Refused => "refused",
    }
}
