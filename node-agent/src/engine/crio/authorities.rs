//! Certificate authorities that the administrator trusts for single registries, for the proxy to trust them there as well.
//!
//! A folder `certs.d/HOST[:PORT]` of each of three, of which the first that is there counts (`dockerCertDir`); `*.crt` in it are
//! authorities. What cannot be read is left out: the proxy then cannot check that registry, and CRI-O asks it itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_oci::Registry;

use super::Crio;
use super::observation::{Reading, read};
use crate::host::{Host, HostError, Kind};

const HOME: &str = ".config/containers/certs.d";
const SYSTEM: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// Registries with a folder of their own: as many as anybody has by hand, and not without end.
const MOST: usize = 256;

/// What is in those folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities {
    /// PEM of all files of a registry, by its name; empty where a folder holds none.
    of: BTreeMap<String, String>,
    /// What to watch.
    pub(super) folders: Vec<PathBuf>,
}

impl Authorities {
    /// Certificates to trust for a registry, PEM.
    pub(super) fn of(&self, registry: &Registry) -> Option<String> {
        self.of.get(registry.as_str()).filter(|pem| !pem.is_empty()).cloned()
    }
}

pub(super) fn read_all(host: &dyn Host, engine: &Crio) -> Authorities {
    let mut authorities = Authorities::default();
    let folders = [engine.home.join(HOME)].into_iter().chain(SYSTEM.map(PathBuf::from));
    for folder in folders {
        authorities.folders.push(folder.clone());
        // A directory that cannot be listed is as none.
        for entry in host.list(&folder).unwrap_or_default() {
            let Some(name) = entry.name.to_str().map(str::to_owned) else { continue };
            let path = folder.join(&name);
            let is_folder = entry.kind == Kind::Directory
                || host.metadata(&path).is_ok_and(|metadata| metadata.kind == Kind::Directory);
            if is_folder && authorities.of.len() < MOST && !authorities.of.contains_key(&name) {
                authorities.of.insert(name, of_folder(host, &path).unwrap_or_default());
                authorities.folders.push(path);
            }
        }
    }
    authorities
}

fn of_folder(host: &dyn Host, folder: &Path) -> Result<String, HostError> {
    let mut pem = String::new();
    for entry in host.list(folder)? {
        let is_authority = entry.name.as_encoded_bytes().ends_with(b".crt");
        if let (true, Reading::Bytes(bytes)) = (is_authority, read(host, &folder.join(&entry.name))?)
            && let Ok(text) = String::from_utf8(bytes)
        {
            pem.push_str(text.trim_end());
            pem.push('\n');
        }
    }
    Ok(pem)
}
