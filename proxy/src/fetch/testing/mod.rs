//! Doubles for the tests of `fetch` and `pull`: an origin that follows a script, a store that fails on request.

mod source;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use larder_oci::{Algorithm, Digest, Registry, Repository};
use tokio::time::{Instant, sleep, timeout};

use super::{FetchLimits, Fetcher};
use crate::metrics::Metrics;
use crate::reply::LiveBody;
use crate::store::Name;

pub(crate) use source::{Act, Asked, ScriptedSource};
pub(crate) use store::FaultyStore;

/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(20);

pub(crate) fn name(repository: &str) -> Name {
    Name { registry: Registry::parse("reg.example.com").unwrap(), repository: Repository::parse(repository).unwrap() }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Bytes that differ from place to place, so that a gap or an overlap shows.
pub(crate) fn content(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect::<Vec<u8>>()
        .into()
}

/// Bounds small enough for tests in real time.
pub(crate) fn limits() -> FetchLimits {
    FetchLimits {
        resume_pause: Duration::from_millis(1),
        resume_pause_longest: Duration::from_millis(5),
        resume_tries: 4,
        store_patience: Duration::from_secs(1),
        chunk: 16 << 10,
        ..FetchLimits::default()
    }
}

pub(crate) struct Stage {
    pub(crate) source: Arc<ScriptedSource>,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) fetcher: Fetcher,
}

impl Stage {
    pub(crate) fn new(limits: FetchLimits) -> Self {
        Self::with_store(limits, FaultyStore::default())
    }

    pub(crate) fn with_store(limits: FetchLimits, store: FaultyStore) -> Self {
        let (source, store) = (Arc::new(ScriptedSource::default()), Arc::new(store));
        let fetcher = Fetcher::new(store.clone(), source.clone(), Arc::new(Metrics::new()), limits);
        Self { source, store, fetcher }
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + LONG
}

/// All of a body, and whether it ended well.
pub(crate) async fn read(body: LiveBody) -> (Bytes, bool) {
    let mut body = body;
    let mut all = BytesMut::new();
    while let Some(chunk) = timeout(LONG, body.next()).await.expect("a body made no progress") {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(_) => return (all.freeze(), false),
        }
    }
    (all.freeze(), true)
}

/// Waits until `holds` does.
pub(crate) async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let deadline = std::time::Instant::now() + LONG;
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "it never came true");
        sleep(Duration::from_millis(1)).await;
    }
}
