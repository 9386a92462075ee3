//! The registries file on disk: read once at the start, then followed.
//!
//! Invariant: the shared settings are always a whole, valid file. A start with a bad file is refused; a file that turns bad
//! or goes away while we run changes nothing but a condition (and a metric), and the last good settings stay. Damaged certificates of one
//! registry are about that registry alone ([`Settings::in_force_after`]), also at the start. Changes are seen
//! by inotify on the folder (a rename into place, or a mounted `ConfigMap` whose links are swapped) and, where that is
//! silent, by reading the file every ten seconds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_process::readiness::Condition;
use notify::{RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::file::{LARGEST, SettingsError};
use super::{Settings, SharedSettings};
use crate::metrics::Metrics;

/// How often the file is read when nothing announces a change.
const PERIOD: Duration = Duration::from_secs(10);

/// A pause after an announcement, so that the several steps of one change are read as one.
const SETTLE: Duration = Duration::from_millis(50);

/// Why a registries file was not read.
#[derive(Debug, Error)]
pub enum SettingsFileError {
    /// The file is not there or not readable.
    #[error("read registries file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is larger than any registries file.
    #[error("registries file {} is larger than 1 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file was read and is wrong.
    #[error("registries file {}: {error}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: SettingsError,
    },
}

/// A registries file that was read once and can be followed.
#[derive(Debug)]
pub struct SettingsFile {
    path: PathBuf,
    shared: SharedSettings,
    changes: watch::Sender<()>,
}

impl SettingsFile {
    /// Reads the file; an error here is one to stop for. What it may leave out, [`SettingsFile::follow`] tells first of all.
    pub fn open(path: &Path) -> Result<Self, SettingsFileError> {
        let (settings, _) = read(path, &Settings::default())?;
        Ok(Self::of(path, settings))
    }

    /// Reads the file if it is there; until it is, the defaults are in force. For a folder that another process fills.
    pub fn open_or_wait(path: &Path) -> Result<Self, SettingsFileError> {
        match Self::open(path) {
            Err(SettingsFileError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "registries file is not there yet: the defaults are in force");
                Ok(Self::of(path, Settings::default()))
            }
            other => other,
        }
    }

    fn of(path: &Path, settings: Settings) -> Self {
        Self { path: path.to_owned(), shared: settings.shared(), changes: watch::Sender::new(()) }
    }

    /// News whenever the settings were replaced.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The settings that [`SettingsFile::follow`] replaces.
    pub fn shared(&self) -> SharedSettings {
        Arc::clone(&self.shared)
    }

    /// Follows the file until `shutdown`. Never fails: without inotify there is still the periodic look.
    pub async fn follow(mut self, condition: Condition, metrics: Arc<Metrics>, shutdown: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let _watcher = self.watch_folder(&changed);
        // What changed between the first reading and now was announced to nobody.
        changed.notify_one();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(PERIOD) => {}
            }
            self = self.look_aside(&condition, &metrics).await;
        }
    }

    /// Reads on a blocking thread: the folder may be on a disk that hangs.
    async fn look_aside(self, condition: &Condition, metrics: &Metrics) -> Self {
        let (path, known) = (self.path.clone(), self.shared.load_full());
        let read = tokio::task::spawn_blocking(move || read(&path, &known)).await;
        let wrong = match read {
            Ok(Ok((settings, damaged))) => {
                if settings != **self.shared.load() {
                    tracing::info!(path = %self.path.display(), registries = settings.registries.len(), "registries file read again");
                    self.shared.store(Arc::new(settings));
                    self.changes.send_replace(());
                }
                damaged.map(|damaged| format!("registries file {}: {damaged}", self.path.display()))
            }
            Ok(Err(error)) => Some(format!("{error}; the settings read before stay in force")),
            Err(error) => Some(format!("{error}; the settings read before stay in force")),
        };
        metrics.settings_invalid.set(wrong.is_some().into());
        match wrong {
            None => drop(condition.clear()),
            Some(wrong) => {
                if condition.set(wrong.clone()) {
                    tracing::error!("{wrong}");
                }
            }
        }
        self
    }

    fn watch_folder(&self, changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
        let changed = Arc::clone(changed);
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let start = || -> notify::Result<notify::RecommendedWatcher> {
            let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading is an event too; answering it would never end.
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    changed.notify_one();
                }
            })?;
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        };
        start()
            .inspect_err(|error| {
                tracing::warn!(folder = %folder.display(), %error, "changes are not announced; the file is read every 10 s");
            })
            .ok()
    }
}

/// What the file says after `known` was in force, and what of it cannot be used.
fn read(path: &Path, known: &Settings) -> Result<(Settings, Option<String>), SettingsFileError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .map_err(|error| SettingsFileError::Read { path: path.to_owned(), error })?;
    if text.len() as u64 > LARGEST {
        return Err(SettingsFileError::TooLarge { path: path.to_owned() });
    }
    let base = path.parent().unwrap_or(Path::new("."));
    Settings::in_force_after(known, &text, base)
        .map_err(|error| SettingsFileError::Wrong { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use larder_oci::Registry;
    use larder_process::readiness::Readiness;

    use super::super::tests::until;
    use super::*;

    #[test]
    fn a_start_with_a_bad_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.toml");
        let missing = SettingsFile::open(&path).unwrap_err().to_string();
        assert!(missing.starts_with(&format!("read registries file {}: ", path.display())), "{missing}");
        std::fs::write(&path, "x = 1").unwrap();
        let wrong = SettingsFile::open(&path).unwrap_err().to_string();
        assert!(wrong.contains("registries.toml: ") && wrong.contains("unknown field `x`"), "{wrong}");
        std::fs::write(&path, "#".repeat(2_000_000)).unwrap();
        assert!(matches!(SettingsFile::open(&path), Err(SettingsFileError::TooLarge { .. })));
        assert!(SettingsFile::open_or_wait(&path).is_err());
        let waiting = SettingsFile::open_or_wait(&folder.path().join("later.toml")).unwrap();
        assert_eq!(**waiting.shared().load(), Settings::default());
    }

    #[tokio::test]
    async fn a_damaged_certificate_shows_and_counts_once_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.toml");
        std::fs::write(&path, "[registries.\"quay.io\"]\nca = \"ca.pem\"\n[registries.\"b.example\"]\ninsecure = true")
            .unwrap();
        let file = SettingsFile::open(&path).unwrap();
        let (shared, readiness, shutdown) = (file.shared(), Readiness::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::new());
        let following =
            tokio::spawn(file.follow(readiness.condition("registries file"), Arc::clone(&metrics), shutdown.clone()));
        let of = |name: &str| shared.load().registry(&Registry::parse(name).unwrap());
        assert!(of("quay.io").skip && of("b.example").insecure);
        until("it shows", || readiness.report().to_string().contains("quay.io is left to the engine")).await;
        assert_eq!(metrics.settings_invalid.get(), 1);

        // The registries file itself stays as it is.
        std::fs::write(folder.path().join("ca.pem"), crate::authorities::SOUND).unwrap();
        until("the mended one counts", || !of("quay.io").skip).await;
        until("nothing shows", || readiness.report().lines.is_empty()).await;
        shutdown.cancel();
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_change_counts_and_a_bad_one_only_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.toml");
        let write = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        write("");
        let file = SettingsFile::open(&path).unwrap();
        let (shared, readiness, shutdown) = (file.shared(), Readiness::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::new());
        let following =
            tokio::spawn(file.follow(readiness.condition("registries file"), Arc::clone(&metrics), shutdown.clone()));
        let registry = Registry::parse("quay.io").unwrap();
        write("[registries.\"quay.io\"]\nskip = true");
        until("the change counts", || shared.load().registry(&registry).skip).await;

        write("[registries.\"quay.io\"]\nskip = 1");
        until("the bad file shows", || !readiness.report().lines.is_empty()).await;
        assert_eq!(metrics.settings_invalid.get(), 1);
        assert!(shared.load().registry(&registry).skip, "the last good settings stay");
        assert!(readiness.report().ready);

        std::fs::remove_file(&path).unwrap();
        until("the missing file shows", || readiness.report().to_string().contains("No such file")).await;
        assert!(shared.load().registry(&registry).skip);

        write("");
        until("the good file counts", || !shared.load().registry(&registry).skip).await;
        assert_eq!((readiness.report().lines.len(), metrics.settings_invalid.get()), (0, 0));
        shutdown.cancel();
        following.await.unwrap();
    }
}
