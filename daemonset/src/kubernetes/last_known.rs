//! What the UpstreamRegistry objects said when the API server was last heard: a small file beside the journal.
//!
//! An agent that starts reads it at once, and runs from it until the API server says something, however long that takes. It is on the node's disk and not
//! in `/run`, for the day on which a whole cluster is switched on again. Nobody reads it but root; it is checked as anything else is.

use super::said::OfRegistry;
use super::{Known, Reading};
use crate::config::Engine as Config;
use anyhow::Context as _;
use larder_node_agent::host::{Attributes, Host as _, HostError, RootedHost};
use larder_oci::Registry;
use larder_proxy::settings::Settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is handed to the proxy has its own bound, and JSON spells line ends as two characters.
const LARGEST_FILE: u64 = 8 * 1024 * 1024;

/// Where the node is seen from when nothing is known of its engine yet.
const ROOTS: [&str; 2] = ["/proc/1/root", "/"];

/// As it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    objects: usize,
    /// Of which something is said, the oldest first.
    registries: Vec<One>,
    named: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct One {
    registry: String,
    /// The words of the registries file.
    settings: String,
}

const VERSION: u32 = 1;

impl Written {
    fn of(known: &Known) -> Self {
        let one = |(registry, words): &(Registry, OfRegistry)| One {
            registry: registry.to_string(),
            settings: text(registry, words),
        };
        Self {
            version: VERSION,
            objects: known.objects,
            registries: known.said.iter().map(one).collect(),
            named: known.named.iter().map(ToString::to_string).collect(),
        }
    }

    /// What cannot be read of it is left out: it will be said again.
    fn known(self) -> Known {
        let said = self.registries.into_iter().filter_map(|one| {
            let registry = Registry::parse(&one.registry).ok()?;
            let settings = Settings::parse_toml(&one.settings, Path::new("/"));
            let settings =
                settings.inspect_err(|error| tracing::warn!(%registry, %error, "not known from before")).ok()?;
            let words = OfRegistry { settings: settings.registries.get(&registry)?.clone(), skipped: settings.deny };
            Some((registry, words))
        });
        let named = self.named.iter().filter_map(|name| Registry::parse(name).ok());
        Known { said: said.collect(), named: named.collect(), left_out: Vec::new(), objects: self.objects }
    }
}

fn text(registry: &Registry, OfRegistry { settings, skipped }: &OfRegistry) -> String {
    let registries = [(registry.clone(), settings.clone())].into();
    Settings { registries, deny: skipped.clone(), ..Settings::default() }.to_toml()
}

/// What an agent before this one knew, before anything is known of the node's engine.
pub(crate) fn read(config: &Config) -> Option<Known> {
    let roots = config.host_root.as_deref().map_or_else(|| ROOTS.map(Path::new).to_vec(), |root| vec![root]);
    roots.into_iter().find_map(|root| read_in(&RootedHost::open(root).ok()?, &file(&config.state_dir)))
}

fn read_in(host: &RootedHost, path: &Path) -> Option<Known> {
    let contents = match host.read(path, LARGEST_FILE) {
        Ok(contents) => contents,
        Err(HostError::NotFound { .. }) => return None,
        Err(error) => {
            tracing::warn!(%error, "what UpstreamRegistry objects said is not known until the API server says it");
            return None;
        }
    };
    match serde_json::from_slice::<Written>(&contents.bytes) {
        Ok(written) if written.version == VERSION => Some(written.known()),
        Ok(written) => {
            tracing::warn!(path = %path.display(), version = written.version, "of another Larder: not read");
            None
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "damaged; it is written anew once the API server says something");
            None
        }
    }
}

fn write_in(host: &RootedHost, path: &Path, known: &Known) -> anyhow::Result<()> {
    host.make_parents(path)?;
    let bytes = serde_json::to_vec(&Written::of(known))?;
    if host.read(path, LARGEST_FILE).is_ok_and(|contents| contents.bytes == bytes) {
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

    /// Until `shutdown`. What comes from the disk is not written there again.
    pub(super) async fn follow(
        self,
        mut known: watch::Receiver<Arc<Known>>,
        reading: Reading,
        shutdown: CancellationToken,
    ) {
        let mut root = self.root.subscribe();
        let follow = async {
            let mut is_kept = true;
            loop {
                let (now, at) = (Arc::clone(&known.borrow_and_update()), root.borrow_and_update().clone());
                if let Some(at) = at.filter(|_| reading.has_read()) {
                    let path = self.path.clone();
                    let kept = tokio::task::spawn_blocking(move || {
                        let host = RootedHost::open(&at).with_context(|| format!("open {}", at.display()))?;
                        write_in(&host, &path, &now)
                    });
                    match kept.await {
                        Ok(Ok(())) => is_kept = true,
                        Ok(Err(error)) => {
                            if std::mem::replace(&mut is_kept, false) {
                                let error = format!("{error:#}");
                                tracing::warn!(
                                    error,
                                    "what UpstreamRegistry objects say is known until this process ends only"
                                );
                            }
                        }
                        Err(error) => tracing::error!(%error, "what UpstreamRegistry objects say was not written down"),
                    }
                }
                let gone = tokio::select! {
                    changed = known.changed() => changed.is_err(),
                    changed = root.changed() => changed.is_err(),
                };
                if gone {
                    return std::future::pending().await;
                }
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_proxy::settings::{Pattern, RegistrySettings};

    fn host() -> (tempfile::TempDir, RootedHost) {
        let root = tempfile::tempdir().unwrap();
        let host = RootedHost::open(root.path()).unwrap();
        (root, host)
    }

    #[test]
    fn what_was_known_is_there_for_the_next_agent() {
        let (_root, host) = host();
        let path = file(Path::new("/var/lib/larder/node"));
        assert_eq!(path, Path::new("/var/lib/larder/node-kubernetes.json"));
        assert_eq!(read_in(&host, &path), None);
        let registry = |name: &str| Registry::parse(name).unwrap();
        let parts = OfRegistry {
            settings: RegistrySettings::default(),
            skipped: vec![Pattern::parse("[::1]:5000/team/**").unwrap()],
        };
        let said = vec![(registry("[::1]:5000"), parts), (registry("a.example"), OfRegistry::left_to_the_engine())];
        let known = Known { said, named: [registry("b.example:5000")].into(), left_out: Vec::new(), objects: 7 };
        // The second time the folders are there.
        for _ in 0..2 {
            write_in(&host, &path, &known).unwrap();
            assert_eq!(read_in(&host, &path), Some(known.clone()));
        }
        forget(&host, Path::new("/var/lib/larder/node")).unwrap();
        assert_eq!(read_in(&host, &path), None);
    }

    #[test]
    fn what_is_damaged_is_as_none_and_single_words_are_left_out() {
        let (root, host) = host();
        std::fs::create_dir_all(root.path().join("var/lib/larder")).unwrap();
        let path = file(Path::new("/var/lib/larder/node"));
        let write = |text: &str| std::fs::write(root.path().join("var/lib/larder/node-kubernetes.json"), text).unwrap();
        for text in ["", "{", "[]", r#"{"version": 2, "objects": 0, "registries": [], "named": []}"#] {
            write(text);
            assert_eq!(read_in(&host, &path), None, "{text}");
        }
        write(
            r#"{"version": 1, "objects": 3, "named": ["://", "b.example"], "registries": [
                {"registry": "a.example", "settings": "[registries.\"a.example\"]\nskip = true\n"},
                {"registry": "c.example", "settings": "[registries.\"c.example\"]\nendpoints = [\"nonsense\"]\n"},
                {"registry": "d.example", "settings": "[registries.\"e.example\"]\nskip = true\n"}]}"#,
        );
        let known = read_in(&host, &path).unwrap();
        assert_eq!((known.said.len(), known.named.len(), known.objects), (1, 1, 3));
    }
}
