//! The proxy's metrics: declared once, here, with name, labels and meaning.
//!
//! [`Metrics`] is built with everything else and handed on as a value; whoever counts has a field for it. The list is part
//! of what users build dashboards on, so it is a snapshot test: a change of it shows in a review. No label has more values
//! than we decide: a registry has a value of its own once it answered, and there are a hundred of them at a time
//! (`registries`); the rest is counted as `other`. Words in labels are joined by `_`.

mod labels;
mod list;
mod registries;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use larder_oci::Registry;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry as Exposition;

pub use self::labels::{
    BucketLabels, FirstByteLabels, LaneLabels, NoLabels, OriginLabels, OutcomeLabels, ReasonLabels, RegistryLabels,
    RequestLabels, SourceLabels, StaleLabels,
};
use self::registries::{Registries, Series};
use crate::origin::Lane;

/// Buckets for times from half a millisecond to half a minute.
#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0005, 2.0, 17))
    }
}

/// Every metric of the proxy. Cheap to share; all counting is lock-free or a short read lock.
pub struct Metrics {
    exposition: Exposition,
    registries: Registries,

    /// Requests that were answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Body bytes handed to clients.
    pub response_bytes: Family<SourceLabels, Counter>,
    /// Bodies that were cut before their end.
    pub response_cuts: Family<SourceLabels, Counter>,
    time_to_first_byte: Family<FirstByteLabels, Histogram, Seconds>,
    /// Cached answers given although the origin did not confirm them.
    pub stale_answers: Family<StaleLabels, Counter>,

    /// Requests sent to origins, token services included.
    pub origin_requests: Family<OriginLabels, Counter>,
    /// Body bytes received from origins.
    pub origin_bytes: Family<RegistryLabels, Counter>,
    origin_time: Family<RegistryLabels, Histogram, Seconds>,
    /// 1 while an origin's circuit breaker is open.
    pub origin_circuit_open: Family<RegistryLabels, Gauge>,
    /// What the origin last said that is left of its pull quota (`ratelimit-remaining`).
    pub origin_quota_remaining: Family<RegistryLabels, Gauge>,
    /// The origin's pull quota (`ratelimit-limit`).
    pub origin_quota_limit: Family<RegistryLabels, Gauge>,
    /// Requests that wait for their turn at an origin.
    pub origin_queue: Family<LaneLabels, Gauge>,
    origin_queue_wait: Family<LaneLabels, Histogram, Seconds>,
    /// Requests that had waited long enough for a turn and went without one.
    pub origin_queue_hurried: Family<LaneLabels, Counter>,
    /// How long pulls were held back for the sake of an origin's quota.
    pub origin_held_back: Family<RegistryLabels, Counter<f64, AtomicU64>>,

    /// Questions to the cluster cache, by how they ended.
    pub cluster_cache_questions: Family<OutcomeLabels, Counter>,
    /// Tokens that the cluster cache had reviewed, or looked at itself with saved keys, by how that ended.
    pub cache_token_reviews: Family<OutcomeLabels, Counter>,
    /// When the certificate ends that is shown, in seconds since 1970; nothing where none is.
    pub cache_certificate_expiry: Family<NoLabels, Gauge>,

    /// Fetches that run now, each for any number of readers.
    pub fetches_running: Gauge,
    /// Fetches that were continued by Range after the origin broke off.
    pub fetch_resumes: Family<RegistryLabels, Counter>,
    /// Content that did not have its digest, from an origin.
    pub fetch_mismatches: Family<RegistryLabels, Counter>,

    /// Images that could not be given in full to a client that could not go elsewhere any more.
    pub promises_broken: Family<RegistryLabels, Counter>,
    /// Images whose manifests are refused to such clients for that reason, when somebody last looked.
    pub images_refused: Gauge,

    /// Bytes in the store.
    pub store_bytes: Gauge,
    /// The store's limit.
    pub store_limit_bytes: Gauge,
    /// Of the store's bytes those that holders pinned.
    pub store_pinned_bytes: Gauge,
    /// And those that are pinned only because they were pulled through.
    pub store_pulled_bytes: Gauge,
    /// Blobs removed to stay within the limit.
    pub store_evictions: Counter,
    /// Files of the store that turned out damaged and were dropped.
    pub store_damaged: Counter,
    /// 1 while the store takes new content (the disk is not full, not read-only, and answers).
    pub store_writable: Gauge,
    /// Requests to the bucket, retries included: they cost money.
    pub bucket_requests: Family<BucketLabels, Counter>,
    /// Blobs and records that wait for a bucket that does not answer.
    pub bucket_owed: Gauge,
    /// Pins of all clusters on the bucket, when it was last looked.
    pub bucket_pins: Gauge,
    /// Uploads that this process condemned.
    pub bucket_condemned: Counter,
    /// Uploads that this process removed.
    pub bucket_removed: Counter,
    /// What this process removed that was left by something that ended: checksums without their blob, notes, uploads in parts.
    pub bucket_swept: Counter,
    /// Since this process last looked for what nobody wants, or since it started.
    pub bucket_removal_age: Gauge,
    /// 1 while nothing leaves the bucket before a person says that so few pins are right.
    pub bucket_brake: Gauge,

    /// Client connections that are open.
    pub connections: Gauge,
    /// Connections that were closed without a request being served: `bound`, `tls`, `plain`, `idle`, `nonsense`.
    pub connections_refused: Family<ReasonLabels, Counter>,
    /// 1 while the registries file is not in force as it is: it is wrong, or something of it is left out.
    pub settings_invalid: Gauge,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            exposition: Exposition::with_prefix("larder"),
            registries: Registries::default(),
            requests: Family::default(),
            response_bytes: Family::default(),
            response_cuts: Family::default(),
            time_to_first_byte: Family::new_with_constructor(Seconds),
            stale_answers: Family::default(),
            origin_requests: Family::default(),
            origin_bytes: Family::default(),
            origin_time: Family::new_with_constructor(Seconds),
            origin_circuit_open: Family::default(),
            origin_quota_remaining: Family::default(),
            origin_quota_limit: Family::default(),
            origin_queue: Family::default(),
            origin_queue_wait: Family::new_with_constructor(Seconds),
            origin_queue_hurried: Family::default(),
            origin_held_back: Family::default(),
            cluster_cache_questions: Family::default(),
            cache_token_reviews: Family::default(),
            cache_certificate_expiry: Family::default(),
            fetches_running: Gauge::default(),
            fetch_resumes: Family::default(),
            fetch_mismatches: Family::default(),
            promises_broken: Family::default(),
            images_refused: Gauge::default(),
            store_bytes: Gauge::default(),
            store_limit_bytes: Gauge::default(),
            store_pinned_bytes: Gauge::default(),
            store_pulled_bytes: Gauge::default(),
            store_evictions: Counter::default(),
            store_damaged: Counter::default(),
            store_writable: Gauge::default(),
            bucket_requests: Family::default(),
            bucket_owed: Gauge::default(),
            bucket_pins: Gauge::default(),
            bucket_condemned: Counter::default(),
            bucket_removed: Counter::default(),
            bucket_swept: Counter::default(),
            bucket_removal_age: Gauge::default(),
            bucket_brake: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            settings_invalid: Gauge::default(),
        };
        metrics.store_writable.set(1);

        list::register(&mut metrics);
        metrics
    }

    /// The registry answered, or we hold something of it: from now on it is counted under its name. That takes the place
    /// of whichever was not counted for the longest time, once there are a hundred.
    pub fn note_registry(&self, registry: &Registry) {
        let Some((name, Series { requests, origin, stale, .. })) = self.registries.admit(registry) else { return };
        let labels = RegistryLabels { registry: name };
        for series in &requests {
            self.requests.remove(series);
        }
        for series in &origin {
            self.origin_requests.remove(series);
        }
        for series in &stale {
            self.stale_answers.remove(series);
        }
        self.origin_time.remove(&labels);
        self.origin_held_back.remove(&labels);
        for lane in Lane::ALL {
            let labels = LaneLabels { registry: labels.registry.clone(), lane: lane.as_str() };
            self.origin_queue.remove(&labels);
            self.origin_queue_wait.remove(&labels);
            self.origin_queue_hurried.remove(&labels);
        }
        for counters in [&self.origin_bytes, &self.fetch_resumes, &self.fetch_mismatches, &self.promises_broken] {
            counters.remove(&labels);
        }
        for gauges in [&self.origin_circuit_open, &self.origin_quota_remaining, &self.origin_quota_limit] {
            gauges.remove(&labels);
        }
    }

    /// The label value of a registry: its name, or `other`.
    pub fn registry_label(&self, registry: &Registry) -> String {
        self.registries.label(registry)
    }

    /// Counts a request in [`Metrics::requests`]; `registry` is empty when the request named none.
    pub fn count_request(&self, labels: &RequestLabels) {
        self.registries.note(&labels.registry, |series| {
            if !series.requests.contains(labels) {
                series.requests.insert(labels.clone());
            }
        });
        self.requests.get_or_create(labels).inc();
    }

    /// Counts a request to an origin in [`Metrics::origin_requests`].
    pub fn count_origin_request(&self, labels: &OriginLabels) {
        self.registries.note(&labels.registry, |series| {
            if !series.origin.contains(labels) {
                series.origin.insert(labels.clone());
            }
        });
        self.origin_requests.get_or_create(labels).inc();
    }

    /// Counts an answer in [`Metrics::stale_answers`].
    pub fn count_stale(&self, labels: &StaleLabels) {
        self.registries.note(&labels.registry, |series| {
            if !series.stale.contains(labels) {
                series.stale.insert(labels.clone());
            }
        });
        self.stale_answers.get_or_create(labels).inc();
    }

    /// The labels of what is counted per registry.
    pub fn registry_labels(&self, registry: &Registry) -> RegistryLabels {
        RegistryLabels { registry: self.registry_label(registry) }
    }

    /// A request's first body byte (or its head, where there is no body) was handed over after `elapsed`.
    pub fn observe_first_byte(&self, kind: &'static str, source: &'static str, elapsed: Duration) {
        self.time_to_first_byte.get_or_create(&FirstByteLabels { kind, source }).observe(elapsed.as_secs_f64());
    }

    /// The labels of what is counted per registry and lane.
    pub fn lane_labels(&self, registry: &Registry, lane: Lane) -> LaneLabels {
        LaneLabels { registry: self.registry_label(registry), lane: lane.as_str() }
    }

    /// A request waited `elapsed` for its turn at an origin.
    pub fn observe_queue(&self, labels: &LaneLabels, elapsed: Duration) {
        self.origin_queue_wait.get_or_create(labels).observe(elapsed.as_secs_f64());
    }

    /// An origin's head came after `elapsed`.
    pub fn observe_origin(&self, registry: &Registry, elapsed: Duration) {
        self.origin_time.get_or_create(&self.registry_labels(registry)).observe(elapsed.as_secs_f64());
    }

    /// All metrics in the `OpenMetrics` text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail; half a page would still be better than none.
        if text::encode(&mut out, &self.exposition).is_err() {
            tracing::error!("metrics could not be encoded");
        }
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_what_users_rely_on() {
        let metrics = Metrics::new();
        let registry = Registry::parse("reg.example.com").unwrap();
        metrics.note_registry(&registry);
        let labels = metrics.registry_labels(&registry);
        let name = metrics.registry_label(&registry);
        metrics
            .requests
            .get_or_create(&RequestLabels { registry: name.clone(), kind: "blob", source: "store", outcome: "hit" })
            .inc();
        metrics.response_bytes.get_or_create(&SourceLabels { source: "store" }).inc();
        metrics.response_cuts.get_or_create(&SourceLabels { source: "store" }).inc();
        metrics.observe_first_byte("blob", "store", Duration::from_millis(1));
        metrics.stale_answers.get_or_create(&StaleLabels { registry: name.clone(), reason: "timeout" }).inc();
        metrics.origin_requests.get_or_create(&OriginLabels { registry: name, kind: "blob", outcome: "ok" }).inc();
        metrics.origin_bytes.get_or_create(&labels).inc();
        metrics.observe_origin(&registry, Duration::from_millis(1));
        metrics.origin_circuit_open.get_or_create(&labels).set(1);
        metrics.origin_quota_remaining.get_or_create(&labels).set(1);
        metrics.origin_quota_limit.get_or_create(&labels).set(1);
        let lane = metrics.lane_labels(&registry, Lane::Blob);
        metrics.origin_queue.get_or_create(&lane).set(1);
        metrics.observe_queue(&lane, Duration::from_millis(1));
        metrics.origin_queue_hurried.get_or_create(&lane).inc();
        metrics.origin_held_back.get_or_create(&labels).inc_by(0.5);
        metrics.cluster_cache_questions.get_or_create(&OutcomeLabels { outcome: "ok" }).inc();
        metrics.cache_token_reviews.get_or_create(&OutcomeLabels { outcome: "accepted" }).inc();
        metrics.cache_certificate_expiry.get_or_create(&[]).set(1);
        metrics.fetch_resumes.get_or_create(&labels).inc();
        metrics.fetch_mismatches.get_or_create(&labels).inc();
        metrics.promises_broken.get_or_create(&labels).inc();
        metrics.connections_refused.get_or_create(&ReasonLabels { reason: "bound" }).inc();
        metrics.bucket_requests.get_or_create(&BucketLabels { operation: "get", outcome: "ok" }).inc();
        let list: Vec<String> = metrics
            .encode()
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
            .lines()
            .filter(|line| !line.contains("_bucket{") || line.contains("le=\"+Inf\""))
            .map(ToOwned::to_owned)
            .collect();
        insta::assert_snapshot!(list.join("\n"));
    }

    fn registry(number: usize) -> Registry {
        Registry::parse(&format!("r{number}.example.com")).unwrap()
    }

    #[test]
    fn a_name_alone_gets_no_label() {
        let metrics = Metrics::new();
        for number in 0..2 * registries::MOST {
            assert_eq!(metrics.registry_label(&registry(number)), "other");
        }
        metrics.note_registry(&registry(5));
        assert_eq!(metrics.registry_label(&registry(5)), "r5.example.com");
    }

    #[test]
    fn the_registry_that_was_not_counted_for_the_longest_time_gives_way_with_all_its_series() {
        let metrics = Metrics::new();
        for number in 0..3 * registries::MOST {
            metrics.note_registry(&registry(number));
            let name = metrics.registry_label(&registry(number));
            let labels = metrics.registry_labels(&registry(number));
            let (kind, outcome, reason) = ("blob", "hit", "timeout");
            metrics.count_request(&RequestLabels { registry: name.clone(), kind, source: "store", outcome });
            metrics.count_origin_request(&OriginLabels { registry: name.clone(), kind, outcome });
            metrics.count_stale(&StaleLabels { registry: name, reason });
            metrics.observe_origin(&registry(number), Duration::from_millis(1));
            metrics.origin_bytes.get_or_create(&labels).inc();
            metrics.origin_circuit_open.get_or_create(&labels).set(1);
            metrics.observe_queue(&metrics.lane_labels(&registry(number), Lane::Blob), Duration::ZERO);
            assert_eq!(metrics.registry_label(&registry(0)), "r0.example.com", "it is in use");
        }
        let page = metrics.encode();
        assert!(page.contains("\"r0.example.com\"") && !page.contains("\"r1.example.com\""));
        assert_eq!(page.matches("larder_requests_total{").count(), registries::MOST);
        assert_eq!(page.matches("larder_origin_requests_total{").count(), registries::MOST);
        assert_eq!(page.matches("larder_origin_circuit_open{").count(), registries::MOST);
        assert_eq!(page.matches("larder_origin_response_seconds_count{").count(), registries::MOST);
        assert_eq!(page.matches("larder_origin_queue_wait_seconds_count{").count(), registries::MOST);
        assert_eq!(metrics.registry_label(&registry(1)), "other");
    }
}
