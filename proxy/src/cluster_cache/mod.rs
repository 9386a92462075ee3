//! The cluster cache as a [`Source`](crate::source::Source): who is asked for the whole cluster before the registry itself is.
//!
//! What holds: a question costs at most the time that its asker gave it, and nothing while no replica is known to live; an answer that is
//! not the registry's word sends us on (`word`, [`Chain`](crate::source::Chain)); a registry whose name means another machine on each
//! machine is never sent on. `config` is what a person says; `replicas` the list of them, which follows the name's addresses and the files
//! ([`ClusterCache::follow`]); `rank` which of them is asked first, `replica` one of them; `asking` puts a question to them, and `answers`
//! makes a source of that; `bucket` is where the cache may send us for a blob.

mod answers;
mod asking;
mod bucket;
mod config;
mod health;
mod rank;
mod replica;
mod replicas;
mod word;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use larder_oci::Registry;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use url::Url;

pub use config::{CA_COPY, ClusterCacheConfig, ClusterCacheError, TOKEN_COPY};
pub use replicas::ServiceResolver;

use bucket::Bucket;
use config::Read;
use replica::Replica;

use crate::origin::{Resolve, tls};
use crate::secret::Token;
use crate::settings::SharedSettings;

/// Replicas that one question is put to.
const MOST_REPLICAS: usize = 2;

/// How long it is not asked for a registry of which it was told something else.
const OTHER_SETTINGS: Duration = Duration::from_mins(1);

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connecting and TLS.
    pub connect: Duration,
    /// The head of an answer; less than what a client of this proxy waits.
    pub headers: Duration,
    /// A blob without a byte for this long, or with next to none, is broken, also where the cache lives.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), headers: Duration::from_secs(9), silence: Duration::from_secs(30) }
    }
}

/// Is told how each question ended: `ok`, `stale`, what the registry said, `unauthorized`, `unanswered`, `own`, or `settings`;
/// `redirected` if it named the place, and then `unfollowed` if that gave nothing.
pub type Told = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Everything that was read before privileges went.
pub struct Prepared {
    config: ClusterCacheConfig,
    /// `None`: a file is not there yet.
    read: Option<(Read, ClientConfig)>,
    files: Option<String>,
    /// For connections to the bucket.
    bucket: ClientConfig,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Reads the files. Blocks; an error here is one to stop for. A file that is not there yet, or empty, is none: whoever fills it may come
/// later than we, and until then pulls are what they are without a cluster cache.
/// Where the cache leads to is trusted as registries are: by `roots`.
pub fn prepare(config: ClusterCacheConfig, roots: &RootCertStore) -> Result<Prepared, ClusterCacheError> {
    config.check()?;
    let bucket = tls::client_config(roots, None, false);
    let bucket = bucket.map_err(|error| ClusterCacheError::Tls { reason: error.to_string() })?;
    match config.read() {
        Ok(read) => {
            let tls = config.tls(read.ca_pem.as_deref())?;
            Ok(Prepared { config, read: Some((read, tls)), files: None, bucket })
        }
        Err(error @ ClusterCacheError::NotYet { .. }) => {
            let words = not_read(&error, false);
            tracing::warn!("cluster cache: {words}");
            Ok(Prepared { config, read: None, files: Some(words), bucket })
        }
        Err(error) => Err(error),
    }
}

/// What a person is told of a file that cannot be read.
fn not_read(error: &ClusterCacheError, was_read_before: bool) -> String {
    let meanwhile = if was_read_before {
        "what was read before stays in force"
    } else {
        "the cluster cache is not asked until then"
    };
    format!("{error}; {meanwhile}")
}

/// The cluster cache.
pub struct ClusterCache {
    config: ClusterCacheConfig,
    base: Url,
    via: HeaderValue,
    resolver: Arc<dyn Resolve>,
    told: Told,
    limits: Limits,
    settings: SharedSettings,
    /// Registries of which the cluster cache was told something else than we, and until when it is not asked for them.
    other_settings: Mutex<HashMap<(Registry, String), Instant>>,
    token: Arc<ArcSwapOption<Token>>,
    state: Mutex<State>,
    bucket: Arc<Bucket>,
    replicas: watch::Sender<Option<Replicas>>,
    look: Notify,
}

/// All that are known, by address.
type Replicas = Arc<Vec<(SocketAddr, Arc<Replica>)>>;

/// What changes.
struct State {
    read: Option<(Read, ClientConfig)>,
    files: Option<String>,
    name: Option<String>,
}

impl ClusterCache {
    /// Asks nobody before [`ClusterCache::follow`] runs. `identity` is the pseudonym in our `Via`.
    /// What `settings` say of a registry's endpoints holds for it too, or it is not asked. `resolver` knows its name, `others` all that
    /// it leads to.
    pub fn new(
        prepared: Prepared,
        identity: &str,
        resolver: Arc<dyn Resolve>,
        others: Arc<dyn Resolve>,
        settings: SharedSettings,
        told: Told,
        limits: Limits,
    ) -> Self {
        let Prepared { config, read, files, bucket } = prepared;
        let token = read.as_ref().and_then(|(read, _)| read.token.clone());
        let token = Arc::new(ArcSwapOption::from_pointee(token));
        let via = HeaderValue::from_str(&format!("1.1 {identity}")).unwrap_or(HeaderValue::from_static("1.1 larder"));
        let base = config.base();
        Self {
            bucket: Bucket::new(&base, others, bucket, via.clone()),
            base,
            config,
            via,
            resolver,
            told,
            limits,
            settings,
            other_settings: Mutex::default(),
            token,
            state: Mutex::new(State { read, files, name: None }),
            replicas: watch::Sender::new(None),
            look: Notify::new(),
        }
    }

    /// What a person should know, if anything is wrong with it: pulls go to the registries then.
    pub fn trouble(&self) -> Option<String> {
        let now = Instant::now();
        let replicas = self.replicas.borrow().clone().unwrap_or_default();
        if replicas.iter().any(|(_, replica)| replica.rejects_us()) {
            return Some(format!(
                "{} does not know this node's token ({}): look at its --token-file; pulls go to the registries",
                self.config.url,
                self.config.token.as_ref().map_or("--cache-token-file".to_owned(), |path| path.display().to_string())
            ));
        }
        let one_answers = replicas.iter().any(|(_, replica)| replica.is_available(now));
        let state = self.state();
        // Where an address stands in for the name, the name may never be there: a Pod on the host's network asks the host's DNS. Whether
        // somebody answers at that address is said below.
        let is_stood_in_for = !replicas.is_empty() && !self.config.addresses.is_empty();
        let name = state.name.as_ref().filter(|_| !is_stood_in_for);
        if let Some(trouble) = state.files.as_ref().or(name) {
            return Some(trouble.clone());
        }
        drop(state);
        let all_gone = !replicas.is_empty() && !one_answers;
        all_gone.then(|| {
            let reason = replicas.iter().find_map(|(_, replica)| replica.reason());
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{} does not answer{reason}; pulls go to the registries", self.config.url)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
