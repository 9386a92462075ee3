//! What the agent has to do with Kubernetes, where it was told to (`--kubernetes`): settings of registries come in, what is to be said of this node goes out.
//!
//! Invariants: pulls depend on none of it. Nothing here is waited for, at the start or later; what the API server says is taken into the settings only when
//! it can be used, and what was taken in stays in force, over restarts too ([`last_known`]), until the API server says otherwise and means it.
//!
//! In: [`larder_upstream_registries`] follows the UpstreamRegistry objects, as in the cluster cache, and what is [`Known`] goes to the watch loop, which has it merged
//! with the registries file and hands that to the proxy. Out: [`writing`] compares what the NodeMirror says
//! with what it should ([`mirror`]) and writes it as seldom as [`often`] lets it.

pub(crate) mod last_known;
mod mirror;
mod often;
mod writing;

use crate::config::NodeName;
use crate::metrics::Metrics;
use crate::status::{KubernetesStatus, Status};
use crate::supervisor::View;
use larder_node_agent::placement::Announcer;
use larder_process::readiness::Readiness;
use larder_process::tasks::Tasks;
use larder_upstream_registries::{Known, Reading, Watching};
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

pub(crate) use last_known::Keeper;

/// Which rights it takes.
const RIGHTS: &str = "docs/node-rights.yaml";

/// To a connection to the API server, with TLS. Nothing waits for it.
const CONNECT: Duration = Duration::from_secs(5);

/// What the watch loop has of it.
pub(crate) struct Kubernetes {
    /// What the objects say.
    known: watch::Receiver<Arc<Known>>,
    reading: Reading,
    keeper: Keeper,
    node: NodeName,
    written: Written,
}

/// What it takes to tell of the node.
pub(crate) struct Telling {
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) announcer: Announcer,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
}

impl Kubernetes {
    /// Starts all of it. `known` is what an agent before this one knew.
    pub(crate) fn start(tasks: &Tasks, node: NodeName, known: Option<Known>, keeper: Keeper, telling: Telling) -> Self {
        let watching = Watching::new(known);
        let (known, reading, written, stop) =
            (watching.known(), watching.reading(), Written::default(), tasks.shutdown());
        let trouble = telling.readiness.condition("api server");
        tasks.spawn("upstream registries", watching.follow(trouble, RIGHTS, CONNECT, stop.clone()));
        tasks.spawn("last known", keeper.clone().follow(known.clone(), reading.clone(), stop.clone()));
        let writing = writing::Writing::new(node.clone(), written.clone(), telling);
        tasks.spawn("node mirror", writing.follow(stop.clone()));
        Self { known, reading, keeper, node, written }
    }

    pub(crate) fn known(&mut self) -> Arc<Known> {
        Arc::clone(&self.known.borrow_and_update())
    }

    /// Ends when there is something that [`Self::known`] has not given yet.
    pub(crate) async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            // The process ends.
            std::future::pending::<()>().await;
        }
    }

    /// Where the node's files are.
    pub(crate) fn found(&self, root: PathBuf) {
        self.keeper.found(root);
    }

    /// For `larder-node status`.
    pub(crate) fn status(&self, left_out: Vec<String>) -> KubernetesStatus {
        KubernetesStatus {
            node: self.node.0.clone(),
            source: self.reading.known_from().as_str().to_owned(),
            read_at: self.reading.at().map(seconds),
            objects: self.known.borrow().objects,
            left_out,
            written_at: self.written.at(),
        }
    }
}

/// When the NodeMirror was last written, in seconds since 1970; 0: not yet.
#[derive(Debug, Clone, Default)]
struct Written(Arc<AtomicU64>);

impl Written {
    fn now(&self) {
        self.0.store(seconds(SystemTime::now()), Ordering::Relaxed);
    }

    fn at(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A part of `most`, another one each time: so that the nodes of a cluster do the same thing at different times.
fn a_part_of(most: Duration) -> Duration {
    // The one source of random numbers of the standard library: its maps are keyed by it.
    let random = RandomState::new().hash_one(0) % 1024;
    most.mul_f64(f64::from(u32::try_from(random).unwrap_or_default()) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_do_the_same_thing_at_different_times() {
        let most = Duration::from_secs(10);
        let parts: std::collections::BTreeSet<_> = (0..64).map(|_| a_part_of(most)).collect();
        assert!(parts.len() > 8 && parts.iter().all(|part| *part < most), "{parts:?}");
    }
}
