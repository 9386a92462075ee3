//! Several processes, and several clusters, on one bucket.

use std::time::{Duration, SystemTime};

use larder_oci::Tag;
use larder_proxy::store::{Store as _, TagRecord};
use larder_test_bucket::Fault;

use crate::world::{Case, Replica, World, configured, content, hurry, link, name, sha256};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("what_one_replica_keeps_another_one_has", |world| Box::pin(another(world))),
        ("all_may_write_one_blob_at_once", |world| Box::pin(at_once(world))),
        ("what_a_process_owed_when_it_ended_is_uploaded_by_the_next", |world| Box::pin(after_a_restart(world))),
        ("a_cluster_reads_the_bytes_of_another_one_and_nothing_else", |world| Box::pin(clusters(world))),
    ]
}

async fn another(world: World) {
    let world = world.fresh();
    let (one, two) = (world.replica().await, world.replica().await);
    let (bytes, tag) = (content(10, 2 << 20), Tag::parse("v1").unwrap());
    let record = TagRecord { digest: sha256(&bytes), checked_at: SystemTime::now() };
    one.put(&bytes).await;
    one.store.put_link(&name("a"), link(&sha256(&bytes))).await.unwrap();
    one.store.put_tag(&name("a"), &tag, record.clone()).await.unwrap();
    assert_eq!(two.store.tag(&name("a"), &tag).await.unwrap(), Some(record));
    assert_eq!(two.store.tags(&name("a")).await.unwrap(), [tag]);
    let (_, blob) = two.store.held(&name("a"), &sha256(&bytes)).await.unwrap().unwrap();
    assert_eq!(blob.len(), bytes.len() as u64);
    assert!(two.whole(&sha256(&bytes)).await.unwrap() == bytes);
}

async fn at_once(world: World) {
    let world = world.fresh();
    let bytes = content(11, 9 << 20);
    let mut writing = Vec::new();
    for _ in 0..3 {
        let (replica, bytes) = (world.replica().await, bytes.clone());
        writing.push(tokio::spawn(async move {
            replica.put(&bytes).await;
            assert!(replica.store.keeps(&sha256(&bytes)).await.unwrap());
            replica
        }));
    }
    let mut writers = Vec::new();
    for writer in writing {
        writers.push(writer.await.unwrap());
    }
    assert!(writers.iter().all(|writer| writer.store.stats().owed_blobs == 0));
    assert!(world.replica().await.whole(&sha256(&bytes)).await.unwrap() == bytes);
}

async fn after_a_restart(world: World) {
    let world = world.fresh();
    let faults = world.faults();
    let first = world.replica_behind(&faults).await;
    let bytes = content(13, 3 << 20);
    faults.set(Fault::Away);
    first.put(&bytes).await;
    assert_eq!(first.store.stats().owed_blobs, 1);
    let copies = first.end();

    let mut config = configured(&world.bucket(), &world.server().endpoint(), "one", &copies);
    hurry(&mut config);
    let second = Replica::open(config, copies).await.unwrap();
    assert!(!second.store.keeps(&sha256(&bytes)).await.unwrap());
    assert!(second.whole(&sha256(&bytes)).await.unwrap() == bytes, "from the folder");
    assert!(second.until_kept(&sha256(&bytes), Duration::from_secs(10)).await);
    assert!(world.replica().await.whole(&sha256(&bytes)).await.unwrap() == bytes);
}

async fn clusters(world: World) {
    let world = world.fresh();
    let one = world.replica().await;
    let (config, copies) = world.config("two");
    let two = Replica::open(config, copies).await.unwrap();
    let (bytes, tag) = (content(12, 5_000), Tag::parse("v1").unwrap());
    let digest = sha256(&bytes);
    one.store.put_bytes(&digest, bytes.clone()).await.unwrap();
    one.store.put_link(&name("a"), link(&digest)).await.unwrap();
    let record = TagRecord { digest: digest.clone(), checked_at: SystemTime::now() };
    one.store.put_tag(&name("a"), &tag, record).await.unwrap();

    assert_eq!(two.store.link(&name("a"), &digest).await.unwrap(), None);
    assert_eq!(two.store.tag(&name("a"), &tag).await.unwrap(), None);
    assert_eq!(two.store.tags(&name("a")).await.unwrap(), []);
    assert!(two.store.held(&name("a"), &digest).await.unwrap().is_none(), "bytes without evidence");
    assert!(two.whole(&digest).await.unwrap() == bytes);
    // What it writes itself is its own as well.
    two.store.remove_link(&name("a"), &digest).await.unwrap();
    assert!(one.store.link(&name("a"), &digest).await.unwrap().is_some());
}
