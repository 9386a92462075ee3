//! Whoever signs may have to ask somebody else, who is slow.

use std::pin::Pin;

use http::Method;
use larder_oci::{Algorithm, Digest};
use object_store::path::Path;
use object_store::signer::Signer;
use tokio::time::timeout;

use super::*;
use crate::store::conformance::content;

/// Never has a signature.
#[derive(Debug)]
struct Silent;

type Signed<'a> = Pin<Box<dyn Future<Output = object_store::Result<url::Url>> + Send + 'a>>;

impl Signer for Silent {
    // As the trait's macro writes it.
    fn signed_url<'a, 'b, 'c>(&'a self, _: Method, _: &'b Path, _: Duration) -> Signed<'c>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_signature_longer_than_for_the_bucket() {
    let bytes = content(1, 3 << 20);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let signing = Some(Signing::new(Arc::new(Silent)));
    let (store, _around) = store_with(Arc::new(InMemory::new()), signing, |config| {
        config.copies.limit = None;
        config.read_within = Duration::from_millis(100);
    })
    .await;
    store.put_bytes(&digest, bytes.clone()).await.unwrap();
    let place = timeout(Duration::from_secs(20), store.elsewhere(&digest, bytes.len() as u64)).await;
    assert!(place.expect("an answer comes").unwrap().is_none(), "it is given here");
}
