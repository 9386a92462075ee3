//! containerd: what it reads (`config`, `hosts`), what that means (`intent`), what was seen (`observation`), what to change
//! (`readiness`, `plan`, `changes`, `edit`), and how our words look in its files (`render`, `splice`).
//!
//! containerd reads its registry directories at every pull, so nothing has to be reloaded; only `config.toml` takes a restart.

mod changes;
pub mod config;
mod edit;
mod glob;
pub mod hosts;
pub mod intent;
mod observation;
mod plan;
mod readiness;
mod render;
pub mod splice;

use std::path::{Path, PathBuf};

use super::detect::{Arguments, Found};
use super::{Desired, Engine, EngineError, Proposal, Reload, Targets};
use crate::change::{Change, Wanted};
use crate::host::{Host, Timestamp};

pub use super::version::{Version, VersionError};
pub use observation::{Directory, HostsFile, Observation, Root, Theirs};

/// containerd of one node: how it was started, and what it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its main configuration file, as it sees it.
    pub config: PathBuf,
    /// Where its relative paths start.
    pub working_directory: PathBuf,
    /// What it answered to the CRI `Version` call.
    pub version: Option<Version>,
    /// When it started: files of its configuration that are younger may not be in effect.
    pub started: Option<Timestamp>,
}

impl Containerd {
    /// With a configuration file that a person named, or no process to ask.
    pub fn at(config: impl Into<PathBuf>, version: Option<Version>) -> Self {
        Self { config: config.into(), working_directory: PathBuf::from("/"), version, started: None }
    }

    /// As the process was started.
    pub fn of(found: &Found, version: Option<Version>) -> Self {
        let working_directory = found.process.working_directory.clone();
        let arguments = Arguments::parse(&found.process.arguments, &working_directory);
        Self {
            config: arguments.config.unwrap_or_else(|| PathBuf::from(config::DEFAULT_CONFIG)),
            working_directory,
            version,
            started: found.process.started,
        }
    }

    fn own<'observation>(
        &self,
        observation: &'observation super::Observation,
    ) -> Result<&'observation Observation, EngineError> {
        match observation {
            super::Observation::Containerd(observation) => Ok(observation),
            super::Observation::Crio(_) => Err(EngineError::OtherEngine { engine: self.name() }),
        }
    }
}

impl Engine for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn observe(&self, host: &dyn Host) -> Result<super::Observation, EngineError> {
        Ok(super::Observation::Containerd(Box::new(self.look(host)?)))
    }

    fn plan(
        &self,
        observation: &super::Observation,
        desired: &Desired,
        targets: &Targets,
    ) -> Result<Proposal, EngineError> {
        plan::plan(self.own(observation)?, desired, targets)
    }

    fn removal(&self, observation: &super::Observation) -> Result<Proposal, EngineError> {
        Ok(changes::removal(self.own(observation)?))
    }

    fn reload(&self) -> Reload {
        Reload::NotNeeded
    }

    /// An edit in a file of the administrator's; our own are links that lead nowhere then.
    fn outlives_us(&self, change: &Change) -> bool {
        matches!(change.after, Wanted::Splice { .. })
    }

    fn places_links(&self) -> bool {
        true
    }

    fn needs_names(&self) -> bool {
        false
    }

    fn watched(&self, observation: &super::Observation) -> Vec<PathBuf> {
        let Ok(observation) = self.own(observation) else { return Vec::new() };
        let mut watched = vec![self.config.clone()];
        watched.extend(observation.configuration.files.iter().map(|(path, _)| path.clone()));
        // An import that comes later appears in the directory of its pattern.
        let base = self.config.parent().unwrap_or(Path::new("/"));
        let imports = observation.configuration.imports.iter().map(|import| hosts::absolute(base, import));
        watched.extend(imports.filter_map(|import| import.parent().map(Path::to_owned)));
        for root in observation.roots.iter().chain(&observation.meant) {
            watched.push(root.path.clone());
            let theirs = root.directories.iter().filter(|(_, directory)| matches!(directory, Directory::Theirs(_)));
            watched.extend(theirs.map(|(name, _)| root.path.join(name)));
        }
        watched.sort();
        watched.dedup();
        watched
    }

    fn unsplice(&self, path: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        (path.file_name()? == "hosts.toml").then(|| splice::unsplice(bytes)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;

    use super::*;
    use crate::engine::detect::{Kind, Process};
    use crate::host::RootedHost;

    fn observed(config: &str) -> (Containerd, super::super::Observation) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/containerd/certs.d/a.example")).unwrap();
        fs::write(root.path().join("etc/containerd/config.toml"), config).unwrap();
        let engine = Containerd::at(config::DEFAULT_CONFIG, Some(Version::new(2, 1, 9)));
        let observed = engine.observe(&RootedHost::open(root.path()).unwrap()).unwrap();
        (engine, observed)
    }

    #[test]
    fn what_is_not_there_yet_is_watched_too() {
        let text = "version = 3\nimports = ['conf.d/*.toml']\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n";
        let (engine, observed) = observed(text);
        let expected = [
            "/etc/containerd/certs.d",
            "/etc/containerd/certs.d/a.example",
            "/etc/containerd/certs.d:/etc/docker/certs.d",
            "/etc/containerd/conf.d",
            "/etc/containerd/config.toml",
            "/etc/docker/certs.d",
        ];
        assert_eq!(engine.watched(&observed), expected.map(PathBuf::from));
    }

    #[test]
    fn a_mirror_that_cannot_be_written_down_is_refused() {
        let (engine, observed) = observed("version = 3\n");
        let targets = Targets::new("/run/larder/x").unwrap();
        for mirror in ["https://127.0.0.1:7439", "http://127.0.0.1:7439/x", "http://a\"]\n", ""] {
            let desired = Desired {
                mirror: mirror.to_owned(),
                registries: BTreeMap::new(),
                in_use: BTreeSet::new(),
                allow_engine_restart: false,
            };
            let error = engine.plan(&observed, &desired, &targets).unwrap_err();
            assert!(matches!(error, EngineError::Mirror { .. }), "{mirror}");
        }
    }

    #[test]
    fn the_process_says_which_file() {
        let process = Process {
            pid: 1,
            start_ticks: 1,
            started: None,
            executable: PathBuf::from("/bin/containerd"),
            arguments: ["containerd", "-c", "k3s.toml"].map(str::to_owned).to_vec(),
            working_directory: PathBuf::from("/var/lib"),
            environment: BTreeMap::new(),
        };
        let mut found = Found { kind: Kind::Containerd, socket: PathBuf::from("/run/c.sock"), process };
        assert_eq!(Containerd::of(&found, None).config, Path::new("/var/lib/k3s.toml"));
        found.process.arguments.truncate(1);
        assert_eq!(Containerd::of(&found, None).config, Path::new(config::DEFAULT_CONFIG));
    }
}
