//! The store's folder on the disk, and every system call on it.
//!
//! All paths are relative to a descriptor that was opened once, and is opened anew only if the folder was removed. So the program may change its working directory, and may give
//! up the rights to walk to the folder, without losing it; nothing here resolves a path from `/` or makes one canonical.
//! No symbolic link is followed in the last component.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::layout;
use crate::store::StoreError;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What the disk has, as kubelet counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskRoom {
    pub(super) total: u64,
    pub(super) available: u64,
    /// Zero on file systems that do not count them.
    pub(super) files_total: u64,
    pub(super) files_available: u64,
}

/// What is known of a file without opening it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) length: u64,
    pub(super) modified: SystemTime,
    pub(super) inode: u64,
    pub(super) regular: bool,
    pub(super) folder: bool,
}

impl From<&Stat> for Facts {
    fn from(stat: &Stat) -> Self {
        Self {
            length: u64::try_from(stat.st_size).unwrap_or(0),
            // What lies before 1970 or beyond any clock counts as very old: it is the first to go.
            modified: u64::try_from(stat.st_mtime)
                .ok()
                .and_then(|seconds| {
                    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
                    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
                })
                .unwrap_or(UNIX_EPOCH),
            inode: stat.st_ino,
            regular: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            folder: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        }
    }
}

pub(super) struct Folder {
    root: ArcSwap<OwnedFd>,
    shown: PathBuf,
    temporary_files: AtomicU64,
}

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

impl Folder {
    /// Opens the folder, and makes it if its parent is there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |errno: Errno| StoreError::from_io(path, errno.into());
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(FOLDER_MODE)) {
            // A read-only file system says so even if the folder is there.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let root = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        Ok(Self { root: ArcSwap::from_pointee(root), shown: path.to_owned(), temporary_files: AtomicU64::new(0) })
    }

    fn root(&self) -> Arc<OwnedFd> {
        self.root.load_full()
    }

    /// Whether the folder itself was removed: nothing can be made in it any more, whatever lies at its path now.
    pub(super) fn is_gone(&self) -> bool {
        rustix::fs::fstat(self.root()).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// From now on this is the folder.
    pub(super) fn adopt(&self, other: &Self) {
        self.root.store(other.root());
    }

    /// Whether names can be made and removed in a folder, as far as its rights tell.
    pub(super) fn check_access(&self, path: &str) -> Result<(), StoreError> {
        let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(self.root(), path, access, AtFlags::EACCESS).map_err(|errno| self.failed(path, errno))
    }

    /// The path for messages.
    pub(super) fn shown(&self, path: &str) -> PathBuf {
        if path == "." { self.shown.clone() } else { self.shown.join(path) }
    }

    fn failed(&self, path: &str, errno: Errno) -> StoreError {
        StoreError::from_io(self.shown(path), errno.into())
    }

    /// An error of reading or writing the open file `path`.
    pub(super) fn failed_io(&self, path: &str, error: io::Error) -> StoreError {
        StoreError::from_io(self.shown(path), error)
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(self.root(), path, flags, Mode::from_raw_mode(FILE_MODE)).map(File::from)
    }

    /// Opens a file for reading; `None` if it is not there.
    pub(super) fn open_file(&self, path: &str) -> Result<Option<File>, StoreError> {
        match self.open_at(path, OFlags::RDONLY) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Opens a file for reading and writing, and makes it if it is not there.
    pub(super) fn open_growing(&self, path: &str) -> Result<File, StoreError> {
        self.open_at(path, OFlags::RDWR | OFlags::CREATE).map_err(|errno| self.failed(path, errno))
    }

    /// Makes a new empty file for writing; an error if it is there.
    pub(super) fn create_new(&self, path: &str) -> Result<File, StoreError> {
        self.open_at(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL).map_err(|errno| self.failed(path, errno))
    }

    /// A small file's bytes; `None` if it is not there. More than `maximum` bytes is damage.
    pub(super) fn read(&self, path: &str, maximum: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, maximum as u64 + 1), &mut bytes)
            .map_err(|error| self.failed_io(path, error))?;
        if bytes.len() > maximum {
            let reason = format!("longer than {maximum} bytes");
            return Err(StoreError::Damaged { path: self.shown(path), reason });
        }
        Ok(Some(bytes))
    }

    /// Writes a small file so that a crash at any moment leaves the old one or the new one, whole.
    pub(super) fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.write_temporary(bytes)?;
        self.move_into_place(&temporary, path).inspect_err(|_| {
            let _ = self.remove(&temporary);
        })?;
        self.sync_parent(path)
    }

    /// Writes a file under a temporary name, durably. Whoever asked moves it into place or removes it; what a crash leaves
    /// behind goes when the store is opened next.
    pub(super) fn write_temporary(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let number = self.temporary_files.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}/{number}", layout::TEMPORARY);
        let file = self.create_new(&temporary)?;
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_all());
        written.map_err(|error| {
            let _ = self.remove(&temporary);
            self.failed_io(&temporary, error)
        })?;
        Ok(temporary)
    }

    /// Renames, and makes the target's parents if they are missing. Tries again if a tidy-up removes them at that moment.
    pub(super) fn move_into_place(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match rustix::fs::renameat(self.root(), from, self.root(), to) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) if tries < 3 => {
                    tries += 1;
                    self.make_parents(to)?;
                }
                Err(errno) => return Err(self.failed(to, errno)),
            }
        }
    }

    /// Makes the folders above `path`, each durable before something is put into it.
    fn make_parents(&self, path: &str) -> Result<(), StoreError> {
        for (end, _) in path.match_indices('/') {
            self.make_folder(path.get(..end).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Makes one folder, durably, unless it is there.
    pub(super) fn make_folder(&self, path: &str) -> Result<(), StoreError> {
        match rustix::fs::mkdirat(self.root(), path, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) => self.sync_parent(path),
            // NOENT: its parent went away under us; whoever renames into it tries again.
            Err(Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(Errno::ROFS) if self.facts(path)?.is_some() => Ok(()),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Makes the name of `path` durable.
    pub(super) fn sync_parent(&self, path: &str) -> Result<(), StoreError> {
        let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
        match self.open_at(parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => folder.sync_all().map_err(|error| self.failed_io(parent, error)),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed(parent, errno)),
        }
    }

    /// Removes a file; whether there was one.
    pub(super) fn remove(&self, path: &str) -> Result<bool, StoreError> {
        match rustix::fs::unlinkat(self.root(), path, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Removes a folder if it is empty; whether it is gone.
    pub(super) fn remove_empty_folder(&self, path: &str) -> bool {
        rustix::fs::unlinkat(self.root(), path, AtFlags::REMOVEDIR).is_ok()
    }

    /// What lies at `path`, not followed; `None` if nothing does.
    pub(super) fn facts(&self, path: &str) -> Result<Option<Facts>, StoreError> {
        match rustix::fs::statat(self.root(), path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Facts::from(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// The facts of an open file.
    pub(super) fn facts_of(&self, path: &str, file: &File) -> Result<Facts, StoreError> {
        rustix::fs::fstat(file).map(|stat| Facts::from(&stat)).map_err(|errno| self.failed(path, errno))
    }

    /// Names in a folder, in no order; none if it is not there. Names that are not UTF-8 are not ours and are left out.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let folder = match self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(self.failed(path, errno)),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder).map_err(|errno| self.failed(path, errno))? {
            let entry = entry.map_err(|errno| self.failed(path, errno))?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Sets the time that counts as a file's last use.
    pub(super) fn touch(file: &File, now: SystemTime) -> Result<(), Errno> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        };
        rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })
    }

    /// Room on the disk that holds the store.
    pub(super) fn room(&self) -> Result<DiskRoom, StoreError> {
        let room = rustix::fs::fstatvfs(self.root()).map_err(|errno| self.failed(".", errno))?;
        Ok(DiskRoom {
            total: room.f_blocks.saturating_mul(room.f_frsize),
            available: room.f_bavail.saturating_mul(room.f_frsize),
            files_total: room.f_files,
            files_available: room.f_favail,
        })
    }

    /// The folder's owner.
    pub(super) fn owner(&self) -> Result<Owner, StoreError> {
        let stat = rustix::fs::fstat(self.root()).map_err(|errno| self.failed(".", errno))?;
        Ok(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }

    /// Gives one file or folder to `owner`.
    pub(super) fn change_owner(&self, path: &str, owner: Owner) -> Result<(), StoreError> {
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        rustix::fs::chownat(self.root(), path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed(path, errno))
    }

    /// Gives everything in the folder to `owner`, the folder itself last: a walk that was cut short is done again.
    pub(super) fn hand_over(&self, owner: Owner) -> Result<(), StoreError> {
        hand_over(self.root(), owner, 0).map_err(|errno| self.failed(".", errno))?;
        rustix::fs::fchown(self.root(), Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|errno| self.failed(".", errno))
    }
}

/// Deeper than any path of ours: a repository has at most 128 segments.
const MAXIMUM_DEPTH: usize = 160;

fn hand_over(folder: impl AsFd, owner: Owner, depth: usize) -> Result<(), Errno> {
    if depth > MAXIMUM_DEPTH {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
                hand_over(&below, owner, depth + 1)?;
                rustix::fs::fchown(&below, uid, gid)?;
            }
            // A second name may lie outside of the folder: such a file is not ours to give away.
            FileType::RegularFile if stat.st_nlink == 1 => {
                rustix::fs::chownat(&folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}
