//! Links and tags on the disk: small JSON files, each replaced whole, and the sweep that keeps them bounded.
//!
//! A record names what it is about, so one that stands in the wrong place (a disk that folds case, a file that was moved by
//! hand) counts as absent. So does one that cannot be read. A record whose blob is gone is swept away after a while: a link
//! may be written before its blob is complete, and a blob that was evicted may come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use larder_oci::{Digest, Registry, Repository, Tag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::layout;
use super::room::Oldest;
use super::shared::Shared;
use crate::store::lease::lock;
use crate::store::{Link, MAXIMUM_LISTED_TAGS, Name, StoreError, TagRecord};

/// Version of each record, apart from the layout's: a reader that meets another one takes the record as absent.
pub(super) const VERSION: u64 = 1;

/// More than any record of ours has.
const MAXIMUM_LENGTH: usize = 64 << 10;

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct LinkFile {
    version: u64,
    registry: Registry,
    repository: Repository,
    digest: Digest,
    media_type: Option<String>,
    size: Option<u64>,
    public: bool,
    confirmed_at: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct TagFile {
    version: u64,
    registry: Registry,
    repository: Repository,
    tag: Tag,
    digest: Digest,
    checked_at: SystemTime,
}

/// What the sweep needs of a tag.
#[derive(Deserialize)]
struct About {
    digest: Digest,
}

/// A record; `None` if there is none that can be read.
pub(super) fn read<T: DeserializeOwned>(folder: &Folder, path: &str) -> Result<Option<T>, StoreError> {
    let bytes = match folder.read(path, MAXIMUM_LENGTH) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(StoreError::Damaged { path, reason }) => {
            tracing::warn!(path = %path.display(), reason, "store: a damaged record counts as absent");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match serde_json::from_slice::<Versioned>(&bytes) {
        Ok(Versioned { version: VERSION }) => {}
        Ok(Versioned { version }) => {
            tracing::warn!(path = %folder.shown(path).display(), version, "store: a record of another version counts as absent");
            return Ok(None);
        }
        Err(error) => return Ok(absent(folder, path, &error)),
    }
    Ok(serde_json::from_slice(&bytes).map_or_else(|error| absent(folder, path, &error), Some))
}

fn absent<T>(folder: &Folder, path: &str, error: &serde_json::Error) -> Option<T> {
    tracing::warn!(path = %folder.shown(path).display(), %error, "store: a damaged record counts as absent");
    None
}

/// Writes a record, whole and durable.
pub(super) fn write(shared: &Shared, path: &str, record: &impl Serialize) -> Result<(), StoreError> {
    let unfit = |reason: String| StoreError::Damaged { path: shared.folder.shown(path), reason };
    let bytes = serde_json::to_vec(record).map_err(|error| unfit(error.to_string()))?;
    if bytes.len() > MAXIMUM_LENGTH {
        return Err(unfit(format!("a record of {} bytes would never be read", bytes.len())));
    }
    let temporary = shared.folder.write_temporary(&bytes)?;
    let moved = {
        let _no_sweep = lock(&shared.records);
        shared.folder.move_into_place(&temporary, path)
    };
    moved.inspect_err(|_| {
        let _ = shared.folder.remove(&temporary);
    })?;
    shared.folder.sync_parent(path)
}

pub(super) fn link(shared: &Shared, name: &Name, digest: &Digest) -> Result<Option<Link>, StoreError> {
    let file = read::<LinkFile>(&shared.folder, &layout::link(name, digest))?;
    let about_it = |file: &LinkFile| {
        file.registry == name.registry && file.repository == name.repository && file.digest == *digest
    };
    Ok(file.filter(about_it).map(|file| Link {
        digest: file.digest,
        media_type: file.media_type,
        size: file.size,
        public: file.public,
        confirmed_at: file.confirmed_at,
    }))
}

pub(super) fn put_link(shared: &Shared, name: &Name, link: Link) -> Result<(), StoreError> {
    let path = layout::link(name, &link.digest);
    let file = LinkFile {
        version: VERSION,
        registry: name.registry.clone(),
        repository: name.repository.clone(),
        digest: link.digest,
        media_type: link.media_type,
        size: link.size,
        public: link.public,
        confirmed_at: link.confirmed_at,
    };
    shared.stats.records_written.fetch_add(1, Ordering::Relaxed);
    write(shared, &path, &file)
}

pub(super) fn remove_link(shared: &Shared, name: &Name, digest: &Digest) -> Result<(), StoreError> {
    let path = layout::link(name, digest);
    if shared.folder.remove(&path)? {
        // Forgetting is a refusal that must outlive a power cut.
        shared.folder.sync_parent(&path)?;
    }
    Ok(())
}

pub(super) fn tag(shared: &Shared, name: &Name, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
    let file = read::<TagFile>(&shared.folder, &layout::tag(name, tag))?;
    let about_it =
        |file: &TagFile| file.registry == name.registry && file.repository == name.repository && file.tag == *tag;
    Ok(file.filter(about_it).map(|file| TagRecord { digest: file.digest, checked_at: file.checked_at }))
}

pub(super) fn put_tag(shared: &Shared, name: &Name, tag: &Tag, record: TagRecord) -> Result<(), StoreError> {
    let file = TagFile {
        version: VERSION,
        registry: name.registry.clone(),
        repository: name.repository.clone(),
        tag: tag.clone(),
        digest: record.digest,
        checked_at: record.checked_at,
    };
    shared.stats.records_written.fetch_add(1, Ordering::Relaxed);
    write(shared, &layout::tag(name, tag), &file)
}

pub(super) fn tags(shared: &Shared, name: &Name) -> Result<Vec<Tag>, StoreError> {
    let names = shared.folder.names(&layout::tags(name))?;
    let mut tags: Vec<Tag> = names.iter().filter_map(|name| Tag::parse(name.strip_suffix(".json")?).ok()).collect();
    tags.sort_unstable();
    tags.truncate(MAXIMUM_LISTED_TAGS);
    Ok(tags)
}

/// One sweep through all records, a folder at a time, so that no step takes long.
pub(super) struct Sweep {
    folders: Vec<String>,
    oldest: Oldest<String>,
}

/// Records that one sweep can remove for being too many; the next one goes on.
const MAXIMUM_REMOVED: usize = 4096;

impl Sweep {
    pub(super) fn new() -> Self {
        Self { folders: vec![layout::NAMES.to_owned()], oldest: Oldest::new(MAXIMUM_REMOVED) }
    }

    /// Goes through one folder; `false` when there is none left.
    pub(super) fn step(&mut self, shared: &Arc<Shared>) -> Result<bool, StoreError> {
        let Some(path) = self.folders.pop() else { return Ok(false) };
        let kind = match path.rsplit_once('/').map_or("", |(_, last)| last) {
            layout::LINKS => Kind::Links,
            layout::TAGS => Kind::Tags,
            _ => Kind::Folders,
        };
        let mut empty = true;
        for name in shared.folder.names(&path)? {
            let path = format!("{path}/{name}");
            let Some(facts) = shared.folder.facts(&path)? else { continue };
            if kind == Kind::Folders && facts.folder {
                self.folders.push(path);
            } else if kind != Kind::Folders && facts.regular {
                if expired(shared, kind, &path, &name, facts.modified)? && remove(shared, &path, facts.modified)? {
                    continue;
                }
                self.oldest.show(facts.modified, facts.length, path);
            }
            empty = false;
        }
        if empty {
            remove_empty(shared, &path);
        }
        Ok(true)
    }

    /// Removes the oldest of too many.
    pub(super) fn finish(self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        let found = self.oldest.shown();
        shared.stats.records.store(found, Ordering::Relaxed);
        let too_many = usize::try_from(found.saturating_sub(shared.config.maximum_records)).unwrap_or(usize::MAX);
        for (modified, _, path) in self.oldest.into_sorted().into_iter().take(too_many) {
            if remove(shared, &path, modified)? {
                shared.stats.records.fetch_sub(1, Ordering::Relaxed);
                if let Some((parent, _)) = path.rsplit_once('/') {
                    remove_empty(shared, parent);
                }
            }
        }
        Ok(())
    }
}

/// What a folder below `names` holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folders,
    Links,
    Tags,
}

/// Whether a record is of no use any more. Its age is asked first: nothing else is read for a young one.
fn expired(shared: &Shared, kind: Kind, path: &str, name: &str, modified: SystemTime) -> Result<bool, StoreError> {
    let age = shared.now().duration_since(modified).unwrap_or_default();
    if age < shared.config.record_grace {
        return Ok(false);
    }
    // A tag may look like a digest and mean another one.
    let digest = match kind {
        Kind::Tags => read::<About>(&shared.folder, path)?.map(|about| about.digest),
        Kind::Links | Kind::Folders => name.strip_suffix(".json").and_then(layout::flat_digest),
    };
    let Some(digest) = digest else { return Ok(true) };
    Ok(!shared.partials.is_open(&digest) && shared.folder.facts(&layout::blob(&digest))?.is_none())
}

fn remove(shared: &Shared, path: &str, modified: SystemTime) -> Result<bool, StoreError> {
    let _no_writer = lock(&shared.records);
    // Written anew since we looked: somebody has a use for it.
    match shared.folder.facts(path)? {
        Some(facts) if facts.modified == modified => shared.folder.remove(path),
        _ => Ok(false),
    }
}

fn remove_empty(shared: &Shared, path: &str) {
    let mut path = path;
    while path != layout::NAMES && shared.folder.remove_empty_folder(path) {
        let Some((parent, _)) = path.rsplit_once('/') else { return };
        path = parent;
    }
}
