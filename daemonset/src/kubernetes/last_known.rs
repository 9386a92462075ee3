//! What the UpstreamRegistry objects said when the API server was last heard: a small file beside the journal.
//!
//! An agent that starts reads it at once, and runs from it until the API server says something, however long that takes. It is on the node's disk and not
//! in `/run`, for the day on which a whole cluster is switched on again. Nobody reads it but root; it is checked as anything else is.

use crate::config::Engine as Config;
use anyhow::Context as _;
use larder_node_agent::host::{Attributes, Host as _, HostError, RootedHost};
use larder_upstream_registries::{Known, LARGEST_TEXT, Reading, keep};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where the node is seen from when nothing is known of its engine yet.
const ROOTS: [&str; 2] = ["/proc/1/root", "/"];

/// What an agent before this one knew, before anything is known of the node's engine.
pub(crate) fn read(config: &Config) -> Option<Known> {
    let roots = config.host_root.as_deref().map_or_else(|| ROOTS.map(Path::new).to_vec(), |root| vec![root]);
    roots.into_iter().find_map(|root| read_in(&RootedHost::open(root).ok()?, &file(&config.state_dir)))
}

fn read_in(host: &RootedHost, path: &Path) -> Option<Known> {
    let contents = match host.read(path, LARGEST_TEXT) {
        Ok(contents) => contents,
        Err(HostError::NotFound { .. }) => return None,
        Err(error) => {
            tracing::warn!(%error, "what UpstreamRegistry objects said is not known until the API server says it");
            return None;
        }
    };
    Known::of_text(&contents.bytes).inspect_err(|error| tracing::warn!(path = %path.display(), "{error}")).ok()
}

fn write_in(host: &RootedHost, path: &Path, known: &Known) -> anyhow::Result<()> {
    host.make_parents(path)?;
    let bytes = known.to_text()?.into_bytes();
    if host.read(path, LARGEST_TEXT).is_ok_and(|contents| contents.bytes == bytes) {
        return Ok(());
    }
    Ok(host.write(path, &bytes, &Attributes::new(0o600), &host.occupant(path)?)?)
}

/// Forgets everything, as part of leaving nothing behind.
pub(crate) fn forget(host: &RootedHost, state_dir: &Path) -> Result<(), HostError> {
    let path = file(state_dir);
    if host.exists(&path)? { host.remove(&path, &host.occupant(&path)?) } else { Ok(()) }
}

fn file(state_dir: &Path) -> PathBuf {
    let mut name = state_dir.file_name().unwrap_or_default().to_owned();
    name.push("-kubernetes.json");
    state_dir.with_file_name(name)
}

/// Writes it down, wherever the node's files turn out to be. A task of its own, for disks hang.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    path: PathBuf,
    root: Arc<watch::Sender<Option<PathBuf>>>,
}

impl Keeper {
    pub(crate) fn new(config: &Config) -> Self {
        Self { path: file(&config.state_dir), root: Arc::new(watch::Sender::new(config.host_root.clone())) }
    }

    /// Where the node's files are, as its engine sees them.
    pub(crate) fn found(&self, root: PathBuf) {
        self.root.send_if_modified(|known| {
            let news = known.as_ref() != Some(&root);
            *known = Some(root);
            news
        });
    }

    /// Until `shutdown`.
    pub(super) async fn follow(
        self,
        known: watch::Receiver<Arc<Known>>,
        reading: Reading,
        shutdown: CancellationToken,
    ) {
        let Self { path, root } = self;
        let mut root = root.subscribe();
        let follow = async {
            loop {
                let at = root.borrow_and_update().clone();
                let keeping = async {
                    let Some(at) = at else { return std::future::pending().await };
                    let to = path.clone();
                    let write = move |known: &Known| {
                        let host = RootedHost::open(&at).with_context(|| format!("open {}", at.display()))?;
                        write_in(&host, &to, known)
                    };
                    keep(known.clone(), reading.clone(), &path, write).await
                };
                tokio::select! {
                    never = keeping => match never {},
                    changed = root.changed() => if changed.is_err() {
                        return std::future::pending().await;
                    },
                }
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_oci::Registry;

    #[test]
    fn what_was_known_is_there_for_the_next_agent() {
        let root = tempfile::tempdir().unwrap();
        let host = RootedHost::open(root.path()).unwrap();
        let path = file(Path::new("/var/lib/larder/node"));
        assert_eq!(path, Path::new("/var/lib/larder/node-kubernetes.json"));
        assert_eq!(read_in(&host, &path), None);
        let known =
            Known { named: [Registry::parse("b.example:5000").unwrap()].into(), objects: 7, ..Known::default() };
        // The second time the folders are there.
        for _ in 0..2 {
            write_in(&host, &path, &known).unwrap();
            assert_eq!(read_in(&host, &path), Some(known.clone()));
        }
        std::fs::write(root.path().join("var/lib/larder/node-kubernetes.json"), "{").unwrap();
        assert_eq!(read_in(&host, &path), None, "what is damaged is as none");
        forget(&host, Path::new("/var/lib/larder/node")).unwrap();
        assert!(!host.exists(&path).unwrap());
    }
}
