//! The registry itself as a [`Source`], over HTTP.
//!
//! Nothing that a registry says is believed: every hop (registry, token server, storage) is checked against the rules of
//! `address`, every answer is bounded in size and time, a manifest's digest is computed. Only anonymous requests are made:
//! what needs credentials is the engine's to fetch.
//!
//! A question (`question`; `manifest`, `blob`, `listing`) goes to a registry (`upstream`), waits there for its turn (`queue`), is put to
//! one endpoint after the other (`endpoint`: `token`, `health` with `breaker` and `pacing`, `probe`), and out (`client`: redirects;
//! `connect`: `resolve`, `tls`, `proxy_environment`). How each registry is doing by all that is its `standing`.

pub(crate) mod address;
pub(crate) mod blob;
pub(crate) mod body;
pub(crate) mod breaker;
pub(crate) mod client;
pub(crate) mod connect;
mod endpoint;
mod health;
pub(crate) mod listing;
pub(crate) mod manifest;
mod observe;
mod pacing;
pub(crate) mod probe;
pub(crate) mod proxy_environment;
pub(crate) mod question;
mod queue;
mod resolve;
mod standing;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod token;
mod upstream;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use larder_oci::{Digest, ManifestReference, Registry};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::time::Instant;

pub(crate) use listing::{FILTERS, known_parameters};
pub use observe::{Heard, Lane, Observer, RequestKind, RequestOutcome, Trouble, Unobserved, Word};
pub use pacing::RateLimit;
pub use proxy_environment::{ProxyEnvironment, ProxyVariables};
pub use queue::QueueLimits;
pub use resolve::{Resolve, SystemResolver};
pub(crate) use standing::{Row, Standing, Standings};
pub use tls::platform_roots;

use blob::{GetBlob, HeadBlob};
use connect::Network;
use listing::GetListing;
use manifest::{GetManifest, HeadManifest};
use question::Question;
use upstream::{Addresses, Upstream};

use crate::settings::{RegistrySettings, SharedSettings};
use crate::source::{BlobHead, BlobStream, Listing, ManifestBody, ManifestHead, Source, SourceError};
use crate::store::Name;

/// Registries whose connections, tokens and health are kept.
const MOST_REGISTRIES: usize = 256;

/// Everything that the origin needs from outside.
pub struct OriginConfig {
    /// Read for every question, so a reload counts at once.
    pub settings: SharedSettings,
    /// From names to addresses.
    pub resolver: Arc<dyn Resolve>,
    /// The corporate proxy, if there is one.
    pub proxies: ProxyEnvironment,
    /// Usually [`platform_roots`].
    pub roots: RootCertStore,
    /// Who counts.
    pub observer: Arc<dyn Observer>,
    /// How long things may take.
    pub limits: Limits,
}

/// How long things may take, and how many there are at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Resolving, connecting and TLS together, for one hop.
    pub connect: Duration,
    /// A blob without a byte for this long is broken.
    pub silence: Duration,
    /// How much is asked of one registry at a time.
    pub queue: QueueLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), silence: Duration::from_secs(30), queue: QueueLimits::default() }
    }
}

/// Why there is no origin.
#[derive(Debug, Error)]
#[error("the system gives no random bytes for this proxy's identity")]
pub struct OriginError;

/// The registries.
pub struct Origin {
    settings: SharedSettings,
    resolver: Arc<dyn Resolve>,
    proxies: Arc<ProxyEnvironment>,
    roots: RootCertStore,
    usual_tls: ClientConfig,
    observer: Arc<dyn Observer>,
    limits: Limits,
    identity: String,
    via: HeaderValue,
    known: Mutex<HashMap<Registry, Known>>,
}

struct Known {
    upstream: Arc<Upstream>,
    /// What it was made from.
    settings: RegistrySettings,
    listed: bool,
    used: Instant,
}

impl Origin {
    /// Sends nothing yet.
    pub fn new(config: OriginConfig) -> Result<Self, OriginError> {
        let OriginConfig { settings, resolver, proxies, roots, observer, limits } = config;
        let identity = identity()?;
        let via = HeaderValue::from_str(&format!("1.1 {identity}")).map_err(|_| OriginError)?;
        let usual_tls = tls::client_config(&roots, None, false).map_err(|_| OriginError)?;
        let known = Mutex::default();
        let proxies = Arc::new(proxies);
        Ok(Self { settings, resolver, proxies, roots, usual_tls, observer, limits, identity, via, known })
    }

    /// The name that every request of ours has in its `Via` header (`1.1 <identity>`). A request that arrives with it went
    /// round in a circle.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    async fn ask<Q: Question>(&self, name: Name, question: Q, deadline: Instant) -> Result<Q::Answer, SourceError> {
        let upstream = self.upstream(&name)?;
        upstream.ask(&name.repository, &question, deadline).await
    }

    fn upstream(&self, name: &Name) -> Result<Arc<Upstream>, SourceError> {
        let all = self.settings.load();
        let refused = |reason: String| Err(SourceError::Refused { reason });
        if !all.permits(name) {
            return refused(format!("the settings do not permit {}/{}", name.registry, name.repository));
        }
        let settings = all.registry(&name.registry);
        if settings.skip {
            return refused(format!("the settings skip {}", name.registry));
        }
        let listed = all.lists(&name.registry);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&name.registry)
            && known.settings == settings
            && known.listed == listed
        {
            known.used = Instant::now();
            return Ok(Arc::clone(&known.upstream));
        }
        let upstream = Arc::new(self.build(&name.registry, &settings, listed)?);
        if known.len() >= MOST_REGISTRIES {
            let oldest = known.iter().min_by_key(|(_, known)| known.used).map(|(registry, _)| registry.clone());
            known.retain(|registry, _| Some(registry) != oldest.as_ref());
        }
        let entry = Known { upstream: Arc::clone(&upstream), settings, listed, used: Instant::now() };
        known.insert(name.registry.clone(), entry);
        Ok(upstream)
    }

    fn build(&self, registry: &Registry, settings: &RegistrySettings, listed: bool) -> Result<Upstream, SourceError> {
        let addresses = Addresses::of(registry, settings)?;
        let network = Arc::new(Network {
            boundary: addresses.boundary(listed),
            resolver: Arc::clone(&self.resolver),
            proxies: Arc::clone(&self.proxies),
            limit: self.limits.connect,
        });
        let tls = if settings.ca_pem.is_none() && !settings.insecure {
            self.usual_tls.clone()
        } else {
            tls::client_config(&self.roots, settings.ca_pem.as_deref(), settings.insecure)
                .map_err(|error| SourceError::Refused { reason: format!("{registry}: {error}") })?
        };
        let (via, queue) = (self.via.clone(), &self.limits.queue);
        Ok(Upstream::new(registry, &addresses, network, tls, via, queue, &self.observer))
    }
}

/// `larder-` and 32 hexadecimal characters.
fn identity() -> Result<String, OriginError> {
    use fmt::Write as _;
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_| OriginError)?;
    let mut identity = String::from("larder-");
    for byte in bytes {
        write!(identity, "{byte:02x}").map_err(|_| OriginError)?;
    }
    Ok(identity)
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("identity", &self.identity).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Source for Origin {
    fn head_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        Box::pin(self.ask(name.clone(), HeadManifest(reference.clone()), deadline))
    }

    fn get_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestBody, SourceError>> {
        Box::pin(self.ask(name.clone(), GetManifest(reference.clone()), deadline))
    }

    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>> {
        Box::pin(self.ask(name.clone(), HeadBlob(digest.clone()), deadline))
    }

    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        etag: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>> {
        let etag = etag.map(ToOwned::to_owned);
        let question = GetBlob { digest: digest.clone(), from, etag, silence: self.limits.silence };
        Box::pin(self.ask(name.clone(), question, deadline))
    }

    fn tags(&self, name: &Name, query: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>> {
        Box::pin(self.ask(name.clone(), GetListing::new("tags/list".into(), query), deadline))
    }

    fn referrers(
        &self,
        name: &Name,
        digest: &Digest,
        query: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>> {
        Box::pin(self.ask(name.clone(), GetListing::new(format!("referrers/{digest}"), query), deadline))
    }
}
