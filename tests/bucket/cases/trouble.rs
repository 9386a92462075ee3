//! A bucket on a bad day: nobody waits long, nobody gets a wrong byte, and when it is well again all is as if nothing had been.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use larder_oci::ImageReference;
use larder_proxy::pins::{Content, Holder, Pin, PinName, Platforms, Put};
use larder_proxy::store::{Store as _, StoreHealth};
use larder_test_bucket::Fault;

use crate::world::{Case, World, content, link, name, sha256, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_blob_comes_right_or_not_at_all_and_the_origin_can_go_on", |world| Box::pin(reading(world))),
        ("a_small_blob_with_wrong_bytes_is_nobodys", |world| Box::pin(small_and_wrong(world))),
        ("what_the_bucket_does_not_take_is_served_here_and_kept_later", |world| Box::pin(writing(world))),
        ("after_a_few_failures_nobody_waits", |world| Box::pin(left_alone(world))),
        ("a_bucket_that_is_away_at_start_is_used_when_it_comes", |world| Box::pin(away_at_start(world))),
        ("a_server_without_conditions_is_as_good", |world| Box::pin(no_conditions(world))),
        ("what_is_said_to_exist_already_is_not_taken_for_written", |world| Box::pin(conflict(world))),
        ("a_break_is_continued_without_a_cut", |world| Box::pin(continued(world))),
    ]
}

/// How long a client is kept from turning elsewhere: a listing and the first bytes, each within their time, and a little.
const PATIENCE: Duration = Duration::from_millis(2500);

async fn reading(world: World) {
    // Side by side: most of it is waiting.
    let faults = [
        Fault::Unavailable,
        Fault::Silent,
        Fault::Away,
        Fault::Slow(10_000),
        Fault::Cut(600_000),
        Fault::Corrupt(600_000),
        Fault::Corrupt(2_000_000),
    ];
    join_all((100..).zip(faults).map(|(number, fault)| reading_under(world.fresh(), number, fault))).await;
}

async fn reading_under(world: World, number: u64, fault: Fault) {
    let bytes = content(number, 4 << 20);
    let digest = sha256(&bytes);
    world.replica().await.put(&bytes).await;
    let faults = world.faults();
    let reader = world.replica_behind(&faults).await;
    faults.set(fault);
    // On a busy machine the listing may not have its time, and then the reader turns elsewhere before it came to the fault.
    let (mut got, mut waited) = (None, Duration::ZERO);
    let felt = until(Duration::from_secs(20), async || {
        let began = Instant::now();
        got = reader.get(&digest).await;
        waited = began.elapsed();
        faults.touched() > 0
    });
    assert!(felt.await, "{fault:?} was never felt");
    if let Some((got, ended)) = &got {
        assert!(!ended, "{fault:?}: it cannot have come");
        assert!(bytes.starts_with(got), "{fault:?}: a wrong byte left");
    }
    if matches!(fault, Fault::Cut(_) | Fault::Corrupt(_)) {
        // It may have been over before this reader began: then it turns elsewhere without a cut.
        assert!(got.as_ref().is_none_or(|(got, _)| got.len() >= 256 << 10), "{fault:?}: what was right is given");
    } else {
        assert!(got.is_none(), "{fault:?}");
    }
    assert!(waited < PATIENCE || got.is_some_and(|(got, _)| !got.is_empty()), "{fault:?}: {waited:?}");

    // The client comes back for the rest: it finds nothing, at once, and a fetch from the origin may write.
    let began = Instant::now();
    let again = reader.store.blob(&digest).await.ok().flatten();
    assert!(again.is_none() && began.elapsed() < PATIENCE, "{fault:?}: {:?}", began.elapsed());
    let writer = reader.store.create(&digest, Some(bytes.len() as u64)).await.unwrap();
    drop(writer);

    faults.set(Fault::None);
    // Of wrong bytes it is the upload that is at fault, as far as anybody can tell, and that is not read again.
    if !matches!(fault, Fault::Corrupt(_)) {
        let well = until(Duration::from_secs(20), async || reader.whole(&digest).await.is_some_and(|got| got == bytes));
        assert!(well.await, "{fault:?}: it should come now");
    }
    reader.put(&bytes).await;
    assert!(reader.until_kept(&digest, Duration::from_secs(20)).await, "{fault:?}");
    assert!(world.replica().await.whole(&digest).await.unwrap() == bytes, "{fault:?}");
}

async fn small_and_wrong(world: World) {
    let world = world.fresh();
    let bytes = content(120, 100_000);
    world.replica().await.store.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    let faults = world.faults();
    let reader = world.replica_behind(&faults).await;
    faults.set(Fault::Corrupt(50_000));
    assert!(reader.store.blob(&sha256(&bytes)).await.unwrap().is_none());
    assert_eq!(faults.touched(), 1);
    faults.set(Fault::None);
    // The origin gives it again; that upload is trusted.
    reader.store.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    assert!(reader.until_kept(&sha256(&bytes), Duration::from_secs(5)).await);
    assert!(world.replica().await.whole(&sha256(&bytes)).await.unwrap() == bytes);
}

async fn writing(world: World) {
    for (number, fault) in [Fault::Unavailable, Fault::Away].into_iter().enumerate() {
        let world = world.fresh();
        let (large, small) = (content(130 + number as u64, 10 << 20), content(140 + number as u64, 2_000));
        let faults = world.faults();
        let (writer, other) = (world.replica_behind(&faults).await, world.replica().await);
        faults.set(fault);
        writer.put(&large).await;
        writer.store.put_bytes(&sha256(&small), small.clone()).await.unwrap();
        let _ = writer.store.put_link(&name("a"), link(&sha256(&large))).await;
        assert!(faults.touched() > 0);

        assert!(writer.whole(&sha256(&large)).await.unwrap() == large, "{fault:?}");
        assert!(writer.whole(&sha256(&small)).await.unwrap() == small, "{fault:?}");
        assert!(writer.store.link(&name("a"), &sha256(&large)).await.unwrap().is_some(), "{fault:?}");
        assert!(!writer.store.keeps(&sha256(&large)).await.unwrap_or(false), "not kept before the bucket has it");
        let stats = writer.store.stats();
        assert_eq!((stats.owed_blobs, stats.owed_records), (2, 1), "{fault:?}");

        faults.set(Fault::None);
        for bytes in [&large, &small] {
            assert!(other.until_kept(&sha256(bytes), Duration::from_secs(40)).await, "{fault:?}");
        }
        let linked = async || other.store.link(&name("a"), &sha256(&large)).await.unwrap().is_some();
        assert!(until(Duration::from_secs(10), linked).await, "{fault:?}");
        let settled = async || writer.store.stats().owed_blobs == 0 && writer.store.stats().owed_records == 0;
        assert!(until(Duration::from_secs(10), settled).await, "waited in vain: what it did not take is there");
        assert!(other.whole(&sha256(&large)).await.unwrap() == large);
    }
}

async fn left_alone(world: World) {
    let world = world.fresh();
    let faults = world.faults();
    let replica = world.replica_behind(&faults).await;
    faults.set(Fault::Silent);
    for number in 0..3 {
        assert!(replica.store.link(&name("a"), &sha256(&[number])).await.is_err());
    }
    assert_eq!(replica.store.health(), StoreHealth::Detached);
    let began = Instant::now();
    for number in 3..103 {
        assert!(replica.store.held(&name("a"), &sha256(&[number])).await.is_err());
        assert!(replica.store.blob(&sha256(&[number])).await.is_err());
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    faults.set(Fault::None);
    assert!(
        until(Duration::from_secs(15), async || replica.store.health() == StoreHealth::Ok).await,
        "waited in vain: the store is well again"
    );
    assert!(replica.store.link(&name("a"), &sha256(&[0])).await.unwrap().is_none());
}

async fn away_at_start(world: World) {
    let world = world.fresh();
    let faults = world.faults();
    faults.set(Fault::Away);
    let replica = world.replica_behind(&faults).await;
    let bytes = content(150, 3_000);
    replica.store.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    assert!(replica.whole(&sha256(&bytes)).await.unwrap() == bytes);
    assert_eq!(replica.store.health(), StoreHealth::Detached);
    faults.set(Fault::None);
    assert!(
        until(Duration::from_secs(15), async || replica.store.health() == StoreHealth::Ok).await,
        "waited in vain: the store is well again"
    );
    assert!(replica.until_kept(&sha256(&bytes), Duration::from_secs(10)).await);
}

async fn no_conditions(world: World) {
    let world = world.fresh();
    let faults = world.faults();
    faults.set(Fault::NoConditions);
    let (one, two) = tokio::join!(world.replica_behind(&faults), world.replica_behind(&faults));
    let bytes = content(160, 300_000);
    for replica in [&one, &two] {
        assert_eq!(replica.store.health(), StoreHealth::Ok);
        replica.put(&bytes).await;
        assert!(replica.store.keeps(&sha256(&bytes)).await.unwrap());
    }
    assert!(faults.touched() > 0);
    assert!(world.replica().await.whole(&sha256(&bytes)).await.unwrap() == bytes);
}

/// S3 says 409 of a conflict of any kind, and nothing is written then.
async fn conflict(world: World) {
    let world = world.fresh();
    let faults = world.faults();
    let replica = world.replica_behind(&faults).await;
    let bytes = content(165, 300_000);
    let digest = sha256(&bytes);
    faults.set(Fault::Conflict);
    replica.put(&bytes).await;
    let pins = replica.store.pins();
    let name = PinName {
        holder: Holder::parse("me").unwrap(),
        image: ImageReference::parse("reg.example.com/team/app:1").unwrap(),
    };
    let wanted = Content { root: digest.clone(), digests: [digest.clone()].into(), bytes: 0 };
    let pin = Pin { name, platforms: Platforms::All, put_at: SystemTime::now(), content: Some(wanted) };
    let put = pins.put(pin.clone()).await;
    assert!(faults.touched() > 0);
    assert!(put.is_err(), "there is no pin: {put:?}");
    assert!(!replica.store.keeps(&digest).await.unwrap(), "nor a blob");
    faults.set(Fault::None);
    let is_complete = async || matches!(pins.put(pin.clone()).await, Ok(Put::Complete));
    assert!(until(Duration::from_mins(1), is_complete).await, "waited in vain: it is pinned");
    assert!(pins.get(&pin.name).await.unwrap().is_some_and(|kept| kept.complete));
    assert!(world.replica().await.whole(&digest).await.unwrap() == bytes);
}

/// The connection breaks once in the middle, and what is missing is asked for.
async fn continued(world: World) {
    let world = world.fresh();
    let bytes = content(170, 12 << 20);
    world.replica().await.put(&bytes).await;
    let faults = world.faults();
    let reader = world.replica_behind(&faults).await;
    faults.set(Fault::Slow(24 << 20));
    let broken = async {
        until(Duration::from_secs(10), async || faults.touched() > 4).await;
        faults.set(Fault::Cut(0));
        let before = faults.touched();
        until(Duration::from_secs(10), async || faults.touched() > before).await;
        faults.set(Fault::None);
    };
    let digest = sha256(&bytes);
    let (got, ()) = tokio::join!(reader.get(&digest), broken);
    let (got, ended) = got.unwrap();
    assert!(ended && got == bytes, "{} of {} bytes", got.len(), bytes.len());
}
