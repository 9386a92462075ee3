//! CRI-O: which files it reads (`arguments`, `paths`, `settings`), what they say (`decode`, `document`, `entry`,
//! `reference`, `signatures`, `policies`, `policy`, `authorities`), what was seen (`observation`), whether there is room for us
//! (`verdict`), what to change
//! (`plan`, `changes`, `report`), and how our words look (`render`).
//!
//! The rules are those of the containers/image library, which podman, skopeo and buildah share; names in parentheses are
//! its own. CRI-O reads these files when it starts and when it gets SIGHUP; one that is malformed stops it from starting.

mod arguments;
mod authorities;
mod changes;
mod decode;
pub mod document;
mod entry;
mod observation;
mod paths;
mod plan;
mod policies;
mod policy;
mod reference;
mod render;
mod report;
mod settings;
mod signatures;
mod verdict;

use std::path::{Path, PathBuf};

use super::detect::Found;
use super::version::Version;
use super::{Desired, Engine, EngineError, Proposal, Reload, Targets};
use crate::change::Change;
use crate::host::Host;

pub use arguments::Arguments;
pub use authorities::Authorities;
pub use entry::{Endpoint, Entry};
pub use observation::{Observation, OurFile, Problem, ReadFile};
pub use paths::Paths;
pub use policies::Policies;
pub use settings::Settings;
pub use signatures::Signatures;

/// The main configuration file when no other is named.
pub const DEFAULT_CONFIG: &str = "/etc/crio/crio.conf";
const DEFAULT_CONFIG_DIR: &str = "/etc/crio/crio.conf.d";
const DEFAULT_HOME: &str = "/root";

/// CRI-O of one node: how it was started, and what it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crio {
    /// Its main configuration file, as it sees it.
    pub config: PathBuf,
    /// The directory of drop-ins to that.
    pub config_dir: PathBuf,
    /// `registries.conf`, if it was told to read another one than usual.
    pub registries_conf: Option<PathBuf>,
    /// `registries.conf.d`, likewise.
    pub registries_conf_dir: Option<PathBuf>,
    /// Its signature policy, if its command line names one.
    pub signature_policy: Option<PathBuf>,
    /// The directory of signature policies of namespaces, likewise.
    pub signature_policy_dir: Option<PathBuf>,
    /// The home of the user that it runs as.
    pub home: PathBuf,
    /// What it answered to the CRI `Version` call.
    pub version: Option<Version>,
}

impl Crio {
    /// With its usual files, and no process to ask.
    pub fn at(version: Option<Version>) -> Self {
        Self {
            config: DEFAULT_CONFIG.into(),
            config_dir: DEFAULT_CONFIG_DIR.into(),
            registries_conf: None,
            registries_conf_dir: None,
            signature_policy: None,
            signature_policy_dir: None,
            home: DEFAULT_HOME.into(),
            version,
        }
    }

    /// As the process was started.
    pub fn of(found: &Found, version: Option<Version>) -> Self {
        let process = &found.process;
        let variable = |name: &str| process.variable(name);
        let arguments = Arguments::parse(&process.arguments, &process.working_directory, variable);
        let usual = Self::at(version);
        let home = variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        Self {
            config: arguments.config.unwrap_or(usual.config),
            config_dir: arguments.config_dir.unwrap_or(usual.config_dir),
            registries_conf: arguments.registries_conf,
            registries_conf_dir: arguments.registries_conf_dir,
            signature_policy: arguments.signature_policy,
            signature_policy_dir: arguments.signature_policy_dir,
            home: home.unwrap_or(usual.home),
            version,
        }
    }
}

impl Engine for Crio {
    fn name(&self) -> &'static str {
        "crio"
    }

    fn observe(&self, host: &dyn Host) -> Result<super::Observation, EngineError> {
        Ok(super::Observation::Crio(Box::new(self.look(host)?)))
    }

    /// `targets` are not used: what we place are files (`changes` says why).
    fn plan(
        &self,
        observation: &super::Observation,
        desired: &Desired,
        _targets: &Targets,
    ) -> Result<Proposal, EngineError> {
        match observation {
            super::Observation::Crio(observation) => plan::plan(observation, desired),
            super::Observation::Containerd(_) => Err(EngineError::OtherEngine { engine: self.name() }),
        }
    }

    fn removal(&self, observation: &super::Observation) -> Result<Proposal, EngineError> {
        match observation {
            super::Observation::Crio(observation) => Ok(Proposal {
                plan: changes::removal(observation),
                report: report::report(observation),
                ..Proposal::default()
            }),
            super::Observation::Containerd(_) => Err(EngineError::OtherEngine { engine: self.name() }),
        }
    }

    fn reload(&self) -> Reload {
        Reload::Signal(nix::libc::SIGHUP)
    }

    /// All of it: files, which CRI-O keeps in mind.
    fn outlives_us(&self, _change: &Change) -> bool {
        true
    }

    fn places_links(&self) -> bool {
        false
    }

    fn needs_names(&self) -> bool {
        true
    }

    fn watched(&self, observation: &super::Observation) -> Vec<PathBuf> {
        let super::Observation::Crio(observation) = observation else { return Vec::new() };
        let mut watched = vec![self.config.clone(), self.config_dir.clone(), observation.paths.main.clone()];
        watched.extend(observation.settings.files.iter().cloned());
        watched.extend(observation.paths.directories.iter().cloned());
        // The file that would replace everything, and the directory of signatures that would.
        watched.push(paths::home_file(&self.home));
        watched.push(signatures::home_directory(&self.home));
        watched.push(observation.signatures.directory.clone());
        watched.extend(observation.authorities.folders.iter().cloned());
        watched.extend(observation.policies.watched.iter().cloned());
        watched.extend(observation.files.iter().map(|file| file.path.clone()));
        watched.extend(observation.problems.iter().map(|problem| problem.path.clone()));
        watched.sort();
        watched.dedup();
        watched
    }

    fn unsplice(&self, _path: &Path, _bytes: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests;
