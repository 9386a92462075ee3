//! What uploads may hold in memory.

use std::time::Instant;

use futures_util::future::join_all;
use larder_oci::{Algorithm, Digest};
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;
use crate::store::conformance::content;

const PUT: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_uploads_are_no_more_at_a_time_than_parts_are() {
    let throttle = ThrottleConfig { wait_put_per_call: PUT, ..ThrottleConfig::default() };
    let remote = Arc::new(ThrottledStore::new(InMemory::new(), throttle));
    let (store, _around) = store_on(remote, |config| {
        config.copies.limit = None;
        config.parts_in_memory = 2;
    })
    .await;
    let began = Instant::now();
    let puts = (0..8).map(|number| {
        let (store, bytes) = (Arc::clone(&store), content(number, 100_000));
        async move { store.put_bytes(&Digest::of(Algorithm::Sha256, &bytes), bytes).await.unwrap() }
    });
    join_all(puts).await;
    assert!(began.elapsed() >= PUT * 4, "eight, two at a time, in {:?}", began.elapsed());
}
