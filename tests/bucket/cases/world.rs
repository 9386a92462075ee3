//! What a case works with: a server, a prefix in its bucket, and replicas of the store on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use larder_oci::{Algorithm, Digest, Registry, Repository};
use larder_proxy::store::bucket::{BucketConfig, BucketStore, Operation, Outcome};
pub(crate) use larder_proxy::store::conformance::rest;
use larder_proxy::store::directory::Reserve;
use larder_proxy::store::{CheckedRange, Checksums, Link, Name, Store, StoreError, StoredBlob};
use larder_test_bucket::{Faults, Kind, Server};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A case by its name.
pub(crate) type Case = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

/// The server of one kind, shared by all cases, started by the first.
#[derive(Clone)]
pub(crate) struct World {
    kind: Kind,
    server: Arc<OnceLock<Server>>,
    prefix: Arc<str>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl World {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, server: Arc::default(), prefix: "".into() }
    }

    /// With a prefix that nobody else has.
    pub(crate) fn fresh(&self) -> Self {
        let prefix = format!("case-{}/larder", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { prefix: prefix.into(), ..self.clone() }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// As a person writes it.
    pub(crate) fn bucket(&self) -> String {
        self.kind.bucket(&self.prefix)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.get_or_init(|| Server::start(self.kind).unwrap())
    }

    pub(crate) fn faults(&self) -> Faults {
        Faults::before(self.server().address()).unwrap()
    }

    /// For `--endpoint`.
    pub(crate) fn behind(&self, faults: &Faults) -> String {
        self.kind.endpoint("http", faults.address())
    }

    /// Whether the server has anything whose key begins with this, below the prefix.
    pub(crate) fn has(&self, key: &str) -> bool {
        tokio::task::block_in_place(|| self.server().has(&format!("{}/{key}", self.prefix)).unwrap())
    }

    /// A configuration, and the folder that it names.
    pub(crate) fn config(&self, cluster: &str) -> (BucketConfig, TempDir) {
        let copies = tempfile::tempdir().unwrap();
        let config = configured(&self.bucket(), &self.server().endpoint(), cluster, &copies);
        (config, copies)
    }

    /// A replica of cluster `one`, in a prefix of its own if the world has none.
    pub(crate) async fn replica_with(&self, change: impl FnOnce(&mut BucketConfig)) -> Replica {
        let world = if self.prefix.is_empty() { self.fresh() } else { self.clone() };
        let (mut config, copies) = world.config("one");
        change(&mut config);
        Replica::open(config, copies).await.unwrap()
    }

    pub(crate) async fn replica(&self) -> Replica {
        self.replica_with(|_| {}).await
    }

    /// A replica behind `faults`, with little patience and a short memory.
    pub(crate) async fn replica_behind(&self, faults: &Faults) -> Replica {
        self.replica_with(|config| {
            config.endpoint = Some(self.behind(faults));
            hurry(config);
        })
        .await
    }
}

/// Without a word about the disk that the test runs on.
pub(crate) fn configured(bucket: &str, endpoint: &str, cluster: &str, copies: &TempDir) -> BucketConfig {
    let mut config = BucketConfig::new(bucket.parse().unwrap(), cluster.parse().unwrap(), copies.path().join("copies"));
    config.endpoint = Some(endpoint.to_owned());
    config.copies.reserve = Reserve::Bytes(0);
    config.copies.reserve_files = Reserve::Bytes(0);
    config
}

/// So that cases are short: everything else about times is as it is in use.
pub(crate) fn hurry(config: &mut BucketConfig) {
    config.read_within = Duration::from_millis(700);
    config.first_bytes_within = Duration::from_millis(600);
    config.write_within = Duration::from_secs(5);
    config.silence = Duration::from_millis(700);
    config.away_for = Duration::from_secs(2);
    config.absent_for = Duration::from_millis(200);
    config.probe_every = Duration::from_millis(500);
}

/// A store with its background work.
pub(crate) struct Replica {
    pub(crate) store: Arc<BucketStore>,
    copies: TempDir,
    shutdown: CancellationToken,
    _background: DropGuard,
}

impl Replica {
    pub(crate) async fn open(config: BucketConfig, copies: TempDir) -> Result<Self, StoreError> {
        let store = BucketStore::open(config)?;
        store.prepare().await?;
        let shutdown = CancellationToken::new();
        store.spawn_background(&shutdown);
        Ok(Self { store, copies, _background: shutdown.clone().drop_guard(), shutdown })
    }

    /// Declares what was pulled, and collects, as `larder-cache` does.
    pub(crate) fn keep(&self) {
        self.store.spawn_keeping(&self.shutdown);
    }

    /// Ends it as the end of its process does, but for the folder.
    pub(crate) fn end(self) -> TempDir {
        self.copies
    }

    /// Requests of a kind, whatever came of them.
    pub(crate) fn requests(&self, operation: Operation) -> u64 {
        Outcome::ALL.into_iter().map(|outcome| self.store.requests(operation, outcome)).sum()
    }

    /// All requests.
    pub(crate) fn all_requests(&self) -> u64 {
        Operation::ALL.into_iter().map(|operation| self.requests(operation)).sum()
    }

    /// Stores a blob as a fetch does.
    pub(crate) async fn put(&self, bytes: &Bytes) -> StoredBlob {
        let mut partial = self.store.create(&sha256(bytes), Some(bytes.len() as u64)).await.unwrap();
        let bytes = bytes.clone();
        let stored = tokio::task::spawn_blocking(move || {
            if partial.existing() > 0 {
                partial.restart().unwrap();
            }
            for piece in bytes.chunks(64 << 10) {
                partial.append(piece).unwrap();
            }
            partial.commit(Checksums::of(&bytes)).unwrap()
        });
        stored.await.unwrap()
    }

    /// What a client that asks for all of a blob gets: nothing, or bytes and whether they came to their end.
    pub(crate) async fn get(&self, digest: &Digest) -> Option<(Vec<u8>, bool)> {
        let blob = self.store.blob(digest).await.ok().flatten()?;
        let mut range = CheckedRange::new(blob.clone(), 0..blob.len());
        range.begin(Duration::from_secs(2)).await.ok()?;
        Some(rest(range).await)
    }

    /// The same as the bytes, if they are all there.
    pub(crate) async fn whole(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.get(digest).await.and_then(|(bytes, ended)| ended.then_some(bytes))
    }

    /// Whether it has a blob before `patience` is over; for what happens in the background.
    pub(crate) async fn until_kept(&self, digest: &Digest, patience: Duration) -> bool {
        until(patience, async || self.store.keeps(digest).await.unwrap_or(false)).await
    }
}

/// Waits for a condition.
pub(crate) async fn until(patience: Duration, mut is: impl AsyncFnMut() -> bool) -> bool {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, waiting).await.is_ok()
}

/// `length` bytes that nobody else has.
pub(crate) fn content(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) fn name(repository: &str) -> Name {
    Name { registry: Registry::parse("reg.example.com").unwrap(), repository: Repository::parse(repository).unwrap() }
}

pub(crate) fn link(digest: &Digest) -> Link {
    Link {
        digest: digest.clone(),
        media_type: None,
        size: None,
        public: true,
        confirmed_at: std::time::SystemTime::now(),
    }
}
