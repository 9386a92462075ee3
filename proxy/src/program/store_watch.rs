//! The store while the proxy runs: its background work, its health in readiness, its numbers in metrics.
//!
//! A store that takes nothing (full, read-only, not answering) leaves the proxy serving from origins, so it is shown and said
//! once, and the process stays ready.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_process::readiness::{Condition, Readiness};
use larder_process::tasks::Tasks;

use super::StoreConfig;
use crate::metrics::{BucketLabels, Metrics};
use crate::pins::Pins;
use crate::pull::KeepPulled;
use crate::store::bucket::{BucketStore, Operation, Outcome, Standing};
use crate::store::directory::{DirectoryStats, DirectoryStore};
use crate::store::memory::MemoryStore;
use crate::store::removal::Wait;
use crate::store::{Store, StoreError, StoreHealth};

/// How often health and numbers are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is lost with the process needs no careful times.
const IN_MEMORY: KeepPulled = KeepPulled { settle: Duration::from_secs(10), renew: Duration::from_hours(1) };

/// Of a store's folder: what was pulled and is to be pinned yet.
const USES: &str = "uses";

/// Where pins are kept, and when what is pulled is pinned.
pub(super) struct Keep {
    pub(super) pins: Arc<dyn Pins>,
    pub(super) times: KeepPulled,
    pub(super) journal: Option<PathBuf>,
}

/// A store that was opened without a runtime.
#[derive(Debug)]
pub(super) enum OpenStore {
    Directory { store: Arc<DirectoryStore>, limit: Option<u64>, folder: PathBuf },
    Bucket { store: Arc<BucketStore>, limit: Option<u64>, folder: PathBuf },
    Memory { store: Arc<MemoryStore>, limit: u64 },
}

impl OpenStore {
    pub(super) fn open(config: StoreConfig) -> Result<Self, StoreError> {
        Ok(match config {
            StoreConfig::Directory(config) => {
                let (limit, folder) = (config.limit, config.root.clone());
                Self::Directory { store: DirectoryStore::open(config)?, limit, folder }
            }
            StoreConfig::Bucket(config) => {
                let (limit, folder) = (config.copies.limit, config.copies.root.clone());
                Self::Bucket { store: BucketStore::open(config)?, limit, folder }
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

    /// Starts what lets go of what nobody wants.
    pub(super) fn keep(&self, tasks: &Tasks) -> Keep {
        match self {
            Self::Bucket { store, folder, .. } => {
                for (name, task) in store.spawn_keeping(tasks.shutdown()) {
                    tasks.spawn_fallible(name, task);
                }
                Keep { pins: store.pins(), times: store.keep_pulled(), journal: Some(folder.join(USES)) }
            }
            Self::Directory { store, folder, .. } => Keep {
                pins: Arc::clone(store) as Arc<dyn Pins>,
                times: store.keep_pulled(),
                journal: Some(folder.join(USES)),
            },
            Self::Memory { store, .. } => {
                Keep { pins: Arc::clone(store) as Arc<dyn Pins>, times: IN_MEMORY, journal: None }
            }
        }
    }

    /// Starts what runs beside the serving.
    pub(super) fn start(self, tasks: &Tasks, readiness: &Readiness, metrics: &Arc<Metrics>) -> Arc<dyn Store> {
        let condition = readiness.condition("store");
        let (store, numbers): (Arc<dyn Store>, Numbers) = match self {
            Self::Directory { store, limit, .. } => {
                metrics.store_limit_bytes.set(gauge(limit.unwrap_or(0)));
                for (name, task) in store.spawn_background(tasks.shutdown()) {
                    tasks.spawn_fallible(name, task);
                }
                (Arc::clone(&store) as Arc<dyn Store>, Numbers::Directory(store))
            }
            Self::Bucket { store, limit, .. } => {
                metrics.store_limit_bytes.set(gauge(limit.unwrap_or(0)));
                for (name, task) in store.spawn_background(tasks.shutdown()) {
                    tasks.spawn_fallible(name, task);
                }
                let (removal, started) = (readiness.condition("removal"), Instant::now());
                (Arc::clone(&store) as Arc<dyn Store>, Numbers::Bucket { store, removal, started })
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
                numbers.show(&metrics);
                show_health(watched.health(), &condition, &metrics);
            }
        });
        store
    }
}

fn show_health(health: StoreHealth, condition: &Condition, metrics: &Metrics) {
    let text = match health {
        StoreHealth::Ok => None,
        StoreHealth::Full if metrics.store_pinned_bytes.get() > 0 => Some(
            "full, and what is in it is pinned: nothing new is kept until pins are deleted or --store-size is raised; pulls go on from the origins",
        ),
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
    Bucket { store: Arc<BucketStore>, removal: Condition, started: Instant },
    Memory(Arc<MemoryStore>),
}

impl Numbers {
    fn show(&self, metrics: &Metrics) {
        match self {
            Self::Directory(store) => show_folder(&store.stats(), metrics),
            Self::Bucket { store, removal, started } => {
                show_removal(&store.standing(), *started, removal, metrics);
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

/// What keeps everything is shown, and none of it keeps anybody from pulling.
fn show_removal(standing: &Standing, started: Instant, condition: &Condition, metrics: &Metrics) {
    metrics.bucket_pins.set(gauge(standing.pins));
    metrics.bucket_condemned.inc_by(standing.condemned.saturating_sub(metrics.bucket_condemned.get()));
    metrics.bucket_removed.inc_by(standing.removed.saturating_sub(metrics.bucket_removed.get()));
    metrics.bucket_swept.inc_by(standing.swept.saturating_sub(metrics.bucket_swept.get()));
    metrics.bucket_removal_age.set(gauge(standing.ended.unwrap_or(started).elapsed().as_secs()));
    metrics.bucket_brake.set(i64::from(standing.brake_is_on()));
    match &standing.waits {
        // They pass by themselves.
        None | Some(Wait::Unanswered | Wait::NothingToCompare) => _ = condition.clear(),
        Some(wait) => {
            let text = format!("nothing leaves the bucket: {wait}");
            if condition.set(text.clone()) {
                tracing::warn!("store: {text}");
            }
        }
    }
}

fn show_folder(stats: &DirectoryStats, metrics: &Metrics) {
    metrics.store_bytes.set(gauge(stats.bytes + stats.partial_bytes));
    metrics.store_pinned_bytes.set(gauge(stats.pinned_bytes));
    metrics.store_pulled_bytes.set(gauge(stats.pulled_bytes));
    metrics.store_evictions.inc_by(stats.evicted_blobs.saturating_sub(metrics.store_evictions.get()));
    metrics.store_damaged.inc_by(stats.damaged_blobs.saturating_sub(metrics.store_damaged.get()));
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::removal::{BucketTime, Label, Owner, Reference};

    #[test]
    fn a_store_that_takes_nothing_is_shown_and_the_proxy_stays_ready() {
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let condition = readiness.condition("store");
        show_health(StoreHealth::Full, &condition, &metrics);
        let report = readiness.report();
        assert!(report.ready && report.to_string().contains("degraded: store: full: "), "{report}");
        assert_eq!(metrics.store_writable.get(), 0);
        metrics.store_pinned_bytes.set(1);
        show_health(StoreHealth::Full, &condition, &metrics);
        assert!(readiness.report().to_string().contains("full, and what is in it is pinned"));
        show_health(StoreHealth::Ok, &condition, &metrics);
        assert_eq!((readiness.report().to_string().as_str(), metrics.store_writable.get()), ("ready\n", 1));
    }

    #[test]
    fn a_brake_that_waits_for_a_person_is_shown_with_what_to_type() {
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let condition = readiness.condition("removal");
        let reference = Reference { pins: 100, since: BucketTime(1) };
        let standing = Standing {
            waits: Some(Wait::Brake { reference, pins: 3 }),
            pins: 3,
            removed: 7,
            swept: 2,
            ..Standing::default()
        };
        show_removal(&standing, Instant::now(), &condition, &metrics);
        let report = readiness.report();
        assert!(report.ready && report.to_string().contains("there are 3 pins where there were 100"), "{report}");
        assert!(report.to_string().contains("larder-cache release-brake"), "{report}");
        assert_eq!((metrics.bucket_brake.get(), metrics.bucket_pins.get()), (1, 3));
        assert_eq!((metrics.bucket_removed.get(), metrics.bucket_swept.get()), (7, 2));
        show_removal(&Standing::default(), Instant::now(), &condition, &metrics);
        assert_eq!((readiness.report().to_string().as_str(), metrics.bucket_brake.get()), ("ready\n", 0));
    }

    #[test]
    fn a_holder_that_is_waited_for_is_named_with_the_way_out() {
        let owner =
            |holder: &str| Owner { cluster: Label::parse("prod").unwrap(), holder: Label::parse(holder).unwrap() };
        for wait in [Wait::Stale(owner("me"), BucketTime(1)), Wait::NeverDeclared(owner("me"))] {
            let text = wait.to_string();
            assert!(
                text.starts_with("holder me of cluster prod ") && text.contains("DELETE /v1/holders/me "),
                "{text}"
            );
        }
        let text = Wait::Stale(owner("pull"), BucketTime(1)).to_string();
        assert!(!text.contains("DELETE") && text.contains("larder-cache forget-cluster prod"), "{text}");
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
