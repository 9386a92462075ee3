//! Several uploads of one blob, one of which is not what it should be.

use bytes::Bytes;
use larder_oci::{Algorithm, Digest};
use object_store::ObjectStoreExt as _;

use super::*;
use crate::store::CheckedRange;
use crate::store::conformance::{content, rest};

const LENGTH: usize = 3 << 20;

/// An upload that is newer than every other: its bytes, and the checksums beside it.
async fn upload(remote: &InMemory, digest: &Digest, bytes: &Bytes, checksums: &Checksums) {
    let (hex, generation) = (digest.hex(), format!("ffffffffffff{}.0", "0".repeat(32)));
    for (kind, bytes) in [("checksums", Bytes::from(checksums.encode(digest))), ("blobs", bytes.clone())] {
        let key = format!("larder/{kind}/sha256/{hex}/{generation}");
        remote.put(&key.as_str().into(), bytes.into()).await.unwrap();
    }
}

async fn read(store: &BucketStore, digest: &Digest) -> (Vec<u8>, bool) {
    let Some(blob) = store.blob(digest).await.unwrap() else { return (Vec::new(), false) };
    rest(CheckedRange::new(blob.clone(), 0..blob.len())).await
}

async fn good_and(bytes: &Bytes, newest: &Bytes, checksums: &Checksums) -> (Arc<BucketStore>, Around, Digest) {
    let (remote, digest) = (Arc::new(InMemory::new()), Digest::of(Algorithm::Sha256, bytes));
    let (writer, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, |config| config.copies.limit = None).await;
    writer.put_bytes(&digest, bytes.clone()).await.unwrap();
    upload(&remote, &digest, newest, checksums).await;
    let (reader, around) = store_on(remote, |config| {
        config.copies.limit = None;
        config.away_for = Duration::ZERO;
    })
    .await;
    (reader, around, digest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_judged_by_its_own_checksums_and_no_other() {
    let (bytes, other) = (content(1, LENGTH), content(2, LENGTH));
    let (reader, _around, digest) = good_and(&bytes, &bytes, &Checksums::of(&other)).await;
    let (got, ended) = read(&reader, &digest).await;
    assert!(ended && got == bytes, "{} bytes came", got.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_uploads_only_the_one_that_is_wrong_is_not_read_again() {
    let (bytes, other) = (content(1, LENGTH), content(2, LENGTH));
    let (reader, _around, digest) = good_and(&bytes, &other, &Checksums::of(&other)).await;
    let (got, ended) = read(&reader, &digest).await;
    assert!(!ended && got.len() < LENGTH, "a wrong end never leaves");
    let (got, ended) = read(&reader, &digest).await;
    assert!(ended && got == bytes, "{} bytes came", got.len());
}
