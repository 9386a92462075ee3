//! When the edit that takes a restart of the engine is made, and what is said where it is not.

use super::{Life, WatchLoop};
use crate::apply_once::Extent;
use crate::engine_restart::{self, Memory, Outcome};
use crate::node::Node;
use larder_node_agent::engine::Readiness as Verdict;
use std::sync::Arc;
use std::time::Instant;

impl WatchLoop {
    /// No engine answers. Where a killed agent was restarting it with our edit, that edit may be why: it is taken back once the engine has
    /// had the time that it was given.
    pub(super) async fn take_back_what_was_begun(&mut self) {
        let config = &self.around.config.engine;
        let Some(permission) = &config.restart else { return };
        let Some(node) = Node::by_journal(config) else { return };
        if !Memory::of(&node).is_begun() || !node.config_is_edited().unwrap_or_default() {
            return;
        }
        let away = self.engine_away_since.get_or_insert_with(Instant::now).elapsed();
        let condition = &self.conditions.engine_restart;
        if away < permission.limit {
            let left = permission.limit.saturating_sub(away).as_secs();
            condition.set(format!(
                "the engine was being restarted with an edit of ours and does not answer; the edit is taken back in {left} s"
            ));
            return;
        }
        self.around.metrics.failures.inc();
        let why = anyhow::anyhow!(
            "the engine did not come back within {:?}, and the agent that restarted it was gone",
            permission.limit
        );
        let before = engine_restart::before(&node);
        match engine_restart::roll_back(config, permission, &Arc::new(node), &before, why).await {
            Ok(Outcome::Restarted) => condition.clear(),
            Ok(Outcome::RolledBack(why)) => condition.set(format!("tried and rolled back: {why}")),
            Err(error) => condition.set(format!("{error:#}")),
        };
    }

    /// The one change that takes a restart of the engine, where it is needed: made with permission, else said what to do.
    pub(super) async fn restart_engine(&self, life: &Life) {
        let condition = &self.conditions.engine_restart;
        let config = &self.around.config.engine;
        let memory = Memory::of(&life.node);
        let now = life.extent == Extent::Everything;
        let outcome = match (life.report.readiness, &life.restart, &config.restart) {
            (Verdict::NeedsConfigToml, Some(edit), Some(permission)) => {
                if let Some(reason) = memory.reason(edit) {
                    condition.set(reason);
                    return;
                }
                if !now {
                    condition.set("config_path will be set and the engine restarted once the proxy is well");
                    return;
                }
                engine_restart::edit_and_restart(config, permission, &life.node, edit).await
            }
            (Verdict::NeedsConfigToml, Some(edit), None) => {
                condition.set(engine_restart::advice(edit));
                return;
            }
            // An agent that was killed between its edit and the restart goes on here.
            (Verdict::Ready, _, Some(permission)) if now && is_begun(life) => {
                engine_restart::finish(config, permission, &life.node).await
            }
            _ => {
                condition.clear();
                return;
            }
        };
        match outcome {
            Ok(Outcome::Restarted) => {
                tracing::info!("the engine was restarted and answers");
                condition.clear();
            }
            Ok(Outcome::RolledBack(why)) => {
                self.around.metrics.failures.inc();
                tracing::error!(why, "the edit of the engine's configuration was rolled back");
                // As it is told from now on, with what to do about it.
                let reason = life.restart.as_ref().and_then(|edit| memory.reason(edit));
                condition.set(reason.unwrap_or_else(|| format!("tried and rolled back: {why}")));
            }
            Err(error) => {
                self.around.metrics.failures.inc();
                if condition.set(format!("{error:#}")) {
                    tracing::error!(error = format!("{error:#}"), "the engine's configuration was not edited");
                }
            }
        }
    }
}

/// Our edit is in the engine's configuration, and the engine started before it.
fn is_begun(life: &Life) -> bool {
    let newer = life.runs() && life.report.conditions.iter().any(|condition| condition.kind == "ConfigurationNewer");
    newer && life.node.config_is_edited().unwrap_or_default()
}
