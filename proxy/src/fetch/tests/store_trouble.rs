//! Disks that fail: the pull goes on.

use std::sync::Arc;

use futures_util::StreamExt;
use larder_oci::{Algorithm, ByteRange, Hasher};
use tokio::sync::{Semaphore, watch};

use super::super::progress::{Handover, Phase, Progress};
use super::super::reader::{self, Reader};
use super::super::testing::{Act, FaultyStore, Stage, content, digest, limits, name, read};
use super::super::{FetchError, TAIL};
use super::open;
use crate::store::StoreHealth;

#[tokio::test]
async fn a_disk_that_gets_full_on_the_way_fails_no_reader() {
    let stage = Stage::with_store(limits(), FaultyStore::with_room(600_000));
    let bytes = content(1_000_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(1));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let mut ahead = open(&stage, &digest, None).await.unwrap();
    let behind = open(&stage, &digest, None).await.unwrap();
    let range = open(&stage, &digest, Some(ByteRange::From(900_000))).await.unwrap();
    let early = open(&stage, &digest, Some(ByteRange::FromTo { first: 0, last: 700_000 })).await.unwrap();
    let first = ahead.body.next().await.unwrap().unwrap();
    gate.add_permits(1_000);
    let (rest, ended_well) = read(ahead.body).await;
    assert!(ended_well);
    assert_eq!([first, rest].concat(), bytes);
    assert_eq!(read(behind.body).await, (bytes.clone(), true));
    assert_eq!(read(range.body).await, (bytes.slice(900_000..), true));
    assert_eq!(read(early.body).await, (bytes.slice(..=700_000), true));
    assert!(!stage.store.has(&digest).await);
}

#[tokio::test]
async fn wrong_bytes_stay_incomplete_without_a_disk_too() {
    let stage = Stage::with_store(limits(), FaultyStore::with_room(600_000));
    let bytes = content(1_000_000);
    let digest = stage.source.add_blob(&bytes);
    let mut wrong = bytes.to_vec();
    wrong[999_999] ^= 1;
    for _ in 0..2 {
        stage.source.act(Act { lie: Some(wrong.clone().into()), ..Act::default() });
    }
    let (got, ended_well) = read(open(&stage, &digest, None).await.unwrap().body).await;
    assert!(!ended_well && got.len() as u64 <= 1_000_000 - TAIL, "{} bytes left", got.len());
    assert!(matches!(open(&stage, &digest, None).await, Err(FetchError::Refused { .. })));
}

#[tokio::test]
async fn a_store_that_is_of_no_use_from_the_beginning_is_passed_by() {
    for is_known in [true, false] {
        let stage = Stage::new(limits());
        if is_known {
            stage.store.set_health(Some(StoreHealth::ReadOnly));
        } else {
            stage.store.refuse(true);
        }
        let bytes = content(500_000);
        let digest = stage.source.add_blob(&bytes);
        let whole = open(&stage, &digest, None).await.unwrap();
        assert_eq!(whole.body.length(), Some(500_000));
        assert_eq!(read(whole.body).await, (bytes.clone(), true));
        // containerd's first of several parallel ranges: all of it, so that it stays with one.
        assert_eq!(open(&stage, &digest, Some(ByteRange::From(0))).await.unwrap().range, None);
        for range in [400_000..500_000, 100_000..200_000, 0..1_000] {
            let asked = ByteRange::FromTo { first: range.start, last: range.end - 1 };
            let opened = open(&stage, &digest, Some(asked)).await.unwrap();
            assert_eq!(opened.range, Some(range.clone()));
            let expected = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
            assert_eq!(read(opened.body).await, (expected, true));
        }
        // A break is continued here as well, and a lie found out.
        stage.source.act(Act { break_after: Some(70_000), ..Act::default() });
        assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes.clone(), true));
        stage.source.act(Act { lie: Some(content(500_001).slice(1..)), ..Act::default() });
        let (got, ended_well) = read(open(&stage, &digest, None).await.unwrap().body).await;
        assert!(!ended_well && got.len() as u64 <= 500_000 - TAIL);
        assert!(!stage.store.has(&digest).await);
    }
}

/// A reader in the middle of a blob whose assembly has just ended with `phase`.
fn reader_at(stage: &Stage, position: u64, file: std::fs::File, total: u64, phase: Phase) -> Reader {
    let bytes = content(usize::try_from(total).unwrap());
    let progress = Progress { total: Some(total), written: total, ended: true, phase };
    Reader {
        origin: stage.fetcher.shared.origin(&name("team/app"), &digest(&bytes)),
        progress: watch::Sender::new(progress).subscribe(),
        file: Arc::new(file),
        began: 0,
        position,
        end: Some(total),
        presence: None,
    }
}

#[tokio::test]
async fn a_reader_goes_on_from_where_the_hash_is_wherever_it_was_itself() {
    let bytes = content(500_000);
    // Before, at and beyond the hash; and in a file that has lost its content.
    for (position, hashed, is_readable) in [
        (10_000, 200_000, true),
        (200_000, 200_000, true),
        (300_000, 200_000, true),
        (400_000, 490_000, true),
        (10_000, 200_000, false),
        (400_000, 490_000, false),
    ] {
        let stage = Stage::new(limits());
        stage.source.add_blob(&bytes);
        let file = tempfile::tempfile().unwrap();
        if is_readable {
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..hashed], 0).unwrap();
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&bytes[..hashed]);
        let phase = Phase::Handover(Arc::new(Handover { hasher, etag: None, doubted: false }));
        let reader = reader_at(&stage, position as u64, file, 500_000, phase);
        let got = read(reader::body(reader)).await;
        assert_eq!(got, (bytes.slice(position..), true), "at {position}, hashed {hashed}, readable {is_readable}");
        assert_eq!(stage.source.blob_gets(), 1);
    }
}
