//! Watches paths of the engine's root, through `/proc/<engine>/root`, by inotify.
//!
//! Where a path does not exist yet, its nearest folder that does is watched, so that its coming is seen. inotify may be
//! exhausted on a busy node: then there is the periodic look, and the error is told.

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;

/// Says when something that is watched changed.
pub struct Watcher {
    root: PathBuf,
    inner: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
}

impl Watcher {
    /// Watches nothing yet. `root` is the engine's root as we see it.
    pub fn new(root: &Path) -> Result<Self, notify::Error> {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let inner = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // Reading is no news, and what went wrong may have hidden news.
            if event.is_err() || event.is_ok_and(|event| !event.kind.is_access()) {
                tell.notify_one();
            }
        })?;
        Ok(Self { root: root.to_owned(), inner, watched: BTreeSet::new(), changed })
    }

    /// Notified once for any number of changes since it was last waited for.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// From now on exactly these, absolute as the engine sees them. Errors name what is not watched.
    pub fn watch(&mut self, paths: &[PathBuf]) -> Vec<notify::Error> {
        let wanted: BTreeSet<PathBuf> = paths.iter().map(|path| self.nearest(path)).collect();
        let (gone, new): (Vec<_>, Vec<_>) =
            (self.watched.difference(&wanted).cloned().collect(), wanted.difference(&self.watched).cloned().collect());
        for path in gone {
            // A folder that was removed is not watched any more anyway.
            drop(self.inner.unwatch(&path));
            self.watched.remove(&path);
        }
        let mut errors = Vec::new();
        for path in new {
            match self.inner.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path);
                }
                Err(error) => errors.push(error.add_path(path)),
            }
        }
        errors
    }

    /// A file is watched by its folder, for it is replaced by rename.
    fn nearest(&self, path: &Path) -> PathBuf {
        let below = self.root.join(path.strip_prefix("/").unwrap_or(path));
        below.ancestors().find(|path| path.is_dir()).unwrap_or(&self.root).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Watcher;
    use std::path::PathBuf;
    use std::time::Duration;

    async fn told(watcher: &Watcher) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watcher.changed().notified()).await.is_ok()
    }

    #[tokio::test]
    async fn says_when_something_comes_changes_or_goes() {
        let root = tempfile::tempdir().unwrap();
        let certs = root.path().join("etc/containerd/certs.d");
        let folders = [PathBuf::from("/etc/containerd/certs.d")];
        let mut watcher = Watcher::new(root.path()).unwrap();
        assert_eq!(watcher.watch(&folders).len(), 0);
        std::fs::create_dir_all(&certs).unwrap();
        assert!(told(&watcher).await, "a folder that did not exist came");
        assert_eq!(watcher.watch(&folders).len(), 0);
        std::fs::write(certs.join("new"), "").unwrap();
        assert!(told(&watcher).await, "a file came");
        std::fs::remove_file(certs.join("new")).unwrap();
        assert!(told(&watcher).await, "a file went");
    }
}
