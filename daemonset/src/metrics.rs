//! The agent's own numbers: whether the engine is told to ask the proxy, is seen to, and how often we had to intervene.

use larder_process::readiness::{Readiness, Severity};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

/// A condition that is set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    /// As `/readyz` names it, with underscores.
    condition: String,
    /// `degraded` or `not_ready`.
    severity: &'static str,
}

/// Declared once; what `/metrics` of the agent shows.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) announced: Gauge,
    pub(crate) configured: Gauge,
    pub(crate) proxy_starts: Counter,
    pub(crate) proxy_kills: Counter,
    pub(crate) changes: Counter,
    pub(crate) failures: Counter,
    pub(crate) node_mirror_writes: Counter,
    pub(crate) left_alone: Gauge,
    pub(crate) unproved: Gauge,
    /// Locked while they are written anew and read out.
    conditions: Mutex<Family<ConditionLabels, Gauge>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("larder_agent");
        registry.register("build", "Version of this program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let announced = gauge("announced", "1 while the engine is told to ask the proxy");
        let configured = gauge("configured", "1 while the engine was seen to ask the proxy");
        let left_alone = gauge("registries_left_alone", "Registries that keep what the administrator gave them");
        let unproved =
            gauge("registries_unproved", "Entries of single registries that the engine was not seen to follow");
        let (changes, failures) = (Counter::default(), Counter::default());
        let (proxy_starts, proxy_kills) = (Counter::default(), Counter::default());
        let kills = "Times that the proxy was killed because it did not answer";
        registry.register("proxy_starts", "Times that the proxy was started by this agent", proxy_starts.clone());
        registry.register("proxy_kills", kills, proxy_kills.clone());
        registry.register("changes", "Paths of the engine that were changed or repaired", changes.clone());
        registry.register("failures", "Looks at the node that ended in an error", failures.clone());
        let node_mirror_writes = Counter::default();
        let writes = "Times that this node's NodeMirror was written";
        registry.register("node_mirror_writes", writes, node_mirror_writes.clone());
        let conditions = Family::<ConditionLabels, Gauge>::default();
        registry.register("condition", "1 while the agent's status has this condition", conditions.clone());
        Self {
            registry,
            announced,
            configured,
            proxy_starts,
            proxy_kills,
            changes,
            failures,
            node_mirror_writes,
            left_alone,
            unproved,
            conditions: Mutex::new(conditions),
        }
    }

    /// Takes over what was counted elsewhere. A counter never goes back.
    pub(crate) fn count(&self, starts: u64, kills: u64) {
        self.proxy_starts.inner().fetch_max(starts, Ordering::Relaxed);
        self.proxy_kills.inner().fetch_max(kills, Ordering::Relaxed);
    }

    /// The numbers of this moment.
    pub(crate) fn text(&self, readiness: &Readiness) -> String {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.clear();
        for (name, severity) in readiness.set_conditions() {
            let severity = match severity {
                Severity::Degraded => "degraded",
                Severity::NotReady => "not_ready",
            };
            let labels = ConditionLabels { condition: name.replace(' ', "_"), severity };
            conditions.get_or_create(&labels).set(1);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Metrics, Readiness};

    #[test]
    fn the_list_of_metrics_is_known() {
        let metrics = Metrics::new();
        metrics.count(2, 1);
        metrics.count(1, 0);
        let readiness = Readiness::new();
        let (wrong, well) = (readiness.condition("engine restart"), readiness.requirement("proxy"));
        wrong.set("it was rolled back");
        well.set("dead");
        assert!(metrics.text(&readiness).contains("condition=\"proxy\",severity=\"not_ready\"} 1"));
        well.clear();
        // A release must not need a new snapshot.
        insta::assert_snapshot!(metrics.text(&readiness).replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
}
