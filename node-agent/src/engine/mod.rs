//! Engines (containerd, CRI-O): what one is told now, and what it would have to be told to ask our proxy first.
//!
//! [`Engine::observe`] reads everything that a decision needs, [`Engine::plan`] decides without reading anything, so that
//! planning again after applying finds nothing to do. What the administrator meant comes first: a registry that he
//! redirected elsewhere is left alone and reported. The flow goes on in `change`, which applies a plan, and in
//! `placement`, which writes what our links point to.

pub mod containerd;
pub mod crio;
pub mod detect;
mod file_bytes;
mod ownership;
mod report;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_oci::Registry;
use serde::Serialize;

use crate::change;
use crate::host::{Host, HostError};

pub use file_bytes::FileBytes;
pub use ownership::is_our_link;
pub use version::{Version, VersionError};

pub use report::{Condition, LeftAlone, OriginHint, Placed, PlacementKind, Readiness, Report};

/// One engine of a node. Implementations know its files and nothing of how they are read or written.
pub trait Engine: Send + Sync {
    /// `containerd` or `crio`, as people type it.
    fn name(&self) -> &'static str;

    /// Reads what the engine is configured to do, as the engine itself would read it. Changes nothing.
    fn observe(&self, host: &dyn Host) -> Result<Observation, EngineError>;

    /// What to change so that the engine asks the mirror first for everything that it may; pure.
    fn plan(&self, observation: &Observation, desired: &Desired, targets: &Targets) -> Result<Proposal, EngineError>;

    /// What to change so that nothing of ours remains, without a backup: our links go, our blocks are cut out. Pure.
    fn removal(&self, observation: &Observation) -> Result<Proposal, EngineError>;

    /// How the engine learns of a change.
    fn reload(&self) -> Reload;

    /// Whether what a change makes stays in force when the agent is gone, so that it has to be taken back when the proxy is.
    fn outlives_us(&self, change: &change::Change) -> bool;

    /// Whether what it is told are links of ours, which lead to [`Proposal::targets`]; else files.
    fn places_links(&self) -> bool;

    /// Whether every registry has to be named, because the engine has no entry for all others ([`Desired::in_use`]).
    fn needs_names(&self) -> bool;

    /// Directories and files whose change calls for another look; those that do not exist yet are included.
    fn watched(&self, observation: &Observation) -> Vec<PathBuf>;

    /// The bytes of the file at `path` without our block, when it holds one as we wrote it: how `change` undoes a splice.
    fn unsplice(&self, path: &Path, bytes: &[u8]) -> Option<Vec<u8>>;
}

/// What an engine needs to hear after its files changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reload {
    /// It reads its files at every pull (containerd and hosts.toml).
    NotNeeded,
    /// It reads them again on this signal (CRI-O: SIGHUP).
    Signal(i32),
}

/// What [`Engine::observe`] saw. One variant per engine, read by the engine that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observation {
    /// containerd: its configuration, and the registry directories that it looks into.
    Containerd(Box<containerd::Observation>),
    /// CRI-O: the files that it reads about registries.
    Crio(Box<crio::Observation>),
}

/// What the node should look like, in words that fit every engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The proxy as the engine is to write it into requests: `http://127.0.0.1:7439`.
    pub mirror: String,
    /// What the settings say about single registries; all others get the mirror too where the engine can say so.
    pub registries: BTreeMap<Registry, Wish>,
    /// Registries that are in use on this node, or that a person named without saying anything else of them. An engine without
    /// a catch-all has to be told of each (CRI-O).
    pub in_use: BTreeSet<Registry>,
    /// `config.toml` may be edited although the engine has to be restarted for it.
    pub allow_engine_restart: bool,
}

/// What the settings say about one registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// This registry is never asked through us.
    pub skip: bool,
    /// The settings name endpoints for it, so our proxy goes where the settings say even if the engine was sent elsewhere.
    pub endpoints: bool,
}

/// Where the targets of our links live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    folder: PathBuf,
}

impl Targets {
    /// `folder` as the engine sees it: `/proc/<pid>/root/larder-<nonce>` or `/run/larder/<nonce>`. Some component is
    /// `larder` or begins with `larder-`: that is how a link of ours is known after its target is gone.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self, EngineError> {
        let folder = folder.into();
        if folder.is_absolute() && is_our_link(&folder) {
            Ok(Self { folder })
        } else {
            Err(EngineError::TargetFolder { folder })
        }
    }

    /// The folder, as the engine sees it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What to do, and why: the outcome of planning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Changes of the engine's own files. Empty when everything is as it is wanted.
    pub plan: change::Plan,
    /// Files behind our links, for `placement` to write **before** the plan is applied; also those that are there already.
    /// None where the plan puts files instead of links: such an engine is withdrawn by applying [`Engine::removal`] and
    /// [`Engine::reload`].
    pub targets: Vec<TargetFile>,
    /// The edit of the engine's main configuration that takes a restart; only where that is allowed and needed.
    pub restart: Option<RestartEdit>,
    /// What is placed where, what was left alone, and why.
    pub report: Report,
}

/// A file behind one of our links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFile {
    /// Relative to [`Targets::folder`]; its parents are to be made as directories; nobody but the engine reads them.
    pub path: PathBuf,
    /// The whole content; it may repeat an administrator's `header` with a password in it.
    pub bytes: FileBytes,
}

/// An edit of a file that the engine reads only when it starts. Validate it with the engine's binary before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartEdit {
    /// The file.
    pub path: PathBuf,
    /// The file that the engine is started with; another one when the edit is in an import.
    pub main: PathBuf,
    /// What it holds now; `None` when there is none.
    pub before: Option<FileBytes>,
    /// What it has to hold.
    pub after: FileBytes,
    /// The directory that the engine reads then; what the engine's own reading of the edited file has to name.
    pub directory: PathBuf,
    /// The edit in words for somebody who makes it himself: `config_path = "…" in [section]`.
    pub setting: String,
}

/// Why an engine could not be looked at, or its state not be planned for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A read of the node's files failed in a way that leaves no safe picture.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The engine could not be found or identified.
    #[error(transparent)]
    Detect(#[from] detect::DetectError),
    /// A folder for targets by which our links could not be recognised later.
    #[error("target folder {folder} is not absolute or has no component named larder")]
    TargetFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// What was observed is of another engine.
    #[error("what was observed is not of {engine}")]
    OtherEngine {
        /// The engine that was asked to plan.
        engine: &'static str,
    },
    /// The mirror's address cannot be written into an engine's file.
    #[error("mirror address {mirror:?} cannot be told to the engine: {advice}")]
    Mirror {
        /// What was given.
        mirror: String,
        /// What it has to be.
        advice: &'static str,
    },
}
