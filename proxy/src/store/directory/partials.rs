//! Blobs that are being written, and those that were left unfinished.
//!
//! Each digest has at most one writer. Unfinished ones are bounded in number and age (`upkeep` trims them) and are the first to go
//! when room is needed; one that is being written never goes. Giving a writer up touches no disk, so that a handle may be dropped anywhere.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::SystemTime;

use larder_oci::{Digest, Registry, Repository};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::occupancy::Occupancy;
use super::room::footprint;
use super::shared::Shared;
use super::{layout, record};
use crate::store::blob::WritePartial;
use crate::store::document;
use crate::store::lease::lock;
use crate::store::{Checksums, Name, PartialBlob, PartialOrigin, StoreError, StoredBlob};

/// Bytes between two questions for the disk's room.
const ASK_DISK_EVERY: u64 = 4 << 20;

enum State {
    Idle { length: u64, last_use: SystemTime },
    Open(Arc<Progress>),
    Leaving,
}

struct Progress {
    announced: u64,
    written: AtomicU64,
}

pub(super) struct Partials {
    table: Mutex<HashMap<Digest, State>>,
    left: Condvar,
    occupancy: Arc<Occupancy>,
}

impl Partials {
    /// Takes up what an earlier process left unfinished: as many as the bounds allow, plus what was being written when it died.
    pub(super) fn load(folder: &Folder, occupancy: Arc<Occupancy>) -> Result<Self, StoreError> {
        let names = folder.names(layout::PARTIAL)?;
        let mut table = HashMap::new();
        for name in &names {
            let path = format!("{}/{name}", layout::PARTIAL);
            if let Some(digest) = layout::flat_digest(name)
                && let Some(facts) = folder.facts(&path)?
                && facts.regular
            {
                occupancy.grow(footprint(facts.length));
                table.insert(digest, State::Idle { length: facts.length, last_use: facts.modified });
            }
        }
        for name in &names {
            let digest = layout::flat_digest(name.strip_suffix(".json").unwrap_or(name));
            if digest.is_none_or(|digest| !table.contains_key(&digest)) {
                match folder.remove(&format!("{}/{name}", layout::PARTIAL)) {
                    Ok(_) | Err(StoreError::ReadOnly { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Self { table: Mutex::new(table), left: Condvar::new(), occupancy })
    }

    pub(super) fn count(&self) -> u64 {
        lock(&self.table).len() as u64
    }

    /// Bytes that writers have announced and not written yet.
    pub(super) fn outstanding(&self) -> u64 {
        lock(&self.table).values().map(State::outstanding).fold(0, u64::saturating_add)
    }

    pub(super) fn is_open(&self, digest: &Digest) -> bool {
        matches!(lock(&self.table).get(digest), Some(State::Open(_)))
    }

    /// Unfinished ones without a writer, oldest first, with their lengths.
    pub(super) fn idle(&self) -> Vec<(SystemTime, Digest, u64)> {
        let mut idle: Vec<_> = lock(&self.table)
            .iter()
            .filter_map(|(digest, state)| match state {
                State::Idle { length, last_use } => Some((*last_use, digest.clone(), *length)),
                State::Open(_) | State::Leaving => None,
            })
            .collect();
        idle.sort_unstable();
        idle
    }

    /// Removes an unfinished one unless it has a writer (again); what that freed.
    pub(super) fn remove_idle(&self, folder: &Folder, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let length = {
            let mut table = lock(&self.table);
            let Some(state) = table.get_mut(digest) else { return Ok(None) };
            let State::Idle { length, .. } = *state else { return Ok(None) };
            *state = State::Leaving;
            length
        };
        let removed =
            folder.remove(&layout::partial(digest)).and_then(|_| folder.remove(&layout::partial_origin(digest)));
        let mut table = lock(&self.table);
        let removed = match removed {
            Ok(_) => {
                table.remove(digest);
                self.occupancy.shrink(footprint(length));
                Ok(Some(footprint(length)))
            }
            Err(error) => {
                table.insert(digest.clone(), State::Idle { length, last_use: SystemTime::UNIX_EPOCH });
                Err(error)
            }
        };
        self.left.notify_all();
        removed
    }

    /// Makes the caller the writer. All that is announced together must fit into `limit`: nothing that is being written is evicted.
    fn begin(&self, digest: &Digest, announced: u64, limit: Option<u64>) -> Result<(Arc<Progress>, u64), StoreError> {
        let mut table = lock(&self.table);
        let existing = loop {
            match table.get(digest) {
                None => break 0,
                Some(State::Idle { length, .. }) => break *length,
                Some(State::Open(_)) => return Err(StoreError::InUse { digest: digest.clone() }),
                Some(State::Leaving) => table = self.left.wait(table).unwrap_or_else(PoisonError::into_inner),
            }
        };
        if let Some(limit) = limit {
            let others = table.values().map(State::promised).fold(0, u64::saturating_add);
            if others.saturating_add(footprint(announced)) > limit {
                let reason = format!(
                    "{digest} has {announced} bytes, {others} are promised to others, the store may hold {limit} bytes"
                );
                return Err(StoreError::Full { reason });
            }
        }
        let progress = Arc::new(Progress { announced, written: AtomicU64::new(existing) });
        table.insert(digest.clone(), State::Open(Arc::clone(&progress)));
        Ok((progress, existing))
    }

    fn end(&self, digest: &Digest, left: Option<(u64, SystemTime)>) {
        let mut table = lock(&self.table);
        match left {
            Some((length, last_use)) => table.insert(digest.clone(), State::Idle { length, last_use }),
            None => table.remove(digest),
        };
    }
}

impl State {
    fn promised(&self) -> u64 {
        match self {
            Self::Open(progress) => footprint(progress.announced.max(progress.written.load(Ordering::Relaxed))),
            Self::Idle { .. } | Self::Leaving => 0,
        }
    }

    fn outstanding(&self) -> u64 {
        match self {
            Self::Open(progress) => progress.announced.saturating_sub(progress.written.load(Ordering::Relaxed)),
            Self::Idle { .. } | Self::Leaving => 0,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OriginRecord {
    version: u64,
    registry: Registry,
    repository: Repository,
    etag: Option<String>,
    total: Option<u64>,
}

/// Opens a blob for writing; runs on a blocking thread.
pub(super) fn create(shared: &Arc<Shared>, digest: &Digest, size: Option<u64>) -> Result<PartialBlob, StoreError> {
    let limit = shared.config.limit;
    let (progress, existing) = shared.partials.begin(digest, size.unwrap_or(0), limit)?;
    if shared.blobs.all_listed() && shared.need(size.unwrap_or(0).saturating_sub(existing)).bytes > shared.used() {
        shared.partials.end(digest, (existing > 0).then(|| (existing, shared.now())));
        let reason = format!("evicting everything would not make room for {digest}");
        return Err(StoreError::Full { reason });
    }
    let path = layout::partial(digest);
    let opened = shared.folder.open_growing(&path).and_then(|file| {
        let facts = shared.folder.facts_of(&path, &file)?;
        Ok((file, facts))
    });
    let (file, facts) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            shared.partials.end(digest, (existing > 0).then(|| (existing, shared.now())));
            return Err(error);
        }
    };
    shared.occupancy.shrink(footprint(existing));
    shared.occupancy.grow(footprint(facts.length));
    progress.written.store(facts.length, Ordering::Relaxed);
    let mut writer = DirectoryPartial {
        shared: Arc::clone(shared),
        digest: digest.clone(),
        path,
        file: Arc::new(file),
        existing: facts.length,
        written: facts.length,
        progress,
        origin: None,
        disk_asked_at: None,
        ended: false,
    };
    if size.is_some_and(|size| size < writer.existing) {
        writer.restart()?;
    }
    if writer.existing > 0 {
        writer.origin = record::read::<OriginRecord>(&shared.folder, &layout::partial_origin(digest))?.map(|record| {
            PartialOrigin {
                name: Name { registry: record.registry, repository: record.repository },
                etag: record.etag,
                total: record.total,
            }
        });
    }
    Ok(PartialBlob::new(Box::new(writer)))
}

struct DirectoryPartial {
    shared: Arc<Shared>,
    digest: Digest,
    path: String,
    file: Arc<File>,
    existing: u64,
    written: u64,
    progress: Arc<Progress>,
    origin: Option<PartialOrigin>,
    /// The length at which the disk was last asked for its room.
    disk_asked_at: Option<u64>,
    ended: bool,
}

impl DirectoryPartial {
    fn set_written(&mut self, written: u64) {
        self.written = written;
        self.progress.written.store(written, Ordering::Relaxed);
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let _watched = self.shared.gate.watch("append to a blob", self.shared.gate.limits().answer)?;
        self.file.write_all_at(bytes, self.written).map_err(|error| {
            // What did arrive must not be found by whoever resumes as more than was accounted for.
            let _ = self.file.set_len(self.written);
            self.shared.folder.failed_io(&self.path, error)
        })
    }

    /// Ends it without a file left behind.
    fn remove(&mut self) -> Result<(), StoreError> {
        let _watched = self.shared.gate.watch("remove an unfinished blob", self.shared.gate.limits().durable)?;
        let removed = self.shared.folder.remove(&self.path);
        let removed = removed.and_then(|_| self.shared.folder.remove(&layout::partial_origin(&self.digest)));
        if removed.is_ok() {
            self.shared.occupancy.shrink(footprint(self.written));
            self.shared.partials.end(&self.digest, None);
            self.ended = true;
        }
        removed.map(|_| ())
    }

    fn place(&mut self, checksums: Checksums) -> Result<StoredBlob, StoreError> {
        let shared = Arc::clone(&self.shared);
        if checksums.length() != self.written {
            let reason = format!("{} bytes were written and {} verified", self.written, checksums.length());
            return Err(StoreError::Damaged { path: shared.folder.shown(&self.path), reason });
        }
        let _watched = shared.gate.watch("commit a blob", shared.gate.limits().durable)?;
        if let Err(error) = self.file.sync_all() {
            let error = shared.folder.failed_io(&self.path, error);
            // After a failed fsync nobody knows what the disk has of it.
            let _ = self.remove();
            return Err(error);
        }
        let _ = Folder::touch(&self.file, shared.now());
        let inode = shared.folder.facts_of(&self.path, &self.file)?.inode;
        let lease = shared.blobs.place(&shared.folder, &self.path, &self.digest, &checksums)?;
        shared.partials.end(&self.digest, None);
        self.ended = true;
        // Left behind by a crash here, it goes when the store is opened next.
        let _ = shared.folder.remove(&layout::partial_origin(&self.digest));
        let file = Arc::clone(&self.file);
        Ok(shared.opened(&self.digest, file, self.written, Some(Arc::new(checksums)), inode, lease))
    }
}

impl WritePartial for DirectoryPartial {
    fn existing(&self) -> u64 {
        self.existing
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let after = self.written.saturating_add(bytes.len() as u64);
        let more = footprint(after).saturating_sub(footprint(self.written));
        let ask_disk = self.disk_asked_at.is_none_or(|asked| after.saturating_sub(asked) >= ASK_DISK_EVERY);
        let appended = shared.claim(more, ask_disk).and_then(|()| {
            if ask_disk {
                self.disk_asked_at = Some(after);
            }
            let written = match self.write(bytes) {
                // Others filled the disk faster than we looked.
                Err(StoreError::Full { .. }) if shared.make_room_after_refusal(more) => self.write(bytes),
                written => written,
            };
            written.inspect_err(|_| shared.occupancy.shrink(more))
        });
        shared.gate.observe_write(&appended);
        appended.map(|()| self.set_written(after))
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let _watched = shared.gate.watch("begin a blob anew", shared.gate.limits().answer)?;
        shared.folder.remove(&self.path)?;
        shared.occupancy.shrink(footprint(self.written));
        self.existing = 0;
        self.set_written(0);
        self.origin = None;
        shared.folder.remove(&layout::partial_origin(&self.digest))?;
        self.file = Arc::new(shared.folder.create_new(&self.path)?);
        Ok(())
    }

    fn origin(&self) -> Option<PartialOrigin> {
        self.origin.clone()
    }

    fn set_origin(&mut self, origin: PartialOrigin) -> Result<(), StoreError> {
        if self.origin.as_ref() == Some(&origin) {
            return Ok(());
        }
        let record = OriginRecord {
            version: document::VERSION,
            registry: origin.name.registry.clone(),
            repository: origin.name.repository.clone(),
            etag: origin.etag.clone(),
            total: origin.total,
        };
        let _watched = self.shared.gate.watch("write where a blob comes from", self.shared.gate.limits().durable)?;
        let written = record::write(&self.shared, &layout::partial_origin(&self.digest), &record);
        self.shared.gate.observe_write(&written);
        written?;
        self.origin = Some(origin);
        Ok(())
    }

    fn commit(mut self: Box<Self>, checksums: Checksums) -> Result<StoredBlob, StoreError> {
        let placed = self.place(checksums);
        self.shared.gate.observe_write(&placed);
        placed
    }

    fn discard(mut self: Box<Self>) -> Result<(), StoreError> {
        self.remove()
    }
}

impl Drop for DirectoryPartial {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.partials.end(&self.digest, Some((self.written, self.shared.now())));
            self.shared.wake.notify_one();
        }
    }
}
