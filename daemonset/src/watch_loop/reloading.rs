//! What an engine without an entry for all others needs beside its files (CRI-O): to be told which registries are in use,
//! and to be told to read again.

use super::{Life, WatchLoop};
use crate::engine_reload;
use crate::in_use::InUse;
use crate::node::Node;
use larder_node_agent::engine::Reload;
use larder_oci::Registry;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at the engine's images: so soon after its first image a registry is asked through us.
const LEARN_EVERY: Duration = Duration::from_secs(10);
/// An engine that read again is asked for a canary until it has.
pub(super) const READS_WITHIN: Duration = Duration::from_secs(3);

/// The registries in use, and the engine's knowledge of its files.
pub(super) struct EngineReload {
    needs_names: bool,
    in_use: InUse,
    learn_at: Instant,
    /// When it has to be told: the files changed, or it was seen not to know them.
    reload_at: Option<Instant>,
    pub(super) reloaded_at: Option<Instant>,
}

impl EngineReload {
    pub(super) fn of(node: &Node) -> Self {
        let needs_names = node.engine.needs_names();
        let in_use = if needs_names { InUse::read(node) } else { InUse::default() };
        let now = Instant::now();
        // The agent before this one may have been killed between a file and its signal: the file is as it should be then, and the engine
        // was never told. A canary would not show it, whose entry is an old one.
        let reload_at = reads_when_told(node).then_some(now);
        Self { needs_names, in_use, learn_at: now, reload_at, reloaded_at: None }
    }

    pub(super) fn registries(&self) -> BTreeSet<Registry> {
        self.in_use.registries()
    }

    pub(super) fn wants_to_learn(&self, now: Instant) -> bool {
        self.needs_names && now >= self.learn_at
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
    /// Learns from the engine's images, when it is time to. True when the node has to be looked at again.
    pub(super) async fn learn(&self, life: &mut Life) -> bool {
        if !life.engine_reload.wants_to_learn(Instant::now()) {
            return false;
        }
        life.engine_reload.learn_at = Instant::now() + LEARN_EVERY;
        let Some(running) = &life.node.running else { return false };
        let images = match running.cri.list_images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::debug!(%error, "the engine's images are not known");
                return false;
            }
        };
        let before = life.engine_reload.registries();
        let news = life.engine_reload.in_use.learn(&images, SystemTime::now());
        match life.engine_reload.in_use.condition() {
            Some(condition) => drop(self.conditions.in_use.set(condition)),
            None => drop(self.conditions.in_use.clear()),
        }
        if news {
            let (node, in_use) = (Arc::clone(&life.node), life.engine_reload.in_use.clone());
            let kept = tokio::task::spawn_blocking(move || in_use.keep(&node)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "registries in use are known until this process ends only"
                );
            }
        }
        life.engine_reload.registries() != before
    }

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
