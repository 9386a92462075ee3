//! Where everything lies in the folder (`docs/store.md`), and that a folder is ours before anything is done in it.
//!
//! No value from outside can reach beyond the folder or meet another value's path: digests are lower-case hexadecimal, a registry's
//! segment has no slash, every segment of a repository begins with a letter or digit (so neither `..` nor our `_links`), a
//! tag has no slash and stands in a folder of its own with an ending behind it. Where a disk folds the case of names,
//! two tags may share a file; the record says whose it is.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use larder_oci::{Algorithm, Digest, Registry, Repository, Tag};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::folder::{Folder, Owner};
use crate::pins::{Holder, Place};
use crate::store::{Name, StoreError};

/// Layout version that this program writes, and the newest that it reads.
pub(super) const VERSION: u64 = 1;

pub(super) const BLOBS: &str = "blobs";
pub(super) const CHECKSUMS: &str = "checksums";
pub(super) const PARTIAL: &str = "partial";
pub(super) const TEMPORARY: &str = "temporary";
pub(super) const NAMES: &str = "names";
pub(super) const LINKS: &str = "_links";
pub(super) const TAGS: &str = "_tags";
pub(super) const PINS: &str = "pins";
pub(super) const INCOMPLETE: &str = "incomplete";
const DECLARED: &str = "declared";
pub(super) const SCRUB: &str = "scrub";
pub(super) const CEILING: &str = "ceiling";
const LOCK: &str = "lock";
const VERSION_FILE: &str = "version";
const FOLDERS: [&str; 4] = [BLOBS, PARTIAL, TEMPORARY, NAMES];
/// What a new volume may hold before anybody used it.
const NOBODYS: [&str; 1] = ["lost+found"];

/// A process that is being replaced may take a moment to be gone, and so may one that it was about to start.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(1);

/// Number of folders that blobs are spread over.
pub(super) const SHARDS: usize = 512;

/// The shard of a digest: its algorithm and the first byte of its hash.
pub(super) fn shard(digest: &Digest) -> usize {
    let first = digest.hex().get(..2).and_then(|hex| usize::from_str_radix(hex, 16).ok()).unwrap_or(0);
    match digest.algorithm() {
        Algorithm::Sha256 => first,
        Algorithm::Sha512 => 256 + first,
    }
}

fn folder_of_shard(below: &str, shard: usize) -> String {
    let algorithm = if shard < 256 { Algorithm::Sha256 } else { Algorithm::Sha512 };
    format!("{below}/{}/{:02x}", algorithm.as_str(), shard % 256)
}

pub(super) fn shard_folder(shard: usize) -> String {
    folder_of_shard(BLOBS, shard)
}

/// Where the checksums of a shard's blobs lie; not made before there are any.
pub(super) fn checksums_folder(shard: usize) -> String {
    folder_of_shard(CHECKSUMS, shard)
}

pub(super) fn checksums(digest: &Digest) -> String {
    format!("{}/{}", checksums_folder(shard(digest)), digest.hex())
}

pub(super) fn blob(digest: &Digest) -> String {
    format!("{}/{}", shard_folder(shard(digest)), digest.hex())
}

/// The digest of a file in a shard's folder; `None` if the name is not ours.
pub(super) fn blob_digest(number: usize, name: &str) -> Option<Digest> {
    let algorithm = if number < 256 { Algorithm::Sha256 } else { Algorithm::Sha512 };
    Digest::parse(&format!("{}:{name}", algorithm.as_str())).ok().filter(|digest| shard(digest) == number)
}

fn flat(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

/// The digest in a file name of the form `sha256-<hex>`.
pub(super) fn flat_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

pub(super) fn partial(digest: &Digest) -> String {
    format!("{PARTIAL}/{}", flat(digest))
}

pub(super) fn partial_origin(digest: &Digest) -> String {
    format!("{PARTIAL}/{}.json", flat(digest))
}

/// A file name has at most 255 bytes; a DNS name with a port may have more.
const LONGEST_SEGMENT: usize = 200;

fn name_folder(name: &Name) -> String {
    let mut registry = name.registry.path_segment();
    if registry.len() > LONGEST_SEGMENT {
        // No host name has a tilde.
        registry = format!("~{}", flat(&Digest::of(Algorithm::Sha256, registry.as_bytes())));
    }
    format!("{NAMES}/{registry}/{}", name.repository.as_str())
}

/// A name's folders below [`NAMES`].
pub(super) fn name_segments(name: &Name) -> Vec<String> {
    name_folder(name).split('/').skip(1).map(str::to_owned).collect()
}

/// The folder of the first segments of a name.
pub(super) fn names_folder(segments: &[String]) -> String {
    let mut path = NAMES.to_owned();
    for segment in segments {
        path.push('/');
        path.push_str(segment);
    }
    path
}

/// The reverse of [`name_segments`]; `None` for what is no name, and for a registry whose name is too long to stand there.
pub(super) fn name_of(segments: &[String]) -> Option<Name> {
    let (registry, repository) = segments.split_first()?;
    Some(Name {
        registry: Registry::from_path_segment(registry).ok()?,
        repository: Repository::parse(&repository.join("/")).ok()?,
    })
}

pub(super) fn link(name: &Name, digest: &Digest) -> String {
    format!("{}/{LINKS}/{}.json", name_folder(name), flat(digest))
}

pub(super) fn tags(name: &Name) -> String {
    format!("{}/{TAGS}", name_folder(name))
}

pub(super) fn tag(name: &Name, tag: &Tag) -> String {
    format!("{}/{}.json", tags(name), tag.as_str())
}

/// One of the folders of a holder's pins; `below` is [`PINS`] or [`INCOMPLETE`].
pub(super) fn pin_folder(below: &str, holder: &Holder, number: usize) -> String {
    format!("{below}/{holder}/{number:02x}")
}

pub(super) fn pin(below: &str, place: &Place) -> String {
    format!("{}/{}.json", pin_folder(below, place.holder(), place.shard()), place.key())
}

pub(super) fn declaration(holder: &Holder) -> String {
    format!("{DECLARED}/{holder}.json")
}

#[derive(Serialize, Deserialize)]
struct VersionRecord {
    version: u64,
}

/// Makes sure that the folder is a store of ours, that nobody else uses it, and that its folders are there. The lock lasts as long as
/// the returned file.
pub(super) fn prepare(folder: &Folder, owner: Option<Owner>) -> Result<File, StoreError> {
    let version = folder.read(VERSION_FILE, 4096)?;
    if version.is_none() {
        refuse_foreign(folder)?;
    }
    let lock = take_lock(folder)?;
    if let Some(bytes) = version {
        check_version(folder, &bytes)?;
    } else {
        folder.make_folder(TEMPORARY)?;
        clean_temporary(folder)?;
        write_version(folder)?;
    }
    for path in FOLDERS {
        folder.make_folder(path)?;
    }
    clean_temporary(folder)?;
    if rustix::process::geteuid().is_root() {
        let current = folder.owner()?;
        // What was made just now belongs to root: the folder's owner is to be able to go on without us.
        match owner {
            Some(wanted) if wanted != current => folder.hand_over(wanted)?,
            _ => hand_over_new(folder, owner.unwrap_or(current))?,
        }
    }
    Ok(lock)
}

fn write_version(folder: &Folder) -> Result<(), StoreError> {
    let record = serde_json::to_vec(&VersionRecord { version: VERSION }).unwrap_or_default();
    folder.replace(VERSION_FILE, &record)
}

/// Makes again what somebody removed from a store in use, and fails where its folders cannot be written. A lock is returned if it had
/// to be taken anew.
pub(super) fn restore(folder: &Folder) -> Result<Option<File>, StoreError> {
    for path in FOLDERS {
        folder.make_folder(path)?;
        folder.check_access(path)?;
    }
    if folder.facts(VERSION_FILE)?.is_none() {
        write_version(folder)?;
    }
    if folder.facts(LOCK)?.is_some() { Ok(None) } else { take_lock(folder).map(Some) }
}

fn refuse_foreign(folder: &Folder) -> Result<(), StoreError> {
    let ours = |name: &str| name == LOCK || name == TEMPORARY || NOBODYS.contains(&name);
    match folder.names(".")?.into_iter().find(|name| !ours(name)) {
        Some(entry) => Err(StoreError::NotAStore { path: folder.shown("."), entry }),
        None => Ok(()),
    }
}

fn check_version(folder: &Folder, bytes: &[u8]) -> Result<(), StoreError> {
    match serde_json::from_slice::<VersionRecord>(bytes) {
        Ok(VersionRecord { version }) if version == VERSION => Ok(()),
        Ok(VersionRecord { version }) if version > VERSION => {
            Err(StoreError::NewerLayout { path: folder.shown("."), found: version, known: VERSION })
        }
        Ok(VersionRecord { version }) => {
            let reason = format!("there never was a layout version {version}");
            Err(StoreError::Damaged { path: folder.shown(VERSION_FILE), reason })
        }
        Err(error) => Err(StoreError::Damaged { path: folder.shown(VERSION_FILE), reason: error.to_string() }),
    }
}

fn take_lock(folder: &Folder) -> Result<File, StoreError> {
    let (lock, writable) = match folder.open_growing(LOCK) {
        Ok(lock) => (lock, true),
        // A read-only store is still worth reading, and its lock can be held all the same.
        Err(error @ StoreError::ReadOnly { .. }) => (folder.open_file(LOCK)?.ok_or(error)?, false),
        Err(error) => return Err(error),
    };
    let give_up_at = Instant::now() + WAIT_FOR_LOCK;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if Instant::now() < give_up_at => std::thread::sleep(WAIT_FOR_LOCK / 50),
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = (&lock).take(32).read_to_string(&mut text);
                return Err(StoreError::Locked { path: folder.shown("."), holder: text.trim().parse().ok() });
            }
            Err(errno) => return Err(folder.failed_io(LOCK, errno.into())),
        }
    }
    if writable {
        // For the message above only: a full disk must not keep the store from being opened.
        let _ = lock.set_len(0).and_then(|()| lock.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
    }
    Ok(lock)
}

/// What a crash left behind: no more files than there were operations at that moment.
fn clean_temporary(folder: &Folder) -> Result<(), StoreError> {
    for name in folder.names(TEMPORARY)? {
        match folder.remove(&format!("{TEMPORARY}/{name}")) {
            Ok(_) | Err(StoreError::ReadOnly { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn hand_over_new(folder: &Folder, owner: Owner) -> Result<(), StoreError> {
    for path in FOLDERS.into_iter().chain([LOCK, VERSION_FILE]) {
        match folder.change_owner(path, owner) {
            Ok(()) | Err(StoreError::ReadOnly { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
