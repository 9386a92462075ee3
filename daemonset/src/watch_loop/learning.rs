//! Which registries are in use, for an engine that has no entry for all others and has to be told of each by name (CRI-O).

use super::{Life, WatchLoop};
use crate::in_use::InUse;
use crate::node::Node;
use larder_oci::Registry;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at the engine's images: so soon after its first image a registry is asked through us.
const LEARN_EVERY: Duration = Duration::from_secs(10);

/// What was learnt of one engine, and when to look again.
pub(super) struct Learning {
    needs_names: bool,
    in_use: InUse,
    at: Instant,
}

impl Learning {
    /// With what an agent before this one learnt. Reads a file.
    pub(super) fn of(node: &Node) -> Self {
        let needs_names = node.engine.needs_names();
        let in_use = if needs_names { InUse::read(node) } else { InUse::default() };
        Self { needs_names, in_use, at: Instant::now() }
    }

    pub(super) fn registries(&self) -> BTreeSet<Registry> {
        self.in_use.registries()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.needs_names && now >= self.at
    }
}

impl WatchLoop {
    /// Learns from the engine's images, when it is time to. True when the node has to be looked at again.
    pub(super) async fn learn(&self, life: &mut Life) -> bool {
        if !life.learning.is_due(Instant::now()) {
            return false;
        }
        life.learning.at = Instant::now() + LEARN_EVERY;
        let Some(running) = &life.node.running else { return false };
        let images = match running.cri.list_images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::debug!(%error, "the engine's images are not known");
                return false;
            }
        };
        let before = life.learning.registries();
        let news = life.learning.in_use.learn(&images, SystemTime::now());
        match life.learning.in_use.condition() {
            Some(condition) => drop(self.conditions.in_use.set(condition)),
            None => drop(self.conditions.in_use.clear()),
        }
        if news {
            let (node, in_use) = (Arc::clone(&life.node), life.learning.in_use.clone());
            let kept = tokio::task::spawn_blocking(move || in_use.keep(&node)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "registries in use are known until this process ends only"
                );
            }
        }
        life.learning.registries() != before
    }
}
