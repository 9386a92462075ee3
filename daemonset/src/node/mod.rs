//! This node's engine, found or named, with its files as it sees them: what `plan`, `apply`, `restore`, `status` and the
//! agent have in common.

mod finding;

use crate::config::{Engine as Config, Listen};
use crate::pull_probe::ByCri;
use anyhow::Context as _;
use larder_cri::Cri;
use larder_node_agent::change::{self, Applied, Change, Expected, ItemState, Plan, Restored, Wanted};
use larder_node_agent::engine::detect::Found;
use larder_node_agent::engine::{
    Desired, Engine, Observation, OriginHint, Proposal, Reload, RestartEdit, Targets, Wish,
};
use larder_node_agent::host::{self, Checksum, Host as _, HostError, Lock, RootedHost};
use larder_oci::Registry;
use larder_proxy::settings::{Settings, SettingsError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(crate) use finding::found;

/// The root of the node's first process: where the node is seen from a container that shares its processes.
const NODE_ROOT: &str = "/proc/1/root";

/// What a reboot empties, in the node's root: locks, and what is put there for a moment.
pub(crate) const RUN: &str = "/run/larder";

/// The engine and its files.
pub(crate) struct Node {
    pub(crate) host: RootedHost,
    /// The engine's root as we see it.
    pub(crate) root: PathBuf,
    pub(crate) engine: Box<dyn Engine>,
    /// The running engine; `None` for a root that no engine runs on now.
    pub(crate) running: Option<Running>,
    /// Where changes are kept track of, in the node's root.
    pub(crate) state_dir: PathBuf,
}

/// The running engine.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) found: Found,
    pub(crate) cri: Cri,
    /// As it says itself; empty when it did not answer.
    pub(crate) version: String,
}

impl Running {
    pub(crate) fn pull_probe(&self) -> ByCri {
        ByCri(self.cri.clone())
    }
}

impl Node {
    /// The running engine. Needs a runtime around it.
    pub(crate) async fn running(config: &Config) -> anyhow::Result<Self> {
        let found = found(config)?;
        let root = config.host_root.clone().unwrap_or_else(|| found.process.root());
        let host = RootedHost::open(&root).with_context(|| format!("open {}", root.display()))?;
        let cri = Cri::connect(&found.socket)?;
        let version = match cri.version().await {
            Ok(version) => version.runtime_version,
            Err(error) => {
                tracing::warn!(%error, "the engine does not tell its version");
                String::new()
            }
        };
        let engine = finding::engine(config, &found, finding::parsed(&version));
        let by_signal = matches!(engine.reload(), Reload::Signal(_));
        anyhow::ensure!(
            !(by_signal && version.is_empty()),
            "{} (process {}) does not answer yet, and the signal by which it reads its files again would end it now",
            engine.name(),
            found.process.pid
        );
        let running = Some(Running { found, cri, version });
        Ok(Self { host, root, engine, running, state_dir: config.state_dir.clone() })
    }

    /// The running engine, or the files of a root that was named without one.
    pub(crate) async fn by_hand(config: &Config) -> anyhow::Result<Self> {
        match &config.host_root {
            Some(root) if config.cri_socket.is_none() => Self::without_engine(config, root),
            _ => Self::running(config).await,
        }
    }

    /// As [`Node::by_hand`], and without a running engine the root that has the journal: undoing needs no engine.
    pub(crate) async fn to_restore(config: &Config) -> anyhow::Result<Self> {
        let error = match Self::by_hand(config).await {
            Err(error) if config.host_root.is_none() => error,
            result => return result,
        };
        // Where the node cannot be looked at, nothing is known of what is there.
        let kept = Self::root_with_journal(config);
        if let (None, Err(closed)) = (kept, std::fs::read_dir(NODE_ROOT)) {
            return Err(error.context(format!(
                "nothing is kept in this process's own root, and {NODE_ROOT} cannot be entered ({closed}): run it as root with the \
                 node's process ids, or name the node's root with --host-root"
            )));
        }
        let root = kept.unwrap_or(Path::new("/"));
        tracing::warn!(root = %root.display(), "without the engine, by what was kept when it was changed: {error:#}");
        Self::without_engine(config, root)
    }

    /// The node by what was kept when it was changed, whether an engine runs or not; `None` if nothing was.
    pub(crate) fn by_journal(config: &Config) -> Option<Self> {
        let root = config.host_root.as_deref().or_else(|| Self::root_with_journal(config))?;
        Self::without_engine(config, root).ok()
    }

    /// Our own root, or that of the node's first process.
    fn root_with_journal(config: &Config) -> Option<&'static Path> {
        let inside = config.state_dir.strip_prefix("/").unwrap_or(&config.state_dir);
        let edited = config_state_dir(inside);
        [Path::new("/"), Path::new(NODE_ROOT)]
            .into_iter()
            .find(|root| root.join(inside).is_dir() || root.join(&edited).is_dir())
    }

    fn without_engine(config: &Config, root: &Path) -> anyhow::Result<Self> {
        let host = RootedHost::open(root).with_context(|| format!("open {}", root.display()))?;
        let engine = finding::engine_of_files(config, &host)?;
        Ok(Self { host, root: root.to_owned(), engine, running: None, state_dir: config.state_dir.clone() })
    }

    /// What [`Node::restore`] would do, the edit of the engine's configuration included, and then what is left.
    pub(crate) fn undoing(&self) -> anyhow::Result<Plan> {
        let mut plan = change::undoing(&self.host, &self.state_dir, &|bytes: &[u8]| self.unsplice(bytes))?;
        plan.changes.extend(change::undoing(&self.host, &self.config_state_dir(), &|_: &[u8]| None)?.changes);
        let left = self.leftovers()?.changes;
        let new: Vec<_> = left.into_iter().filter(|change| plan.change(&change.path).is_none()).collect();
        plan.changes.extend(new);
        Ok(plan)
    }

    pub(crate) fn observe(&self) -> anyhow::Result<Observation> {
        Ok(self.engine.observe(&self.host)?)
    }

    pub(crate) fn propose(
        &self,
        observation: &Observation,
        desired: &Desired,
        targets: &Path,
    ) -> anyhow::Result<Proposal> {
        Ok(self.engine.plan(observation, desired, &Targets::new(targets)?)?)
    }

    pub(crate) fn apply(&self, plan: &Plan) -> anyhow::Result<Applied> {
        Ok(change::apply(&self.host, &self.state_dir, plan, &|bytes: &[u8]| self.unsplice(bytes))?)
    }

    pub(crate) fn restore(&self) -> anyhow::Result<Restored> {
        Ok(change::restore(&self.host, &self.state_dir, &|bytes: &[u8]| self.unsplice(bytes))?)
    }

    /// What of ours is left that no journal knows (its folder was lost), after [`Node::restore`].
    pub(crate) fn leftovers(&self) -> anyhow::Result<Plan> {
        Ok(self.engine.removal(&self.observe()?)?.plan)
    }

    /// The journal of the edit that takes a restart: apart, because the edit outlives a planned stop.
    pub(crate) fn config_state_dir(&self) -> PathBuf {
        config_state_dir(&self.state_dir)
    }

    /// The edit as a plan, where the file really lies.
    pub(crate) fn config_plan(&self, edit: &RestartEdit) -> anyhow::Result<Plan> {
        let path = host::resolve(&self.host, &edit.path)?;
        let (before, mode) = match &edit.before {
            Some(bytes) => (Expected::file(bytes), self.host.metadata(&path)?.mode),
            None => (Expected::Absent, 0o644),
        };
        let wanted = Wanted::File { bytes: edit.after.to_vec(), mode };
        let why = "a folder of registries for the engine to read; takes a restart of the engine";
        Ok(Plan { changes: vec![Change::new(path, before, wanted, why)] })
    }

    /// Makes the edit, and nothing else: the engine does not know of it yet.
    pub(crate) fn apply_config(&self, edit: &RestartEdit) -> anyhow::Result<Applied> {
        Ok(change::apply(&self.host, &self.config_state_dir(), &self.config_plan(edit)?, &|_: &[u8]| None)?)
    }

    /// Takes the edit back, byte for byte. The engine does not know of it yet.
    pub(crate) fn restore_config(&self) -> anyhow::Result<Restored> {
        let restored = change::restore(&self.host, &self.config_state_dir(), &|_: &[u8]| None)?;
        let failed: Vec<&str> = restored.failed.iter().map(|failed| failed.reason.as_str()).collect();
        anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(restored)
    }

    /// Whether our edit is in the engine's configuration now.
    pub(crate) fn config_is_edited(&self) -> anyhow::Result<bool> {
        let inventory = change::inventory(&self.host, &self.config_state_dir())?;
        Ok(inventory.items.iter().any(|item| item.state == ItemState::InPlace))
    }

    /// Whoever holds it is the one agent that works with this state folder. The kernel lets go of it with its process.
    fn agent_lock(&self) -> PathBuf {
        Path::new(RUN).join(format!("agent-{}.lock", self.name_of_state()))
    }

    /// Where something about the restart of the engine is remembered until a reboot.
    pub(crate) fn file_of_restart(&self, word: &str) -> PathBuf {
        Path::new(RUN).join(format!("engine-restart-{word}-{}", self.name_of_state()))
    }

    /// Tells agents with other state folders apart.
    fn name_of_state(&self) -> String {
        let name = Checksum::of(self.state_dir.as_os_str().as_encoded_bytes()).to_string();
        name.get(..16).unwrap_or(&name).to_owned()
    }

    /// Becomes the one agent of this state folder.
    pub(crate) fn lock_for_agent(&self) -> anyhow::Result<Lock> {
        let (lock, holder) = (self.agent_lock(), format!("larder-node (process {})", std::process::id()));
        self.host.make_parents(&lock)?;
        self.host.lock(&lock, &holder).map_err(|error| self.another(error))
    }

    /// Leaves no trace of the lock. Called by who holds it.
    pub(crate) fn remove_agent_lock(&self) -> Result<(), HostError> {
        let path = self.agent_lock();
        self.host.remove(&path, &self.host.occupant(&path)?)
    }

    /// An error that names the agent, when one works with this state folder. While the lock is kept none begins to.
    pub(crate) fn refuse_beside_an_agent(&self) -> anyhow::Result<Option<Lock>> {
        if !self.host.exists(&self.agent_lock())? {
            return Ok(None);
        }
        let holder = format!("larder-node by hand (process {})", std::process::id());
        self.host.lock(&self.agent_lock(), &holder).map(Some).map_err(|error| self.another(error))
    }

    fn another(&self, error: HostError) -> anyhow::Error {
        match error {
            HostError::Locked { holder, .. } => anyhow::anyhow!(
                "{holder} is at work with the state folder {}: stop it first; when it stops it takes its entries back itself",
                self.state_dir.display()
            ),
            error => error.into(),
        }
    }

    fn unsplice(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.engine.unsplice(Path::new("hosts.toml"), bytes)
    }
}

fn config_state_dir(state_dir: &Path) -> PathBuf {
    let mut name = state_dir.file_name().unwrap_or_default().to_owned();
    name.push("-config");
    state_dir.with_file_name(name)
}

/// What the node should look like, by the settings.
pub(crate) fn desired(listen: &Listen, settings: &Settings, in_use: BTreeSet<Registry>) -> Desired {
    let wish = |settings: &larder_proxy::settings::RegistrySettings| Wish {
        skip: settings.skip,
        endpoints: !settings.endpoints.is_empty(),
    };
    Desired {
        mirror: listen.mirror_url(),
        registries: settings.registries.iter().map(|(registry, settings)| (registry.clone(), wish(settings))).collect(),
        in_use,
        // Always proposed, so that a person can be told; made only with permission (`engine_restart`).
        allow_engine_restart: true,
    }
}

/// The user's registries file, or nothing said about any registry. For a person who types and is there to mend what is wrong.
pub(crate) fn settings(file: Option<&Path>) -> anyhow::Result<Settings> {
    read_settings(file, Settings::parse_toml)
}

/// The same for whoever has to work on: a registry whose certificates are damaged is as it was in `known`, or else left to the engine, and that is
/// said.
pub(crate) fn settings_after(known: &Settings, file: Option<&Path>) -> anyhow::Result<(Settings, Option<String>)> {
    let (settings, damaged) = read_settings(file, |text, base| Settings::in_force_after(known, text, base))?;
    Ok((settings, damaged.map(|damaged| format!("{}: {damaged}", file.unwrap_or(Path::new("")).display()))))
}

fn read_settings<T: Default>(
    file: Option<&Path>,
    parse: impl FnOnce(&str, &Path) -> Result<T, SettingsError>,
) -> anyhow::Result<T> {
    let Some(file) = file else { return Ok(T::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    parse(&text, folder).with_context(|| file.display().to_string())
}

/// What the proxy is told: the user's word first, then how the administrator's engine reached a registry itself.
pub(crate) fn with_hints(mut settings: Settings, hints: &BTreeMap<Registry, OriginHint>) -> Settings {
    for (registry, hint) in hints {
        let known = settings.registries.contains_key(registry);
        let registry = settings.registries.entry(registry.clone()).or_default();
        if registry.ca_pem.is_none() {
            registry.ca_pem.clone_from(&hint.ca_pem);
        }
        if !known {
            registry.insecure = hint.insecure;
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::{settings, settings_after, with_hints};
    use larder_node_agent::engine::OriginHint;
    use larder_oci::Registry;
    use larder_proxy::settings::{RegistrySettings, Settings};
    use std::collections::BTreeMap;

    #[test]
    fn the_users_word_beats_the_engines_hint() {
        let registry = |name: &str| Registry::parse(name).unwrap();
        let said = RegistrySettings { ca_pem: Some("user".to_owned()), ..RegistrySettings::default() };
        let settings = Settings { registries: BTreeMap::from([(registry("a.example"), said)]), ..Settings::default() };
        let hint = OriginHint { ca_pem: Some("engine".to_owned()), insecure: true };
        let origin_hints = BTreeMap::from([(registry("a.example"), hint.clone()), (registry("b.example"), hint)]);
        let merged = with_hints(settings, &origin_hints);
        let of = |name: &str| merged.registry(&registry(name));
        assert_eq!((of("a.example").ca_pem.as_deref(), of("a.example").insecure), (Some("user"), false));
        assert_eq!((of("b.example").ca_pem.as_deref(), of("b.example").insecure), (Some("engine"), true));
    }

    #[test]
    fn a_damaged_certificate_keeps_no_agent_from_working() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registries.toml");
        std::fs::write(&file, "[registries.\"a.example\"]\nca_pem = \"damaged\"\n[registries.\"b.example\"]\n")
            .unwrap();
        assert!(settings(Some(&file)).is_err(), "a person who types is told");
        let (settings, words) = settings_after(&Settings::default(), Some(&file)).unwrap();
        assert!(settings.registry(&Registry::parse("a.example").unwrap()).skip);
        assert!(settings.lists(&Registry::parse("b.example").unwrap()));
        let words = words.unwrap();
        assert!(
            words.starts_with(&file.display().to_string()) && words.contains("a.example is left to the engine"),
            "{words}"
        );
    }

    #[test]
    fn a_wrong_registries_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registries.toml");
        std::fs::write(&file, "nonsense = [").unwrap();
        assert!(format!("{:#}", settings(Some(&file)).unwrap_err()).contains("registries.toml"));
        assert!(settings_after(&Settings::default(), Some(&file)).is_err());
        assert_eq!(settings(None).unwrap(), Settings::default());
    }
}
