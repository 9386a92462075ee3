//! The agent's loop: observe → plan → apply → confirm, again whenever something that matters changed and at least once a
//! minute, for one running engine after the other.
//!
//! Invariant: it only ever makes the node more like the plan; when entries are in force is the supervising thread's
//! decision alone. An error is a condition and another try, never an end.

mod placing;
mod proving;
mod reloading;
mod restarting;
mod telling;

use crate::apply_once::{Extent, History, Made, apply_once};
use crate::config::Agent as Config;
use crate::metrics::Metrics;
use crate::node::{self, Node};
use crate::probe::Seen;
use crate::proofs::{self, Entry, Proofs};
use crate::run_folder::RunFolder;
use crate::status::Status;
use crate::supervisor::View;
use anyhow::Context as _;
use larder_node_agent::engine::{Report, RestartEdit};
use larder_node_agent::host::{HostError, Lock};
use larder_node_agent::liveness::Health;
use larder_node_agent::placement::{Announcer, Placement, PrivateMount};
use larder_node_agent::watch::Watcher;
use larder_process::readiness::{Condition, Readiness};
use larder_proxy::settings::Settings;
use reloading::EngineReload;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Without any event.
const LOOK_AT_LEAST: Duration = Duration::from_mins(1);
/// Between two looks at whether the engine's process and the registries file are still the same.
const TICK: Duration = Duration::from_secs(1);
/// The steps of one change are seen as one.
const SETTLE: Duration = Duration::from_millis(200);
/// An engine that is not there is looked for again.
const LOOK_FOR_ENGINE: Duration = Duration::from_secs(2);
/// A proof is renewed even when nothing changed.
const PROVE_AT_LEAST: Duration = Duration::from_mins(30);
const PROVE_AGAIN: Duration = Duration::from_secs(2);
const PROVE_AGAIN_LATEST: Duration = Duration::from_mins(5);
/// So many proofs fail before another kind of placement is tried.
const PATIENCE: u32 = 3;
/// A placement in the private mount that the engine did not follow is tried again after this: a policy may have changed.
const PRIVATE_MOUNT_RESTS: Duration = Duration::from_hours(6);
/// An engine that goes to registries that do not answer must not keep the loop from its other work for long.
const PROVE_AT_MOST: Duration = Duration::from_mins(1);
/// What stays in force without us (an edit in an administrator's file, CRI-O's drop-in) stays over a short absence of the proxy, whose port then refuses at once.
const EDITS_OUTLAST: Duration = Duration::from_secs(30);

/// What the loop works with.
pub(crate) struct Surrounding {
    pub(crate) config: Config,
    pub(crate) mount: Option<PrivateMount>,
    pub(crate) folder: Arc<RunFolder>,
    pub(crate) announcer: Announcer,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) seen: Seen,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Arc<Mutex<Status>>,
    /// What `status` says of the store.
    pub(crate) store: Option<String>,
}

/// One line each in `/readyz`.
struct Conditions {
    engine: Condition,
    proxy: Condition,
    configured: Condition,
    changes: Condition,
    conflict: Condition,
    placement: Condition,
    registries: Condition,
    unproved: Condition,
    in_use: Condition,
    reload: Condition,
    engine_restart: Condition,
}

pub(crate) struct WatchLoop {
    around: Surrounding,
    conditions: Conditions,
    settings: Settings,
    /// The last engine, for taking everything back.
    node: Option<Arc<Node>>,
    /// Of that engine's state folder: nobody else changes the node by it, also not a person by hand.
    lock: Option<Lock>,
    /// It did not work: not tried again before this.
    private_mount_rests_until: Option<Instant>,
    /// When the proxy was last announced.
    announced_at: Option<Instant>,
    /// Since when no engine was found.
    engine_away_since: Option<std::time::Instant>,
}

/// What the loop knows of one running engine.
struct Life {
    node: Arc<Node>,
    placement: Arc<Placement>,
    watcher: Option<Watcher>,
    history: History,
    report: Report,
    /// The edit of the engine's own configuration that it needs.
    restart: Option<RestartEdit>,
    extent: Extent,
    /// What it was to be when the node was last looked at.
    wanted_extent: Extent,
    /// Whether the proxy was announced when the node was last looked at.
    announced: bool,
    proofs: Proofs,
    /// What there was to prove then.
    proved: BTreeSet<Entry>,
    prove_at: Option<Instant>,
    failures: u32,
    engine_reload: EngineReload,
    /// Proofs since the last success in which the engine followed none of our entries.
    unfollowed: u32,
}

impl Life {
    /// The engine's process is the one that this is about.
    fn runs(&self) -> bool {
        self.node.running.as_ref().is_some_and(|running| running.found.process.is_running())
    }
}

enum Next {
    LookAgain,
    EngineGone,
    Stop,
}

impl WatchLoop {
    pub(crate) fn new(around: Surrounding, settings: Settings) -> Self {
        let readiness = &around.readiness;
        let conditions = Conditions {
            engine: readiness.requirement("engine"),
            proxy: readiness.requirement("proxy"),
            configured: readiness.requirement("configured"),
            changes: readiness.requirement("changes"),
            conflict: readiness.condition("conflict"),
            placement: readiness.condition("placement"),
            registries: readiness.condition("registries file"),
            unproved: readiness.condition("single registries"),
            in_use: readiness.condition("registries in use"),
            reload: readiness.condition("reload"),
            engine_restart: readiness.condition("engine restart"),
        };
        conditions.engine.set("looking for it");
        conditions.configured.set("the engine was not seen to ask the proxy yet");
        let (node, lock, private_mount_rests_until, announced_at) = (None, None, None, None);
        let engine_away_since = None;
        Self { around, conditions, settings, node, lock, private_mount_rests_until, announced_at, engine_away_since }
    }

    /// Until `shutdown`; earlier only when the supervising thread ended, without which nothing may stay in force.
    pub(crate) async fn run(&mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        while !shutdown.is_cancelled() {
            let begun = async {
                let node = Arc::new(Node::running(&self.around.config.engine).await?);
                self.become_the_only_agent(&node)?;
                let placement = self.placement(&node)?;
                anyhow::Ok((node, placement))
            };
            let (node, placement) = match begun.await {
                Ok(begun) => begun,
                Err(error) => {
                    if self.conditions.engine.set(format!("{error:#}")) {
                        tracing::warn!(error = format!("{error:#}"), "no engine to configure");
                    }
                    self.take_back_what_was_begun().await;
                    self.tell(None);
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        changed = self.around.view.changed() => changed.context("the supervising thread ended")?,
                        () = tokio::time::sleep(LOOK_FOR_ENGINE) => {}
                    }
                    continue;
                }
            };
            self.engine_away_since = None;
            self.live(node, placement, shutdown).await?;
        }
        Ok(())
    }

    /// A lock that cannot be made at all (a read-only `/run`) keeps nobody from working.
    fn become_the_only_agent(&mut self, node: &Node) -> anyhow::Result<()> {
        self.lock = None;
        match node.lock_for_agent() {
            Ok(lock) => self.lock = Some(lock),
            Err(error) if error.is::<HostError>() => tracing::warn!(%error, "no lock of the state folder"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Undoes what was done to the node. The engine asks nobody of ours any more by then. An edit of its configuration
    /// stays, because taking it back means another restart; the folder that it names is empty then.
    pub(crate) fn take_back(&mut self) -> anyhow::Result<()> {
        let undone = self.undo();
        let released = self.around.announcer.release();
        undone.and(released.map_err(anyhow::Error::from))
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        if let Some(node) = &self.node {
            let restored = node.restore().context("take back")?;
            tracing::info!(paths = restored.undone.len(), "the engine's files are as they were found");
            for conflict in restored.left {
                tracing::warn!(%conflict, "left as it is");
            }
            for failed in &restored.failed {
                tracing::error!(reason = failed.reason, "not undone; larder-node restore goes on with it");
            }
            if node.config_is_edited()? {
                tracing::info!(
                    "the engine's configuration keeps the name of an empty folder; larder-node restore takes it back"
                );
            }
            if self.lock.is_some() {
                node.remove_agent_lock()?;
                self.lock = None;
            }
            if !restored.undone.is_empty() {
                reloading::reload_after_removal(node);
            }
            anyhow::ensure!(restored.failed.is_empty(), "not everything could be undone");
        }
        Ok(())
    }

    async fn live(
        &mut self,
        node: Arc<Node>,
        placement: Arc<Placement>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        self.node = Some(Arc::clone(&node));
        let running = node.running.as_ref().context("no running engine")?;
        tracing::info!(engine = node.engine.name(), version = running.version, pid = running.found.process.pid,
            targets = %placement.targets().display(), "engine found");
        let watcher = Watcher::new(&node.root)
            .inspect_err(|error| tracing::warn!(%error, "changes of the node are seen once a minute only"))
            .ok();
        let told = Arc::clone(&node);
        let engine_reload =
            tokio::task::spawn_blocking(move || EngineReload::of(&told)).await.context("registries in use")?;
        let mut life = Life {
            engine_reload,
            node,
            placement,
            watcher,
            history: History::default(),
            report: Report::default(),
            restart: None,
            extent: Extent::Look,
            wanted_extent: Extent::Look,
            announced: false,
            proofs: Proofs::default(),
            proved: BTreeSet::new(),
            prove_at: Some(Instant::now()),
            failures: 0,
            unfollowed: 0,
        };
        self.conditions.engine.clear();
        loop {
            self.reload_settings();
            self.replace_placement(&mut life);
            self.learn(&mut life).await;
            match self.make_so(&mut life).await {
                Ok(()) => drop(self.conditions.changes.clear()),
                Err(error) => {
                    self.around.metrics.failures.inc();
                    if self.conditions.changes.set(format!("{error:#}")) {
                        tracing::error!(error = format!("{error:#}"), "the node is not as it should be");
                    }
                }
            }
            self.reload_engine(&mut life);
            self.restart_engine(&life).await;
            // A restart was ours, or somebody else's meanwhile: what is known of the old process says nothing about the new one.
            if !life.runs() {
                self.engine_ended();
                return Ok(());
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.prove(&mut life) => {}
            }
            self.tell(Some(&life));
            match self.wait(&mut life, shutdown).await? {
                Next::LookAgain => {}
                Next::Stop => return Ok(()),
                Next::EngineGone => {
                    self.engine_ended();
                    return Ok(());
                }
            }
        }
    }

    fn engine_ended(&self) {
        tracing::warn!("the engine ended");
        self.conditions.engine.set("it ended; looking for it again");
        self.conditions.configured.set("the engine was not seen to ask the proxy yet");
    }

    /// The registries file as it is now; a wrong one changes nothing but a condition.
    fn reload_settings(&mut self) {
        let wrong = match node::settings_after(&self.settings, self.around.config.registries.as_deref()) {
            Ok((settings, damaged)) => {
                self.settings = settings;
                damaged
            }
            Err(error) => Some(format!("{error:#}; the last good one stays in force")),
        };
        match wrong {
            None => drop(self.conditions.registries.clear()),
            Some(wrong) => {
                if self.conditions.registries.set(wrong.clone()) {
                    tracing::error!(wrong, "registries file not taken over as a whole");
                }
            }
        }
    }

    /// Observes, plans, writes targets, applies.
    async fn make_so(&mut self, life: &mut Life) -> anyhow::Result<()> {
        let mut in_use = self.around.config.named.clone();
        in_use.extend(life.engine_reload.registries());
        let desired = node::desired(&self.around.config.listen, &self.settings, in_use);
        life.announced = self.around.view.borrow().announced;
        let extent = self.extent();
        life.wanted_extent = extent;
        let (node, placement, announcer) =
            (Arc::clone(&life.node), Arc::clone(&life.placement), self.around.announcer.clone());
        let mut history = std::mem::take(&mut life.history);
        let (folder, settings) = (Arc::clone(&self.around.folder), self.settings.clone());
        let tell = move |report: &Report| {
            if folder.write_registries(&node::with_hints(settings, report).to_toml())? {
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
            life.prove_at.get_or_insert_with(Instant::now);
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
        life.report = report;
        Ok(())
    }

    fn extent(&mut self) -> Extent {
        let view = self.around.view.borrow().clone();
        if view.announced {
            self.announced_at = Some(Instant::now());
        }
        extent_by(self.announced_at.map(|at| at.elapsed()), &view.health)
    }

    /// Until there is a reason to look again.
    async fn wait(&mut self, life: &mut Life, shutdown: &CancellationToken) -> anyhow::Result<Next> {
        let begun = Instant::now();
        let changed = life.watcher.as_ref().map(Watcher::changed);
        let registries = modified(self.around.config.registries.as_ref());
        loop {
            // Compared with what the last look saw, so that news that came during it is not missed.
            let announced = self.around.view.borrow_and_update().announced;
            if announced != life.announced || self.extent() != life.wanted_extent {
                return Ok(Next::LookAgain);
            }
            let event = async {
                match &changed {
                    Some(changed) => changed.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Next::Stop),
                () = event => {
                    tokio::time::sleep(SETTLE).await;
                    return Ok(if life.runs() { Next::LookAgain } else { Next::EngineGone });
                }
                told = self.around.view.changed() => {
                    told.context("the supervising thread ended")?;
                    self.tell(Some(life));
                }
                () = tokio::time::sleep(TICK) => {}
            }
            if shutdown.is_cancelled() {
                return Ok(Next::Stop);
            }
            if !life.runs() {
                return Ok(Next::EngineGone);
            }
            if self.learn(life).await {
                return Ok(Next::LookAgain);
            }
            let now = Instant::now();
            let prove = life.prove_at.is_some_and(|at| now >= at) && self.around.announcer.is_announced();
            let settings_changed = modified(self.around.config.registries.as_ref()) != registries;
            if prove || settings_changed || now.duration_since(begun) >= LOOK_AT_LEAST {
                return Ok(Next::LookAgain);
            }
        }
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

fn modified(file: Option<&PathBuf>) -> Option<(std::time::SystemTime, u64)> {
    let metadata = std::fs::metadata(file?).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
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
