//! A double that fails, or dies, at one chosen step: how the promise "at any instant" is tested.
//!
//! Steps are the calls that change something, counted from 0. After a death every call fails, as if the process were
//! gone; what the file system holds then is what a real kill -9 would have left, half a temporary file included.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Attributes, Contents, Entry, Host, HostError, Lock, Metadata, Occupant, Owner, Result};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Killed before the step.
    DiesBefore,
    /// Killed within the step: a file is half written under its temporary name; other steps are atomic and have happened.
    DiesWithin,
    /// The step fails for want of space, and so does every later one that needs space; removing still works.
    Full,
    /// The step and every later one fail because the file system has become read-only.
    ReadOnly,
    /// Only this step fails.
    FailsOnce,
}

/// What a step needs of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Name,
    Bytes,
}

/// A host that does what `inner` does until its step comes.
#[derive(Debug)]
pub struct FaultyHost<H> {
    inner: H,
    fault: Option<(u64, Fault)>,
    steps: AtomicU64,
    dead: AtomicBool,
    written: Mutex<Vec<PathBuf>>,
}

impl<H: Host> FaultyHost<H> {
    /// Never fails; counts.
    pub fn counting(inner: H) -> Self {
        Self { inner, fault: None, steps: AtomicU64::new(0), dead: AtomicBool::new(false), written: Mutex::default() }
    }

    /// Fails at the step of that number.
    pub fn failing(inner: H, step: u64, fault: Fault) -> Self {
        Self { fault: Some((step, fault)), ..Self::counting(inner) }
    }

    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    /// The paths of the steps so far, in order.
    pub fn touched(&self) -> Vec<PathBuf> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host behind, which has suffered no fault.
    pub fn into_inner(self) -> H {
        self.inner
    }

    fn alive(&self, path: &Path) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(died(path));
        }
        Ok(())
    }

    /// Counts a step and does it, or what the fault leaves of it.
    fn step(
        &self,
        path: &Path,
        needs: Needs,
        action: impl FnOnce() -> Result<()>,
        half: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.alive(path)?;
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        let Some((at, fault)) = self.fault else { return action() };
        let now = number == at;
        let since = number >= at;
        match fault {
            Fault::DiesBefore if now => {
                self.dead.store(true, Ordering::SeqCst);
                Err(died(path))
            }
            Fault::DiesWithin if now => {
                half()?;
                self.dead.store(true, Ordering::SeqCst);
                Err(died(path))
            }
            Fault::Full if since && needs != Needs::Nothing => {
                if needs == Needs::Bytes {
                    // As the kernel does: some of them arrive.
                    drop(half());
                }
                Err(HostError::Full { path: path.to_owned() })
            }
            Fault::ReadOnly if since => Err(HostError::ReadOnly { path: path.to_owned() }),
            Fault::FailsOnce if now => {
                Err(HostError::Io { operation: "change", path: path.to_owned(), cause: io::Error::other("a fault") })
            }
            _ => action(),
        }
    }
}

fn died(path: &Path) -> HostError {
    HostError::Io { operation: "touch", path: path.to_owned(), cause: io::Error::other("the process is dead") }
}

impl<H: Host> Host for FaultyHost<H> {
    fn metadata(&self, path: &Path) -> Result<Metadata> {
        self.alive(path)?;
        self.inner.metadata(path)
    }

    fn link_metadata(&self, path: &Path) -> Result<Metadata> {
        self.alive(path)?;
        self.inner.link_metadata(path)
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Contents> {
        self.alive(path)?;
        self.inner.read(path, limit)
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf> {
        self.alive(path)?;
        self.inner.read_link(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        self.alive(path)?;
        self.inner.list(path)
    }

    fn attributes(&self, path: &Path) -> Result<Attributes> {
        self.alive(path)?;
        self.inner.attributes(path)
    }

    fn stage_file(&self, path: &Path, bytes: &[u8], attributes: &Attributes) -> Result<()> {
        let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
        self.step(
            path,
            Needs::Bytes,
            || self.inner.stage_file(path, bytes, attributes),
            // Not dressed yet: the mode that a temporary file is born with.
            || self.inner.stage_file(path, half, &Attributes::new(0o600)),
        )
    }

    fn stage_link(&self, path: &Path, target: &Path, owner: Option<Owner>) -> Result<()> {
        let action = || self.inner.stage_link(path, target, owner);
        self.step(path, Needs::Name, action, action)
    }

    fn commit(&self, path: &Path, over: &Occupant) -> Result<()> {
        let action = || self.inner.commit(path, over);
        self.step(path, Needs::Nothing, action, action)
    }

    fn discard(&self, path: &Path) -> Result<()> {
        let action = || self.inner.discard(path);
        self.step(path, Needs::Nothing, action, action)
    }

    fn create_directory(&self, path: &Path, mode: u32) -> Result<()> {
        let action = || self.inner.create_directory(path, mode);
        self.step(path, Needs::Name, action, action)
    }

    fn remove(&self, path: &Path, over: &Occupant) -> Result<()> {
        let action = || self.inner.remove(path, over);
        self.step(path, Needs::Nothing, action, action)
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        let action = || self.inner.remove_directory(path);
        self.step(path, Needs::Nothing, action, action)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let action = || self.inner.rename(from, to);
        self.step(from, Needs::Nothing, action, action)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        let action = || self.inner.sync_directory(path);
        self.step(path, Needs::Nothing, action, action)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Lock> {
        self.alive(path)?;
        self.inner.lock(path, holder)
    }
}
