//! The node's files as the engine sees them.
//!
//! All paths are absolute in the engine's own root, and no link leads out of that root. Every change goes through the
//! steps of [`Host`] that the file system makes atomic: a name holds what it held before or all of what was wanted,
//! at any instant, also after a crash. Reading is bounded, because others write these files.
//!
//! [`RootedHost`] is the real thing, [`FaultyHost`] the double that fails or dies at a chosen step. What may be changed,
//! and how it is undone, is decided in `change`.

mod checksum;
mod error;
mod faulty;
mod kinds;
mod resolve;
mod rooted;
#[cfg(test)]
mod tests;
mod text;
mod xattrs;

use std::path::{Path, PathBuf};

pub use checksum::Checksum;
pub use error::HostError;
pub(crate) use error::advice_on_denial;
pub use faulty::{Fault, FaultyHost};
pub use kinds::{Attributes, Contents, Entry, Identity, Kind, Lock, Metadata, Occupant, Owner, Stamp, Timestamp};
pub use resolve::resolve;
pub use rooted::RootedHost;
pub(crate) use text::{bytes_as_text, path_as_text, xattrs_as_text};

/// What a result of a host call looks like.
pub type Result<T> = std::result::Result<T, HostError>;

/// The files of one node, seen from one root.
///
/// Links in the parents of a path are followed inside the root; whether its last name is followed, each call says.
/// The steps that change something are small, so that a test can stop between any two of them; [`Host::write`] and
/// [`Host::symlink`] put them together.
pub trait Host: Send + Sync {
    /// What `path` leads to; a link is followed.
    fn metadata(&self, path: &Path) -> Result<Metadata>;

    /// What the name itself is; a link is not followed, so that a link of ours into `/proc/<pid>/root` is seen as one.
    fn link_metadata(&self, path: &Path) -> Result<Metadata>;

    /// The bytes of a regular file; a link is followed. More than `limit` bytes are [`HostError::TooLarge`].
    fn read(&self, path: &Path, limit: u64) -> Result<Contents>;

    /// The target of a link, as written.
    fn read_link(&self, path: &Path) -> Result<PathBuf>;

    /// The entries of a directory, by name; a link to it is followed.
    fn list(&self, path: &Path) -> Result<Vec<Entry>>;

    /// All that a replacement has to keep of a regular file or a directory; a link is [`HostError::WrongKind`].
    fn attributes(&self, path: &Path) -> Result<Attributes>;

    /// Writes a durable temporary file beside `path`, which [`Host::commit`] then gives its name.
    fn stage_file(&self, path: &Path, bytes: &[u8], attributes: &Attributes) -> Result<()>;

    /// Makes a temporary link beside `path`, which [`Host::commit`] then gives its name.
    /// `owner` is kept as the kernel made it when `None`.
    fn stage_link(&self, path: &Path, target: &Path, owner: Option<Owner>) -> Result<()>;

    /// Gives what was staged for `path` its name, if `over` is what has that name now, else [`HostError::Changed`].
    fn commit(&self, path: &Path, over: &Occupant) -> Result<()>;

    /// Removes what was staged for `path` and not committed; also what a killed process left. Nothing there is fine.
    fn discard(&self, path: &Path) -> Result<()>;

    /// Makes one directory, which has its mode from the first instant; anything there is [`HostError::AlreadyExists`].
    fn create_directory(&self, path: &Path, mode: u32) -> Result<()>;

    /// Removes a file or a link, if it is still `over`.
    fn remove(&self, path: &Path, over: &Occupant) -> Result<()>;

    /// Removes a directory; one with entries is [`HostError::NotEmpty`].
    fn remove_directory(&self, path: &Path) -> Result<()>;

    /// Renames within the root; something at `to` is [`HostError::AlreadyExists`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> Result<()>;

    /// Locks the file at `path` (made when missing) until the [`Lock`] is dropped, or the process ends.
    /// `holder` is what a second one is told in [`HostError::Locked`].
    fn lock(&self, path: &Path, holder: &str) -> Result<Lock>;

    /// Whether the name exists, whatever it is (a dangling link does).
    fn exists(&self, path: &Path) -> Result<bool> {
        match self.link_metadata(path) {
            Ok(_) => Ok(true),
            Err(HostError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the directories that are missing above `path`, which everybody may look into, and says which: the outermost first. Durable.
    fn make_parents(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let above = path.ancestors().skip(1);
        let missing: Vec<&Path> = above.take_while(|directory| self.metadata(directory).is_err()).collect();
        let mut made = Vec::new();
        for directory in missing.into_iter().rev() {
            match self.create_directory(directory, 0o755) {
                Ok(()) => made.push(directory.to_owned()),
                Err(HostError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
            self.sync_directory(parent(directory)?)?;
        }
        Ok(made)
    }

    /// What has the name now, to be named as `over` when it is replaced.
    fn occupant(&self, path: &Path) -> Result<Occupant> {
        match self.link_metadata(path) {
            Ok(metadata) => Ok(Occupant::Is(metadata.stamp)),
            Err(HostError::NotFound { .. }) => Ok(Occupant::Absent),
            Err(error) => Err(error),
        }
    }

    /// Which file this is and what is in it, to ask later whether it is still what was observed; a link is followed.
    fn identity(&self, path: &Path, limit: u64) -> Result<Identity> {
        let contents = self.read(path, limit)?;
        Ok(Identity { stamp: contents.metadata.stamp, sha256: Checksum::of(&contents.bytes) })
    }

    /// Puts a file at `path`: whole and durable, or not at all.
    fn write(&self, path: &Path, bytes: &[u8], attributes: &Attributes, over: &Occupant) -> Result<()> {
        let staged = self.stage_file(path, bytes, attributes);
        finish(self, path, over, staged)
    }

    /// Puts a link at `path`: durable, or not at all. What it points to is not looked at.
    fn symlink(&self, path: &Path, target: &Path, over: &Occupant) -> Result<()> {
        let staged = self.stage_link(path, target, None);
        finish(self, path, over, staged)
    }
}

/// Commits what was staged, or leaves nothing of it behind.
fn finish<H: Host + ?Sized>(host: &H, path: &Path, over: &Occupant, staged: Result<()>) -> Result<()> {
    if let Err(error) = staged.and_then(|()| host.commit(path, over)) {
        // The first error is the one to tell; what cannot be removed now is removed by the next apply or restore.
        drop(host.discard(path));
        return Err(error);
    }
    host.sync_directory(parent(path)?)
}

/// The directory that holds the name.
pub(crate) fn parent(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| HostError::BadPath { path: path.to_owned() })
}
