//! What a proxy is to be, as a program's flags and files say it: checked and with units, and nothing of it is taken yet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster_cache::ClusterCacheConfig;
use crate::control::HolderOf;
use crate::fetch::FetchLimits;
use crate::origin::{Limits as OriginLimits, ProxyVariables};
use crate::pull::Limits as PullLimits;
use crate::server::gate::Callers;
use crate::server_certificate::ServerCertificate;
use crate::settings::SettingsBeside;
use crate::store::bucket::BucketConfig;
use crate::store::directory::DirectoryConfig;

/// What the proxy is to be. Checked and with units; nothing is taken yet.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Where engines ask.
    pub listen: Vec<SocketAddr>,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin: SocketAddr,
    /// Where `/metrics` is once more, for a scraper that is not on this node. One that is taken keeps nothing from working.
    pub metrics: Option<SocketAddr>,
    /// Where images are kept.
    pub store: StoreConfig,
    /// The folder that the agent writes: `key` and `registries.toml`. Without it the probe proves nothing to anybody.
    pub run_folder: Option<PathBuf>,
    /// The registries file; without it that of the run folder; without either, the defaults.
    pub registries: Option<PathBuf>,
    /// Whoever says things of registries beside that file.
    pub settings_beside: Option<Arc<dyn SettingsBeside>>,
    /// The corporate proxy, as the environment says it.
    pub proxies: ProxyVariables,
    /// Certificates (PEM) that are trusted for every registry beside the platform's: of a corporate proxy that opens TLS, mostly.
    pub upstream_ca: Option<PathBuf>,
    /// Who is asked before the registries are.
    pub cluster_cache: Option<ClusterCacheConfig>,
    /// Serves others than its own node: it is the cluster cache.
    pub service: Option<ServiceConfig>,
    /// Times and numbers.
    pub limits: ProxyLimits,
}

/// What a proxy needs that serves others than its own node.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// What is shown to those who ask; `None`: plain HTTP.
    pub tls: Option<CertificateConfig>,
    /// Tokens and whose they are.
    pub tokens: Option<PathBuf>,
    /// Whoever else knows tokens, asked where the file does not name one.
    pub callers: Option<Arc<dyn Callers>>,
    /// Networks whose machines need no token.
    pub anonymous: Vec<ipnet::IpNet>,
    /// Who wants which image kept is said there; `None`: nowhere.
    pub control: Option<ControlConfig>,
}

/// The control API. It shows the service's certificate.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Where it is.
    pub listen: SocketAddr,
    /// Tokens and whose they are: others than the service's.
    pub tokens: Option<PathBuf>,
    /// Whoever else knows such tokens, asked where the file does not name one.
    pub callers: Option<Arc<dyn Callers>>,
    /// Which holders are whose.
    pub holders: Vec<HolderOf>,
}

/// Where a service's certificate is from.
#[derive(Debug, Clone)]
pub enum CertificateConfig {
    /// Files, read again when they change.
    Files {
        /// With those that vouch for it.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Whoever holds the other end shows it.
    Held(Arc<ServerCertificate>),
}

/// Where images are kept.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum StoreConfig {
    /// In a folder.
    Directory(DirectoryConfig),
    /// In a bucket, with copies in a folder.
    Bucket(BucketConfig),
    /// In memory, for a try-out.
    Memory {
        /// Bytes.
        limit: u64,
    },
}

/// The proxy's times and numbers.
#[derive(Debug, Clone)]
pub struct ProxyLimits {
    /// Connections at once; fewer if the process may not open so many files.
    pub connections: usize,
    /// How long a stop may take.
    pub drain: Duration,
    /// How origins are asked.
    pub origin: OriginLimits,
    /// How pulls are answered.
    pub pull: PullLimits,
}

impl ProxyLimits {
    /// Of a service that asks for a whole cluster.
    pub fn of_a_cluster() -> Self {
        let pull = PullLimits { fetch: FetchLimits::of_a_cluster(), ..PullLimits::default() };
        Self { pull, ..Self::default() }
    }
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            drain: Duration::from_secs(30),
            origin: OriginLimits::default(),
            pull: PullLimits::default(),
        }
    }
}
