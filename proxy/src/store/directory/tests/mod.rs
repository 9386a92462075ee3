//! What only a store on a disk must do. What every store must do is in `conformance`.

mod damage;
mod disk;
mod eviction;
mod health;
mod kill;
mod opening;
mod pins;
mod upkeep;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use larder_oci::{Algorithm, Digest};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Clock, DirectoryConfig, DirectoryStore, Reserve, layout};
use crate::store::conformance::{LIMIT, conformance_tests};
use crate::store::{Checksums, Store, StoreError, StoredBlob};

/// A folder in memory where there is one: these tests are about what is written, not about how long a disk takes for it.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// As a node's, but without a word about the disk that the test runs on, and quick to look again.
fn config(root: &Path) -> DirectoryConfig {
    DirectoryConfig {
        reserve: Reserve::Bytes(0),
        reserve_files: Reserve::Bytes(0),
        recheck_every: Duration::from_millis(20),
        ..DirectoryConfig::new(root)
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

async fn put(store: &DirectoryStore, bytes: &Bytes) -> Result<StoredBlob, StoreError> {
    let mut partial = store.create(&sha256(bytes), Some(bytes.len() as u64)).await?;
    partial.append(bytes)?;
    partial.commit(Checksums::of(bytes))
}

/// Waits for a condition that some background task brings about.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// A clock that a test moves.
#[derive(Clone)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    /// Begins now, by the clock that the disk's own times come from.
    fn new() -> Self {
        let now = UNIX_EPOCH.elapsed().unwrap();
        Self(Arc::new(AtomicU64::new(u64::try_from(now.as_nanos()).unwrap())))
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let time = Arc::clone(&self.0);
        Arc::new(move || UNIX_EPOCH + Duration::from_nanos(time.load(Ordering::Relaxed)))
    }
}

/// Files below a folder of the store, with their lengths.
fn files_below(root: &Path, folder: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            // Somebody may be tidying up meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((path, metadata.len()));
            }
        }
    }
    found.sort();
    found
}

/// A case that cannot run here says so, by name and reason.
fn skipped(case: &str, reason: &str) {
    eprintln!("SKIPPED {case}: {reason}");
}

fn conforming() -> (Arc<dyn Store>, impl Any) {
    let folder = folder();
    let store = DirectoryStore::open(DirectoryConfig { limit: Some(LIMIT), ..config(folder.path()) }).unwrap();
    let guard = background(&store);
    (store, (folder, guard))
}

/// Runs the store's background tasks until it is dropped.
fn background(store: &DirectoryStore) -> DropGuard {
    let shutdown = CancellationToken::new();
    store.spawn_background(&shutdown);
    shutdown.drop_guard()
}

conformance_tests!(conforming());
