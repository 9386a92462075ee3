//! The node's files below one root: `/proc/<engine>/root`, `/`, or any folder that is laid out like one.
//!
//! The invariant: no call leaves the root. Every path is opened by `openat2` with `RESOLVE_IN_ROOT` and without magic
//! links, and what is done then is done to that descriptor, so a link that is swapped meanwhile changes nothing.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, RawMode, RenameFlags, ResolveFlags, Stat, Timespec,
        Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown, flock, fstat, fsync, futimens, major, minor, mkdirat,
        openat2, readlinkat, renameat_with, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    Attributes, Checksum, Contents, Entry, Host, HostError, Kind, Lock, Metadata, Occupant, Owner, Result, Stamp,
    Timestamp, parent, xattrs,
};

/// More than any directory that a plan is about has, and a bound on what a hostile one costs us.
const MOST_ENTRIES: usize = 65_536;

/// How often an open is repeated that a rename elsewhere disturbed (`EAGAIN`, openat2(2)).
const MOST_DISTURBED: usize = 64;

/// Its numbers, the same on every Linux (null(4)).
const NULL_DEVICE: (u32, u32) = (1, 3);

/// What a lock's holder may say about itself.
const LONGEST_HOLDER: u64 = 256;

/// The files below a directory, as a process with that root sees them.
#[derive(Debug)]
pub struct RootedHost {
    root: OwnedFd,
    shown: PathBuf,
}

impl RootedHost {
    /// Opens the root once; it stays the same directory whatever becomes of its name (or of the process in
    /// `/proc/<pid>/root`).
    pub fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened =
            rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| HostError::io("open", root, errno.into()))?;
        let host = Self { root: opened, shown: root.to_owned() };
        host.descend(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(host)
    }

    /// Opens a path of the root, following links in it, and its last name too unless the flags say otherwise.
    fn descend(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let inside = inside(path)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MOST_DISTURBED {
            match openat2(&self.root, inside, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(file) => return Ok(file),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => return Err(HostError::NoOpenat2 { path: self.shown.clone() }),
                // A parent that is a file: nothing has that name.
                Err(Errno::NOTDIR) => return Err(HostError::NotFound { path: path.to_owned() }),
                Err(errno) => return Err(failed("open", path, errno)),
            }
        }
        Err(failed("open", path, Errno::AGAIN))
    }

    /// The directory that holds the last name of a path, and that name.
    fn directory_of<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let directory = self.descend(parent(path)?, OFlags::PATH | OFlags::DIRECTORY)?;
        let name = path.file_name().ok_or_else(|| HostError::BadPath { path: path.to_owned() })?;
        Ok((directory, name))
    }

    /// A regular file for reading. The kind is asked before it is opened, because opening a device can do things.
    fn regular(&self, path: &Path) -> Result<(File, Metadata)> {
        expect_kind(path, Kind::File, self.metadata(path)?.kind)?;
        let file = self.descend(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let metadata = metadata_of(path, &file)?;
        expect_kind(path, Kind::File, metadata.kind)?;
        Ok((file.into(), metadata))
    }
}

impl Host for RootedHost {
    fn metadata(&self, path: &Path) -> Result<Metadata> {
        metadata_of(path, &self.descend(path, OFlags::PATH)?)
    }

    fn link_metadata(&self, path: &Path) -> Result<Metadata> {
        metadata_of(path, &self.descend(path, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Contents> {
        let (file, metadata) = self.regular(path)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| HostError::io("read", path, error))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
            return Err(HostError::TooLarge { path: path.to_owned(), limit });
        }
        Ok(Contents { bytes, metadata })
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf> {
        let link = self.descend(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        expect_kind(path, Kind::Link, metadata_of(path, &link)?.kind)?;
        let target = readlinkat(&link, c"", Vec::new()).map_err(|errno| failed("read the link", path, errno))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        expect_kind(path, Kind::Directory, self.metadata(path)?.kind)?;
        let directory = self.descend(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let fail = |errno| failed("list", path, errno);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if entries.len() == MOST_ENTRIES {
                return Err(HostError::TooLarge { path: path.to_owned(), limit: MOST_ENTRIES as u64 });
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => kind_of(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(fail(errno)),
                },
                known => kind_of(known.as_raw_mode()),
            };
            entries.push(Entry { name: OsStr::from_bytes(name).to_owned(), kind });
        }
        entries.sort();
        Ok(entries)
    }

    fn attributes(&self, path: &Path) -> Result<Attributes> {
        let kind = self.link_metadata(path)?.kind;
        if !matches!(kind, Kind::File | Kind::Directory) {
            return Err(HostError::WrongKind { path: path.to_owned(), found: kind });
        }
        let file = self.descend(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW)?;
        let metadata = metadata_of(path, &file)?;
        let xattrs = xattrs::read(file.as_fd()).map_err(|errno| failed("read the attributes of", path, errno))?;
        Ok(Attributes {
            mode: metadata.mode,
            owner: Some(metadata.owner),
            modified: Some(metadata.stamp.modified),
            xattrs: Some(xattrs),
        })
    }

    fn stage_file(&self, path: &Path, bytes: &[u8], attributes: &Attributes) -> Result<()> {
        self.discard(path)?;
        let (directory, name) = self.directory_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fail = |errno| failed("write", path, errno);
        let mut file: File =
            rustix::fs::openat(&directory, temporary(name), flags, Mode::RUSR | Mode::WUSR).map_err(fail)?.into();
        file.write_all(bytes).map_err(|error| HostError::io("write", path, error))?;
        dress(&file, attributes).map_err(|errno| failed("set the attributes of", path, errno))?;
        fsync(&file).map_err(fail)
    }

    fn stage_link(&self, path: &Path, target: &Path, owner: Option<Owner>) -> Result<()> {
        self.discard(path)?;
        let (directory, name) = self.directory_of(path)?;
        let fail = |errno| failed("link", path, errno);
        let temporary = temporary(name);
        symlinkat(target, &directory, &temporary).map_err(fail)?;
        let Some(Owner { uid, gid }) = owner else { return Ok(()) };
        let made = statat(&directory, &temporary, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        if (made.st_uid, made.st_gid) == (uid, gid) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&directory, &temporary, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)
    }

    fn commit(&self, path: &Path, over: &Occupant) -> Result<()> {
        let (directory, name) = self.directory_of(path)?;
        expect_occupant(path, &directory, name, over)?;
        let temporary = temporary(name);
        match over {
            Occupant::Absent => rename_to_nothing(&directory, &temporary, &directory, name),
            Occupant::Is(_) => renameat_with(&directory, &temporary, &directory, name, RenameFlags::empty()),
        }
        .map_err(|errno| match errno {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => HostError::Changed { path: path.to_owned() },
            other => failed("replace", path, other),
        })
    }

    fn discard(&self, path: &Path) -> Result<()> {
        let (directory, name) = match self.directory_of(path) {
            Err(HostError::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        let temporary = temporary(name);
        let removed = match unlinkat(&directory, &temporary, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(&directory, &temporary, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove what was left of", path, errno)),
        }
    }

    fn create_directory(&self, path: &Path, mode: u32) -> Result<()> {
        let (directory, name) = self.directory_of(path)?;
        self.discard(path)?;
        let fail = |errno| failed("make the directory", path, errno);
        let (temporary, mode) = (temporary(name), Mode::from_raw_mode(mode));
        mkdirat(&directory, &temporary, mode).map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let outcome = rustix::fs::openat(&directory, &temporary, flags, Mode::empty())
            // What the umask took from the mode.
            .and_then(|opened| fchmod(&opened, mode))
            .and_then(|()| rename_to_nothing(&directory, &temporary, &directory, name));
        outcome.map_err(|errno| {
            let _still_there = unlinkat(&directory, &temporary, AtFlags::REMOVEDIR);
            match errno {
                Errno::EXIST | Errno::NOTEMPTY => HostError::AlreadyExists { path: path.to_owned() },
                other => fail(other),
            }
        })
    }

    fn remove(&self, path: &Path, over: &Occupant) -> Result<()> {
        let (directory, name) = self.directory_of(path)?;
        expect_occupant(path, &directory, name, over)?;
        unlinkat(&directory, name, AtFlags::empty()).map_err(|errno| failed("remove", path, errno))
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        let (directory, name) = self.directory_of(path)?;
        unlinkat(&directory, name, AtFlags::REMOVEDIR).map_err(|errno| match errno {
            // POSIX lets a file system say either.
            Errno::EXIST | Errno::NOTEMPTY => HostError::NotEmpty { path: path.to_owned() },
            other => failed("remove the directory", path, other),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (old_directory, old_name) = self.directory_of(from)?;
        let (new_directory, new_name) = self.directory_of(to)?;
        rename_to_nothing(&old_directory, old_name, &new_directory, new_name).map_err(|errno| match errno {
            Errno::EXIST | Errno::NOTEMPTY => HostError::AlreadyExists { path: to.to_owned() },
            other => failed("rename", from, other),
        })
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        let directory = self.descend(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        match fsync(&directory) {
            // Some file systems have nothing to sync in a directory, and say it this way.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(failed("sync", path, errno)),
        }
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Lock> {
        let (directory, name) = self.directory_of(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fail = |errno| failed("lock", path, errno);
        let patient_until = Instant::now() + LOCK_PATIENCE;
        for _ in 0..MOST_DISTURBED {
            let mut file: File =
                rustix::fs::openat(&directory, name, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?.into();
            let locked = metadata_of(path, &file)?;
            expect_kind(path, Kind::File, locked.kind)?;
            loop {
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => break,
                    Err(Errno::WOULDBLOCK) if Instant::now() < patient_until => std::thread::sleep(LOCK_TRIES_EVERY),
                    Err(Errno::WOULDBLOCK) => {
                        return Err(HostError::Locked { path: path.to_owned(), holder: said_by_holder(file) });
                    }
                    Err(errno) => return Err(fail(errno)),
                }
            }
            // A holder that removed the file with its folder has left us the lock of a file without a name.
            match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(named) if (named.st_dev, named.st_ino) == (locked.stamp.device, locked.stamp.inode) => {}
                Ok(_) | Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail(errno)),
            }
            // The text is a courtesy: on a full disk the lock holds without it.
            drop(file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes())));
            return Ok(Lock { _file: file.into() });
        }
        Err(fail(Errno::AGAIN))
    }
}

/// A process that is being forked holds the locks of its parent until it executes its program; nobody else lets go so soon.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How often the lock is tried meanwhile.
const LOCK_TRIES_EVERY: Duration = Duration::from_millis(10);

/// What the holder wrote about itself; one that says nothing readable is still a holder.
fn said_by_holder(file: File) -> String {
    let mut said = String::new();
    let read = file.take(LONGEST_HOLDER).read_to_string(&mut said);
    if read.is_err() || said.trim().is_empty() {
        return "another process".to_owned();
    }
    said.trim().escape_debug().to_string()
}

/// The path relative to the root, if it is one that we ever mean.
fn inside(path: &Path) -> Result<&Path> {
    let plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    let bad = || HostError::BadPath { path: path.to_owned() };
    let inside = path.strip_prefix("/").map_err(|_| bad())?;
    if !plain || path.as_os_str().as_bytes().contains(&0) {
        return Err(bad());
    }
    Ok(if inside.as_os_str().is_empty() { Path::new(".") } else { inside })
}

/// The name under which something is staged: the same each time, so that what a killed process left is found, of bounded
/// length, and with an ending that no engine reads (`*.toml`, `*.conf`, `*.crt`).
fn temporary(name: &OsStr) -> String {
    let mut checksum = Checksum::of(name.as_bytes()).to_string();
    checksum.truncate(16);
    format!(".larder-{checksum}.tmp")
}

/// Renames to a name that nothing has.
fn rename_to_nothing(
    old_directory: &OwnedFd,
    old: impl AsRef<OsStr>,
    new_directory: &OwnedFd,
    new: &OsStr,
) -> rustix::io::Result<()> {
    let old = old.as_ref();
    match renameat_with(old_directory, old, new_directory, new, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag; looking first is what remains then.
        Err(Errno::INVAL) => match statat(new_directory, new, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => renameat_with(old_directory, old, new_directory, new, RenameFlags::empty()),
            Err(errno) => Err(errno),
        },
        other => other,
    }
}

/// Owner before mode, because the kernel takes set-id bits from a file that changes hands; time last.
fn dress(file: &File, attributes: &Attributes) -> rustix::io::Result<()> {
    if let Some(Owner { uid, gid }) = attributes.owner {
        let stat = fstat(file)?;
        if (stat.st_uid, stat.st_gid) != (uid, gid) {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
    }
    if let Some(wanted) = &attributes.xattrs {
        xattrs::write(file.as_fd(), wanted)?;
    }
    // After the ACL, which sets mode bits too.
    fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    if let Some(Timestamp { seconds, nanoseconds }) = attributes.modified {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        futimens(file, &Timestamps { last_access, last_modification })?;
    }
    Ok(())
}

fn expect_kind(path: &Path, wanted: Kind, found: Kind) -> Result<()> {
    if wanted == found { Ok(()) } else { Err(HostError::WrongKind { path: path.to_owned(), found }) }
}

fn expect_occupant(path: &Path, directory: &OwnedFd, name: &OsStr, over: &Occupant) -> Result<()> {
    let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Occupant::Is(stamp_of(&stat)),
        Err(Errno::NOENT) => Occupant::Absent,
        Err(errno) => return Err(failed("look at", path, errno)),
    };
    if found == *over { Ok(()) } else { Err(HostError::Changed { path: path.to_owned() }) }
}

fn metadata_of(path: &Path, file: impl AsFd) -> Result<Metadata> {
    let stat = fstat(file).map_err(|errno| failed("look at", path, errno))?;
    Ok(Metadata {
        kind: kind_of(stat.st_mode),
        mode: stat.st_mode & 0o7777,
        owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
        stamp: stamp_of(&stat),
        is_null_device: FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE,
    })
}

fn stamp_of(stat: &Stat) -> Stamp {
    let timestamp =
        |seconds, nanoseconds: u64| Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() };
    Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: timestamp(stat.st_mtime, stat.st_mtime_nsec),
        changed: timestamp(stat.st_ctime, stat.st_ctime_nsec),
    }
}

fn kind_of(mode: RawMode) -> Kind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

fn failed(operation: &'static str, path: &Path, errno: Errno) -> HostError {
    HostError::io(operation, path, errno.into())
}
