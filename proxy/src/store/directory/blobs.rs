//! Complete blobs on the disk, and how much they occupy.
//!
//! Each of the [`layout::SHARDS`] folders has a lock that is held while a name in it appears or goes, and while it is listed. So the
//! sums are exact from the moment at which a shard was listed for the first time, nothing has to be read at start, and eviction needs
//! no list in memory. The lock is taken on blocking threads only; readers and their leases never need it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use larder_oci::Digest;

use super::folder::Folder;
use super::occupancy::Occupancy;
use super::room::footprint;
use super::{layout, sidecar};
use crate::store::checksums::is_chunked;
use crate::store::lease::{Lease, Leases, lock};
use crate::store::{Checksums, StoreError};

/// A blob as its folder shows it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) last_use: SystemTime,
}

/// When a blob may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Unless somebody has it open, or a pin reaches it.
    Eviction,
    /// In any case.
    Damaged,
    /// In any case, if it still is the file that was looked at.
    DamagedInode(u64),
}

#[derive(Debug, Default)]
struct Sums {
    bytes: u64,
    blobs: u64,
    listed: bool,
}

pub(super) struct Blobs {
    shards: Vec<Mutex<Sums>>,
    occupancy: Arc<Occupancy>,
    bytes: AtomicU64,
    count: AtomicU64,
    listed: AtomicU64,
    leases: Arc<Leases>,
    /// Files that were found damaged, by inode, until another one takes their place: a disk that fails may not let go of them, and
    /// somebody may be opening one at this moment.
    condemned: Mutex<HashMap<Digest, u64>>,
}

impl Blobs {
    pub(super) fn new(occupancy: Arc<Occupancy>) -> Self {
        Self {
            shards: (0..layout::SHARDS).map(|_| Mutex::default()).collect(),
            occupancy,
            bytes: AtomicU64::new(0),
            count: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            leases: Arc::default(),
            condemned: Mutex::default(),
        }
    }

    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// From now on this file is not there for anybody who opens the blob.
    pub(super) fn condemn(&self, digest: &Digest, inode: u64) {
        lock(&self.condemned).insert(digest.clone(), inode);
    }

    pub(super) fn is_condemned(&self, digest: &Digest, inode: u64) -> bool {
        lock(&self.condemned).get(digest) == Some(&inode)
    }

    /// Bytes that are known to be occupied.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Blobs that are known.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether everything that was here at start has been counted.
    pub(super) fn all_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed) == self.shards.len() as u64
    }

    fn change(&self, sums: &mut Sums, bytes: u64, blobs: u64, claimed: u64) {
        self.occupancy.change(sums.bytes, bytes, claimed);
        // Wrapping sums of differences: each total is exact as soon as every change has arrived.
        self.bytes.fetch_add(bytes.wrapping_sub(sums.bytes), Ordering::Relaxed);
        self.count.fetch_add(blobs.wrapping_sub(sums.blobs), Ordering::Relaxed);
        sums.bytes = bytes;
        sums.blobs = blobs;
    }

    /// Moves a finished, durable file to where readers find it, once its checksums are as durable. It cannot be evicted before
    /// the lease is dropped. The file was counted as unfinished, and is no more unless that fails.
    pub(super) fn place(
        &self,
        folder: &Folder,
        from: &str,
        digest: &Digest,
        checksums: &Checksums,
    ) -> Result<Option<Lease>, StoreError> {
        let Some(shard) = self.shards.get(layout::shard(digest)) else { return Ok(None) };
        let path = layout::blob(digest);
        let length = checksums.length();
        let lease;
        loop {
            if is_chunked(length) {
                sidecar::write(folder, digest, checksums)?;
            }
            let mut sums = lock(shard);
            // An older file of this digest may have been evicted since, and its checksums with it.
            if is_chunked(length) && folder.facts(&layout::checksums(digest))?.is_none() {
                continue;
            }
            let before = if sums.listed { folder.facts(&path)? } else { None };
            lease = self.leases.take(digest);
            folder.move_into_place(from, &path)?;
            let claimed = footprint(length);
            if sums.listed {
                let (bytes, blobs) = before.map_or((0, 0), |before| (footprint(before.length), 1));
                let bytes = sums.bytes.saturating_sub(bytes).saturating_add(claimed);
                let blobs = sums.blobs.saturating_sub(blobs) + 1;
                self.change(&mut sums, bytes, blobs, claimed);
            } else {
                self.occupancy.shrink(claimed);
            }
            break;
        }
        lock(&self.condemned).remove(digest);
        // It is complete and right whether or not its name survives a power cut.
        if let Err(error) = folder.sync_parent(&path) {
            tracing::warn!(%digest, %error, "store: the name of a blob could not be made durable");
        }
        Ok(lease)
    }

    /// Whether a blob is there. It is not while it is being removed.
    pub(super) fn has(&self, folder: &Folder, digest: &Digest) -> Result<bool, StoreError> {
        let Some(shard) = self.shards.get(layout::shard(digest)) else { return Ok(false) };
        let _no_removal = lock(shard);
        let facts = folder.facts(&layout::blob(digest))?;
        Ok(facts.is_some_and(|facts| facts.regular && !self.is_condemned(digest, facts.inode)))
    }

    /// Removes a blob; what that freed, or `None` if it stays or was not there. What `is_kept` stays where it would be evicted.
    pub(super) fn remove(
        &self,
        folder: &Folder,
        digest: &Digest,
        why: Removal,
        is_kept: impl Fn(&Digest) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let Some(shard) = self.shards.get(layout::shard(digest)) else { return Ok(None) };
        let path = layout::blob(digest);
        let mut sums = lock(shard);
        let _leaving = match why {
            Removal::Eviction if is_kept(digest) => return Ok(None),
            Removal::Eviction => match self.leases.leave_unless_held(digest) {
                Some(leaving) => leaving,
                None => return Ok(None),
            },
            Removal::Damaged | Removal::DamagedInode(_) => self.leases.leave(digest),
        };
        let Some(facts) = folder.facts(&path)? else { return Ok(None) };
        if matches!(why, Removal::DamagedInode(inode) if inode != facts.inode) || !folder.remove(&path)? {
            return Ok(None);
        }
        if sums.listed {
            let bytes = sums.bytes.saturating_sub(footprint(facts.length));
            let blobs = sums.blobs.saturating_sub(1);
            self.change(&mut sums, bytes, blobs, 0);
        }
        // What stays behind here is swept. Whether there should be any cannot be told from a file that was cut short.
        let _ = folder.remove(&layout::checksums(digest));
        Ok(Some(footprint(facts.length)))
    }

    /// Removes checksums without a blob that are older than `grace`; younger ones may be those of a blob that is just being placed.
    pub(super) fn sweep_checksums(
        &self,
        folder: &Folder,
        number: usize,
        now: SystemTime,
        grace: Duration,
    ) -> Result<(), StoreError> {
        let Some(shard) = self.shards.get(number) else { return Ok(()) };
        let path = layout::checksums_folder(number);
        for name in folder.names(&path)? {
            let Some(digest) = layout::blob_digest(number, &name) else { continue };
            if folder.facts(&layout::blob(&digest))?.is_some() {
                continue;
            }
            // Whoever places the blob looks for them under the same lock.
            let _no_placing = lock(shard);
            let path = layout::checksums(&digest);
            if folder.facts(&layout::blob(&digest))?.is_none()
                && let Some(facts) = folder.facts(&path)?
                && now.duration_since(facts.modified).is_ok_and(|age| age >= grace)
            {
                folder.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Lists a shard and puts its sums right.
    pub(super) fn list(&self, folder: &Folder, number: usize) -> Result<Vec<Entry>, StoreError> {
        let Some(shard) = self.shards.get(number) else { return Ok(Vec::new()) };
        let path = layout::shard_folder(number);
        let mut entries = Vec::new();
        let mut sums = lock(shard);
        for name in folder.names(&path)? {
            let Some(digest) = layout::blob_digest(number, &name) else { continue };
            if let Some(facts) = folder.facts(&format!("{path}/{name}"))?
                && facts.regular
            {
                entries.push(Entry { digest, length: facts.length, last_use: facts.modified });
            }
        }
        let bytes = entries.iter().map(|entry| footprint(entry.length)).sum();
        self.change(&mut sums, bytes, entries.len() as u64, 0);
        if !std::mem::replace(&mut sums.listed, true) {
            self.listed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(entries)
    }
}
