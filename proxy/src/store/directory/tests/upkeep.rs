//! Counting, sweeping, trimming and scrubbing beside the serving.

use std::time::SystemTime;

use super::*;
use crate::store::conformance::content;
use crate::store::{Link, Name, TagRecord};

fn name(repository: &str) -> Name {
    Name { registry: "reg.example.com".parse().unwrap(), repository: repository.parse().unwrap() }
}

fn link(digest: &Digest) -> Link {
    Link { digest: digest.clone(), media_type: None, size: None, public: true, confirmed_at: SystemTime::now() }
}

#[tokio::test]
async fn records_go_when_their_blob_is_gone_for_long() {
    let (folder, hand) = (folder(), Hand::new());
    let grace = Duration::from_hours(24);
    let store = DirectoryStore::open(DirectoryConfig {
        clock: hand.clock(),
        sweep_every: Duration::from_millis(10),
        record_grace: grace,
        ..config(folder.path())
    })
    .unwrap();
    let (here, gone) = (content(1, 100), sha256(b"gone"));
    store.put_bytes(&sha256(&here), here.clone()).await.unwrap();
    let digest_like = format!("sha256-{}", gone.hex());
    let here_record = TagRecord { digest: sha256(&here), checked_at: SystemTime::now() };
    let gone_record = TagRecord { digest: gone.clone(), checked_at: SystemTime::now() };
    store.put_link(&name("a"), link(&sha256(&here))).await.unwrap();
    store.put_link(&name("a"), link(&gone)).await.unwrap();
    store.put_link(&name("a/b"), link(&gone)).await.unwrap();
    store.put_tag(&name("a"), &digest_like.parse().unwrap(), here_record).await.unwrap();
    store.put_tag(&name("a"), &"gone".parse().unwrap(), gone_record).await.unwrap();
    let _running = background(&store);
    until("all records are counted", || store.stats().records == 5).await;
    hand.advance(grace / 2);
    assert!(store.link(&name("a"), &gone).await.unwrap().is_some(), "an evicted blob may come back");
    hand.advance(grace);
    until("those of the lost blob are gone", || store.stats().records == 2).await;
    assert_eq!(store.link(&name("a"), &gone).await.unwrap(), None);
    assert!(store.link(&name("a"), &sha256(&here)).await.unwrap().is_some());
    assert_eq!(store.tags(&name("a")).await.unwrap().len(), 1, "a tag that looks like a digest means what it says");
    assert!(!folder.path().join("names/reg.example.com/a/b").exists(), "no empty folders are left");
}

#[tokio::test]
async fn records_are_bounded_in_number() {
    let folder = folder();
    let store = DirectoryStore::open(DirectoryConfig {
        maximum_records: 10,
        sweep_every: Duration::from_millis(10),
        ..config(folder.path())
    })
    .unwrap();
    let here = content(1, 100);
    store.put_bytes(&sha256(&here), here.clone()).await.unwrap();
    for index in 0..50 {
        store.put_link(&name(&format!("r{index}")), link(&sha256(&here))).await.unwrap();
    }
    let _running = background(&store);
    until("the oldest are gone", || files_below(folder.path(), "names").len() <= 10).await;
    assert!(store.link(&name("r49"), &sha256(&here)).await.unwrap().is_some(), "the newest is not");
}

#[tokio::test]
async fn damaged_records_count_as_absent() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let digest = sha256(b"x");
    store.put_link(&name("a"), link(&digest)).await.unwrap();
    let (path, _) = files_below(folder.path(), "names").remove(0);
    let path = folder.path().join(path);
    let good = std::fs::read_to_string(&path).unwrap();
    let elsewhere = good.replace("\"repository\":\"a\"", "\"repository\":\"b\"");
    let newer = good.replace("\"version\":1", "\"version\":2");
    let endless = "x".repeat(1 << 20);
    for damage in ["", "{", &good[..good.len() - 5], &elsewhere, &newer, &endless] {
        assert_ne!(damage, good);
        std::fs::write(&path, damage).unwrap();
        assert_eq!(store.link(&name("a"), &digest).await.unwrap(), None, "{damage:.80}");
    }
    store.put_link(&name("a"), link(&digest)).await.unwrap();
    assert!(store.link(&name("a"), &digest).await.unwrap().is_some());
}

#[tokio::test]
async fn unfinished_blobs_are_bounded_in_number_and_age() {
    let (folder, hand) = (folder(), Hand::new());
    let store = DirectoryStore::open(DirectoryConfig {
        clock: hand.clock(),
        maximum_partials: 4,
        partial_age: Duration::from_secs(100),
        ..config(folder.path())
    })
    .unwrap();
    for index in 0..10u8 {
        let mut partial = store.create(&sha256(&[index]), None).await.unwrap();
        partial.append(b"something").unwrap();
        hand.advance(Duration::from_secs(1));
    }
    drop(store.create(&sha256(b"nothing arrived"), None).await.unwrap());
    let mut open = store.create(&sha256(b"open"), None).await.unwrap();
    open.append(b"something").unwrap();
    let _running = background(&store);
    until("too many are gone", || store.stats().partials == 5).await;
    assert_eq!(store.create(&sha256(&[9]), None).await.unwrap().existing(), 9, "the last one is still there");
    hand.advance(Duration::from_secs(200));
    until("the old ones are gone", || store.stats().partials == 1).await;
    assert_eq!(files_below(folder.path(), "partial").len(), 1);
    open.append(b"more").unwrap();
    open.discard().unwrap();
    assert_eq!(store.stats().partial_bytes, 0);
}

#[tokio::test]
async fn the_scrub_drops_what_has_changed() {
    let folder = folder();
    let store = DirectoryStore::open(DirectoryConfig { scrub_rate: 1 << 30, ..config(folder.path()) }).unwrap();
    let blobs: Vec<Bytes> = (0..20).map(|seed| content(seed, 300_000)).collect();
    for bytes in &blobs {
        drop(put(&store, bytes).await.unwrap());
    }
    let damaged = sha256(&blobs[7]);
    let path = folder.path().join(layout::blob(&damaged));
    let mut bytes = blobs[7].to_vec();
    bytes[299_999] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    // One was cut short, and one whose reader is on it.
    let cut =
        std::fs::OpenOptions::new().write(true).open(folder.path().join(layout::blob(&sha256(&blobs[8])))).unwrap();
    cut.set_len(1000).unwrap();
    let reader = store.blob(&damaged).await.unwrap().unwrap();
    let _running = background(&store);
    until("all were read", || store.stats().scrubbed_blobs == 20).await;
    until("two were dropped", || store.stats().damaged_blobs == 2).await;
    for (index, bytes) in blobs.iter().enumerate() {
        assert_eq!(store.blob(&sha256(bytes)).await.unwrap().is_some(), index != 7 && index != 8, "{index}");
    }
    assert_eq!(reader.len(), 300_000);
}

#[tokio::test]
async fn the_scrub_goes_on_where_it_was() {
    let folder = folder();
    let config = DirectoryConfig { scrub_rate: 1 << 30, ..config(folder.path()) };
    let store = DirectoryStore::open(config.clone()).unwrap();
    for seed in 0..20 {
        drop(put(&store, &content(seed, 1000)).await.unwrap());
    }
    let running = background(&store);
    until("a round is done", || {
        std::fs::read_to_string(folder.path().join("scrub")).is_ok_and(|text| text.contains("\"next_shard\":512"))
    })
    .await;
    drop(running);
    // A background operation may still hold the store for a moment.
    until("it is closed", || std::sync::Arc::strong_count(&store.shared) == 1).await;
    drop(store);
    let store = DirectoryStore::open(config).unwrap();
    let _running = background(&store);
    until("the blobs are counted", || store.stats().counted).await;
    drop(put(&store, &content(99, 1000)).await.unwrap());
    assert_eq!(store.stats().scrubbed_blobs, 0, "the next round is a week away");
}
