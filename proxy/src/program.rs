//! The proxy as a program: [`ProxyConfig`] → [`open`] (blocks, takes folders and addresses, no runtime) → [`Opened::run`].
//!
//! Everything that needs privileges or can fail for a reason that a person has to mend happens in [`open`]: the store's folder,
//! the key, the registries file, the addresses. The caller may then give its privileges up and start a runtime. The addresses are
//! taken last, since from then on engines connect and wait. What a stop does: no new connections, replies under way go
//! on, then fetches that the store still profits from, all within [`ProxyLimits::drain`].

mod answer;
mod certificate_watch;
mod config;
mod measured;
mod origin_metrics;
#[cfg(test)]
mod renderings;
mod service;
mod store_watch;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use larder_process::admin::{AdminError, AdminServer, MetricsText, Scope};
use larder_process::metrics_server::MetricsServer;
use larder_process::readiness::Readiness;
use larder_process::tasks::{TaskError, Tasks};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::RootCertStore;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::config::{CertificateConfig, ControlConfig, ProxyConfig, ProxyLimits, ServiceConfig, StoreConfig};
use self::measured::Measured;
use self::origin_metrics::OriginMetrics;
use self::service::OpenService;
use self::store_watch::{Keep, OpenStore};
use crate::authorities::{CertificateFileError, authorities_of};
use crate::cluster_cache::{
    self, ClusterCache, ClusterCacheError, Limits as ClusterCacheLimits, Prepared, ServiceResolver,
};
pub use crate::control::HolderOf;
use crate::metrics::{Metrics, OutcomeLabels};
use crate::origin::{
    Origin, OriginConfig, OriginError, ProxyEnvironment, ProxyVariables, Standings, SystemResolver, platform_roots,
};
use crate::pull::Puller;
use crate::server::probe::{KeyError, Probe, ProbeKey};
use crate::server::{BindError, Server, ServerParts, Service};
use crate::server_certificate::ServerCertificateError;
use crate::settings::{Joined, Settings, SettingsFile, SettingsFileError, SharedSettings};
use crate::source::{Chain, Source};
use crate::static_tokens::TokenFileError;
use crate::store::StoreError;

/// The file of the run folder that holds the key of probes, as [`ProbeKey::read`] reads it.
pub const KEY: &str = "key";

/// The file of the run folder that holds the registries' settings, as [`Settings::to_toml`] writes it.
pub const REGISTRIES: &str = "registries.toml";

/// Names that are known without DNS.
const HOSTS: &str = "/etc/hosts";

/// Descriptors that are not for connections: the store's own, origins, logs.
const OTHER_DESCRIPTORS: u64 = 256;

/// Descriptors that one connection can cost: its socket, a stored file, a share of a fetch.
const DESCRIPTORS_PER_CONNECTION: u64 = 3;

/// For what is left to do once the drain's time is over: cutting, closing gently.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

/// For pinning what was pulled a moment ago, where the drain took all its time.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// How often it is looked whether the cluster cache is in order.
const LOOK: Duration = Duration::from_secs(1);

/// Why the proxy did not start. Each of them is for a person to mend.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store.
    #[error("open the store: {0}")]
    Store(StoreError),
    /// The registries file.
    #[error(transparent)]
    Settings(#[from] SettingsFileError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The addresses for engines.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The addresses for operators.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The certificates for every registry. Without them none could be asked, and what is cached would be given as if all were away.
    #[error("certificates for every registry (--upstream-ca) {}: {error}", path.display())]
    UpstreamCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: CertificateFileError,
    },
    /// The client for origins.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The cluster cache.
    #[error(transparent)]
    ClusterCache(#[from] ClusterCacheError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] ServerCertificateError),
    /// TLS as such.
    #[error("TLS cannot be spoken: {0}")]
    Tls(rustls::Error),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
}

/// A proxy that has taken everything that it needs, and serves nobody yet.
#[derive(Debug)]
pub struct Opened {
    store: OpenStore,
    settings: Option<SettingsFile>,
    joined: Option<Joined>,
    key: ProbeKey,
    server: Server,
    admin: AdminServer,
    metrics: Option<MetricsServer>,
    proxies: ProxyVariables,
    roots: RootCertStore,
    cluster_cache: Option<Prepared>,
    service: Option<OpenService>,
    limits: ProxyLimits,
    readiness: Readiness,
    counted: Arc<Metrics>,
}

/// Takes everything. Blocks; call it before privileges go and before a runtime is there.
pub fn open(config: ProxyConfig) -> Result<Opened, OpenError> {
    let ProxyConfig {
        listen,
        admin,
        metrics,
        store,
        run_folder,
        registries,
        settings_beside,
        proxies,
        upstream_ca,
        cluster_cache,
        service,
        mut limits,
    } = config;
    limits.connections = connections_within_file_limit(limits.connections);
    let settings = match (registries, &run_folder) {
        (Some(file), _) => Some(SettingsFile::open(&file)?),
        (None, Some(folder)) => Some(SettingsFile::open_or_wait(&folder.join(REGISTRIES))?),
        (None, None) => None,
    };
    let joined = settings_beside.map(|beside| Joined::new(settings.as_ref(), beside));
    let key = match &run_folder {
        Some(folder) => ProbeKey::read(&folder.join(KEY))?,
        None => ProbeKey::random()?,
    };
    let mut roots = platform_roots();
    if let Some(path) = upstream_ca {
        let authorities = authorities_of(&path).map_err(|error| OpenError::UpstreamCa { path, error })?;
        roots.roots.extend(authorities.roots);
    }
    let cluster_cache = cluster_cache.map(|config| cluster_cache::prepare(config, &roots)).transpose()?;
    let service = service.map(OpenService::open).transpose()?;
    let store = OpenStore::open(store).map_err(OpenError::Store)?;
    let admin = AdminServer::bind(admin, Scope::All)?;
    let metrics = metrics.map(MetricsServer::bind);
    let server = Server::bind(&listen)?;
    let (readiness, counted) = (Readiness::new(), Arc::new(Metrics::new()));
    Ok(Opened {
        store,
        settings,
        joined,
        key,
        server,
        admin,
        metrics,
        proxies,
        roots,
        cluster_cache,
        service,
        limits,
        readiness,
        counted,
    })
}

impl Opened {
    /// Where engines ask, with real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.server.addresses()
    }

    /// Where the control API is, with the real port.
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.service.as_ref()?.control_address()
    }

    /// Where operators ask, with the real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// What `/readyz` says, for parts of the program that this crate does not know.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What `/metrics` says, for the same.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.counted
    }

    /// Serves until `shutdown`, then drains. Cancels `shutdown` itself when a part ends by itself, and says which.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self {
            store,
            settings,
            joined,
            key,
            server,
            admin,
            metrics: metrics_server,
            proxies,
            roots,
            cluster_cache,
            service,
            limits,
            readiness,
            counted: metrics,
        } = self;
        store.prepare().await?;
        let serving = readiness.latch("server");
        let tasks = Tasks::new(shutdown.clone());

        let by_file = settings.as_ref().map_or_else(|| Settings::default().shared(), SettingsFile::shared);
        let shared = joined.as_ref().map_or(by_file, Joined::shared);
        if let Some(joined) = joined {
            let name = joined.name();
            tasks.spawn(name, joined.follow(readiness.condition(name), shutdown.clone()));
        }
        if let Some(file) = settings {
            let condition = readiness.condition("registries file");
            tasks.spawn("registries file", file.follow(condition, Arc::clone(&metrics), shutdown.clone()));
        }
        let kept = service.is_some().then(|| store.keep(&tasks));
        let stored = store.start(&tasks, &readiness, &metrics);
        let standings = Arc::<Standings>::default();
        let origin = Origin::new(OriginConfig {
            settings: Arc::clone(&shared),
            resolver: Arc::new(SystemResolver::new(HOSTS)),
            proxies: ProxyEnvironment::new(&proxies),
            roots,
            observer: Arc::new(OriginMetrics::new(Arc::clone(&metrics), Arc::clone(&standings))),
            limits: limits.origin,
        })?;
        let via = origin.identity().to_owned();
        let mut source: Arc<dyn Source> = Arc::new(Measured::new(origin, Arc::clone(&metrics)));
        if let Some(prepared) = cluster_cache {
            source = Arc::new(Chain::new(before_all(prepared, &via, &shared, &tasks, &readiness, &metrics), source));
        }
        let (service, control) = service.map(|service| service.start(&tasks, &readiness, &metrics)).unzip();
        let puller = Arc::new(Puller::new(stored, source, shared, Arc::clone(&metrics), limits.pull));
        if let (Some(control), Some(Keep { pins, .. })) = (control.flatten(), &kept) {
            let tls = service.as_ref().and_then(|service: &Service| service.tls.clone());
            control.start(Arc::clone(pins), &puller, standings, tls, &tasks);
        }
        let keeping = kept.map(|Keep { pins, times, journal }| puller.keep_pulled(pins, times, journal));
        if let Some(keeping) = keeping.clone() {
            let shutdown = tasks.shutdown().clone();
            tasks.spawn("pulls", async move { _ = shutdown.run_until_cancelled(keeping.run()).await });
        }

        let text: MetricsText = {
            let (metrics, puller) = (Arc::clone(&metrics), Arc::clone(&puller));
            Arc::new(move || {
                metrics.images_refused.set(i64::try_from(puller.images_refused()).unwrap_or(i64::MAX));
                metrics.encode()
            })
        };
        tasks.spawn_fallible("admin", admin.serve(readiness.clone(), Arc::clone(&text), shutdown.clone()));
        if let Some(server) = metrics_server {
            tasks.spawn("metrics", server.serve(readiness.clone(), text, shutdown.clone()));
        }
        let addresses = server.addresses();
        let parts = ServerParts {
            answer: puller,
            probe: Arc::new(Probe::new(key)),
            metrics: Arc::clone(&metrics),
            via,
            connections: limits.connections,
            drain: limits.drain,
            service,
        };
        tasks.spawn_fallible("server", server.serve(parts, shutdown.clone()));
        tracing::info!(?addresses, "serving");
        drop(serving);

        shutdown.cancelled().await;
        let until = Instant::now() + limits.drain;
        let ended = tasks.finish(limits.drain + AFTER_DRAIN).await;
        finish_fetches(&metrics, until).await;
        if let Some(keeping) = keeping {
            keeping.end(until.max(Instant::now() + LAST_LOOK)).await;
        }
        Ok(ended?)
    }
}

/// Starts asking the cluster cache.
fn before_all(
    prepared: Prepared,
    via: &str,
    settings: &SharedSettings,
    tasks: &Tasks,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
) -> Arc<ClusterCache> {
    let told = {
        let metrics = Arc::clone(metrics);
        Arc::new(move |outcome| {
            metrics.cluster_cache_questions.get_or_create(&OutcomeLabels { outcome }).inc();
        })
    };
    let (resolver, others) = (Arc::new(ServiceResolver), Arc::new(SystemResolver::new(HOSTS)));
    let limits = ClusterCacheLimits::default();
    let cache = Arc::new(ClusterCache::new(prepared, via, resolver, others, Arc::clone(settings), told, limits));
    tasks.spawn("cluster cache", Arc::clone(&cache).follow(tasks.shutdown().clone()));
    let (watched, condition, shutdown) =
        (Arc::clone(&cache), readiness.condition("cluster cache"), tasks.shutdown().clone());
    tasks.spawn("cluster cache watch", async move {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            match watched.trouble() {
                Some(trouble) => condition.set(trouble),
                None => condition.clear(),
            };
        }
    });
    cache
}

/// Why a running proxy ended that nobody asked to.
#[derive(Debug, Error)]
pub enum RunError {
    /// A part of it ended.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The client for origins could not be made.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The store turned out to be of no use: a newer Larder has written it.
    #[error("open the store: {0}")]
    Store(#[from] StoreError),
}

/// Waits for what the store still profits from. What is left over is resumed after the next start.
async fn finish_fetches(metrics: &Metrics, until: Instant) {
    while metrics.fetches_running.get() > 0 {
        if Instant::now() >= until {
            tracing::warn!(fetches = metrics.fetches_running.get(), "not done in time, left for the next start");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lifts the process's limit of open files as far as it may go, and keeps connections within it: a process that cannot accept
/// leaves engines waiting.
fn connections_within_file_limit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let lifted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, lifted) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(error = %io::Error::from(error), "the limit of open files stays as it is");
            limit.current
        }
    };
    let possible =
        current.map_or(u64::MAX, |files| files.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_PER_CONNECTION);
    let connections = wanted.min(usize::try_from(possible).unwrap_or(usize::MAX)).max(1);
    if connections < wanted {
        tracing::warn!(connections, "the limit of open files (ulimit -n) allows no more connections at once");
    }
    connections
}
