//! What a disk does to the files, and what becomes of their checksums.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;
use crate::store::CHUNK;
use crate::store::conformance::{content, read_checked};

fn sidecar(folder: &TempDir, digest: &Digest) -> PathBuf {
    folder.path().join(layout::checksums(digest))
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[tokio::test]
async fn a_damaged_blob_is_dropped_counted_and_put_anew() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    for (round, length) in [(1, 1000), (2, 3 * CHUNK)] {
        let bytes = content(round, length);
        let (digest, end) = (sha256(&bytes), length as u64);
        drop(put(&store, &bytes).await.unwrap());
        assert_eq!(sidecar(&folder, &digest).exists(), length > CHUNK, "of {length} bytes");
        flip(&folder.path().join(layout::blob(&digest)), end - 1);
        let readers = [store.blob(&digest).await.unwrap().unwrap(), store.blob(&digest).await.unwrap().unwrap()];
        for reader in &readers {
            assert!(!read_checked(reader, 0..end).await.1);
            assert!(store.blob(&digest).await.unwrap().is_none(), "from that moment on");
        }
        until("it is gone, and counted once", || store.stats().damaged_blobs == round).await;
        assert!(!folder.path().join(layout::blob(&digest)).exists());
        assert!(!sidecar(&folder, &digest).exists());
        drop(put(&store, &bytes).await.unwrap());
        let again = store.blob(&digest).await.unwrap().unwrap();
        assert_eq!(read_checked(&again, 0..end).await, (bytes.to_vec(), true));
    }
    assert_eq!(store.stats().damaged_blobs, 2);
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_found_out_when_it_is_opened_or_first_read() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let bytes = content(1, 3 * CHUNK);
    let digest = sha256(&bytes);
    for left in [0, 1000, CHUNK as u64, CHUNK as u64 + 1, bytes.len() as u64 - 1] {
        drop(put(&store, &bytes).await.unwrap());
        let file = std::fs::File::options().write(true).open(folder.path().join(layout::blob(&digest))).unwrap();
        file.set_len(left).unwrap();
        if let Some(blob) = store.blob(&digest).await.unwrap() {
            assert!(left <= CHUNK as u64);
            let mut range = crate::store::CheckedRange::new(blob, 0..left);
            assert!(range.begin(Duration::from_secs(10)).await.is_err(), "{left} bytes left");
        }
        assert!(store.blob(&digest).await.unwrap().is_none(), "{left} bytes left");
    }
}

#[tokio::test]
async fn a_blob_that_cannot_be_removed_is_not_served_either() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let bytes = content(1, 1000);
    let blob = put(&store, &bytes).await.unwrap();
    let path = folder.path().join(layout::blob(&sha256(&bytes)));
    flip(&path, 5);
    store.shared.gate.freeze(true);
    assert!(!read_checked(&blob, 0..1000).await.1);
    assert!(path.exists());
    assert!(store.shared.blob(&sha256(&bytes)).unwrap().is_none());
    store.shared.gate.freeze(false);
    until("it is gone", || !path.exists()).await;
}

#[tokio::test]
async fn checksums_that_are_damaged_or_missing_keep_nobody_from_the_blob_and_come_back() {
    let folder = folder();
    let config = DirectoryConfig { scrub_rate: 1 << 30, ..config(folder.path()) };
    let store = DirectoryStore::open(config).unwrap();
    let blobs: Vec<Bytes> = (0..4).map(|seed| content(seed, 2 * CHUNK + 10)).collect();
    for bytes in &blobs {
        drop(put(&store, bytes).await.unwrap());
    }
    let sidecars: Vec<PathBuf> = blobs.iter().map(|bytes| sidecar(&folder, &sha256(bytes))).collect();
    // As from an older version; flipped; cut short; another blob's.
    std::fs::remove_file(&sidecars[0]).unwrap();
    flip(&sidecars[1], 30);
    std::fs::write(&sidecars[2], b"LRDR").unwrap();
    std::fs::copy(&sidecars[2], &sidecars[3]).unwrap();
    for bytes in &blobs {
        let blob = store.blob(&sha256(bytes)).await.unwrap().unwrap();
        assert_eq!(read_checked(&blob, 100..blob.len()).await, (bytes[100..].to_vec(), true));
    }
    let _running = background(&store);
    for (bytes, path) in blobs.iter().zip(&sidecars) {
        let expected = Checksums::of(bytes).encode(&sha256(bytes));
        until("the scrub has written them", || std::fs::read(path).is_ok_and(|written| written == expected)).await;
        flip(&folder.path().join(layout::blob(&sha256(bytes))), 0);
        let blob = store.blob(&sha256(bytes)).await.unwrap();
        if let Some(blob) = blob {
            assert_eq!(read_checked(&blob, 0..blob.len()).await, (Vec::new(), false));
        }
    }
    assert_eq!(files_below(folder.path(), "temporary"), []);
}

#[tokio::test]
async fn checksums_without_a_blob_are_swept() {
    let (folder, hand) = (folder(), Hand::new());
    let store = DirectoryStore::open(DirectoryConfig {
        clock: hand.clock(),
        sweep_every: Duration::from_millis(10),
        record_grace: Duration::from_hours(1),
        ..config(folder.path())
    })
    .unwrap();
    let (here, gone) = (content(1, 2 * CHUNK), content(2, 2 * CHUNK));
    drop(put(&store, &here).await.unwrap());
    drop(put(&store, &gone).await.unwrap());
    std::fs::remove_file(folder.path().join(layout::blob(&sha256(&gone)))).unwrap();
    let _running = background(&store);
    until("a sweep is over", || store.stats().counted).await;
    assert!(sidecar(&folder, &sha256(&gone)).exists(), "they may be those of a blob that is on its way");
    hand.advance(Duration::from_hours(2));
    until("they are gone", || !sidecar(&folder, &sha256(&gone)).exists()).await;
    assert!(sidecar(&folder, &sha256(&here)).exists());
}

#[tokio::test]
async fn what_is_evicted_takes_its_checksums_along() {
    let folder = folder();
    let limit = Some(4 << 20);
    let store = DirectoryStore::open(DirectoryConfig { limit, ..config(folder.path()) }).unwrap();
    for seed in 0..20 {
        drop(put(&store, &content(seed, 2 * CHUNK)).await.unwrap());
    }
    assert!(store.stats().evicted_blobs > 0);
    assert_eq!(files_below(folder.path(), "checksums").len(), files_below(folder.path(), "blobs").len());
}

#[test]
fn what_goes_because_it_is_damaged_makes_room_for_who_waits_for_room() {
    let (folder, limit) = (folder(), 8 * CHUNK as u64);
    let store = DirectoryStore::open(DirectoryConfig { limit: Some(limit), ..config(folder.path()) }).unwrap();
    // Two of them do not fit. Removal and eviction meet at some instant or another; neither may be taken for the other's failure.
    let blobs = [content(1, 5 * CHUNK), content(2, 5 * CHUNK)].map(|bytes| (sha256(&bytes), bytes));
    store.shared.put_bytes(&blobs[0].0, &blobs[0].1).unwrap();
    for round in 0..400 {
        let ((old, _), (new, bytes)) = (&blobs[round % 2], &blobs[(round + 1) % 2]);
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                store.shared.remove_damaged(old, crate::store::directory::blobs::Removal::Damaged).unwrap();
            });
            both.wait();
            let placed = store.shared.put_bytes(new, bytes);
            assert!(placed.is_ok(), "round {round}: {placed:?}");
        });
    }
}
