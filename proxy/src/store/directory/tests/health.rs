//! A disk that hangs: nobody waits for it twice, few threads hang, and it is noticed when it is well again.

use std::time::Instant;

use super::*;
use crate::store::StoreHealth;
use crate::store::conformance::content;

fn impatient(folder: &TempDir) -> Arc<DirectoryStore> {
    let limit = Duration::from_millis(100);
    let config =
        DirectoryConfig { answer_within: limit, durable_within: limit, maximum_operations: 4, ..config(folder.path()) };
    DirectoryStore::open(config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_left_alone_until_it_answers() {
    let folder = folder();
    let store = impatient(&folder);
    let _running = background(&store);
    let bytes = content(1, 1000);
    drop(put(&store, &bytes).await.unwrap());
    store.shared.gate.freeze(true);
    let began = Instant::now();
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let (store, digest) = (Arc::clone(&store), sha256(&bytes));
            tokio::spawn(async move { store.blob(&digest).await.map(|_| ()) })
        })
        .collect();
    for waiting in waiting {
        let refused = waiting.await.unwrap();
        assert!(matches!(refused, Err(StoreError::NotAnswering { .. })), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "all at once, not one after the other: {:?}", began.elapsed());
    assert_eq!(store.health(), StoreHealth::NotAnswering);
    let began = Instant::now();
    for _ in 0..10_000 {
        assert!(store.blob(&sha256(&bytes)).await.is_err());
    }
    assert!(began.elapsed() < Duration::from_secs(5), "refused at once: {:?}", began.elapsed());
    store.shared.gate.freeze(false);
    until("it answers again", || store.health() == StoreHealth::Ok).await;
    assert_eq!(store.blob(&sha256(&bytes)).await.unwrap().unwrap().len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assembly_that_hangs_is_noticed() {
    let folder = folder();
    let store = impatient(&folder);
    let _running = background(&store);
    let bytes = content(1, 1000);
    let mut partial = store.create(&sha256(&bytes), None).await.unwrap();
    store.shared.gate.freeze(true);
    let writing = {
        let bytes = bytes.clone();
        tokio::task::spawn_blocking(move || {
            partial.append(&bytes).unwrap();
            partial
        })
    };
    until("it is noticed", || store.health() == StoreHealth::NotAnswering).await;
    let refused = store.create(&sha256(b"other"), None).await;
    assert!(matches!(refused, Err(StoreError::NotAnswering { .. })), "{refused:?}");
    store.shared.gate.freeze(false);
    let partial = writing.await.unwrap();
    until("it answers again", || store.health() == StoreHealth::Ok).await;
    assert_eq!(partial.commit(Checksums::of(&bytes)).unwrap().len(), 1000);
}

/// Something is written, or not; somebody removed what the store is in.
async fn try_to_write(store: &DirectoryStore) -> Result<(), StoreError> {
    store.put_bytes(&sha256(b"x"), Bytes::from_static(b"x")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_removed_is_noticed_and_made_again() {
    for removed in ["", "temporary", "blobs", "partial"] {
        let parent = folder();
        let root = parent.path().join("store");
        // Slow to look again, so that what is in between can be seen.
        let config = DirectoryConfig { recheck_every: Duration::from_millis(300), ..config(&root) };
        let store = DirectoryStore::open(config).unwrap();
        let bytes = content(1, 10_000);
        drop(put(&store, &bytes).await.unwrap());
        std::fs::remove_dir_all(root.join(removed)).unwrap();
        if removed != "blobs" {
            let refused = store.create(&sha256(b"other"), None).await.map(|_| ());
            let refused = if refused.is_ok() { try_to_write(&store).await } else { refused };
            assert!(matches!(refused, Err(StoreError::Io { .. })), "{removed}: {refused:?}");
            assert_eq!(store.health(), StoreHealth::Unusable, "{removed}");
        }
        // What cannot be read any more is a miss.
        assert_eq!(store.blob(&sha256(&bytes)).await.unwrap().is_some(), !matches!(removed, "" | "blobs"), "{removed}");
        let _running = background(&store);
        until("it is made again", || store.health() == StoreHealth::Ok).await;
        try_to_write(&store).await.unwrap();
        drop(put(&store, &bytes).await.unwrap());
        assert!(store.blob(&sha256(&bytes)).await.unwrap().is_some(), "{removed}");
        let refused = DirectoryStore::open(super::config(&root)).unwrap_err();
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_gone_for_good_is_said_and_looked_for_again() {
    let parent = folder();
    let root = parent.path().join("below").join("store");
    std::fs::create_dir(parent.path().join("below")).unwrap();
    let store = DirectoryStore::open(config(&root)).unwrap();
    let _running = background(&store);
    std::fs::remove_dir_all(parent.path().join("below")).unwrap();
    until("it is noticed although nobody writes", || store.health() == StoreHealth::Gone).await;
    assert!(store.blob(&sha256(b"x")).await.unwrap().is_none());
    std::fs::create_dir(parent.path().join("below")).unwrap();
    until("it is there again", || store.health() == StoreHealth::Ok).await;
    try_to_write(&store).await.unwrap();
    assert!(root.join("blobs").exists());
}
