//! What the agent tells its proxy: a folder with `registries.toml` (certificates inline, so the proxy needs no file of the
//! host) and `key`, by which the proxy proves that it is ours.
//!
//! Invariant: only root and the proxy's group can read it; files change by rename, so the proxy never reads half of one.

use crate::config::User;
use crate::privileges;
use anyhow::Context as _;
use larder_proxy::program::{KEY, REGISTRIES};
use larder_proxy::server::probe::ProbeKey;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// The folder, held by one agent at a time.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    group: Option<u32>,
    key: ProbeKey,
    /// Held until this process ends.
    _only_agent: Flock<File>,
}

impl RunFolder {
    /// Makes `<run_dir>/proxy` with what the proxy, which runs as `user`, shall know about registries. A key that is there
    /// stays, for a proxy that outlived its agent.
    ///
    /// The key comes last: a proxy that waits for it finds everything.
    pub(crate) fn open(run_dir: &Path, user: User, registries: &str) -> anyhow::Result<Self> {
        let context = || format!("{}", run_dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o755).create(run_dir).with_context(context)?;
        let only_agent = lock(run_dir)?;
        let group = privileges::is_root().then(|| user.gid.as_raw());
        let path = run_dir.join("proxy");
        let key = ProbeKey::read(&path.join(KEY)).or_else(|_| ProbeKey::random())?;
        let folder = Self { path, group, key, _only_agent: only_agent };
        folder.make(registries)?;
        Ok(folder)
    }

    /// Makes the folder and everything in it. It gets its name when it is complete: a proxy that waits for it, as another user, never
    /// sees one that it may not look into.
    fn make(&self, registries: &str) -> anyhow::Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).with_context(|| shown(parent))?;
        if self.path.is_dir() {
            return self.fill(&self.path, registries);
        }
        let unfinished = self.path.with_file_name(".proxy.new");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| shown(&unfinished));
            }
            _ => {}
        }
        fs::DirBuilder::new().mode(0o750).create(&unfinished).with_context(|| shown(&unfinished))?;
        self.fill(&unfinished, registries)?;
        fs::rename(&unfinished, &self.path).with_context(|| shown(&self.path))
    }

    fn fill(&self, folder: &Path, registries: &str) -> anyhow::Result<()> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o750)).with_context(|| shown(folder))?;
        chown(folder, None, self.group).with_context(|| shown(folder))?;
        self.write(folder, REGISTRIES, registries.as_bytes())?;
        self.write(folder, KEY, self.key.to_hex().as_bytes())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn key(&self) -> &ProbeKey {
        &self.key
    }

    /// What the proxy shall know about registries. True when that is news.
    pub(crate) fn write_registries(&self, text: &str) -> anyhow::Result<bool> {
        if fs::read(self.path.join(REGISTRIES)).is_ok_and(|known| known == text.as_bytes()) {
            return Ok(false);
        }
        if !self.path.join(KEY).exists() {
            tracing::warn!(folder = %self.path.display(), "somebody removed it: made again, for the next start of the proxy");
            return self.make(text).map(|()| true);
        }
        self.write(&self.path, REGISTRIES, text.as_bytes()).map(|()| true)
    }

    /// What only root may read and the proxy needs.
    pub(crate) fn write_copy(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path.join(name);
        // An agent before us may have had a proxy of another group.
        let is_the_proxys = || {
            let group = fs::metadata(&path).map(|metadata| metadata.gid()).ok();
            self.group.is_none() || self.group == group
        };
        if fs::read(&path).is_ok_and(|known| known == bytes) && is_the_proxys() {
            return Ok(());
        }
        self.write(&self.path, name, bytes)
    }

    /// It is no more, nor what was left of writing it.
    pub(crate) fn remove_copy(&self, name: &str) -> anyhow::Result<()> {
        for path in [temporary(&self.path, name), self.path.join(name)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&self, folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (temporary, path) = (temporary(folder, name), folder.join(name));
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
            chown(&temporary, None, self.group)?;
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
            file.write_all(bytes)?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

fn temporary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.new"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn lock(run_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = run_dir.join("agent.lock");
    let context = || format!("{}", path.display());
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(context)?;
    let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, _)| {
        let mut holder = String::new();
        // Who it is helps; that there is one is certain.
        let _ = file.take(20).read_to_string(&mut holder);
        let holder = holder.trim();
        let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
        anyhow::anyhow!(
            "another agent{holder} runs with --run-dir {}: stop it, or name another folder",
            run_dir.display()
        )
    })?;
    held.set_len(0).and_then(|()| writeln!(held, "{}", std::process::id())).with_context(context)?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::RunFolder;
    use crate::config::User;
    use crate::privileges;
    use nix::unistd::{Gid, Uid};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    const USER: User = User { uid: Uid::from_raw(65532), gid: Gid::from_raw(65533) };

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn only_one_agent_has_it_and_nobody_else_reads_it() {
        let run_dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(run_dir.path(), USER, "").unwrap();
        let error = RunFolder::open(run_dir.path(), USER, "").unwrap_err().to_string();
        assert!(error.contains(&format!("another agent (process {})", std::process::id())), "{error}");
        assert_eq!((mode(folder.path()), mode(&folder.path().join("key"))), (0o750, 0o640));
        assert!(folder.write_registries("a = 1").unwrap());
        assert!(!folder.write_registries("a = 1").unwrap());
        assert!(folder.write_registries("a = 2").unwrap());
    }

    #[test]
    fn what_an_agent_that_was_killed_began_is_begun_anew() {
        let run_dir = tempfile::tempdir().unwrap();
        let unfinished = run_dir.path().join(".proxy.new");
        std::fs::create_dir(&unfinished).unwrap();
        std::fs::write(unfinished.join("key"), "half").unwrap();
        let folder = RunFolder::open(run_dir.path(), USER, "a = 1").unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("key")).unwrap().len(), 64);
        assert!(!unfinished.exists());
    }

    #[test]
    fn the_proxys_group_reads_it_all() {
        if !privileges::is_root() {
            eprintln!("SKIPPED: giving files to another group, because this is not root");
            return;
        }
        let run_dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(run_dir.path(), USER, "a = 1").unwrap();
        for path in [folder.path(), &folder.path().join("key"), &folder.path().join("registries.toml")] {
            assert_eq!(std::fs::metadata(path).unwrap().gid(), USER.gid.as_raw(), "{}", path.display());
        }
    }

    #[test]
    fn what_somebody_removed_is_made_again_with_the_same_key() {
        let run_dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(run_dir.path(), USER, "a = 1").unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let key = read("key");
        std::fs::remove_dir_all(run_dir.path()).unwrap();
        assert!(folder.write_registries("a = 1").unwrap());
        assert_eq!((read("key"), read("registries.toml").as_str()), (key, "a = 1"));
        assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o750);
        assert!(!folder.write_registries("a = 1").unwrap());
    }

    #[test]
    fn the_key_outlives_its_agent_and_is_in_no_debug_output() {
        let run_dir = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(run_dir.path().join("proxy/key")).unwrap();
        drop(RunFolder::open(run_dir.path(), USER, "").unwrap());
        let first = read();
        let again = RunFolder::open(run_dir.path(), USER, "").unwrap();
        assert_eq!(read(), first);
        assert!(!format!("{again:?}").contains(first.get(..16).unwrap()));
    }
}
