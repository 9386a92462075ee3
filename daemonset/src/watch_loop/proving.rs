//! When the engine is asked whether it asks us, and what follows from its answers.

use super::reloading::{READS_WITHIN, tell_again};
use super::{Life, PATIENCE, PROVE_AGAIN, PROVE_AGAIN_LATEST, PROVE_AT_LEAST, PROVE_AT_MOST, WatchLoop};
use crate::args::PlacementArg;
use crate::proofs::{self, Proofs};
use larder_node_agent::confirm::{Confirmation, confirm, nowhere};
use larder_node_agent::placement::Kind;
use std::time::{Duration, Instant};

const BETWEEN_CANARIES: Duration = Duration::from_millis(100);

impl WatchLoop {
    /// Sends canaries when it is time to and the entries are in force.
    pub(super) async fn prove(&mut self, life: &mut Life) {
        let due = life.prove_at.is_some_and(|at| Instant::now() >= at);
        if !due || !self.around.announcer.is_announced() {
            return;
        }
        let Some(running) = life.node.running.clone() else { return };
        let pull = running.pull_probe();
        let begun = Instant::now();
        let mut proofs = Proofs::default();
        for (kind, of) in proofs::to_try(&life.report) {
            let Some(registry) = of.clone().or_else(nowhere) else { continue };
            if begun.elapsed() > PROVE_AT_MOST {
                break;
            }
            let mut proof = confirm(&pull, &self.around.seen, &registry).await;
            // It was told to read its files again a moment ago, and has not done so yet, maybe.
            let reads = |at: Instant| at.elapsed() < READS_WITHIN;
            while !proof.is_confirmed() && life.engine_reload.reloaded_at.is_some_and(reads) {
                tokio::time::sleep(BETWEEN_CANARIES).await;
                proof = confirm(&pull, &self.around.seen, &registry).await;
            }
            match &proof {
                Confirmation::Confirmed { .. } => tracing::info!(?kind, %registry, "the engine asks the proxy"),
                Confirmation::NotAsked { reason } => {
                    tracing::warn!(?kind, %registry, reason, "whether the engine asks the proxy is not known");
                }
                Confirmation::NotSeen { reason, by_itself } => {
                    tracing::warn!(?kind, %registry, reason, by_itself, "the engine does not ask the proxy");
                }
            }
            proofs.set((kind, of), proof);
        }
        // A proof while the entries were taken away proves nothing either way.
        if !self.around.announcer.is_announced() {
            return;
        }
        life.proved = proofs::entries(&life.report);
        life.proofs = proofs;
        let unproved = !life.proofs.all_confirmed();
        if unproved {
            let wait = PROVE_AGAIN.saturating_mul(1_u32.checked_shl(life.failures).unwrap_or(u32::MAX));
            life.failures = life.failures.saturating_add(1);
            life.prove_at = Some(Instant::now() + wait.min(PROVE_AGAIN_LATEST));
            tell_again(life);
            let none = life.proofs.none_was_followed();
            life.unfollowed = life.unfollowed.saturating_add(none.into());
            let auto = self.around.config.placement == PlacementArg::Auto && life.node.engine.places_links();
            if none && auto && life.unfollowed >= PATIENCE && life.placement.kind() == Kind::PrivateMount {
                self.fall_back("the engine was not seen to follow them (SELinux and AppArmor can be why)");
                match self.placement(&life.node) {
                    Ok(placement) => life.placement = placement,
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "links stay where they lead");
                        self.conditions
                            .placement
                            .set(format!("links lead where the engine does not follow: {error:#}"));
                    }
                }
                life.prove_at = Some(Instant::now());
            }
        } else {
            life.failures = 0;
            life.unfollowed = 0;
            life.prove_at = Some(Instant::now() + PROVE_AT_LEAST);
        }
    }
}
