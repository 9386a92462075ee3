//! What `crio.conf` and its drop-ins say that matters here. They are CRI-O's own affair: what cannot be read is passed over.

use std::path::{Path, PathBuf};

use toml::Table;

use super::Crio;
use super::observation::{self, Reading};
use crate::host::{Host, HostError, Kind};

/// No more files of drop-ins are looked at, and no deeper.
const MAX_FILES: usize = 256;
const MAX_DEPTH: usize = 8;

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// CRI-O watches `registries.conf.d` itself (since 1.30).
    pub auto_reload_registries: bool,
    /// Where it expects its signature policy, if not in the usual place. Like the next, it counts when CRI-O starts.
    pub signature_policy: Option<PathBuf>,
    /// Where it expects those of namespaces, likewise.
    pub signature_policy_dir: Option<PathBuf>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

fn walk(host: &dyn Host, directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), HostError> {
    let entries = match host.list(directory) {
        Ok(entries) => entries,
        Err(HostError::NotFound { .. } | HostError::WrongKind { .. } | HostError::TooLarge { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = directory.join(&entry.name);
        if entry.kind == Kind::Directory && depth < MAX_DEPTH {
            walk(host, &path, depth + 1, files)?;
        } else if entry.kind != Kind::Directory && files.len() < MAX_FILES {
            files.push(path);
        }
    }
    Ok(())
}

/// The main file, then every file below the directory, whatever its name; the last one counts.
pub(super) fn read(host: &dyn Host, engine: &Crio) -> Result<Settings, HostError> {
    let mut files = vec![engine.config.clone()];
    walk(host, &engine.config_dir, 0, &mut files)?;
    let mut settings = Settings::default();
    for path in files {
        let Reading::Bytes(bytes) = observation::read(host, &path)? else { continue };
        let table = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<Table>().ok()).unwrap_or_default();
        let image = table.get("crio").and_then(|crio| crio.get("image"));
        if let Some(value) = image.and_then(|image| image.get("auto_reload_registries")?.as_bool()) {
            settings.auto_reload_registries = value;
        }
        let named = |key: &str| {
            let value = image.and_then(|image| image.get(key)?.as_str())?;
            Some((!value.is_empty()).then(|| PathBuf::from(value)))
        };
        if let Some(value) = named("signature_policy") {
            settings.signature_policy = value;
        }
        if let Some(value) = named("signature_policy_dir") {
            settings.signature_policy_dir = value;
        }
        settings.files.push(path);
    }
    Ok(settings)
}
