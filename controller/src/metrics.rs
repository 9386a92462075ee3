//! What the controller counts. The list is a snapshot test.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted by kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    kind: &'static str,
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
}

/// Where something waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Queue {
    queue: &'static str,
}

/// A condition of images and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    condition: &'static str,
    reason: &'static str,
}

/// Why an image is left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Why {
    reason: &'static str,
}

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leads: Gauge<i64, AtomicI64>,
    queues: Family<Queue, Gauge<i64, AtomicI64>>,
    images: Family<Reason, Gauge<i64, AtomicI64>>,
    registries: Family<Reason, Gauge<i64, AtomicI64>>,
    left_out: Family<Why, Gauge<i64, AtomicI64>>,
    events: Family<Why, Counter<u64, AtomicU64>>,
    events_dropped: Family<Why, Counter<u64, AtomicU64>>,
    known: Family<Kind, Gauge<i64, AtomicI64>>,
    held: Gauge<i64, AtomicI64>,
    expiry_held: Gauge<i64, AtomicI64>,
    unreadable: Family<Kind, Gauge<i64, AtomicI64>>,
    writes: Family<Kind, Counter<u64, AtomicU64>>,
    write_errors: Family<Kind, Counter<u64, AtomicU64>>,
    watch_errors: Family<Kind, Counter<u64, AtomicU64>>,
    fetches: Family<Outcome, Counter<u64, AtomicU64>>,
    checks: Family<Outcome, Counter<u64, AtomicU64>>,
    passes: Family<Outcome, Counter<u64, AtomicU64>>,
    cache_errors: Counter<u64, AtomicU64>,
    looks: Counter<u64, AtomicU64>,
    visited: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("larder_controller");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                register!(metric, $name, $help);
                metric
            }};
            ($metric:ident, $name:literal, $help:literal) => {
                registry.register($name, $help, Clone::clone(&$metric))
            };
        }
        let leads = Gauge::default();
        register!(leads, "leads", "1 where this replica works, 0 where it waits for the lease");
        let queues = Family::default();
        register!(
            queues,
            "queue",
            "Images that wait: to be fetched, after a failure, under way, to be written down, being written"
        );
        let images = Family::default();
        register!(images, "images", "CachedImages by the reason of each of their conditions");
        let registries = Family::default();
        register!(registries, "registries", "UpstreamRegistries by the reason of each of their conditions");
        let left_out = Family::default();
        register!(left_out, "left_out", "Images that Pods use and that are not cached, by why");
        let events = Family::default();
        register!(events, "events", "Events that were to be written, by their reason");
        let events_dropped = Family::default();
        register!(
            events_dropped,
            "events_dropped",
            "Events that were not written, for there were too many or the API server did not take them, by their reason"
        );
        let known = Family::default();
        register!(known, "known", "Objects that are known of");
        let held = Gauge::default();
        register!(held, "held_back", "Pins that would be removed and are held back by the brake");
        let expiry_held = Gauge::default();
        register!(expiry_held, "expiry_held_back", "Images that would expire and are held back by the brake");
        let unreadable = Family::default();
        register!(unreadable, "unreadable", "Objects that cannot be read, and references of Pods that are none");
        let writes = Family::default();
        register!(writes, "writes", "Writes to the API server, by what is written");
        let write_errors = Family::default();
        register!(write_errors, "write_errors", "Writes that the API server did not take, by what was written");
        let watch_errors = Family::default();
        register!(watch_errors, "watch_errors", "Watches that broke, by what is watched");
        let fetches = Family::default();
        register!(fetches, "fetches", "Images that the cluster cache was to fetch, by how that ended");
        let checks = Family::default();
        register!(checks, "checks", "Questions to registries what a tag means, by what they said");
        let passes = Family::default();
        register!(passes, "passes", "Comparisons of all pins with all images, by how they ended");
        let cache_errors = Counter::default();
        register!(cache_errors, "cache_errors", "Requests to the cluster cache that failed");
        let looks = Counter::default();
        register!(looks, "looks", "Times that an image was compared with its object");
        let visited = Counter::default();
        register!(
            visited,
            "objects_visited",
            "CachedImages in memory that were looked at: of one change, those of its images"
        );
        Self {
            registry,
            leads,
            queues,
            images,
            registries,
            left_out,
            events,
            events_dropped,
            known,
            held,
            expiry_held,
            unreadable,
            writes,
            write_errors,
            watch_errors,
            fetches,
            checks,
            passes,
            cache_errors,
            looks,
            visited,
        }
    }
}

impl Metrics {
    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// Whether this replica works.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// How many wait there.
    pub fn queue(&self, queue: &'static str, length: usize) {
        self.queues.get_or_create(&Queue { queue }).set(number(length));
    }

    /// How many there are.
    pub fn known(&self, kind: &'static str, count: usize) {
        self.known.get_or_create(&Kind { kind }).set(number(count));
    }

    /// How many images have each reason.
    pub fn images(&self, condition: &'static str, reason: &'static str, count: usize) {
        self.images.get_or_create(&Reason { condition, reason }).set(number(count));
    }

    /// How many images are left out for this reason.
    pub fn left_out(&self, reason: &'static str, count: usize) {
        self.left_out.get_or_create(&Why { reason }).set(number(count));
    }

    /// How many registries have each reason; those that are not named have none.
    pub fn registries(&self, counts: impl IntoIterator<Item = (&'static str, &'static str, usize)>) {
        self.registries.clear();
        for (condition, reason, count) in counts {
            self.registries.get_or_create(&Reason { condition, reason }).set(number(count));
        }
    }

    /// Whoever does not lead says nothing of images and registries.
    pub fn forget_images(&self) {
        self.images.clear();
        self.registries.clear();
        self.left_out.clear();
    }

    /// An event was to be written.
    pub fn event(&self, reason: &'static str) {
        self.events.get_or_create(&Why { reason }).inc();
    }

    /// An event was not written.
    pub fn event_dropped(&self, reason: &'static str) {
        self.events_dropped.get_or_create(&Why { reason }).inc();
    }

    /// How many pins are held back.
    pub fn held(&self, count: usize) {
        self.held.set(number(count));
    }

    /// How many images are held back that would expire.
    pub fn expiry_held(&self, count: usize) {
        self.expiry_held.set(number(count));
    }

    /// How many of them cannot be read.
    pub fn unreadable(&self, kind: &'static str, count: usize) {
        self.unreadable.get_or_create(&Kind { kind }).set(number(count));
    }

    /// Something was written.
    pub fn wrote(&self, kind: &'static str) {
        self.writes.get_or_create(&Kind { kind }).inc();
    }

    /// Something was not written; that somebody else wrote before is no error.
    pub fn write_failed(&self, kind: &'static str) {
        self.write_errors.get_or_create(&Kind { kind }).inc();
    }

    /// A watch broke.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// A fetch ended so.
    pub fn fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&Outcome { outcome }).inc();
    }

    /// A registry was asked, and this is what it said.
    pub fn checked(&self, outcome: &'static str) {
        self.checks.get_or_create(&Outcome { outcome }).inc();
    }

    /// A pass ended so.
    pub fn passed(&self, outcome: &'static str) {
        self.passes.get_or_create(&Outcome { outcome }).inc();
    }

    /// An image was compared with its object.
    pub fn looked(&self) {
        self.looks.inc();
    }

    /// So many objects in memory were looked at.
    pub fn visited(&self, count: u64) {
        self.visited.inc_by(count);
    }

    /// The cluster cache failed.
    pub fn cache_failed(&self) {
        self.cache_errors.inc();
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list() {
        let metrics = Metrics::default();
        // A family without a member is not on the page. Taken apart without `..`, so that none is forgotten.
        let Metrics {
            registry: _,
            leads: _,
            queues,
            images,
            registries,
            left_out,
            events,
            events_dropped,
            known,
            held: _,
            expiry_held: _,
            unreadable,
            writes,
            write_errors,
            watch_errors,
            fetches,
            checks,
            passes,
            cache_errors: _,
            looks: _,
            visited: _,
        } = &metrics;
        let _ = queues.get_or_create(&Queue { queue: "ready" });
        let _ = images.get_or_create(&Reason { condition: "Cached", reason: "Complete" });
        let _ = left_out.get_or_create(&Why { reason: "Excluded" });
        for counters in [events, events_dropped] {
            let _ = counters.get_or_create(&Why { reason: "Gone" });
        }
        let _ = registries.get_or_create(&Reason { condition: "Reachable", reason: "Answers" });
        let _ = known.get_or_create(&Kind { kind: "pods" });
        let _ = unreadable.get_or_create(&Kind { kind: "pods" });
        for counters in [writes, write_errors, watch_errors] {
            let _ = counters.get_or_create(&Kind { kind: "pods" });
        }
        for counters in [fetches, checks, passes] {
            let _ = counters.get_or_create(&Outcome { outcome: "complete" });
        }
        let text = metrics.text();
        // As they are asked for: a counter's name has an end that its help has not.
        let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
        let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        let names: Vec<String> = helps
            .map(|(name, help)| format!("{name}{} {help}", if is_counter(name) { "_total" } else { "" }))
            .collect();
        insta::assert_snapshot!("list", names.join("\n"));
    }
}
