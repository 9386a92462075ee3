//! What the store's operations share: the folder, the sums, the room that is left, and making more of it.
//!
//! Everything here blocks: it runs on blocking threads, behind the gate or on an assembly's own thread.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use larder_oci::Digest;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::DirectoryConfig;
use super::blobs::{Blobs, Removal};
use super::ceiling::Ceiling;
use super::folder::Folder;
use super::gate::Gate;
use super::layout;
use super::occupancy::Occupancy;
use super::partials::Partials;
use super::pins::{self, Counted};
use super::room::{Need, Oldest, Situation, footprint};
use super::sidecar;
use crate::pins::kept::KeptBy;
use crate::pins::lost::Lost;
use crate::store::blob::Keeper;
use crate::store::checksums::{Check, Checksums, is_chunked};
use crate::store::lease::{Lease, lock};
use crate::store::{StoreError, StoredBlob};

/// How many blobs one walk can choose for eviction.
const MAXIMUM_CANDIDATES: usize = 1024;

/// Sums since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) evicted_blobs: AtomicU64,
    pub(super) evicted_bytes: AtomicU64,
    pub(super) scrubbed_blobs: AtomicU64,
    pub(super) scrubbed_bytes: AtomicU64,
    pub(super) damaged_blobs: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) records_written: AtomicU64,
    pub(super) disk_available: AtomicU64,
    pub(super) pinned_bytes: AtomicU64,
    pub(super) pulled_bytes: AtomicU64,
}

pub(super) struct Shared {
    pub(super) config: DirectoryConfig,
    pub(super) folder: Folder,
    pub(super) gate: Arc<Gate>,
    pub(super) occupancy: Arc<Occupancy>,
    pub(super) blobs: Blobs,
    pub(super) partials: Partials,
    pub(super) pins: Counted,
    /// Blobs that pins may reach, and that were dropped or not there.
    pub(super) lost: Lost,
    /// Held while a record is moved into place and while one is swept away.
    pub(super) records: Mutex<()>,
    pub(super) stats: Sums,
    /// Tells the upkeep that there is something to tidy.
    pub(super) wake: Notify,
    evicting: Mutex<()>,
    ceiling: Ceiling,
    /// Keeps other processes out for as long as it is open.
    lock: Mutex<File>,
}

/// What a reader holds of a blob.
struct Open {
    shared: Arc<Shared>,
    digest: Digest,
    inode: u64,
    _lease: Option<Lease>,
}

impl Keeper for Open {
    fn condemn(&self) {
        self.shared.blobs.condemn(&self.digest, self.inode);
        let (shared, digest, inode) = (Arc::clone(&self.shared), self.digest.clone(), self.inode);
        // Outside of a runtime it is condemned all the same, and the scrub removes it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let (at, removed) = (Arc::clone(&shared), digest.clone());
                let remove = move || at.remove_damaged(&removed, Removal::DamagedInode(inode));
                let limit = shared.config.durable_within;
                if let Err(error) = shared.gate.run("remove a damaged blob", limit, remove).await {
                    tracing::warn!(%digest, %error, "store: a damaged blob could not be removed; it is not served");
                }
            });
        }
    }
}

impl Shared {
    pub(super) fn open(config: DirectoryConfig, gate: Gate) -> Result<Self, StoreError> {
        let folder = Folder::open(&config.root)?;
        let lock = layout::prepare(&folder, config.owner)?;
        let occupancy = Arc::<Occupancy>::default();
        let partials = Partials::load(&folder, Arc::clone(&occupancy))?;
        let pins = Counted::new(&folder)?;
        let ceiling = Ceiling::load(&folder)?;
        Ok(Self {
            config,
            folder,
            gate: Arc::new(gate),
            blobs: Blobs::new(Arc::clone(&occupancy)),
            occupancy,
            partials,
            pins,
            lost: Lost::default(),
            records: Mutex::default(),
            stats: Sums::default(),
            wake: Notify::new(),
            evicting: Mutex::default(),
            ceiling,
            lock: Mutex::new(lock),
        })
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.config.clock)()
    }

    pub(super) fn opened(
        self: &Arc<Self>,
        digest: &Digest,
        file: Arc<File>,
        length: u64,
        checksums: Option<Arc<Checksums>>,
        inode: u64,
        lease: Option<Lease>,
    ) -> StoredBlob {
        let keeper = Open { shared: Arc::clone(self), digest: digest.clone(), inode, _lease: lease };
        StoredBlob::new(file, length, Check::new(digest, length, checksums), Arc::new(keeper))
    }

    pub(super) fn blob(self: &Arc<Self>, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        // The lease comes first: between opening and leasing the blob could be taken for unused.
        let Some(lease) = self.blobs.leases().take(digest) else { return Ok(None) };
        let path = layout::blob(digest);
        let Some(file) = self.folder.open_file(&path)? else {
            self.lose(digest);
            return Ok(None);
        };
        let facts = self.folder.facts_of(&path, &file)?;
        if !facts.regular {
            return Err(StoreError::Damaged {
                path: self.folder.shown(&path),
                reason: "not a regular file".to_owned(),
            });
        }
        if self.blobs.is_condemned(digest, facts.inode) {
            return Ok(None);
        }
        let checksums = if is_chunked(facts.length) { sidecar::read(&self.folder, digest) } else { None };
        let written = checksums.as_ref().map(|checksums| checksums.length());
        let blob = self.opened(digest, Arc::new(file), facts.length, checksums, facts.inode, Some(lease));
        if let Some(written) = written
            && written != facts.length
        {
            blob.condemn(&format!("{digest} had {written} bytes"));
            return Ok(None);
        }
        let now = self.now();
        // A time in the future is a clock that was wrong: it would never be evicted.
        if now.duration_since(facts.modified).map_or(true, |age| age >= self.config.touch_every) {
            // Read-only, or not ours: then its age is what it is.
            if let Some(file) = blob.file() {
                let _ = Folder::touch(file, now);
            }
        }
        Ok(Some(blob))
    }

    /// Who asked for it is told at once; whoever looks after the pins that reach it is told here. Only where one of them is complete: who fetches what is
    /// missing asks for it, too.
    fn lose(&self, digest: &Digest) {
        if self.pins.is_promised(digest) {
            self.lost.tell(digest);
        }
    }

    pub(super) fn put_bytes(&self, digest: &Digest, bytes: &Bytes) -> Result<(), StoreError> {
        let actual = Digest::of(digest.algorithm(), bytes);
        if actual != *digest {
            return Err(StoreError::Mismatch { expected: digest.clone(), actual });
        }
        let length = bytes.len() as u64;
        self.claim(footprint(length), true)?;
        let placed = self.folder.write_temporary(bytes).and_then(|temporary| {
            // Its last use by our own clock, as every later one.
            if let Some(file) = self.folder.open_file(&temporary)? {
                let _ = Folder::touch(&file, self.now());
            }
            let placed = self.blobs.place(&self.folder, &temporary, digest, &Checksums::of(bytes));
            placed.inspect_err(|_| {
                let _ = self.folder.remove(&temporary);
            })
        });
        placed.map(|_| ()).inspect_err(|_| self.occupancy.shrink(footprint(length)))
    }

    pub(super) fn remove_damaged(&self, digest: &Digest, why: Removal) -> Result<(), StoreError> {
        if self.blobs.remove(&self.folder, digest, why, |_| false)?.is_some() {
            self.stats.damaged_blobs.fetch_add(1, Ordering::Relaxed);
            self.lose(digest);
            tracing::warn!(%digest, "store: a damaged blob was dropped");
        }
        Ok(())
    }

    /// Bytes that the store occupies: exactly, or at most while not everything has been counted.
    pub(super) fn used(&self) -> u64 {
        let counted = self.occupancy.all();
        if self.blobs.all_listed() { counted } else { counted.max(self.ceiling.estimate()) }
    }

    /// Keeps the record of what there is at most ahead of what there is. Nobody needs it without a limit.
    fn raise_ceiling(&self) -> Result<(), StoreError> {
        match self.config.limit {
            Some(limit) if self.ceiling.is_reached(self.used()) => self.save_ceiling(limit),
            _ => Ok(()),
        }
    }

    fn save_ceiling(&self, limit: u64) -> Result<(), StoreError> {
        let at_most = || self.used().saturating_add(limit / 20);
        self.ceiling.save(at_most, |path, bytes| self.folder.replace(path, bytes))
    }

    /// After everything was counted: the record comes down to what there is.
    pub(super) fn lower_ceiling(&self) -> Result<(), StoreError> {
        match self.config.limit {
            Some(limit) if self.blobs.all_listed() => self.save_ceiling(limit),
            _ => Ok(()),
        }
    }

    fn situation(&self, ask_disk: bool) -> Situation {
        let disk = if ask_disk { self.folder.room().ok() } else { None };
        if let Some(disk) = disk {
            self.stats.disk_available.store(disk.available, Ordering::Relaxed);
        }
        Situation {
            used: self.used(),
            limit: self.config.limit,
            disk,
            reserve: self.config.reserve,
            reserve_files: self.config.reserve_files,
        }
    }

    /// What must go before `announced` more bytes can be written.
    pub(super) fn need(&self, announced: u64) -> Need {
        self.situation(true).need(announced, announced)
    }

    /// Counts `bytes` that are about to be written, and makes room for them. If that fails they do not count.
    pub(super) fn claim(&self, bytes: u64, ask_disk: bool) -> Result<(), StoreError> {
        self.ceiling.add(bytes);
        self.occupancy.grow(bytes);
        let raised = self.raise_ceiling().inspect_err(|_| self.occupancy.shrink(bytes));
        raised?;
        let unwritten = if ask_disk { bytes } else { 0 };
        if self.situation(ask_disk).need(0, unwritten).is_met() || self.make_room(unwritten) {
            return Ok(());
        }
        self.occupancy.shrink(bytes);
        let limit =
            self.config.limit.map_or_else(|| "no limit".to_owned(), |limit| format!("a limit of {limit} bytes"));
        Err(StoreError::Full {
            reason: format!(
                "{} bytes used with {limit} ({} of them pinned), nothing left that may be evicted",
                self.used(),
                self.stats.pinned_bytes.load(Ordering::Relaxed)
            ),
        })
    }

    /// After the disk itself refused `bytes`, whatever its numbers say.
    pub(super) fn make_room_after_refusal(&self, bytes: u64) -> bool {
        let _one_at_a_time = lock(&self.evicting);
        self.evict(Need { bytes: bytes.max(1 << 20), files: 0 }, Need { bytes, files: 0 })
    }

    /// Evicts until the store is within its bounds and `unwritten` bytes fit on the disk; whether that was reached.
    fn make_room(&self, unwritten: u64) -> bool {
        let Ok(_watched) = self.gate.watch("make room", self.gate.limits().durable) else { return false };
        let _one_at_a_time = lock(&self.evicting);
        self.count();
        let situation = self.situation(true);
        let required = situation.need(0, unwritten);
        if required.is_met() {
            return true;
        }
        // A little more than that, so that the next one does not walk again.
        let generous = Need { bytes: required.bytes.saturating_add(self.spare(&situation)), ..required };
        // Room may also have come from elsewhere meanwhile: what is damaged goes without waiting for its turn here.
        self.evict(generous, required) || self.situation(true).need(0, unwritten).is_met()
    }

    fn spare(&self, situation: &Situation) -> u64 {
        let of_limit = self.config.limit.unwrap_or(u64::MAX) / 20;
        of_limit.min(situation.disk.map_or(u64::MAX, |disk| disk.total / 100)).min(256 << 20)
    }

    /// What has to go is known only when all is counted; to choose among it all has to be listed anyway.
    fn count(&self) {
        if !self.blobs.all_listed() {
            self.oldest_blobs();
        }
    }

    /// Unfinished blobs first, then what nobody pins, then what only `pull` pins; the longest unused ones of each kind first. Whether at least
    /// `required` was reached.
    fn evict(&self, mut goal: Need, mut required: Need) -> bool {
        for (_, digest, _) in self.partials.idle() {
            if goal.is_met() {
                return true;
            }
            if let Ok(Some(bytes)) = self.partials.remove_idle(&self.folder, &digest) {
                (goal, required) = (goal.after(bytes), required.after(bytes));
            }
        }
        while !goal.is_met() && self.pins.all() {
            let mut any = false;
            for (_, _, digest) in self.oldest_blobs() {
                if goal.is_met() {
                    break;
                }
                let is_kept = |digest: &Digest| self.pins.by(digest) != KeptBy::Nobody;
                match self.blobs.remove(&self.folder, &digest, Removal::Eviction, is_kept) {
                    Ok(Some(bytes)) => {
                        any = true;
                        (goal, required) = (goal.after(bytes), required.after(bytes));
                        self.stats.evicted_blobs.fetch_add(1, Ordering::Relaxed);
                        self.stats.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
                        tracing::debug!(%digest, bytes, "store: evicted");
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%digest, %error, "store: a blob could not be evicted"),
                }
            }
            // For a little to spare nothing that is pinned goes.
            if !any && (required.is_met() || !pins::give_way(self, required.bytes.max(1))) {
                break;
            }
        }
        required.is_met()
    }

    /// Those that may go. On the way it is counted how much is pinned.
    pub(super) fn oldest_blobs(&self) -> Vec<(SystemTime, u64, Digest)> {
        let mut oldest = Oldest::new(MAXIMUM_CANDIDATES);
        let (mut pinned, mut pulled) = (0, 0);
        for shard in 0..layout::SHARDS {
            match self.blobs.list(&self.folder, shard) {
                Ok(entries) => {
                    for entry in entries {
                        match self.pins.by(&entry.digest) {
                            KeptBy::Holder => pinned += footprint(entry.length),
                            KeptBy::Pull => pulled += footprint(entry.length),
                            KeptBy::Nobody if self.blobs.leases().is_held(&entry.digest) => {}
                            KeptBy::Nobody => oldest.show(entry.last_use, entry.length, entry.digest),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "store: a folder of blobs could not be read"),
            }
        }
        if self.pins.all() {
            self.stats.pinned_bytes.store(pinned, Ordering::Relaxed);
            self.stats.pulled_bytes.store(pulled, Ordering::Relaxed);
        }
        oldest.into_sorted()
    }

    /// What has to be tidied every now and then: unfinished blobs that are too many or too old, and room ahead of those who write.
    pub(super) fn tidy(&self) -> Result<(), StoreError> {
        if self.folder.is_gone() {
            return Err(self.gone(&"and was not made again yet"));
        }
        let (empty, idle): (Vec<_>, Vec<_>) = self.partials.idle().into_iter().partition(|(_, _, length)| *length == 0);
        for (_, digest, _) in empty {
            self.partials.remove_idle(&self.folder, &digest)?;
        }
        let too_many = idle.len().saturating_sub(self.config.maximum_partials);
        let now = self.now();
        for (index, (last_use, digest, _)) in idle.into_iter().enumerate() {
            let age = now.duration_since(last_use).unwrap_or_default();
            if index < too_many || age >= self.config.partial_age {
                self.partials.remove_idle(&self.folder, &digest)?;
            }
        }
        if !self.blobs.all_listed() {
            // Room ahead can wait until it is known how much there is; whoever writes is held to the limit anyway.
            return Ok(());
        }
        let announced = self.partials.outstanding();
        if !self.need(announced).is_met() && !self.make_room_ahead(announced) && !self.need(0).is_met() {
            let reason =
                "the disk is beyond the room that stays free, and nothing is left that may be evicted".to_owned();
            return Err(StoreError::Full { reason });
        }
        Ok(())
    }

    fn make_room_ahead(&self, announced: u64) -> bool {
        let _one_at_a_time = lock(&self.evicting);
        self.count();
        let required = self.need(announced);
        self.evict(required, required) || self.need(announced).is_met()
    }

    fn gone(&self, reason: &dyn std::fmt::Display) -> StoreError {
        StoreError::Gone { path: self.folder.shown("."), reason: reason.to_string() }
    }

    /// Makes again what somebody removed. Where the folder itself is gone the program may lack the rights to make another, or
    /// to go by a relative path from where it is now.
    fn restore(&self) -> Result<(), StoreError> {
        if !self.folder.is_gone() {
            if let Some(taken) = layout::restore(&self.folder)? {
                *lock(&self.lock) = taken;
            }
            return Ok(());
        }
        let root = &self.config.root;
        if !root.is_absolute() {
            return Err(self.gone(&"and its path is relative"));
        }
        let folder = Folder::open(root).map_err(|error| self.gone(&error))?;
        let taken = layout::prepare(&folder, self.config.owner).map_err(|error| self.gone(&error))?;
        self.folder.adopt(&folder);
        self.pins.forget();
        *lock(&self.lock) = taken;
        // All is counted anew, by being listed.
        self.oldest_blobs();
        tracing::warn!(path = %root.display(), "store: its folder had been removed; it begins anew");
        Ok(())
    }

    /// Whether the disk takes bytes and makes them durable; and whether there is room again, with a little to spare: a store
    /// that is full with the next blob is full.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        self.gate.pass();
        self.restore()?;
        let temporary = self.folder.write_temporary(&vec![0; 64 << 10])?;
        self.folder.remove(&temporary)?;
        if self.make_room_ahead(self.spare(&self.situation(true))) {
            Ok(())
        } else {
            Err(StoreError::Full { reason: "still beyond the store's bounds".to_owned() })
        }
    }
}
