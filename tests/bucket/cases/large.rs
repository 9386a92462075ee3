//! Large blobs: in parts to the bucket, and given out while they come from it.

use std::time::{Duration, Instant};

use larder_proxy::store::bucket::Operation;
use larder_proxy::store::{CheckedRange, Store as _};
use larder_test_bucket::{Fault, Kind};

use crate::world::{Case, World, content, rest, sha256};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_large_blob_goes_in_parts_and_is_given_out_while_it_comes", |world| Box::pin(while_it_comes(world))),
        ("many_readers_cost_the_bucket_what_one_does", |world| Box::pin(many_readers(world))),
        ("a_range_ahead_waits_and_a_question_costs_no_bytes", |world| Box::pin(ahead(world))),
        ("small_blobs_cost_two_requests_and_then_none", |world| Box::pin(small(world))),
    ]
}

const LENGTH: usize = (24 << 20) + 12_345;

async fn while_it_comes(world: World) {
    let world = world.fresh();
    let (bytes, writer) = (content(1, LENGTH), world.replica().await);
    writer.put(&bytes).await;
    let requests = [Operation::Begin, Operation::Part, Operation::Complete].map(|operation| writer.requests(operation));
    // Azure has no beginning.
    let beginnings = u64::from(world.kind() != Kind::Azurite);
    assert_eq!(requests, [beginnings, 4, 1]);
    // Checksums, and the note of the upload, which is gone again.
    let version = 1;
    assert_eq!((writer.requests(Operation::Put) - version, writer.requests(Operation::Delete)), (2, 1));

    let faults = world.faults();
    let reader = world.replica_behind(&faults).await;
    let before = [Operation::List, Operation::Get].map(|operation| reader.requests(operation));
    faults.set(Fault::Slow(12 << 20));
    let blob = reader.store.blob(&sha256(&bytes)).await.unwrap().unwrap();
    assert_eq!(blob.len(), LENGTH as u64);
    let (began, mut range) = (Instant::now(), CheckedRange::new(blob.clone(), 0..blob.len()));
    range.begin(Duration::from_secs(2)).await.unwrap();
    let first = std::future::poll_fn(|context| range.poll_next(context)).await.unwrap().unwrap();
    let at_first = began.elapsed();
    let (others, ended) = rest(range).await;
    let at_last = began.elapsed();
    assert!(ended && first == bytes[..first.len()] && others == bytes[first.len()..]);
    assert!(
        at_last > at_first * 2 && at_last > Duration::from_secs(1),
        "first after {at_first:?}, all after {at_last:?}"
    );
    assert!(faults.touched() > 0);
    let after = [Operation::List, Operation::Get].map(|operation| reader.requests(operation));
    assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 2], "a listing, the checksums, and the blob");

    let all = reader.all_requests();
    assert!(reader.whole(&sha256(&bytes)).await.unwrap() == bytes);
    assert_eq!(reader.all_requests(), all, "from here by now");
}

async fn many_readers(world: World) {
    let world = world.fresh();
    let bytes = content(2, 3 << 20);
    world.replica().await.put(&bytes).await;
    let reader = std::sync::Arc::new(world.replica().await);
    let before = [Operation::List, Operation::Get].map(|operation| reader.requests(operation));
    let readers: Vec<_> = (0..40)
        .map(|_| {
            let (reader, bytes) = (reader.clone(), bytes.clone());
            tokio::spawn(async move { reader.whole(&sha256(&bytes)).await.unwrap() == bytes })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.unwrap());
    }
    let after = [Operation::List, Operation::Get].map(|operation| reader.requests(operation));
    assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 2]);
}

async fn ahead(world: World) {
    let world = world.fresh();
    let bytes = content(3, 8 << 20);
    world.replica().await.put(&bytes).await;
    let reader = world.replica().await;
    let gets = reader.requests(Operation::Get);
    assert!(reader.store.keeps(&sha256(&bytes)).await.unwrap());
    let blob = reader.store.blob(&sha256(&bytes)).await.unwrap().unwrap();
    assert_eq!((blob.len(), reader.requests(Operation::Get)), (bytes.len() as u64, gets));
    for range in [7_000_000..7_500_000, 10..20, 8_000_000..bytes.len()] {
        let wanted = range.start as u64..range.end as u64;
        let (part, ended) = rest(CheckedRange::new(blob.clone(), wanted)).await;
        assert!(ended && part == bytes[range]);
    }
}

async fn small(world: World) {
    let world = world.fresh();
    let bytes = content(4, 5_000);
    let writer = world.replica().await;
    let all = writer.all_requests();
    assert!(writer.store.blob(&sha256(&bytes)).await.unwrap().is_none());
    writer.store.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    assert_eq!(writer.all_requests() - all, 2, "looked for once, and written");
    let reader = world.replica().await;
    let all = reader.all_requests();
    for _ in 0..3 {
        assert!(reader.whole(&sha256(&bytes)).await.unwrap() == bytes);
    }
    assert_eq!(reader.all_requests() - all, 2);
}
