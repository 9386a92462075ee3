//! The store while the proxy runs: its background work, its health in readiness, its numbers in metrics.
//!
//! A store that takes nothing (full, read-only, not answering) leaves the proxy serving from origins, so it is shown and said
//! once, and the process stays ready.

use std::sync::Arc;
use std::time::Duration;

use larder_process::readiness::Condition;
use larder_process::tasks::Tasks;

use super::StoreConfig;
use crate::metrics::{BucketLabels, Metrics};
use crate::store::bucket::{BucketStore, Operation, Outcome};
use crate::store::directory::{DirectoryStats, DirectoryStore};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError, StoreHealth};

/// How often health and numbers are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A store that was opened without a runtime.
#[derive(Debug)]
pub(super) enum OpenStore {
    Directory { store: Arc<DirectoryStore>, limit: Option<u64> },
    Bucket { store: Arc<BucketStore>, limit: Option<u64> },
    Memory { store: Arc<MemoryStore>, limit: u64 },
}

impl OpenStore {
    pub(super) fn open(config: StoreConfig) -> Result<Self, StoreError> {
        Ok(match config {
            StoreConfig::Directory(config) => {
                let limit = config.limit;
                Self::Directory { store: DirectoryStore::open(config)?, limit }
            }
            StoreConfig::Bucket(config) => {
                let limit = config.copies.limit;
                Self::Bucket { store: BucketStore::open(config)?, limit }
            }
            StoreConfig::Memory { limit } => Self::Memory { store: MemoryStore::new(limit), limit },
        })
    }

    /// What of a store has to be looked at over the network before it serves. One that cannot be reached is no error.
    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        match self {
            Self::Bucket { store, .. } => store.prepare().await,
            Self::Directory { .. } | Self::Memory { .. } => Ok(()),
        }
    }

    /// Starts what runs beside the serving.
    pub(super) fn start(self, tasks: &Tasks, condition: Condition, metrics: &Arc<Metrics>) -> Arc<dyn Store> {
        let (store, numbers): (Arc<dyn Store>, Numbers) = match self {
            Self::Directory { store, limit } => {
                metrics.store_limit_bytes.set(gauge(limit.unwrap_or(0)));
                for (name, task) in store.spawn_background(tasks.shutdown()) {
                    tasks.spawn_fallible(name, task);
                }
                (Arc::clone(&store) as Arc<dyn Store>, Numbers::Directory(store))
            }
            Self::Bucket { store, limit } => {
                metrics.store_limit_bytes.set(gauge(limit.unwrap_or(0)));
                for (name, task) in store.spawn_background(tasks.shutdown()) {
                    tasks.spawn_fallible(name, task);
                }
                (Arc::clone(&store) as Arc<dyn Store>, Numbers::Bucket(store))
            }
            Self::Memory { store, limit } => {
                metrics.store_limit_bytes.set(gauge(limit));
                (Arc::clone(&store) as Arc<dyn Store>, Numbers::Memory(store))
            }
        };
        let (watched, metrics, shutdown) = (Arc::clone(&store), Arc::clone(metrics), tasks.shutdown().clone());
        tasks.spawn("store watch", async move {
            let mut interval = tokio::time::interval(LOOK);
            while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
                show_health(watched.health(), &condition, &metrics);
                numbers.show(&metrics);
            }
        });
        store
    }
}

fn show_health(health: StoreHealth, condition: &Condition, metrics: &Metrics) {
    let text = match health {
        StoreHealth::Ok => None,
        StoreHealth::Full => Some("full: nothing new is kept, pulls go on from the origins"),
        StoreHealth::ReadOnly => Some("read-only: nothing new is kept, pulls go on from the origins"),
        StoreHealth::Unusable => Some(
            "it cannot be written (rights, missing folders or errors of the disk; the log says what): pulls go on from the origins",
        ),
        StoreHealth::Gone => Some(
            "its folder was removed and cannot be made again from here: restart Larder, or make the folder for the user it runs as; \
             pulls go on from the origins",
        ),
        StoreHealth::Detached => Some("the bucket does not answer: what is here is served, what comes waits for it"),
        StoreHealth::NotAnswering => Some("the disk does not answer: pulls go on from the origins"),
    };
    metrics.store_writable.set(i64::from(health.writable()));
    match text {
        Some(text) if condition.set(text) => tracing::warn!("store: {text}"),
        None if condition.clear() => tracing::info!("store: it takes new content again"),
        _ => {}
    }
}

/// Where the numbers come from.
enum Numbers {
    Directory(Arc<DirectoryStore>),
    Bucket(Arc<BucketStore>),
    Memory(Arc<MemoryStore>),
}

impl Numbers {
    fn show(&self, metrics: &Metrics) {
        match self {
            Self::Directory(store) => show_folder(&store.stats(), metrics),
            Self::Bucket(store) => {
                let stats = store.stats();
                show_folder(&stats.copies, metrics);
                metrics.bucket_owed.set(i64::try_from(stats.owed_blobs + stats.owed_records).unwrap_or(i64::MAX));
                for operation in Operation::ALL {
                    for outcome in Outcome::ALL {
                        let labels = BucketLabels { operation: operation.as_str(), outcome: outcome.as_str() };
                        let requests = store.requests(operation, outcome);
                        if requests > 0 {
                            let counter = metrics.bucket_requests.get_or_create(&labels);
                            counter.inc_by(requests.saturating_sub(counter.get()));
                        }
                    }
                }
            }
            Self::Memory(store) => {
                metrics.store_bytes.set(gauge(store.used()));
            }
        }
    }
}

fn show_folder(stats: &DirectoryStats, metrics: &Metrics) {
    metrics.store_bytes.set(gauge(stats.bytes + stats.partial_bytes));
    metrics.store_evictions.inc_by(stats.evicted_blobs.saturating_sub(metrics.store_evictions.get()));
    metrics.store_damaged.inc_by(stats.damaged_blobs.saturating_sub(metrics.store_damaged.get()));
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use larder_process::readiness::Readiness;

    use super::*;

    #[test]
    fn a_store_that_takes_nothing_is_shown_and_the_proxy_stays_ready() {
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let condition = readiness.condition("store");
        show_health(StoreHealth::Full, &condition, &metrics);
        let report = readiness.report();
        assert!(report.ready && report.to_string().contains("degraded: store: full: "), "{report}");
        assert_eq!(metrics.store_writable.get(), 0);
        show_health(StoreHealth::Ok, &condition, &metrics);
        assert_eq!((readiness.report().to_string().as_str(), metrics.store_writable.get()), ("ready\n", 1));
    }

    #[tokio::test]
    async fn the_size_of_a_store_in_memory_is_shown() {
        let (store, metrics) = (MemoryStore::new(1 << 20), Metrics::new());
        let digest = larder_oci::Digest::of(larder_oci::Algorithm::Sha256, b"twelve bytes");
        store.put_bytes(&digest, bytes::Bytes::from_static(b"twelve bytes")).await.unwrap();
        Numbers::Memory(store).show(&metrics);
        assert_eq!(metrics.store_bytes.get(), 12);
    }
}
