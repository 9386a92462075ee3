//! A store in a bucket: S3 and what is compatible with it, GCS, Azure. Several replicas and several clusters on one bucket.
//!
//! Blobs are shared by all who use the bucket (`blobs/sha256/<hex>/<generation>`); links, tags and pins are each cluster's own and read only by
//! it: a shared bucket shares bytes, not trust. What is read goes through a folder here (a [`DirectoryStore`]), which holds copies of what
//! is used and is never the only place of anything for long. The layout is in `docs/store.md`, the reasons in
//! `docs/decisions/0019-bucket-store.md`.
//!
//! Invariants:
//! - A blob counts as kept ([`Store::keeps`]) only when the bucket has it, whole. An upload has a key of its own, never used again.
//! - No byte from the bucket is given out unchecked: small blobs are verified whole, of large ones each chunk.
//! - A bucket that is slow, answers nonsense or is gone costs a few requests their time, then nobody's (`gate`): what is here is
//!   served, what is not counts as absent, and what comes meanwhile is owed to the bucket (`owed`, `records`).
//!
//! The flow: [`BucketStore`] → `shared` (what the bucket has) → `small` or `fill` (from the bucket), `partial` → `upload` (to it) →
//! `client` (limits in time, retries, the gate) → `transport` (HTTP, counted); or `elsewhere` (a URL of the bucket for whoever asks).
//! `upkeep` runs beside. Pins, and what leaves the bucket: `keeping`.

mod address;
mod budget;
mod client;
mod connect;
mod credentials;
mod elsewhere;
mod fill;
mod gate;
mod keeping;
mod layout;
mod owed;
mod partial;
mod recent;
mod records;
mod shared;
mod small;
#[cfg(test)]
mod tests;
mod transport;
mod turns;
mod upkeep;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_oci::{Digest, Tag};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::client::{Client, Limits};
use self::connect::{Connected, Remote};
use self::elsewhere::Signing;
use self::keeping::BucketPins;
use self::layout::Layout;
use self::partial::BucketPartial;
use self::shared::Shared;
use self::transport::{Counts, Transport};
use super::directory::{DirectoryConfig, DirectoryStats, DirectoryStore};
use super::document::{LinkDocument, TagDocument};
use super::removal::Run;
use super::{Checksums, Link, Name, PartialBlob, Store, StoreError, StoreHealth, StoredBlob, TagRecord};
use crate::origin::ProxyVariables;
use crate::pins::Pins;
use crate::pull::KeepPulled;
use crate::secret::SignedUrl;

pub use address::{AddressError, BucketAddress, ClusterId, ClusterIdError, Provider};
pub use keeping::{Brake, BucketPerson, Cluster, ForgetError, Removal, Standing};
pub use transport::{Operation, Outcome};

/// How a [`BucketStore`] behaves. [`Self::new`] has what suits a cluster cache.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// The bucket.
    pub address: BucketAddress,
    /// Where it is, if not where its provider is: `http://` or `https://`, host and port.
    pub endpoint: Option<String>,
    /// Certificates to trust beside the platform's.
    pub ca_pem: Option<String>,
    /// The corporate proxy on the way there, as the environment says it.
    pub proxies: ProxyVariables,
    /// Whose links, tags and pins are read and written.
    pub cluster: ClusterId,
    /// The folder with copies of what is used. It must have room for the largest blob, and for those that are being fetched.
    pub copies: DirectoryConfig,
    /// Blobs up to this are read whole before they are given out; larger ones while they come. At least a chunk.
    pub small: u64,
    /// Blobs up to this are uploaded at once, larger ones in parts of this. A whole number of chunks, at least 5 MiB for S3.
    pub part: u64,
    /// Parts in memory at a time, and small blobs.
    pub parts_in_memory: usize,
    /// How long a small read or a page of a listing may take, retries included.
    pub read_within: Duration,
    /// How long a write may take, retries included.
    pub write_within: Duration,
    /// How long the first chunk of a large blob may take. Less than a pull waits for it before it turns to the origin.
    pub first_bytes_within: Duration,
    /// How long each later chunk may take.
    pub silence: Duration,
    /// How long it is believed that something is as it was read. What another replica writes is seen after that.
    pub fresh_for: Duration,
    /// How long it is believed that something is not there.
    pub absent_for: Duration,
    /// How long a blob that did not come as it should counts as absent.
    pub away_for: Duration,
    /// The longest pause between two looks at a bucket that does not answer.
    pub probe_every: Duration,
    /// Records that are remembered.
    pub remembered_records: usize,
    /// Bytes here that may wait for a bucket that does not answer.
    pub owed_bytes: u64,
    /// After this an upload that is not finished was left. Longer than any takes.
    pub upload_age: Duration,
    /// Between two looks for such uploads.
    pub upload_look: Duration,
    /// When what leaves the bucket.
    pub removal: Removal,
}

impl BucketConfig {
    /// What suits a cluster cache.
    pub fn new(address: BucketAddress, cluster: ClusterId, copies: impl Into<PathBuf>) -> Self {
        Self {
            address,
            endpoint: None,
            ca_pem: None,
            proxies: ProxyVariables::default(),
            cluster,
            copies: DirectoryConfig::new(copies),
            small: 1 << 20,
            part: 8 << 20,
            parts_in_memory: 8,
            read_within: Duration::from_secs(2),
            write_within: Duration::from_mins(1),
            first_bytes_within: Duration::from_millis(1500),
            silence: Duration::from_secs(5),
            fresh_for: Duration::from_mins(1),
            absent_for: Duration::from_secs(2),
            away_for: Duration::from_secs(30),
            probe_every: Duration::from_secs(10),
            remembered_records: 100_000,
            owed_bytes: 4 << 30,
            upload_age: Duration::from_hours(24),
            upload_look: Duration::from_hours(1),
            removal: Removal::default(),
        }
    }
}

/// What a store tells of itself, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketStats {
    /// Of the copies here.
    pub copies: DirectoryStats,
    /// Whether the bucket is asked at the moment.
    pub answers: bool,
    /// Blobs that wait for it.
    pub owed_blobs: usize,
    /// Records that wait for it.
    pub owed_records: usize,
}

/// By which requests are sent, and counted.
fn client_of(config: &BucketConfig) -> Result<(Client, Signing, Arc<Counts>), StoreError> {
    let plain = config.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    // Nobody to trust, nothing to read.
    let roots = if plain { rustls::RootCertStore::empty() } else { crate::origin::platform_roots() };
    let tls = connect::tls(&config.address, roots, config.ca_pem.as_deref())?;
    let counts = Arc::<Counts>::default();
    let transport = Transport::new(tls, &config.proxies, Arc::clone(&counts));
    let Connected { remote, signer } = connect::remote(&config.address, config.endpoint.as_deref(), transport)?;
    Ok((client_on(remote, config), Signing::new(signer), counts))
}

fn client_on(remote: Arc<dyn Remote>, config: &BucketConfig) -> Client {
    let limits = Limits { read: config.read_within, write: config.write_within };
    Client::new(remote, limits, config.address.to_string())
}

/// A store in a bucket.
pub struct BucketStore {
    shared: Arc<Shared>,
    counts: Arc<Counts>,
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl BucketStore {
    /// Opens or makes the folder with copies, and reads the environment for credentials. Blocks on the disk, needs no runtime, and
    /// sends nothing: until [`Self::prepare`] was called the bucket is not used.
    pub fn open(config: BucketConfig) -> Result<Arc<Self>, StoreError> {
        let (client, signing, counts) = client_of(&config)?;
        Self::of(client, Some(signing), counts, config)
    }

    /// Without `signing` nobody is sent to the bucket.
    fn of(
        client: Client,
        signing: Option<Signing>,
        counts: Arc<Counts>,
        config: BucketConfig,
    ) -> Result<Arc<Self>, StoreError> {
        let layout = Layout::new(&config.address.prefix, config.cluster.clone());
        let local = DirectoryStore::open(config.copies.clone())?;
        Ok(Arc::new(Self { shared: Arc::new(Shared::new(client, signing, layout, local, config)?), counts }))
    }

    /// Looks at the bucket for the first time: refuses one that a newer Larder has written. One that does not answer is no error, and is
    /// looked at again in the background.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.shared.look_at_version().await
    }

    /// Starts what runs beside the serving, here and in the folder. Call it once, within the runtime. None of the tasks ends before
    /// `shutdown`; each comes with its name.
    pub fn spawn_background(&self, shutdown: &CancellationToken) -> Vec<(&'static str, JoinHandle<()>)> {
        let shared = || Arc::clone(&self.shared);
        let spawn = |name, work| spawned(shutdown, name, work);
        let mut tasks = self.shared.local.spawn_background(shutdown);
        tasks.push(spawn("bucket health", Box::pin(upkeep::health(shared()))));
        tasks.push(spawn("bucket debts", Box::pin(upkeep::settle(shared()))));
        tasks.push(spawn("bucket uploads", Box::pin(upkeep::uploads(shared()))));
        tasks
    }

    /// Starts what speaks for the holder `pull`, and collects. In the same way, and only where pulls are pinned: who declares and pins nothing lets others
    /// remove what he serves.
    pub fn spawn_keeping(&self, shutdown: &CancellationToken) -> Vec<(&'static str, JoinHandle<()>)> {
        let shared = || Arc::clone(&self.shared);
        vec![
            spawned(shutdown, "bucket pulls", Box::pin(keeping::hold_pulls(shared()))),
            spawned(shutdown, "bucket removal", Box::pin(keeping::collect(shared()))),
        ]
    }

    /// Numbers for metrics. Never blocks.
    pub fn stats(&self) -> BucketStats {
        BucketStats {
            copies: self.shared.local.stats(),
            answers: self.shared.client.gate.is_open(),
            owed_blobs: self.shared.owed.count(),
            owed_records: self.shared.records.owed(),
        }
    }

    /// This cluster's pins.
    pub fn pins(&self) -> Arc<dyn Pins> {
        Arc::new(BucketPins { shared: Arc::clone(&self.shared) })
    }

    /// When what is pulled is pinned.
    pub fn keep_pulled(&self) -> KeepPulled {
        let removal = &self.shared.config.removal;
        KeepPulled { settle: removal.settle, renew: removal.pull / 30 }
    }

    /// One run of a collector, now.
    pub async fn collect(&self) -> Result<Run, StoreError> {
        self.shared.collect().await
    }

    /// Removes what was left by something that ended, now; how much that was.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        self.shared.sweep().await
    }

    /// How removal stands.
    pub fn standing(&self) -> Standing {
        self.shared.standings.get()
    }

    /// Requests of a kind since the start, retries included.
    pub fn requests(&self, operation: Operation, outcome: Outcome) -> u64 {
        self.counts.get(operation, outcome)
    }

    /// Gives up what crashed uploads have left, now; how many there were.
    pub async fn expire_uploads(&self) -> Result<usize, StoreError> {
        self.shared.expire_uploads().await
    }
}

fn spawned(
    shutdown: &CancellationToken,
    name: &'static str,
    work: BoxFuture<'static, ()>,
) -> (&'static str, JoinHandle<()>) {
    let shutdown = shutdown.clone();
    let task = tokio::spawn(async move {
        let _ = shutdown.run_until_cancelled_owned(work).await;
    });
    (name, task)
}

impl Store for BucketStore {
    fn link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<Link>, StoreError>> {
        let (name, digest) = (name.clone(), digest.clone());
        Box::pin(async move {
            let document = self.shared.record::<LinkDocument>(&self.shared.layout.link(&name, &digest)).await?;
            Ok(document.and_then(|document| document.of(&name, &digest)))
        })
    }

    fn put_link(&self, name: &Name, link: Link) -> BoxFuture<'_, Result<(), StoreError>> {
        let name = name.clone();
        Box::pin(async move { self.shared.put_link(&name, link).await })
    }

    fn remove_link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = self.shared.layout.link(name, digest);
        Box::pin(async move { self.shared.remove_record(&key).await })
    }

    fn tag(&self, name: &Name, tag: &Tag) -> BoxFuture<'_, Result<Option<TagRecord>, StoreError>> {
        let (name, tag) = (name.clone(), tag.clone());
        Box::pin(async move {
            let document = self.shared.record::<TagDocument>(&self.shared.layout.tag(&name, &tag)).await?;
            Ok(document.and_then(|document| document.of(&name, &tag)))
        })
    }

    fn put_tag(&self, name: &Name, tag: &Tag, record: TagRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        let (name, tag) = (name.clone(), tag.clone());
        Box::pin(async move { self.shared.put_tag(&name, &tag, record).await })
    }

    fn tags(&self, name: &Name) -> BoxFuture<'_, Result<Vec<Tag>, StoreError>> {
        let folder = self.shared.layout.tags(name);
        Box::pin(async move {
            let names = self.shared.names(&folder).await?;
            let mut tags: Vec<Tag> = names.iter().filter_map(|name| Tag::parse(name).ok()).collect();
            tags.sort_unstable();
            Ok(tags)
        })
    }

    fn names(&self, after: Option<&Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        let after = after.cloned();
        Box::pin(async move { self.shared.repositories(after.as_ref(), limit).await })
    }

    fn blob(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<StoredBlob>, StoreError>> {
        let digest = digest.clone();
        Box::pin(async move { self.shared.blob(&digest).await })
    }

    fn keeps(&self, digest: &Digest) -> BoxFuture<'_, Result<bool, StoreError>> {
        let digest = digest.clone();
        Box::pin(async move {
            // Asked by those who answer for it: nothing older than a moment counts.
            self.shared.forget_age(&digest);
            Ok(!self.shared.usable(&digest, Duration::ZERO).await?.is_empty())
        })
    }

    fn elsewhere(&self, digest: &Digest, length: u64) -> BoxFuture<'_, Result<Option<SignedUrl>, StoreError>> {
        let digest = digest.clone();
        Box::pin(async move { self.shared.elsewhere(&digest, length).await })
    }

    fn put_bytes(&self, digest: &Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let digest = digest.clone();
        Box::pin(async move {
            // It verifies the digest, too.
            self.shared.local.put_bytes(&digest, bytes.clone()).await?;
            if let Some(blob) = self.shared.local.blob(&digest).await? {
                self.shared.keep(&digest, blob, Arc::new(Checksums::of(&bytes))).await;
            }
            Ok(())
        })
    }

    fn create(&self, digest: &Digest, size: Option<u64>) -> BoxFuture<'_, Result<PartialBlob, StoreError>> {
        let digest = digest.clone();
        Box::pin(async move {
            let partial = self.shared.local.create(&digest, size).await?;
            let (shared, runtime) = (Arc::clone(&self.shared), Handle::current());
            Ok(PartialBlob::new(Box::new(BucketPartial { partial, shared, digest, runtime })))
        })
    }

    /// The copy here goes, and what the bucket has of it is not read any more by this process.
    fn remove_damaged(&self, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        let digest = digest.clone();
        Box::pin(async move {
            self.shared.local.remove_damaged(&digest).await?;
            for kept in self.shared.kept(&digest, Duration::ZERO).await? {
                self.shared.distrust(&digest, &kept.generation);
            }
            Ok(())
        })
    }

    /// That of the folder here, on which everything rests; only if nothing is wrong with it, that of the bucket.
    fn health(&self) -> StoreHealth {
        match self.shared.local.health() {
            StoreHealth::Ok if !self.shared.client.gate.is_open() => StoreHealth::Detached,
            health => health,
        }
    }
}
