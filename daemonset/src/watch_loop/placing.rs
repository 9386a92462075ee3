//! Where the targets of links lie: in the agent's private mount, else below `/run`.

use super::{Life, PRIVATE_MOUNT_RESTS, WatchLoop};
use crate::args::PlacementArg;
use crate::by_hand::run_folder;
use crate::node::Node;
use larder_node_agent::placement::{Kind, Placement};
use std::sync::Arc;
use std::time::Instant;

impl WatchLoop {
    pub(super) fn placement(&mut self, node: &Node) -> anyhow::Result<Arc<Placement>> {
        let engine = node.running.as_ref().map_or(0, |running| running.found.process.pid);
        let run = run_folder(&self.around.config.engine.run_dir);
        if !node.engine.places_links() {
            // Nothing leads there, so it does not matter where it is.
            self.conditions.placement.clear();
            return Ok(Arc::new(Placement::in_run_folder_of_agent(&node.root, &run)?));
        }
        let rests = self.private_mount_rests_until.is_some_and(|until| Instant::now() < until);
        if let Some(mount) = self.around.mount.as_ref().filter(|_| !rests) {
            match Placement::in_private_mount(mount, engine) {
                Ok(placement) => {
                    self.conditions.placement.clear();
                    return Ok(Arc::new(placement));
                }
                Err(error) if self.around.config.placement == PlacementArg::ByAgent => return Err(error.into()),
                Err(error) => self.fall_back(&error.to_string()),
            }
        }
        Ok(Arc::new(Placement::in_run_folder_of_agent(&node.root, &run)?))
    }

    pub(super) fn fall_back(&mut self, reason: &str) {
        self.private_mount_rests_until = Some(Instant::now() + PRIVATE_MOUNT_RESTS);
        tracing::warn!(reason, "links lead into /run instead of into the agent");
        self.conditions.placement.set(format!("links lead into /run, not into the agent: {reason}"));
    }

    /// When the private mount has rested, or the folder under `/run` was removed.
    pub(super) fn replace_placement(&mut self, life: &mut Life) {
        let rested = self.private_mount_rests_until.is_some_and(|until| Instant::now() >= until);
        let due = rested && life.placement.kind() == Kind::RunFolder;
        if !due && !life.placement.is_lost() {
            return;
        }
        match self.placement(&life.node) {
            Ok(placement) => {
                (life.placement, life.unfollowed) = (placement, 0);
                life.prove_at = Some(Instant::now());
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "links go on leading where they did"),
        }
    }
}
