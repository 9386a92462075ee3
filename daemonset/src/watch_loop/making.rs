//! One look at the node: observe, plan, write what links lead to, apply; and how much of it may be in force now.

use super::{Life, WatchLoop};
use crate::apply_once::{Extent, Made, apply_once};
use crate::node;
use crate::proofs::{self, Proofs};
use anyhow::Context as _;
use larder_node_agent::engine::Report;
use larder_node_agent::liveness::Health;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What stays in force without us (an edit in an administrator's file, CRI-O's drop-in) stays over a short absence of the proxy, whose port then refuses at once.
const EDITS_OUTLAST: Duration = Duration::from_secs(30);

impl WatchLoop {
    /// Observes, plans, writes targets, applies.
    pub(super) async fn make_so(&mut self, life: &mut Life) -> anyhow::Result<()> {
        let mut in_use = self.around.config.named.clone();
        in_use.extend(life.learning.registries());
        in_use.extend(self.named_by_objects.iter().cloned());
        let desired = node::desired(&self.around.config.listen, &self.settings, in_use);
        life.announced = self.around.view.borrow().announced;
        let extent = self.extent();
        life.wanted_extent = extent;
        let (node, placement, announcer) =
            (Arc::clone(&life.node), Arc::clone(&life.placement), self.around.announcer.clone());
        let mut history = std::mem::take(&mut life.history);
        let (folder, settings) = (Arc::clone(&self.around.folder), self.settings.clone());
        let tell = move |report: &Report| {
            if folder.write_registries(&node::with_hints(settings, &report.origin_hints).to_toml())? {
                tracing::info!("the proxy is told about registries anew");
            }
            Ok(())
        };
        let step = tokio::task::spawn_blocking(move || {
            let made = apply_once(&node, &placement, &announcer, &desired, extent, &mut history, tell);
            (made, history)
        });
        let (made, history) = step.await.context("a look at the node")?;
        life.history = history;
        let Made { report, restart, watched, changed, conflicts } = made?;
        if changed > 0 {
            self.around.metrics.changes.inc_by(changed);
            // What was proved was proved of the files of before.
            life.prove_at = Some(Instant::now());
            life.engine_reload.files_changed();
        }
        life.extent = extent;
        life.restart = restart;
        if proofs::entries(&report) != life.proved {
            life.proofs = Proofs::default();
            life.failures = 0;
            life.prove_at = Some(Instant::now());
        }
        let fighting: Vec<String> = life
            .history
            .fights
            .under_way(Instant::now())
            .iter()
            .map(|fight| fight.path.display().to_string())
            .collect();
        match (conflicts.is_empty(), fighting.is_empty()) {
            (true, true) => drop(self.conditions.conflict.clear()),
            (false, _) => drop(self.conditions.conflict.set(conflicts.join("; "))),
            (true, false) => drop(
                self.conditions
                    .conflict
                    .set(format!("somebody else keeps changing {}: left alone for a while", fighting.join(", "))),
            ),
        }
        if let Some(watcher) = &mut life.watcher {
            for error in watcher.watch(&watched) {
                tracing::warn!(%error, "not watched; looked at once a minute");
            }
        }
        self.hints.clone_from(&report.origin_hints);
        life.report = report;
        Ok(())
    }

    pub(super) fn extent(&mut self) -> Extent {
        let view = self.around.view.borrow().clone();
        if view.announced {
            self.announced_at = Some(Instant::now());
        }
        extent_by(self.announced_at.map(|at| at.elapsed()), &view.health)
    }
}

/// Nothing is put on the node for a proxy that was never seen, and a lasting edit must not lead to a stranger, nor for
/// long to nobody; also not one that an agent before us left. `announced` is how long ago the proxy last was.
fn extent_by(announced: Option<Duration>, health: &Health) -> Extent {
    match announced {
        None if matches!(health, Health::Stranger(_)) => Extent::TakeBack,
        None => Extent::Look,
        Some(ago) if ago < EDITS_OUTLAST && !matches!(health, Health::Stranger(_)) => Extent::Everything,
        Some(_) => Extent::Links,
    }
}

#[cfg(test)]
mod tests {
    use super::{EDITS_OUTLAST, Extent, extent_by};
    use larder_node_agent::liveness::Health;
    use std::time::Duration;

    #[test]
    fn lasting_edits_outlast_a_short_absence_and_no_stranger() {
        let (now, stranger) = (Some(Duration::ZERO), Health::Stranger("nc".to_owned()));
        assert_eq!(extent_by(None, &Health::Starting), Extent::Look);
        assert_eq!(extent_by(None, &stranger), Extent::TakeBack);
        assert_eq!(extent_by(now, &Health::Well), Extent::Everything);
        assert_eq!(extent_by(now, &Health::Dead), Extent::Everything);
        assert_eq!(extent_by(now, &stranger), Extent::Links);
        assert_eq!(extent_by(Some(EDITS_OUTLAST), &Health::Dead), Extent::Links);
    }
}
