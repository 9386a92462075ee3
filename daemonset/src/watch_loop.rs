//! The agent's loop: observe → plan → apply → confirm, again whenever something that matters changed and at least once a
//! minute, for one running engine after the other.
//!
//! Invariant: it only ever makes the node more like the plan; when entries are in force is the supervising thread's
//! decision alone. An error is a condition and another try, never an end.

mod learning;
mod making;
mod placing;
mod proving;
mod reloading;
mod restarting;
mod telling;
mod waiting;

use crate::apply_once::{Extent, History};
use crate::config::Agent as Config;
use crate::kubernetes::Kubernetes;
use crate::metrics::Metrics;
use crate::node::{self, Node};
use crate::probe::Seen;
use crate::proofs::{Entry, Proofs};
use crate::run_folder::RunFolder;
use crate::status::Status;
use crate::supervisor::View;
use anyhow::Context as _;
use larder_node_agent::engine::{OriginHint, Report, RestartEdit};
use larder_node_agent::host::{HostError, Lock};
use larder_node_agent::placement::{Announcer, Placement, PrivateMount};
use larder_node_agent::watch::Watcher;
use larder_oci::Registry;
use larder_process::readiness::{Condition, Readiness};
use larder_proxy::settings::Settings;
use learning::Learning;
use reloading::EngineReload;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waiting::Next;

pub(crate) use telling::words;

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

/// What is said of registries: by the file, by objects, by both.
pub(crate) struct Said {
    /// The last good one of the file.
    pub(crate) by_file: Settings,
    /// What the proxy is told.
    pub(crate) by_both: Settings,
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
    upstream_registries: Condition,
    unproved: Condition,
    in_use: Condition,
    reload: Condition,
    engine_restart: Condition,
}

pub(crate) struct WatchLoop {
    around: Surrounding,
    conditions: Conditions,
    /// Of the registries file.
    file: Settings,
    /// Of that and of UpstreamRegistry objects.
    settings: Settings,
    kubernetes: Option<Kubernetes>,
    /// What of the objects is not in force.
    left_out: Vec<String>,
    /// Registries that objects are of, without a word about them.
    named_by_objects: BTreeSet<Registry>,
    /// What the last engine's files said of registries.
    hints: BTreeMap<Registry, OriginHint>,
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
    learning: Learning,
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

impl WatchLoop {
    /// `kubernetes` is there where the agent was told of it.
    pub(crate) fn new(around: Surrounding, said: Said, kubernetes: Option<Kubernetes>) -> Self {
        let readiness = &around.readiness;
        let conditions = Conditions {
            engine: readiness.requirement("engine"),
            proxy: readiness.requirement("proxy"),
            configured: readiness.requirement("configured"),
            changes: readiness.requirement("changes"),
            conflict: readiness.condition("conflict"),
            placement: readiness.condition("placement"),
            registries: readiness.condition("registries file"),
            upstream_registries: readiness.condition("upstream registries"),
            unproved: readiness.condition("single registries"),
            in_use: readiness.condition("registries in use"),
            reload: readiness.condition("reload"),
            engine_restart: readiness.condition("engine restart"),
        };
        conditions.engine.set("looking for it");
        conditions.proxy.set("starting");
        conditions.configured.set("the engine was not seen to ask the proxy yet");
        Self {
            around,
            conditions,
            file: said.by_file,
            settings: said.by_both,
            kubernetes,
            left_out: Vec::new(),
            named_by_objects: BTreeSet::new(),
            hints: BTreeMap::new(),
            node: None,
            lock: None,
            private_mount_rests_until: None,
            announced_at: None,
            engine_away_since: None,
        }
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
                    // The proxy is asked by others than an engine too.
                    self.reload_settings();
                    self.tell_proxy_without_engine().await;
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
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.found(node.root.clone());
        }
        let running = node.running.as_ref().context("no running engine")?;
        tracing::info!(engine = node.engine.name(), version = running.version, pid = running.found.process.pid,
            targets = %placement.targets().display(), "engine found");
        let watcher = Watcher::new(&node.root)
            .inspect_err(|error| tracing::warn!(%error, "changes of the node are seen once a minute only"))
            .ok();
        let learnt_on = Arc::clone(&node);
        let learning =
            tokio::task::spawn_blocking(move || Learning::of(&learnt_on)).await.context("registries in use")?;
        let mut life = Life {
            learning,
            engine_reload: EngineReload::of(&node),
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

    /// The registries file as it is now, and what objects say; a wrong one changes nothing but a condition.
    fn reload_settings(&mut self) {
        let wrong = match node::settings_after(&self.file, self.around.config.registries.as_deref()) {
            Ok((settings, damaged)) => {
                self.file = settings;
                damaged
            }
            Err(error) => Some(format!("{error:#}; the last good one stays in force")),
        };
        tell_of(&self.conditions.registries, wrong, "registries file not taken over as a whole");
        let Some(kubernetes) = &mut self.kubernetes else {
            self.settings.clone_from(&self.file);
            return;
        };
        let known = kubernetes.known();
        (self.settings, self.left_out) = larder_upstream_registries::merged(&self.file, &known);
        self.named_by_objects.clone_from(&known.named);
        let wrong = larder_upstream_registries::condition(&self.left_out);
        tell_of(&self.conditions.upstream_registries, wrong, "UpstreamRegistry objects not taken over as a whole");
    }

    /// What the last engine's files said still counts.
    async fn tell_proxy_without_engine(&self) {
        let text = node::with_hints(self.settings.clone(), &self.hints).to_toml();
        let folder = Arc::clone(&self.around.folder);
        match tokio::task::spawn_blocking(move || folder.write_registries(&text)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!("the proxy is told about registries anew"),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "the proxy is not told about registries"),
            Err(error) => tracing::error!(%error, "the proxy is not told about registries"),
        }
    }
}

/// Sets the condition, or clears it; what is news is in the log.
fn tell_of(condition: &Condition, wrong: Option<String>, what: &'static str) {
    match wrong {
        None => drop(condition.clear()),
        Some(wrong) => {
            if condition.set(wrong.clone()) {
                tracing::error!(wrong, "{what}");
            }
        }
    }
}
