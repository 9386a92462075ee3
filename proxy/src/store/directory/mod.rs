//! A store in a folder: the node's own small cache, an emptyDir, a volume.
//!
//! Crash-safe at every instruction: whatever readers can find was complete, verified and durable before it got its name. One process
//! at a time. The folder's layout is in `docs/store.md`.
//!
//! [`DirectoryStore`] (here) hands every operation to the `gate`, which runs it on a blocking thread with a time limit; `shared` holds
//! what they share. `blobs` (with a `sidecar` each), `partials` and `record` are the three kinds of content, `pins` says what stays (and `whole` whether it does), `room` decides what must go, `upkeep` and
//! `scrub` run in the background.

mod blobs;
mod ceiling;
mod folder;
mod gate;
mod layout;
mod occupancy;
mod partials;
mod pins;
mod record;
mod rights;
mod room;
mod scrub;
mod shared;
mod sidecar;
#[cfg(test)]
mod tests;
mod upkeep;
mod whole;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_oci::{Digest, Tag};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Link, Name, PartialBlob, Store, StoreError, StoreHealth, StoredBlob, TagRecord};
use crate::pull::KeepPulled;
use blobs::Removal;
use gate::{Gate, GateLimits};
use shared::Shared;

pub use folder::Owner;
pub use rights::make_parent;
pub use room::Reserve;

/// The clock as a value.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How a [`DirectoryStore`] behaves. [`Self::new`] has what suits a node.
#[derive(Clone)]
pub struct DirectoryConfig {
    /// The folder; made if its parent is there. It may be relative: it is opened once and never looked up again.
    pub root: PathBuf,
    /// Who owns the folder once privileges are dropped. `None`: whoever owns it now. Heeded only by root; a folder of somebody
    /// else is handed over, with all that is in it.
    pub owner: Option<Owner>,
    /// Most bytes that the store may occupy; `None`: as many as `reserve` leaves.
    pub limit: Option<u64>,
    /// Room that stays free on the disk. Kubelet evicts Pods and images below 15 % (`imagefs.available`), 10 % (`nodefs.available`).
    pub reserve: Reserve,
    /// Files that can still be made on the disk. Kubelet's bound is 5 % (`nodefs.inodesFree`).
    pub reserve_files: Reserve,
    /// Limit of an operation that makes nothing durable.
    pub answer_within: Duration,
    /// Limit of an operation that makes something durable, or that goes through many files.
    pub durable_within: Duration,
    /// Operations at a time, which is as many threads as a hanging disk can cost.
    pub maximum_operations: usize,
    /// Between two tries while the disk is full, read-only or hanging.
    pub recheck_every: Duration,
    /// A blob's last use is written down no more often than this.
    pub touch_every: Duration,
    /// Unfinished blobs that are kept for a resume.
    pub maximum_partials: usize,
    /// And for how long.
    pub partial_age: Duration,
    /// Links and tags together.
    pub maximum_records: u64,
    /// How long a record outlives its blob.
    pub record_grace: Duration,
    /// Between two counts of all blobs and sweeps of all records.
    pub sweep_every: Duration,
    /// Bytes a second that the scrub reads; 0 turns it off.
    pub scrub_rate: u64,
    /// Every blob is read again once in this time.
    pub scrub_every: Duration,
    /// After something was pulled, and between two looks whether all of it has come.
    pub pull_settles: Duration,
    /// How long what was pulled is kept after its last use (which is known to a thirtieth of that), if there is room.
    pub pull_kept: Duration,
    /// The clock that last uses and ages go by.
    pub clock: Clock,
}

impl DirectoryConfig {
    /// What suits a node, without a size limit.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let hour = Duration::from_hours(1);
        Self {
            root: root.into(),
            owner: None,
            limit: None,
            reserve: Reserve::Percent(room::SHARED),
            reserve_files: Reserve::Percent(7),
            answer_within: Duration::from_secs(2),
            durable_within: Duration::from_mins(1),
            maximum_operations: 32,
            recheck_every: Duration::from_secs(5),
            touch_every: hour,
            maximum_partials: 64,
            partial_age: 24 * hour,
            maximum_records: 200_000,
            record_grace: 24 * hour,
            sweep_every: hour,
            scrub_rate: 4 << 20,
            scrub_every: 7 * 24 * hour,
            pull_settles: Duration::from_secs(10),
            pull_kept: 30 * 24 * hour,
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl fmt::Debug for DirectoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryConfig")
            .field("root", &self.root)
            .field("limit", &self.limit)
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }
}

/// What a store tells of itself, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryStats {
    /// Whether all that was there when the store was opened has been counted; until then `bytes` and `blobs` grow.
    pub counted: bool,
    /// Bytes that complete blobs occupy, in whole blocks.
    pub bytes: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Bytes that unfinished blobs occupy.
    pub partial_bytes: u64,
    /// Unfinished blobs, with a writer or without.
    pub partials: u64,
    /// Links and tags that the last sweep found.
    pub records: u64,
    /// Bytes of blobs that holders pinned, as of the last count.
    pub pinned_bytes: u64,
    /// Bytes of blobs that are pinned only because they were pulled through, as of the last count.
    pub pulled_bytes: u64,
    /// Bytes that the disk had left when it was last asked.
    pub disk_available: u64,
    /// Evicted since the store was opened.
    pub evicted_blobs: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
    /// Read again by the scrub since the store was opened.
    pub scrubbed_blobs: u64,
    /// Bytes of them.
    pub scrubbed_bytes: u64,
    /// Dropped as damaged since the store was opened.
    pub damaged_blobs: u64,
}

/// A store in a folder.
pub struct DirectoryStore {
    shared: Arc<Shared>,
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryStore").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl DirectoryStore {
    /// Opens or makes a store. Blocks, needs no runtime, and takes as long with many blobs as with none.
    pub fn open(config: DirectoryConfig) -> Result<Arc<Self>, StoreError> {
        let gate = Gate::new(GateLimits {
            answer: config.answer_within,
            durable: config.durable_within,
            hanging: config.maximum_operations,
        });
        let root = config.root.clone();
        let shared = Shared::open(config, gate).map_err(|error| rights::explained(error, &root))?;
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// Starts what runs beside the serving: counting, eviction, sweeping, the scrub, the way back to health. Call it once, within the
    /// runtime. None of the tasks ends before `shutdown`; each comes with its name.
    pub fn spawn_background(&self, shutdown: &CancellationToken) -> Vec<(&'static str, JoinHandle<()>)> {
        let spawn = |name, work: BoxFuture<'static, ()>| {
            let shutdown = shutdown.clone();
            let task = tokio::spawn(async move {
                let _ = shutdown.run_until_cancelled_owned(work).await;
            });
            (name, task)
        };
        let shared = || Arc::clone(&self.shared);
        vec![
            spawn("store pins", Box::pin(upkeep::pins(shared()))),
            spawn("store health", Box::pin(upkeep::health(shared()))),
            spawn("store room", Box::pin(upkeep::room(shared()))),
            spawn("store sweep", Box::pin(upkeep::sweep(shared()))),
            spawn("store scrub", Box::pin(scrub::scrub(shared()))),
        ]
    }

    /// When what is pulled is pinned.
    pub fn keep_pulled(&self) -> KeepPulled {
        let config = &self.shared.config;
        KeepPulled { settle: config.pull_settles, renew: config.pull_kept / 30 }
    }

    /// Numbers for metrics. Never blocks on the disk.
    pub fn stats(&self) -> DirectoryStats {
        let shared = &self.shared;
        let stats = &shared.stats;
        DirectoryStats {
            counted: shared.blobs.all_listed(),
            bytes: shared.blobs.bytes(),
            blobs: shared.blobs.count(),
            partial_bytes: shared.occupancy.unfinished(),
            partials: shared.partials.count(),
            records: stats.records.load(Ordering::Relaxed),
            pinned_bytes: stats.pinned_bytes.load(Ordering::Relaxed),
            pulled_bytes: stats.pulled_bytes.load(Ordering::Relaxed),
            disk_available: stats.disk_available.load(Ordering::Relaxed),
            evicted_blobs: stats.evicted_blobs.load(Ordering::Relaxed),
            evicted_bytes: stats.evicted_bytes.load(Ordering::Relaxed),
            scrubbed_blobs: stats.scrubbed_blobs.load(Ordering::Relaxed),
            scrubbed_bytes: stats.scrubbed_bytes.load(Ordering::Relaxed),
            damaged_blobs: stats.damaged_blobs.load(Ordering::Relaxed),
        }
    }

    /// An operation that makes nothing durable.
    fn quick<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.shared.gate.run(operation, self.shared.config.answer_within, move || work(&shared)))
    }

    /// An operation that waits for the disk to have it.
    fn durable<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let shared = Arc::clone(&self.shared);
        let limit = self.shared.config.durable_within;
        Box::pin(async move {
            let done = self.shared.gate.run(operation, limit, move || work(&shared)).await;
            self.shared.gate.observe_write(&done);
            done
        })
    }
}

impl Store for DirectoryStore {
    fn link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<Link>, StoreError>> {
        let (name, digest) = (name.clone(), digest.clone());
        self.quick("read a link", move |shared| record::link(shared, &name, &digest))
    }

    fn put_link(&self, name: &Name, link: Link) -> BoxFuture<'_, Result<(), StoreError>> {
        let name = name.clone();
        self.durable("write a link", move |shared| record::put_link(shared, &name, link))
    }

    fn remove_link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        let (name, digest) = (name.clone(), digest.clone());
        self.durable("remove a link", move |shared| record::remove_link(shared, &name, &digest))
    }

    fn tag(&self, name: &Name, tag: &Tag) -> BoxFuture<'_, Result<Option<TagRecord>, StoreError>> {
        let (name, tag) = (name.clone(), tag.clone());
        self.quick("read a tag", move |shared| record::tag(shared, &name, &tag))
    }

    fn put_tag(&self, name: &Name, tag: &Tag, record: TagRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        let (name, tag) = (name.clone(), tag.clone());
        self.durable("write a tag", move |shared| record::put_tag(shared, &name, &tag, record))
    }

    fn tags(&self, name: &Name) -> BoxFuture<'_, Result<Vec<Tag>, StoreError>> {
        let name = name.clone();
        self.quick("list tags", move |shared| record::tags(shared, &name))
    }

    fn names(&self, after: Option<&Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        let after = after.cloned();
        let (shared, within) = (Arc::clone(&self.shared), self.shared.config.durable_within);
        let work = move || record::names(&shared, after.as_ref(), limit);
        Box::pin(self.shared.gate.run("list repositories", within, work))
    }

    fn blob(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<StoredBlob>, StoreError>> {
        let digest = digest.clone();
        self.quick("open a blob", move |shared| shared.blob(&digest))
    }

    /// One turn on a blocking thread instead of two: on a hit in memory that is most of what it costs (`docs/benchmarks.md`).
    fn held(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<(Link, StoredBlob)>, StoreError>> {
        let (name, digest) = (name.clone(), digest.clone());
        self.quick("open a blob for a repository", move |shared| {
            let Some(link) = record::link(shared, &name, &digest)? else { return Ok(None) };
            Ok(shared.blob(&digest)?.map(|blob| (link, blob)))
        })
    }

    fn put_bytes(&self, digest: &Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let digest = digest.clone();
        self.durable("write a small blob", move |shared| shared.put_bytes(&digest, &bytes))
    }

    fn create(&self, digest: &Digest, size: Option<u64>) -> BoxFuture<'_, Result<PartialBlob, StoreError>> {
        if self.health() == StoreHealth::Full {
            let reason = "it was full a moment ago".to_owned();
            return Box::pin(async move { Err(StoreError::Full { reason }) });
        }
        let digest = digest.clone();
        let shared = Arc::clone(&self.shared);
        let gate = &self.shared.gate;
        Box::pin(async move {
            let begun = gate.run("begin a blob", self.shared.config.answer_within, move || {
                // That one blob is too large says nothing about the next: this error is not the disk's.
                Ok(match partials::create(&shared, &digest, size) {
                    Err(error @ StoreError::Full { .. }) => Err(error),
                    begun => Ok(begun?),
                })
            });
            let begun = begun.await;
            self.shared.gate.observe_write(&begun);
            let begun = begun?;
            self.shared.wake.notify_one();
            begun
        })
    }

    fn remove_damaged(&self, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        let digest = digest.clone();
        self.durable("remove a damaged blob", move |shared| shared.remove_damaged(&digest, Removal::Damaged))
    }

    fn health(&self) -> StoreHealth {
        self.shared.gate.health()
    }
}
