//! When an engine that reads its files only when it is told to (CRI-O) is told.

use super::{Life, WatchLoop};
use crate::engine_reload;
use crate::node::Node;
use larder_node_agent::engine::Reload;
use std::time::{Duration, Instant};

/// An engine that read again is asked for a canary until it has.
pub(super) const READS_WITHIN: Duration = Duration::from_secs(3);

/// The engine's knowledge of its files.
pub(super) struct EngineReload {
    /// When it has to be told: the files changed, or it was seen not to know them.
    reload_at: Option<Instant>,
    pub(super) reloaded_at: Option<Instant>,
}

impl EngineReload {
    pub(super) fn of(node: &Node) -> Self {
        // The agent before this one may have been killed between a file and its signal: the file is as it should be then, and the engine
        // was never told. A canary would not show it, whose entry is an old one.
        Self { reload_at: reads_when_told(node).then(Instant::now), reloaded_at: None }
    }

    pub(super) fn files_changed(&mut self) {
        self.reload_at = Some(Instant::now());
    }

    /// Together with the next canary, unless the files change before.
    fn not_known_yet(&mut self, next_canary: Option<Instant>) {
        self.reload_at = self.reload_at.or(next_canary);
    }
}

impl WatchLoop {
    /// Tells the engine to read its files again, where that is due.
    pub(super) fn reload_engine(&self, life: &mut Life) {
        if life.engine_reload.reload_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        match engine_reload::reload(&life.node) {
            Ok(told) => {
                life.engine_reload.reload_at = None;
                self.conditions.reload.clear();
                if told {
                    let now = Instant::now();
                    life.engine_reload.reloaded_at = Some(now);
                    life.prove_at = Some(now);
                }
            }
            Err(error) => {
                if self.conditions.reload.set(format!("the engine does not know of its files yet: {error:#}")) {
                    tracing::error!(error = format!("{error:#}"), "the engine was not told to read its files again");
                }
            }
        }
    }
}

fn reads_when_told(node: &Node) -> bool {
    matches!(node.engine.reload(), Reload::Signal(_))
}

/// An engine that reads only when it is told to may have been told in vain: an error elsewhere in its files makes CRI-O skip
/// these without a word. Told once more it comes to no harm, whatever the reason was why it was not seen to ask.
pub(super) fn tell_again(life: &mut Life) {
    if reads_when_told(&life.node) {
        life.engine_reload.not_known_yet(life.prove_at);
    }
}

/// When everything was taken back.
pub(super) fn reload_after_removal(node: &Node) {
    if node.running.as_ref().is_none_or(|running| !running.found.process.is_running()) {
        // It reads them when it starts.
        return;
    }
    if let Err(error) = engine_reload::reload(node) {
        let error = format!("{error:#}");
        tracing::warn!(error, "the engine goes on with what it read; our port refuses it at once");
    }
}
