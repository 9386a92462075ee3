//! Links and tags on the disk: small JSON files, each replaced whole, and the sweep that keeps them bounded.
//!
//! A record names what it is about, so one that stands in the wrong place (a disk that folds case, a file that was moved by
//! hand) counts as absent. So does one that cannot be read. A record whose blob is gone is swept away after a while: a link
//! may be written before its blob is complete, and a blob that was evicted may come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use larder_oci::{Digest, Tag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::layout;
use super::room::Oldest;
use super::shared::Shared;
use crate::pins::kept::KeptBy;
use crate::store::document::{self, LinkDocument, MAXIMUM_LENGTH, TagDocument};
use crate::store::lease::lock;
use crate::store::{Link, MAXIMUM_LISTED_TAGS, Name, StoreError, TagRecord};

/// What the sweep needs of a tag.
#[derive(Deserialize)]
struct About {
    digest: Digest,
}

/// A record; `None` if there is none that can be read.
pub(super) fn read<T: DeserializeOwned>(folder: &Folder, path: &str) -> Result<Option<T>, StoreError> {
    read_bounded(folder, path, MAXIMUM_LENGTH)
}

/// The same of one that may have `maximum` bytes.
pub(super) fn read_bounded<T: DeserializeOwned>(
    folder: &Folder,
    path: &str,
    maximum: usize,
) -> Result<Option<T>, StoreError> {
    let bytes = match folder.read(path, maximum) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(StoreError::Damaged { path, reason }) => {
            tracing::warn!(path = %path.display(), reason, "store: a damaged record counts as absent");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match document::parse(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(reason) => {
            tracing::warn!(path = %folder.shown(path).display(), %reason, "store: a record that cannot be read counts as absent");
            Ok(None)
        }
    }
}

/// Writes a record, whole and durable.
pub(super) fn write(shared: &Shared, path: &str, record: &impl Serialize) -> Result<(), StoreError> {
    write_bounded(shared, path, record, MAXIMUM_LENGTH, None)
}

/// The same of one that may have `maximum` bytes, as if it were of `time`.
pub(super) fn write_bounded(
    shared: &Shared,
    path: &str,
    record: &impl Serialize,
    maximum: usize,
    time: Option<SystemTime>,
) -> Result<(), StoreError> {
    let unfit = |reason: String| StoreError::Damaged { path: shared.folder.shown(path), reason };
    let bytes = serde_json::to_vec(record).map_err(|error| unfit(error.to_string()))?;
    if bytes.len() > maximum {
        return Err(unfit(format!("a record of {} bytes would never be read", bytes.len())));
    }
    let temporary = shared.folder.write_temporary(&bytes)?;
    if let Some(time) = time
        && let Some(file) = shared.folder.open_file(&temporary)?
    {
        let _ = Folder::touch(&file, time);
    }
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
    let document = read::<LinkDocument>(&shared.folder, &layout::link(name, digest))?;
    Ok(document.and_then(|document| document.of(name, digest)))
}

pub(super) fn put_link(shared: &Shared, name: &Name, link: Link) -> Result<(), StoreError> {
    let path = layout::link(name, &link.digest);
    shared.stats.records_written.fetch_add(1, Ordering::Relaxed);
    write(shared, &path, &LinkDocument::new(name, link))
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
    let document = read::<TagDocument>(&shared.folder, &layout::tag(name, tag))?;
    Ok(document.and_then(|document| document.of(name, tag)))
}

pub(super) fn put_tag(shared: &Shared, name: &Name, tag: &Tag, record: TagRecord) -> Result<(), StoreError> {
    shared.stats.records_written.fetch_add(1, Ordering::Relaxed);
    write(shared, &layout::tag(name, tag), &TagDocument::new(name, tag, record))
}

pub(super) fn tags(shared: &Shared, name: &Name) -> Result<Vec<Tag>, StoreError> {
    let names = shared.folder.names(&layout::tags(name))?;
    let mut tags: Vec<Tag> = names.iter().filter_map(|name| Tag::parse(name.strip_suffix(".json")?).ok()).collect();
    tags.sort_unstable();
    tags.truncate(MAXIMUM_LISTED_TAGS);
    Ok(tags)
}

/// Repositories with links, folder by folder in the order of names, so that a page goes straight to where the last one ended.
pub(super) fn names(shared: &Shared, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
    let after = after.map(layout::name_segments);
    let mut found = Vec::new();
    walk(shared, &mut Vec::new(), after.as_deref(), limit, &mut found)?;
    Ok(found)
}

/// `after` is what comes after these segments of where the last page ended; `None`: everything here comes after it.
fn walk(
    shared: &Shared,
    segments: &mut Vec<String>,
    after: Option<&[String]>,
    limit: usize,
    found: &mut Vec<Name>,
) -> Result<(), StoreError> {
    let path = layout::names_folder(segments);
    let mut folders = shared.folder.names(&path)?;
    folders.sort_unstable();
    if after.is_none()
        && folders.iter().any(|folder| folder == layout::LINKS)
        && let Some(name) = layout::name_of(segments)
    {
        found.push(name);
    }
    // What is not a segment of a name is a folder of ours, or nobody's.
    for folder in folders.into_iter().filter(|folder| !folder.starts_with('_')) {
        if found.len() >= limit {
            break;
        }
        let below = match after.and_then(<[String]>::split_first) {
            Some((first, _)) if folder < *first => continue,
            Some((first, rest)) if folder == *first => Some(rest),
            _ => None,
        };
        if shared.folder.facts(&format!("{path}/{folder}"))?.is_some_and(|facts| facts.folder) {
            segments.push(folder);
            let walked = walk(shared, segments, below, limit, found);
            segments.pop();
            walked?;
        }
    }
    Ok(())
}

/// One sweep through all records, a folder at a time, so that no step takes long.
pub(super) struct Sweep {
    folders: Vec<String>,
    found: u64,
    oldest: Oldest<String>,
}

/// Records that one sweep can remove for being too many; the next one goes on.
const MAXIMUM_REMOVED: usize = 4096;

impl Sweep {
    pub(super) fn new() -> Self {
        Self { folders: vec![layout::NAMES.to_owned()], found: 0, oldest: Oldest::new(MAXIMUM_REMOVED) }
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
                self.found += 1;
                if !is_pinned(shared, kind, &path, &name)? {
                    self.oldest.show(facts.modified, facts.length, path);
                }
            }
            empty = false;
        }
        if empty {
            remove_empty(shared, &path);
        }
        Ok(true)
    }

    /// Removes the oldest of too many. Those of what is pinned stay: without them it could not be given to anybody.
    pub(super) fn finish(self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        let found = self.found;
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
    let Some(digest) = digest_of(shared, kind, path, name)? else { return Ok(true) };
    Ok(!shared.partials.is_open(&digest) && shared.folder.facts(&layout::blob(&digest))?.is_none())
}

fn is_pinned(shared: &Shared, kind: Kind, path: &str, name: &str) -> Result<bool, StoreError> {
    if shared.pins.keep_nothing() {
        return Ok(false);
    }
    let digest = digest_of(shared, kind, path, name)?;
    Ok(digest.is_some_and(|digest| shared.pins.by(&digest) != KeptBy::Nobody))
}

/// What a record is about.
fn digest_of(shared: &Shared, kind: Kind, path: &str, name: &str) -> Result<Option<Digest>, StoreError> {
    // A tag may look like a digest and mean another one.
    Ok(match kind {
        Kind::Tags => read::<About>(&shared.folder, path)?.map(|about| about.digest),
        Kind::Links | Kind::Folders => name.strip_suffix(".json").and_then(layout::flat_digest),
    })
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
