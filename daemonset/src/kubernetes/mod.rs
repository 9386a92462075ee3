//! What the agent has to do with Kubernetes, where it was told to (`--kubernetes`): settings of registries come in, what is to be said of this node goes out.
//!
//! Invariants: pulls depend on none of it. Nothing here is waited for, at the start or later; what the API server says is taken into the settings only when
//! it can be used, and what was taken in stays in force, over restarts too ([`last_known`]), until the API server says otherwise and means it.
//!
//! In: [`watching`] follows the UpstreamRegistry objects ([`objects`] keeps them, [`said`] checks what one of them says), and what is [`Known`] goes to the watch
//! loop, which has it merged with the registries file ([`merging`]) and hands that to the proxy. Out: [`writing`] compares what the NodeMirror says
//! with what it should ([`mirror`]) and writes it as seldom as [`often`] lets it.

mod api_server;
pub(crate) mod last_known;
pub(crate) mod merging;
mod mirror;
mod objects;
mod often;
mod said;
mod watching;
mod writing;

use crate::config::NodeName;
use crate::metrics::Metrics;
use crate::status::{KubernetesStatus, Status};
use crate::supervisor::View;
use larder_node_agent::placement::Announcer;
use larder_process::readiness::Readiness;
use larder_process::tasks::Tasks;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

pub(crate) use last_known::Keeper;
pub(crate) use objects::Known;

/// What the watch loop has of it.
pub(crate) struct Kubernetes {
    /// What the objects say.
    known: watch::Receiver<Arc<Known>>,
    reading: Reading,
    keeper: Keeper,
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
        let reading = Reading::new(&node, known.is_some());
        let (sender, receiver) = watch::channel(Arc::new(known.unwrap_or_default()));
        let stop = tasks.shutdown();
        let watching = watching::Watching::new(sender, reading.clone(), &telling.readiness);
        tasks.spawn("upstream registries", watching.follow(stop.clone()));
        tasks.spawn("last known", keeper.clone().follow(receiver.clone(), reading.clone(), stop.clone()));
        tasks.spawn("node mirror", writing::Writing::new(node, reading.clone(), telling).follow(stop.clone()));
        Self { known: receiver, reading, keeper }
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
        let known = self.known.borrow();
        KubernetesStatus { objects: known.objects, left_out, ..self.reading.status() }
    }
}

/// How far reading and writing are, for the status.
#[derive(Debug, Clone)]
pub(crate) struct Reading(Arc<Mutex<KubernetesStatus>>);

impl Reading {
    fn new(node: &NodeName, from_disk: bool) -> Self {
        let source = if from_disk { "disk" } else { "nothing" };
        let status =
            KubernetesStatus { node: node.0.clone(), source: source.to_owned(), ..KubernetesStatus::default() };
        Self(Arc::new(Mutex::new(status)))
    }

    fn status(&self) -> KubernetesStatus {
        self.lock().clone()
    }

    /// The API server has just said something.
    fn read(&self) {
        let mut status = self.lock();
        "api-server".clone_into(&mut status.source);
        status.read_at = Some(seconds(SystemTime::now()));
    }

    fn has_read(&self) -> bool {
        self.lock().source == "api-server"
    }

    fn written(&self) {
        self.lock().written_at = Some(seconds(SystemTime::now()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, KubernetesStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
