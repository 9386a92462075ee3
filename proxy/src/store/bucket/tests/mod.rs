//! The store on a bucket in memory. On real servers: `tests/bucket`.

mod elsewhere;
mod generations;
mod leftovers;
mod memory;
mod pins;
mod removal;

use std::sync::Arc;

use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use super::*;
use crate::store::conformance::{LIMIT, conformance_tests};
use crate::store::directory::Reserve;

/// What must live as long as a store under test.
pub(super) struct Around {
    _copies: TempDir,
    _background: DropGuard,
}

pub(super) fn config(copies: &TempDir) -> BucketConfig {
    let address = "s3://images/larder".parse().unwrap();
    let mut config = BucketConfig::new(address, "one".parse().unwrap(), copies.path().join("copies"));
    config.copies.limit = Some(LIMIT);
    config.copies.reserve = Reserve::Bytes(0);
    config.copies.reserve_files = Reserve::Bytes(0);
    config
}

pub(super) async fn store_on(
    remote: Arc<dyn Remote>,
    change: impl FnOnce(&mut BucketConfig),
) -> (Arc<BucketStore>, Around) {
    store_with(remote, None, change).await
}

async fn store_with(
    remote: Arc<dyn Remote>,
    signing: Option<Signing>,
    change: impl FnOnce(&mut BucketConfig),
) -> (Arc<BucketStore>, Around) {
    let copies = TempDir::new().unwrap();
    let mut config = config(&copies);
    change(&mut config);
    let store = BucketStore::of(client_on(remote, &config), signing, Arc::default(), config).unwrap();
    store.prepare().await.unwrap();
    let shutdown = CancellationToken::new();
    store.spawn_background(&shutdown);
    (store, Around { _copies: copies, _background: shutdown.drop_guard() })
}

/// Waits for a condition that something else brings about.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

async fn store() -> (Arc<dyn Store>, Around) {
    let (store, around) = store_on(Arc::new(InMemory::new()), |_| {}).await;
    (store as Arc<dyn Store>, around)
}

conformance_tests!(unbounded; store().await);
