//! Pins on a bucket in memory. The protocol that they follow: `removal`.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use larder_oci::{Algorithm, Digest, ImageReference};
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::*;
use crate::pins::conformance::pins_conformance_tests;
use crate::pins::{Content, Holder, Pin, PinName, Platforms, Put};
use crate::store::conformance::content;

pins_conformance_tests!({
    let (store, around) = store_on(Arc::new(InMemory::new()), |_| {}).await;
    (((store.pins()), store as Arc<dyn Store>), around)
});

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Behind the back of every process, which remembers what it has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_a_bucket_lost_are_seen_by_two_listings_and_written_anew() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, |_| {}).await;
    let blobs = [content(1, 100), content(2, 100)];
    for bytes in &blobs {
        store.put_bytes(&sha256(bytes), bytes.clone()).await.unwrap();
    }
    let holder = Holder::parse("me").unwrap();
    let pin = |image: &str| {
        let digests = blobs.iter().map(|bytes: &Bytes| sha256(bytes)).collect();
        let content = Content { root: sha256(&blobs[0]), digests, bytes: 200 };
        let name = PinName { holder: holder.clone(), image: ImageReference::parse(image).unwrap() };
        Pin { name, platforms: Platforms::All, put_at: std::time::SystemTime::now(), content: Some(content) }
    };
    // By a tag, and by a digest, which has none.
    let wishes = [pin("reg.example.com:5000/team/app:1"), pin(&format!("reg.example.com/b@{}", sha256(&blobs[0])))];
    let pins = store.pins();
    for wish in &wishes {
        assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
    }
    let records = async || {
        let mut found = Vec::new();
        for kind in ["links", "tags"] {
            let folder = format!("larder/clusters/one/{kind}").into();
            found.extend(remote.list(Some(&folder)).try_collect::<Vec<_>>().await.unwrap());
        }
        found.into_iter().map(|object| object.location).collect::<Vec<_>>()
    };
    let written = records().await;
    assert_eq!(written.len(), 5, "{written:?}");
    let is_seen_whole = async |wish: &Pin| {
        let kept = pins.get(&wish.name).await.unwrap().unwrap();
        pins.overview().await.unwrap().unwrap().has_all_of(&kept)
    };
    for lost in [&written[..], &written[..1], &written[4..]] {
        for key in lost {
            remote.delete(key).await.unwrap();
        }
        let mut seen = 0;
        for wish in &wishes {
            seen += usize::from(!is_seen_whole(wish).await);
            assert_eq!(pins.look_again(&wish.name).await.unwrap(), Some(Put::Complete));
            assert!(is_seen_whole(wish).await, "{}", wish.name.image);
        }
        assert!(seen > 0, "{lost:?}");
        assert_eq!(records().await, written, "{lost:?}");
    }
    // An empty one says nothing.
    remote.put(&written[0], Bytes::new().into()).await.unwrap();
    let mut seen = 0;
    for wish in &wishes {
        seen += usize::from(!is_seen_whole(wish).await);
        pins.look_again(&wish.name).await.unwrap();
        assert!(is_seen_whole(wish).await);
    }
    assert_eq!(seen, 1);
}
