//! The store in memory, with a way to make it fail and to spoil what it holds.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_oci::{Digest, Tag};
use tokio::task::spawn_blocking;

use crate::store::memory::MemoryStore;
use crate::store::{Link, Name, PartialBlob, PartialOrigin, Store, StoreError, StoreHealth, StoredBlob, TagRecord};

/// Room for everything that the tests store.
const ROOM: u64 = 64 << 20;

pub(crate) struct FaultyStore {
    memory: Arc<MemoryStore>,
    /// Reported instead of the store's own.
    health: Mutex<Option<StoreHealth>>,
    /// Blobs cannot be begun, although the store seems healthy.
    is_refusing: Mutex<bool>,
    /// Writing a link never ends.
    hangs_on_links: Mutex<bool>,
    /// How long it takes to find a blob.
    delay: Mutex<Duration>,
}

impl Default for FaultyStore {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl FaultyStore {
    /// A store that is full when it holds so many bytes.
    pub(crate) fn with_room(room: u64) -> Self {
        Self {
            memory: MemoryStore::new(room),
            health: Mutex::default(),
            is_refusing: Mutex::default(),
            hangs_on_links: Mutex::default(),
            delay: Mutex::default(),
        }
    }

    pub(crate) fn set_health(&self, health: Option<StoreHealth>) {
        *self.health.lock().unwrap() = health;
    }

    pub(crate) fn refuse(&self, is_refusing: bool) {
        *self.is_refusing.lock().unwrap() = is_refusing;
    }

    /// As a disk that takes no more writes and does not say so.
    pub(crate) fn hang_on_links(&self) {
        *self.hangs_on_links.lock().unwrap() = true;
    }

    /// As a disk that takes its time for each blob.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    pub(crate) async fn has(&self, digest: &Digest) -> bool {
        self.memory.blob(digest).await.unwrap().is_some()
    }

    /// Overwrites some bytes of a stored blob, as a failing disk would.
    pub(crate) async fn damage(&self, digest: &Digest, offset: u64) {
        let blob = self.memory.blob(digest).await.unwrap().unwrap();
        blob.file().unwrap().write_all_at(b"damage", offset).unwrap();
    }

    /// What a fetch left that was under way when the program ended.
    pub(crate) async fn leave_partial(&self, digest: &Digest, bytes: &Bytes, origin: PartialOrigin) {
        let mut partial = self.memory.create(digest, None).await.unwrap();
        let bytes = bytes.clone();
        spawn_blocking(move || {
            partial.set_origin(origin).unwrap();
            partial.append(&bytes).unwrap();
            partial.keep();
        })
        .await
        .unwrap();
    }

    /// How much of an unfinished blob there is.
    pub(crate) async fn left(&self, digest: &Digest) -> Option<u64> {
        self.memory.create(digest, None).await.ok().map(|partial| partial.existing())
    }
}

impl Store for FaultyStore {
    fn link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<Link>, StoreError>> {
        self.memory.link(name, digest)
    }

    fn put_link(&self, name: &Name, link: Link) -> BoxFuture<'_, Result<(), StoreError>> {
        if *self.hangs_on_links.lock().unwrap() {
            return std::future::pending().boxed();
        }
        self.memory.put_link(name, link)
    }

    fn remove_link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.remove_link(name, digest)
    }

    fn tag(&self, name: &Name, tag: &Tag) -> BoxFuture<'_, Result<Option<TagRecord>, StoreError>> {
        self.memory.tag(name, tag)
    }

    fn put_tag(&self, name: &Name, tag: &Tag, record: TagRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.put_tag(name, tag, record)
    }

    fn tags(&self, name: &Name) -> BoxFuture<'_, Result<Vec<Tag>, StoreError>> {
        self.memory.tags(name)
    }

    fn names(&self, after: Option<&Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        self.memory.names(after, limit)
    }

    fn blob(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<StoredBlob>, StoreError>> {
        let (found, delay) = (self.memory.blob(digest), *self.delay.lock().unwrap());
        async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            found.await
        }
        .boxed()
    }

    fn put_bytes(&self, digest: &Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.put_bytes(digest, bytes)
    }

    fn create(&self, digest: &Digest, size: Option<u64>) -> BoxFuture<'_, Result<PartialBlob, StoreError>> {
        if *self.is_refusing.lock().unwrap() {
            return async { Err(StoreError::Full { reason: "scripted".to_owned() }) }.boxed();
        }
        self.memory.create(digest, size)
    }

    fn remove_damaged(&self, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.remove_damaged(digest)
    }

    fn health(&self) -> StoreHealth {
        self.health.lock().unwrap().unwrap_or_else(|| self.memory.health())
    }
}
