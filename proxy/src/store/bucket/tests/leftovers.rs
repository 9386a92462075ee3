//! What a killed process leaves in the bucket: it goes, and whoever is only slow is not hurt.

use bytes::Bytes;
use larder_oci::{Algorithm, Digest};
use object_store::multipart::MultipartStore as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::*;
use crate::store::CheckedRange;
use crate::store::conformance::{content, rest};
use crate::store::removal::{Policy, Wait};

const LARGE: usize = 2 << 20;

/// So old that it was left. The bucket in memory gives times of now, so that is either everything or nothing.
fn left_after(alone: Duration) -> impl FnOnce(&mut BucketConfig) {
    move |config| {
        config.copies.limit = None;
        config.removal.alone = alone;
    }
}

async fn keys(remote: &InMemory, folder: &str) -> Vec<String> {
    use futures_util::TryStreamExt as _;
    let all: Vec<_> = remote.list(Some(&format!("larder/{folder}").as_str().into())).try_collect().await.unwrap();
    all.into_iter().map(|object| object.location.to_string()).collect()
}

async fn put(remote: &InMemory, key: &str) {
    remote.put(&format!("larder/{key}").as_str().into(), Bytes::new().into()).await.unwrap();
}

fn generation(number: u64) -> String {
    format!("{number:012x}{}.0", "0".repeat(32))
}

/// `kind/sha256/<hex>/<generation>`, those of one number beside one another in every kind.
fn key(kind: &str, digest: u64, number: u64) -> String {
    format!("{kind}/sha256/{digest:064x}/{}", generation(number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_whose_blob_never_came_go_and_no_others() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::ZERO)).await;
    // Before, between and behind all blobs; beside another generation of the same digest; beside a mark.
    let alone = [(0, 1), (3, 1), (5, 2), (7, 1), (99, 1)];
    let whole = [(1, 1), (3, 2), (5, 1), (5, 3), (8, 1)];
    for (digest, number) in alone {
        put(&remote, &key("checksums", digest, number)).await;
    }
    for (digest, number) in whole {
        put(&remote, &key("checksums", digest, number)).await;
        put(&remote, &key("blobs", digest, number)).await;
    }
    put(&remote, &key("condemned", 7, 1)).await;
    // Small blobs have none.
    for digest in [2, 4, 6, 9] {
        put(&remote, &key("blobs", digest, 1)).await;
    }
    // What is not ours is nobody's to remove.
    put(&remote, "checksums/README").await;
    put(&remote, "checksums/sha256/README").await;
    let blobs = keys(&remote, "blobs").await;

    assert_eq!(store.sweep().await.unwrap(), alone.len());
    let mut left: Vec<_> =
        whole.iter().map(|(digest, number)| format!("larder/{}", key("checksums", *digest, *number))).collect();
    left.extend(["larder/checksums/README".to_owned(), "larder/checksums/sha256/README".to_owned()]);
    left.sort();
    assert_eq!(keys(&remote, "checksums").await, left);
    assert_eq!(keys(&remote, "blobs").await, blobs);
    assert_eq!(keys(&remote, "condemned").await.len(), 1, "marks are the collector's");
    assert_eq!((store.sweep().await.unwrap(), store.standing().swept), (0, alone.len() as u64));
    assert_eq!(keys(&remote, "clusters").await, [""; 0], "no clock is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_is_right_wherever_the_pages_end() {
    for page in 1..8 {
        let remote = Arc::new(InMemory::new());
        let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::ZERO)).await;
        let mut wanted = Vec::new();
        for digest in 0..20 {
            // Of these, in turn: neither, a small blob, checksums alone, both.
            if digest % 4 >= 2 {
                put(&remote, &key("checksums", digest, 1)).await;
            }
            if digest % 2 == 1 {
                put(&remote, &key("blobs", digest, 1)).await;
            }
            if digest % 4 == 3 {
                wanted.push(format!("larder/{}", key("checksums", digest, 1)));
            }
        }
        assert_eq!(store.shared.sweep_in_pages(page).await.unwrap(), 5, "pages of {page}");
        assert_eq!(keys(&remote, "checksums").await, wanted, "pages of {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_young_and_what_is_being_uploaded_is_left_alone() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::from_mins(1))).await;
    put(&remote, &key("checksums", 1, 1)).await;
    assert_eq!(store.sweep().await.unwrap(), 0, "its blob may come yet");
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::ZERO)).await;
    // In parts, for longer than anybody thought; it has a note until it has ended.
    put(&remote, &format!("uploads/{}", generation(1))).await;
    assert_eq!(store.sweep().await.unwrap(), 0, "its blob comes in parts");
    remote.delete(&format!("larder/uploads/{}", generation(1)).as_str().into()).await.unwrap();
    assert_eq!(store.sweep().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_of_pins_that_are_gone_go_and_only_those_of_the_own_cluster() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::ZERO)).await;
    let at = |cluster: &str, kind: &str, number| {
        format!("clusters/{cluster}/{kind}/me/{:064x}/{}", 0xabc, generation(number))
    };
    for cluster in ["one", "two"] {
        for number in 1..4 {
            put(&remote, &at(cluster, "complete", number)).await;
        }
        put(&remote, &at(cluster, "pins", 2)).await;
    }
    assert_eq!(store.sweep().await.unwrap(), 2);
    assert_eq!(keys(&remote, "clusters/one/complete").await, [format!("larder/{}", at("one", "complete", 2))]);
    assert_eq!(keys(&remote, "clusters/two/complete").await.len(), 3);
    assert_eq!(keys(&remote, "clusters/one/pins").await.len(), 1);
}

/// Holds an upload up between its two writes, and takes its checksums away there; what is beside the blob when it has come.
async fn swept_before_its_blob_came(alone: Duration) -> usize {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(alone)).await;
    let turns = u32::try_from(store.shared.config.parts_in_memory).unwrap();
    let held_up = store.shared.parts.acquire_many(turns).await.unwrap();
    let bytes = content(1, LARGE);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let uploading = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put_bytes(&digest, bytes).await.unwrap() }
    });
    until("checksums are written", async || !keys(&remote, "checksums").await.is_empty()).await;
    let written = keys(&remote, "checksums").await;
    remote.delete(&written[0].as_str().into()).await.unwrap();
    drop(held_up);
    uploading.await.unwrap();
    assert_eq!(keys(&remote, "blobs").await.len(), 1);
    let left = keys(&remote, "checksums").await;
    assert!(left.is_empty() || left == written, "{left:?}");
    left.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_took_so_long_that_his_checksums_may_be_gone_writes_them_again() {
    assert_eq!(swept_before_its_blob_came(Duration::ZERO).await, 1);
    // It costs a request, which nobody pays who was quick.
    assert_eq!(swept_before_its_blob_came(Duration::from_hours(48)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_without_checksums_is_given_out_verified_and_gets_them() {
    let remote = Arc::new(InMemory::new());
    let (writer, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::from_hours(1))).await;
    let bytes = content(2, LARGE);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    writer.put_bytes(&digest, bytes.clone()).await.unwrap();
    let written = keys(&remote, "checksums").await;
    let right = remote.get(&written[0].as_str().into()).await.unwrap().bytes().await.unwrap();
    for left in [None, Some("none that can be read")] {
        remote.delete(&written[0].as_str().into()).await.unwrap();
        if let Some(text) = left {
            remote.put(&written[0].as_str().into(), text.into()).await.unwrap();
        }
        let (reader, _around) =
            store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::from_hours(1))).await;
        let blob = reader.blob(&digest).await.unwrap().unwrap();
        let (got, ended) = rest(CheckedRange::new(blob.clone(), 0..blob.len())).await;
        assert!(ended && got == bytes, "{left:?}: {} bytes came", got.len());
        until("it has its checksums again", async || {
            let found = remote.get(&written[0].as_str().into()).await.ok();
            match found {
                Some(found) => found.bytes().await.unwrap() == right,
                None => false,
            }
        })
        .await;
    }
    // Without checksums no byte of a blob that is damaged leaves.
    remote.delete(&written[0].as_str().into()).await.unwrap();
    let (blob, mut damaged) = (keys(&remote, "blobs").await[0].clone(), bytes.to_vec());
    damaged[LARGE - 1] ^= 1;
    remote.put(&blob.as_str().into(), damaged.into()).await.unwrap();
    let (reader, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, left_after(Duration::from_hours(1))).await;
    let blob = reader.blob(&digest).await.unwrap().unwrap();
    let (got, ended) = rest(CheckedRange::new(blob.clone(), 0..blob.len())).await;
    assert!(!ended && got.is_empty(), "{} bytes came", got.len());
    assert_eq!(keys(&remote, "checksums").await, [""; 0], "nor does it get any");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_of_a_run_that_was_killed_goes() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, |config| {
        config.removal.policy = Arc::new(Policy { young: Duration::ZERO, ..Policy::default() });
    })
    .await;
    // Of long ago, and of a machine whose clock goes ahead.
    for number in [1, 0xffff_ffff_ffff] {
        put(&remote, &format!("clusters/one/removal/clock/{}", generation(number))).await;
    }
    assert!(matches!(store.collect().await.unwrap().verdict, Err(Wait::NoHolder(_))), "that is no reason to wait");
    assert_eq!(keys(&remote, "clusters/one/removal").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cluster_that_is_forgotten_nothing_stays() {
    let remote = Arc::new(InMemory::new());
    let (_store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, |_| {}).await;
    let (pin, unique) = (format!("me/{:064x}/{}", 0xabc, generation(1)), generation(2));
    for left in [
        "links/reg.example.com/app/_/sha256-0",
        "tags/reg.example.com/app/_/v1",
        &format!("complete/{pin}"),
        &format!("pins/{pin}"),
        &format!("holders/me/5-{unique}"),
        &format!("removal/clock/{unique}"),
        // Nobody knows what it is, and as long as it is there the cluster counts as one that never declared anything.
        "what-comes-later/x",
        "pins/README",
    ] {
        put(&remote, &format!("clusters/old/{left}")).await;
        put(&remote, &format!("clusters/older/{left}")).await;
    }
    let copies = TempDir::new().unwrap();
    let config = config(&copies);
    let client = client_on(Arc::clone(&remote) as Arc<dyn Remote>, &config);
    let person = BucketPerson::on(client, &config).await.unwrap();
    person.forget(&"old".parse().unwrap()).await.unwrap();
    assert_eq!(keys(&remote, "clusters/old").await, [""; 0]);
    assert_eq!(keys(&remote, "clusters/older").await.len(), 8, "another one's stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_left_is_given_up_whatever_lies_before_it() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, |config| {
        config.copies.limit = None;
        config.upload_age = Duration::ZERO;
    })
    .await;
    let key = format!("larder/{}", key("blobs", 1, 3));
    let id = remote.create_multipart(&key.as_str().into()).await.unwrap();
    let note = |id: &str| {
        format!(
            r#"{{"version":1,"key":"{key}","upload":"{id}","began_at":{{"secs_since_epoch":1,"nanos_since_epoch":0}}}}"#
        )
    };
    // One that cannot be read, and one that the bucket refuses to give up, for whatever reason.
    for (number, text) in [(1, "nonsense".to_owned()), (2, note("no number, which it takes ill")), (3, note(&id))] {
        remote.put(&format!("larder/uploads/{}", generation(number)).as_str().into(), text.into()).await.unwrap();
    }
    assert_eq!(store.expire_uploads().await.unwrap(), 1);
    let left = keys(&remote, "uploads").await;
    assert_eq!(left, [1, 2].map(|number| format!("larder/uploads/{}", generation(number))));
}
