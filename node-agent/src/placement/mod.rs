//! Where the targets of our links live, so that an entry of the engine exists exactly as long as the agent wants it to.
//!
//! Least trace first: a [`PrivateMount`] that the engine reaches through `/proc/<agent>/root`, which the kernel takes
//! away with the agent however it dies; else a folder under `/run` of the engine's root, which a reboot empties.
//! A dangling link counts as "not there" for the engine, so withdrawing is one rename and announcing is its way back.
//! `liveness` says when; the engine adapter says what is written here.

mod announcer;
mod life;
mod nonce;
mod pid;
mod private_mount;
#[cfg(test)]
mod tests;

pub use announcer::Announcer;
pub use nonce::Nonce;
pub use private_mount::PrivateMount;

use life::Life;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Why targets cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// A mount namespace can be left only before threads start.
    #[error("leave the mount namespace with {threads} threads running")]
    Threads {
        /// How many there were.
        threads: usize,
    },
    /// The kernel refuses; without `CAP_SYS_ADMIN` it does.
    #[error("{what}: {cause}")]
    Namespace {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: nix::Error,
    },
    /// The engine's `/proc` does not lead to us.
    #[error("reach this process through /proc of the engine (process {engine})")]
    NotSeenByEngine {
        /// The engine's process id as we see it.
        engine: u32,
    },
    /// A target's name left the folder.
    #[error("use {path} as the name of a target: it must be relative and stay inside")]
    Name {
        /// The name.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{path}: {cause}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
}

impl PlacementError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause: source }
    }
}

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A private mount behind `/proc/<agent>/root`: gone with the agent.
    PrivateMount,
    /// A folder under `/run`: gone with the next boot, or when somebody withdraws it.
    RunFolder,
}

/// One folder of targets. Shared between who writes it and who withdraws it.
#[derive(Debug)]
pub struct Placement {
    kind: Kind,
    /// Under this name the engine finds the targets.
    announced: PathBuf,
    /// Under this name it does not.
    withdrawn: PathBuf,
    /// What links point into: `announced` as the engine sees it.
    targets: PathBuf,
    state: Mutex<State>,
    /// The folder that both are in, where the way there may end before it does.
    parent: Option<File>,
    /// Says that somebody still uses it; `None` where it is to outlive us.
    life: Option<Life>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Announced,
    Withdrawn,
}

impl Placement {
    /// A folder in the private mount, as `engine` (a process id as we see it) will reach it. Withdrawn at first.
    pub fn in_private_mount(mount: &PrivateMount, engine: u32) -> Result<Self, PlacementError> {
        let nonce = Nonce::fresh().map_err(|source| PlacementError::io(Path::new("/dev/urandom"), source))?;
        let announced = mount.point().join(recognisable(&nonce));
        create_folder(&announced)?;
        let targets = pid::path_for_engine(engine, &announced);
        let withdrawn = hidden(mount.point(), &nonce);
        fs::rename(&announced, &withdrawn).map_err(|source| PlacementError::io(&announced, source))?;
        let targets = targets.inspect_err(|_| drop(fs::remove_dir(&withdrawn)))?;
        Ok(Self {
            kind: Kind::PrivateMount,
            announced,
            withdrawn,
            targets,
            state: Mutex::new(State::Withdrawn),
            parent: None,
            life: None,
        })
    }

    /// A folder under `run` (absolute as the engine sees it) in the engine's root, which we see at `engine_root`.
    /// Withdrawn at first.
    pub fn in_run_folder(engine_root: &Path, run: &Path) -> Result<Self, PlacementError> {
        let nonce = Nonce::fresh().map_err(|source| PlacementError::io(Path::new("/dev/urandom"), source))?;
        let inside = run.strip_prefix("/").map_err(|_| PlacementError::Name { path: run.to_owned() })?;
        let way = engine_root.join(inside);
        create_folder(&way)?;
        // By a descriptor: /proc/<engine>/root ends with that process, and what is announced has to be withdrawn then, too.
        let held =
            fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH | nix::libc::O_DIRECTORY).open(&way);
        let held = held.map_err(|source| PlacementError::io(&way, source))?;
        let parent = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let withdrawn = hidden(&parent, &nonce);
        create_folder(&withdrawn)?;
        let announced = parent.join(recognisable(&nonce));
        let targets = run.join(recognisable(&nonce));
        let state = Mutex::new(State::Withdrawn);
        Ok(Self { kind: Kind::RunFolder, announced, withdrawn, targets, state, parent: Some(held), life: None })
    }

    /// The same for an agent: when it ends without [`Placement::remove`], the next agent removes it. What agents before
    /// this one left is removed now.
    pub fn in_run_folder_of_agent(engine_root: &Path, run: &Path) -> Result<Self, PlacementError> {
        let mut placement = Self::in_run_folder(engine_root, run)?;
        if let Some(parent) = placement.withdrawn.parent() {
            life::sweep(parent);
            let life = Life::begin(&placement.withdrawn);
            placement.life = Some(life.inspect_err(|_| drop(fs::remove_dir(&placement.withdrawn)))?);
        }
        Ok(placement)
    }

    /// The folder `targets` (absolute as the engine sees it) that [`Placement::in_run_folder`] once made and that is
    /// announced: another process uses it on.
    pub fn in_run_folder_again(engine_root: &Path, targets: &Path) -> Result<Self, PlacementError> {
        let wrong = || PlacementError::Name { path: targets.to_owned() };
        let announced = engine_root.join(targets.strip_prefix("/").map_err(|_| wrong())?);
        let name = announced.file_name().and_then(|name| name.to_str()).ok_or_else(wrong)?;
        let withdrawn = announced.with_file_name(format!(".{name}.withdrawn"));
        let (targets, state) = (targets.to_owned(), Mutex::new(State::Announced));
        Ok(Self { kind: Kind::RunFolder, announced, withdrawn, targets, state, parent: None, life: None })
    }

    /// What kind of place it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The folder that it was made in has been removed by others: nothing can be announced in it any more.
    pub fn is_lost(&self) -> bool {
        let removed = |parent: &File| parent.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        self.parent.as_ref().is_some_and(removed)
    }

    /// What links point into, absolute as the engine sees it.
    pub fn targets(&self) -> &Path {
        &self.targets
    }

    /// Writes one target, as a whole or not at all. `name` is relative; its folders are created.
    pub fn write(&self, name: &Path, bytes: &[u8]) -> Result<(), PlacementError> {
        let name = inside(name)?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder(*state).join(name);
        let parent = path.parent().unwrap_or(&path);
        create_folder(parent)?;
        let temporary = parent.join(format!(".{}.new", path.file_name().unwrap_or_default().display()));
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source: io::Error| PlacementError::io(&path, source))
    }

    /// Makes the targets exactly these: others go. `names` are relative.
    pub fn write_all<'a>(&self, files: impl IntoIterator<Item = (&'a Path, &'a [u8])>) -> Result<(), PlacementError> {
        let mut wanted = Vec::new();
        for (name, bytes) in files {
            if self.read(name)?.as_deref() != Some(bytes) {
                self.write(name, bytes)?;
            }
            wanted.push(inside(name)?.to_owned());
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder(*state);
        remove_unwanted(folder, folder, &wanted)
    }

    /// The bytes of one target, if there is one.
    pub fn read(&self, name: &Path) -> Result<Option<Vec<u8>>, PlacementError> {
        let name = inside(name)?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder(*state).join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PlacementError::io(&path, source)),
        }
    }

    /// From now on the links lead somewhere. Done already is fine.
    pub fn announce(&self) -> Result<(), PlacementError> {
        self.turn(State::Announced)
    }

    /// From now on the links dangle. Done already is fine.
    pub fn withdraw(&self) -> Result<(), PlacementError> {
        self.turn(State::Withdrawn)
    }

    /// Whether the links lead somewhere.
    pub fn is_announced(&self) -> bool {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) == State::Announced
    }

    /// Withdraws and removes the folder. Nothing is left of it.
    pub fn remove(&self) -> Result<(), PlacementError> {
        self.withdraw()?;
        match fs::remove_dir_all(&self.withdrawn) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PlacementError::io(&self.withdrawn, error)),
            _ => self.life.as_ref().map_or(Ok(()), Life::end),
        }
    }

    fn turn(&self, wanted: State) -> Result<(), PlacementError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == wanted {
            return Ok(());
        }
        let (from, to) = (self.folder(*state), self.folder(wanted));
        match fs::rename(from, to) {
            Ok(()) => {}
            // Somebody emptied /run: the links dangle already, and there is nothing to announce.
            Err(error) if error.kind() == io::ErrorKind::NotFound && wanted == State::Withdrawn => {}
            Err(source) => return Err(PlacementError::io(from, source)),
        }
        *state = wanted;
        Ok(())
    }

    fn folder(&self, state: State) -> &Path {
        match state {
            State::Announced => &self.announced,
            State::Withdrawn => &self.withdrawn,
        }
    }
}

/// A name by which the engine adapter knows a link of ours after its target is gone.
fn recognisable(nonce: &Nonce) -> String {
    format!("larder-{nonce}")
}

fn hidden(parent: &Path, nonce: &Nonce) -> PathBuf {
    parent.join(format!(".larder-{nonce}.withdrawn"))
}

/// Only plain relative names: nothing here may write outside of its folder.
fn inside(name: &Path) -> Result<&Path, PlacementError> {
    let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && name.file_name().is_some() { Ok(name) } else { Err(PlacementError::Name { path: name.to_owned() }) }
}

/// Like `mkdir -p`. A target may repeat an administrator's header with a password in it: nobody but the engine, which is
/// root as we are, reads it, and nobody else learns the nonce.
fn create_folder(path: &Path) -> Result<(), PlacementError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ours_alone = name.starts_with("larder-") || name.starts_with(".larder-");
    let mode = if ours_alone { 0o700 } else { 0o755 };
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(|source| PlacementError::io(path, source))?,
    }
    let whatever_the_umask = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, whatever_the_umask).map_err(|source| PlacementError::io(path, source))
}

/// Removes every file below `folder` whose name relative to `root` is not in `wanted`, and folders left empty: an
/// empty folder means something to an engine.
fn remove_unwanted(root: &Path, folder: &Path, wanted: &[PathBuf]) -> Result<(), PlacementError> {
    let entries = fs::read_dir(folder).map_err(|source| PlacementError::io(folder, source))?;
    for entry in entries {
        let path = entry.map_err(|source| PlacementError::io(folder, source))?.path();
        let name = path.strip_prefix(root).unwrap_or(&path);
        if path.is_dir() && !path.is_symlink() {
            remove_unwanted(root, &path, wanted)?;
            if !wanted.iter().any(|wanted| wanted.starts_with(name)) {
                fs::remove_dir(&path).map_err(|source| PlacementError::io(&path, source))?;
            }
        } else if !wanted.iter().any(|wanted| wanted == name) {
            fs::remove_file(&path).map_err(|source| PlacementError::io(&path, source))?;
        }
    }
    Ok(())
}
