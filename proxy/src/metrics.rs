//! The proxy's metrics: declared once, here, with name, labels and meaning.
//!
//! [`Metrics`] is built with everything else and handed on as a value; whoever counts has a field for it. The list is part
//! of what users build dashboards on, so it is a snapshot test: a change of it shows in a review. No label has more values
//! than we decide: a registry has a value of its own once it answered, and there are a hundred of them at a time
//! (`registries`); the rest is counted as `other`. Words in labels are joined by `_`.

mod registries;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use larder_oci::Registry;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as Exposition, Unit};

use self::registries::{Registries, Series};
use crate::origin::Lane;

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
    #[expect(clippy::too_many_lines, reason = "it is the list: one registration per metric, in one place")]
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
            bucket_removal_age: Gauge::default(),
            bucket_brake: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            settings_invalid: Gauge::default(),
        };
        metrics.store_writable.set(1);

        let Self {
            exposition,
            registries: _,
            requests,
            response_bytes,
            response_cuts,
            time_to_first_byte,
            stale_answers,
            origin_requests,
            origin_bytes,
            origin_time,
            origin_circuit_open,
            origin_quota_remaining,
            origin_quota_limit,
            origin_queue,
            origin_queue_wait,
            origin_queue_hurried,
            origin_held_back,
            cluster_cache_questions,
            cache_token_reviews,
            cache_certificate_expiry,
            fetches_running,
            fetch_resumes,
            fetch_mismatches,
            promises_broken,
            images_refused,
            store_bytes,
            store_limit_bytes,
            store_pinned_bytes,
            store_pulled_bytes,
            store_evictions,
            store_damaged,
            store_writable,
            bucket_requests,
            bucket_owed,
            bucket_pins,
            bucket_condemned,
            bucket_removed,
            bucket_removal_age,
            bucket_brake,
            connections,
            connections_refused,
            settings_invalid,
        } = &mut metrics;
        let list = exposition;
        list.register("build", "Version of this program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        list.register("requests", "Requests answered", requests.clone());
        list.register_with_unit("response", "Body bytes handed to clients", Unit::Bytes, response_bytes.clone());
        list.register("response_cuts", "Bodies cut before their end", response_cuts.clone());
        list.register_with_unit(
            "time_to_first_byte",
            "From the request's head to the first body byte",
            Unit::Seconds,
            time_to_first_byte.clone(),
        );
        list.register("stale_answers", "Cached answers given without the origin's confirmation", stale_answers.clone());
        list.register("origin_requests", "Requests sent to origins, token services included", origin_requests.clone());
        list.register_with_unit(
            "origin_received",
            "Body bytes received from origins",
            Unit::Bytes,
            origin_bytes.clone(),
        );
        list.register_with_unit(
            "origin_response",
            "From a request to an origin to its head",
            Unit::Seconds,
            origin_time.clone(),
        );
        list.register(
            "origin_circuit_open",
            "1 while the circuit breaker of an origin is open",
            origin_circuit_open.clone(),
        );
        list.register(
            "origin_quota_remaining",
            "What the origin says is left of its pull quota",
            origin_quota_remaining.clone(),
        );
        list.register("origin_quota_limit", "The pull quota that the origin states", origin_quota_limit.clone());
        list.register("origin_queue", "Requests that wait for their turn at an origin", origin_queue.clone());
        list.register_with_unit(
            "origin_queue_wait",
            "How long requests waited for their turn at an origin",
            Unit::Seconds,
            origin_queue_wait.clone(),
        );
        list.register(
            "origin_queue_hurried",
            "Requests that had waited long enough for their turn and went without one",
            origin_queue_hurried.clone(),
        );
        list.register_with_unit(
            "origin_held_back",
            "How long pulls were held back for the sake of an origin's quota",
            Unit::Seconds,
            origin_held_back.clone(),
        );
        list.register(
            "cluster_cache_questions",
            "Questions to the cluster cache, by how they ended",
            cluster_cache_questions.clone(),
        );
        list.register(
            "cache_token_reviews",
            "Tokens of callers that the API server, or saved keys, had to say something about, by what they said",
            cache_token_reviews.clone(),
        );
        list.register_with_unit(
            "cache_certificate_expiry_timestamp",
            "When the certificate ends that callers are shown, since 1970",
            Unit::Seconds,
            cache_certificate_expiry.clone(),
        );
        list.register("fetches_running", "Fetches that run now", fetches_running.clone());
        list.register("fetch_resumes", "Fetches continued after the origin broke off", fetch_resumes.clone());
        list.register(
            "fetch_mismatches",
            "Content from an origin that did not have its digest",
            fetch_mismatches.clone(),
        );
        list.register(
            "promises_broken",
            "Images not given in full to a client that could not go elsewhere any more",
            promises_broken.clone(),
        );
        list.register(
            "images_refused",
            "Images whose manifests are refused for a while, after something of them could not be given",
            images_refused.clone(),
        );
        list.register_with_unit("store", "Size of the store", Unit::Bytes, store_bytes.clone());
        list.register_with_unit("store_limit", "Limit of the store's size", Unit::Bytes, store_limit_bytes.clone());
        list.register_with_unit(
            "store_pinned",
            "Content of the store that holders pinned: it is not evicted",
            Unit::Bytes,
            store_pinned_bytes.clone(),
        );
        list.register_with_unit(
            "store_pulled",
            "Content of the store that is pinned only because it was pulled through: it gives way",
            Unit::Bytes,
            store_pulled_bytes.clone(),
        );
        list.register("store_evictions", "Blobs removed to stay within the limit", store_evictions.clone());
        list.register("store_damaged", "Files of the store found damaged and dropped", store_damaged.clone());
        list.register("store_writable", "1 while the store takes new content", store_writable.clone());
        list.register("bucket_requests", "Requests sent to the bucket, retries included", bucket_requests.clone());
        list.register(
            "bucket_owed",
            "Blobs and records that wait for a bucket that does not answer",
            bucket_owed.clone(),
        );
        list.register("bucket_pins", "Pins of all clusters on the bucket", bucket_pins.clone());
        list.register("bucket_condemned", "Uploads that nobody may rely on any more", bucket_condemned.clone());
        list.register("bucket_removed", "Uploads removed from the bucket", bucket_removed.clone());
        list.register_with_unit(
            "bucket_removal_age",
            "Since it was last looked for what nobody wants",
            Unit::Seconds,
            bucket_removal_age.clone(),
        );
        list.register(
            "bucket_brake",
            "1 while nothing leaves the bucket before a person says that so few pins are right",
            bucket_brake.clone(),
        );
        list.register("connections", "Client connections that are open", connections.clone());
        list.register(
            "connections_refused",
            "Connections closed without a request being served",
            connections_refused.clone(),
        );
        list.register(
            "settings_invalid",
            "1 while the registries file is wrong and the settings read before are in force, or a part of it is left out",
            settings_invalid.clone(),
        );
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
