//! One origin request for all, and readers that do not disturb each other.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use futures_util::{FutureExt as _, StreamExt};
use larder_oci::ByteRange;
use tokio::sync::Semaphore;

use super::super::testing::{Act, Stage, content, limits, name, read, soon, until};
use super::super::{FetchLimits, Opened, TAIL};
use super::open;
use crate::store::conformance::read_checked;
use crate::store::{Link, Store as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_costs_one_request() {
    let stage = Stage::new(limits());
    let bytes = content(1_000_000);
    let digest = stage.source.add_blob(&bytes);
    let readers: Vec<_> = (0..64)
        .map(|_| {
            let (fetcher, digest) = (stage.fetcher.clone(), digest.clone());
            tokio::spawn(async move {
                let opened = fetcher.open(&name("team/app"), &digest, None, false, soon()).await.unwrap();
                match opened {
                    Opened::Body(opened) => {
                        assert_eq!(opened.body.length(), Some(1_000_000));
                        read(opened.body).await
                    }
                    // One who came when all was over.
                    Opened::Stored(blob) => {
                        let (bytes, ended_well) = read_checked(&blob, 0..blob.len()).await;
                        (bytes.into(), ended_well)
                    }
                    other => panic!("no body: {other:?}"),
                }
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), (bytes.clone(), true));
    }
    assert_eq!(stage.source.blob_gets(), 1);
    until(|| stage.store.has(&digest)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_shares_many_fetches_at_the_same_time() {
    let most = FetchLimits::of_a_cluster().assemblies;
    let stage = Stage::new(FetchLimits { assemblies: most, ..limits() });
    let closed = Arc::new(Semaphore::new(0));
    let blobs: Vec<_> = (0..most).map(|number| content(150_000 + number)).collect();
    let mut readers = Vec::new();
    for bytes in &blobs {
        let digest = stage.source.add_blob(bytes);
        stage.source.act(Act { gate: Some(Arc::clone(&closed)), ..Act::default() });
        let first = open(&stage, &digest, None).await.unwrap();
        let second = open(&stage, &digest, None).await.unwrap();
        assert!(!first.joined && second.joined);
        readers.extend([(first, bytes), (second, bytes)]);
    }
    // All of them are under way now, and all go on.
    closed.add_permits(1 << 20);
    let reading: Vec<_> = readers
        .into_iter()
        .map(|(opened, bytes)| tokio::spawn(read(opened.body)).map(move |had| (had, bytes)))
        .collect();
    for reader in reading {
        let (had, bytes) = reader.await;
        assert_eq!(had.unwrap(), (bytes.clone(), true));
    }
    assert_eq!(stage.source.blob_gets(), most);
}

#[tokio::test]
async fn the_first_reader_leaves_and_the_second_gets_everything_and_so_does_the_store() {
    let stage = Stage::new(limits());
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(5));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let mut first = open(&stage, &digest, None).await.unwrap();
    let second = open(&stage, &digest, None).await.unwrap();
    assert!(!first.joined && second.joined);
    first.body.next().await.unwrap().unwrap();
    drop(first);
    gate.add_permits(1_000);
    assert_eq!(read(second.body).await, (bytes, true));
    assert_eq!(stage.source.blob_gets(), 1);
    until(|| stage.store.has(&digest)).await;
}

#[tokio::test]
async fn with_no_reader_left_the_fetch_goes_on_to_its_end() {
    let stage = Stage::new(limits());
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(1));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    drop(open(&stage, &digest, None).await.unwrap());
    gate.add_permits(1_000);
    until(|| stage.store.has(&digest)).await;
    assert_eq!(stage.source.blob_gets(), 1);
}

#[tokio::test]
async fn but_not_more_of_them_than_the_bound_and_what_came_is_kept_for_the_next() {
    let stage = Stage::new(FetchLimits { orphans: 0, ..limits() });
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(10));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let mut opened = open(&stage, &digest, None).await.unwrap();
    let mut had = 0;
    while had < 100_000 {
        had += opened.body.next().await.unwrap().unwrap().len();
    }
    drop(opened);
    until(|| async { stage.fetcher.shared.assemblies().is_empty() }).await;
    until(|| async { stage.store.left(&digest).await == Some(100_000) }).await;
    assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes, true));
}

#[tokio::test]
async fn a_slow_reader_delays_nobody() {
    let stage = Stage::new(limits());
    let bytes = content(2_000_000);
    let digest = stage.source.add_blob(&bytes);
    let slow = open(&stage, &digest, None).await.unwrap();
    let fast = open(&stage, &digest, None).await.unwrap();
    assert_eq!(read(fast.body).await, (bytes.clone(), true));
    until(|| stage.store.has(&digest)).await;
    assert_eq!(read(slow.body).await, (bytes, true));
    assert_eq!(stage.source.blob_gets(), 1);
}

#[tokio::test]
async fn bytes_leave_as_they_come_but_for_the_tail() {
    let stage = Stage::new(limits());
    let bytes = content(200_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(0));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let mut opened = open(&stage, &digest, None).await.unwrap();
    gate.add_permits(1);
    assert_eq!(opened.body.next().await.unwrap().unwrap(), bytes.slice(..10_000));
    // All but the last chunk: the tail has begun to arrive, and stays.
    gate.add_permits(18);
    let mut had = 10_000;
    while had < 200_000 - TAIL {
        had += opened.body.next().await.unwrap().unwrap().len() as u64;
    }
    assert_eq!(had, 200_000 - TAIL);
    assert!(tokio::time::timeout(Duration::from_millis(50), opened.body.next()).await.is_err());
    gate.add_permits(1);
    while let Some(chunk) = opened.body.next().await {
        had += chunk.unwrap().len() as u64;
    }
    assert_eq!(had, 200_000);
}

#[tokio::test]
async fn ranges_of_a_blob_in_flight_cost_the_origin_each_byte_once() {
    let stage = Stage::new(limits());
    let bytes = content(400_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(1));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let first = open(&stage, &digest, None).await.unwrap();
    // Far ahead of what has arrived: the headers are there at once, the body comes when it comes.
    let ahead = open(&stage, &digest, Some(ByteRange::From(300_000))).await.unwrap();
    assert_eq!((ahead.range.clone(), ahead.total), (Some(300_000..400_000), Some(400_000)));
    let end = open(&stage, &digest, Some(ByteRange::Last(1_000))).await.unwrap();
    let early = open(&stage, &digest, Some(ByteRange::FromTo { first: 5_000, last: 6_999 })).await.unwrap();
    let outside = stage.fetcher.open(&name("team/app"), &digest, Some(ByteRange::From(400_000)), false, soon()).await;
    assert!(matches!(outside, Ok(Opened::OutOfRange(400_000))));
    // It ends before the tail, so it does not wait for the rest.
    assert_eq!(read(early.body).await, (bytes.slice(5_000..7_000), true));
    gate.add_permits(1_000);
    assert_eq!(read(ahead.body).await, (bytes.slice(300_000..), true));
    assert_eq!(read(end.body).await, (bytes.slice(399_000..), true));
    assert_eq!(read(first.body).await, (bytes.clone(), true));
    assert_eq!(stage.source.blob_gets(), 1);
}

#[tokio::test]
async fn what_the_store_has_is_not_fetched() {
    let stage = Stage::new(limits());
    let bytes = content(400_000);
    let digest = stage.source.add_blob(&bytes);
    stage.store.put_bytes(&digest, bytes.clone()).await.unwrap();
    let (size, confirmed_at) = (Some(400_000), SystemTime::now());
    let link = Link { digest: digest.clone(), media_type: None, size, public: true, confirmed_at };
    stage.store.put_link(&name("team/app"), link).await.unwrap();
    let opened = stage.fetcher.open(&name("team/app"), &digest, None, false, soon()).await;
    let Ok(Opened::Stored(blob)) = opened else { panic!("not from the store: {opened:?}") };
    assert_eq!(read_checked(&blob, 0..400_000).await, (bytes.to_vec(), true));
    assert_eq!(stage.source.blob_gets(), 0);
}

#[tokio::test]
async fn a_blob_of_unknown_length_is_given_whole_and_verified_all_the_same() {
    let stage = Stage::new(limits());
    let bytes = content(300_000);
    let digest = stage.source.add_blob(&bytes);
    stage.source.act(Act { hide_total: true, ..Act::default() });
    let opened = open(&stage, &digest, Some(ByteRange::From(10))).await.unwrap();
    assert_eq!((opened.range.clone(), opened.total, opened.body.length()), (None, None, None));
    assert_eq!(read(opened.body).await, (bytes, true));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let stage = Stage::new(limits());
    let digest = stage.source.add_blob(&content(0));
    assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (content(0), true));
    until(|| stage.store.has(&digest)).await;
}

#[tokio::test]
async fn another_repository_joins_only_with_evidence() {
    let stage = Stage::new(limits());
    let bytes = content(300_000);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(1));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let first = open(&stage, &digest, None).await.unwrap();
    let other = name("team/other");
    let unproven = stage.fetcher.open(&other, &digest, None, false, soon()).await;
    assert!(matches!(unproven, Ok(Opened::NeedsEvidence)));
    let Ok(Opened::Body(proven)) = stage.fetcher.open(&other, &digest, None, true, soon()).await else {
        panic!("no body");
    };
    gate.add_permits(1_000);
    assert_eq!(read(proven.body).await, (bytes.clone(), true));
    assert_eq!(read(first.body).await, (bytes, true));
    assert_eq!(stage.source.blob_gets(), 1);
}
