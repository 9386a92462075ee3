//! Which signature policies count on this node, and what they ask for together.
//!
//! CRI-O reads the one that it was told of, or that of its user's home, or the system's; and for the Pods of a namespace that
//! has one of its own, that instead. podman, skopeo and buildah read our drop-in as well and verify by the usual files, so
//! those count too: what a mirror cannot be asked for may not be wanted by any of them. All are read at each pull.

use std::path::{Path, PathBuf};

use larder_oci::Registry;

use super::Crio;
use super::observation::{self, Reading};
use super::policy::Policy;
use super::settings::Settings;
use super::signatures;
use crate::host::{Host, HostError};

const SYSTEM: &str = "/etc/containers/policy.json";
const HOME: &str = ".config/containers/policy.json";
const NAMESPACES: &str = "/etc/crio/policies";

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// CRI-O's own; without one it pulls nothing.
    pub in_force: Option<PathBuf>,
    /// All that count.
    files: Vec<PolicyFile>,
    /// Something in the directory of namespaces' policies, or that directory when it cannot be looked into.
    namespaced: Option<PathBuf>,
    /// Where they would be.
    pub(super) watched: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PolicyFile {
    path: PathBuf,
    /// Or why it cannot be read, as a fragment.
    policy: Result<Policy, String>,
}

/// Whatever goes wrong: signatures are taken to be asked for, and nothing else suffers.
pub(super) fn read(host: &dyn Host, engine: &Crio, settings: &Settings) -> Policies {
    let is_there =
        |path: &PathBuf| !matches!(host.metadata(path), Err(HostError::NotFound { .. } | HostError::WrongKind { .. }));
    let (home, system) = (engine.home.join(HOME), PathBuf::from(SYSTEM));
    let usual = [&home, &system].into_iter().find(|path| is_there(path)).cloned();
    let named = engine.signature_policy.clone().or_else(|| settings.signature_policy.clone());
    let in_force = named.or_else(|| usual.clone());
    let mut paths: Vec<PathBuf> = in_force.iter().cloned().collect();
    for others in usual.into_iter().chain(Some(system.clone()).filter(is_there)) {
        if !paths.contains(&others) {
            paths.push(others);
        }
    }
    let directory = engine.signature_policy_dir.clone().or_else(|| settings.signature_policy_dir.clone());
    let directory = directory.unwrap_or_else(|| PathBuf::from(NAMESPACES));
    let mut watched = vec![home, system, directory.clone()];
    watched.extend(in_force.iter().cloned());
    watched.retain(|path| path.is_absolute());
    let files = paths.into_iter().map(|path| PolicyFile { policy: read_one(host, &path), path }).collect();
    Policies { in_force, files, namespaced: namespaced(host, &directory), watched }
}

fn read_one(host: &dyn Host, path: &Path) -> Result<Policy, String> {
    if !path.is_absolute() {
        return Err("is named by no absolute path".to_owned());
    }
    match observation::read(host, path) {
        Ok(Reading::Bytes(bytes)) => Policy::parse(&bytes),
        Ok(Reading::Absent) => Err("is not there".to_owned()),
        Ok(Reading::Problem(message)) => Err(message),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// `<namespace>.json` takes the place of the policy in force for the Pods of that namespace.
fn namespaced(host: &dyn Host, directory: &Path) -> Option<PathBuf> {
    if !directory.is_absolute() {
        return Some(directory.to_owned());
    }
    match host.list(directory) {
        Ok(entries) => {
            let policy = entries.iter().find(|entry| entry.name.as_encoded_bytes().ends_with(b".json"))?;
            Some(directory.join(&policy.name))
        }
        Err(HostError::NotFound { .. }) => None,
        Err(_) => Some(directory.to_owned()),
    }
}

impl Policies {
    /// Why signatures of images of `registry`, which requests name `host`, may be asked for; `None` when nobody asks.
    pub(super) fn demand(&self, registry: &Registry, host: &str) -> Option<String> {
        if self.in_force.is_none() {
            return Some("there is no signature policy that would do without them".to_owned());
        }
        if let Some(path) = &self.namespaced {
            return Some(format!("{} may ask for them on behalf of a namespace's Pods", path.display()));
        }
        let wildcards = signatures::parents(registry.host());
        self.files.iter().find_map(|file| {
            let by = format!("{}, by which {},", file.path.display(), self.whose(file));
            match &file.policy {
                Ok(policy) => Some(format!("{by} asks for them ({})", policy.demand(host, &wildcards)?)),
                Err(message) => Some(format!("{by} {message}")),
            }
        })
    }

    fn whose(&self, file: &PolicyFile) -> &'static str {
        if self.in_force.as_ref() == Some(&file.path) { "CRI-O verifies" } else { "podman, skopeo and buildah verify" }
    }

    /// Those that cannot be read: where, who verifies by it, and why.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&Path, &'static str, &str)> {
        self.files.iter().filter_map(|file| {
            let message = file.policy.as_ref().err()?;
            Some((file.path.as_path(), self.whose(file), message.as_str()))
        })
    }
}
