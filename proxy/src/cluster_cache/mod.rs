//! The cluster cache as a [`Source`]: who is asked for the whole cluster before the registry itself is.
//!
//! What holds: a question costs at most the time that its asker gave it, and nothing while no replica is known to live; an answer that is
//! not the registry's word sends us on (`word`, [`Chain`](crate::source::Chain)); a registry whose name means another machine on each
//! machine is never sent on. `config` is what a person says, `rank` which replica is asked first, `replica` one of them; here is the list
//! of them, which follows the name's addresses and the files ([`ClusterCache::follow`]).

mod config;
mod rank;
mod replica;
mod word;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use larder_oci::{Digest, ManifestReference};
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

pub use config::{ClusterCacheConfig, ClusterCacheError};

use config::Read;
use replica::Replica;
use word::{Word, word};

use crate::hop;
use crate::origin::address::Boundary;
use crate::origin::blob::{GetBlob, HeadBlob};
use crate::origin::client::Wanted;
use crate::origin::connect::Network;
use crate::origin::listing::GetListing;
use crate::origin::manifest::{GetManifest, HeadManifest};
use crate::origin::question::Question;
use crate::origin::{ProxyEnvironment, ProxyVariables, Resolve};
use crate::secret::Token;
use crate::source::{
    BlobHead, BlobStream, Listing, ManifestBody, ManifestHead, Source, SourceError, Unconfirmed, is_the_registrys_word,
};
use crate::store::Name;

/// Replicas that one question is put to.
const MOST_REPLICAS: usize = 2;

/// How often name and files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The same while no replica is known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// For resolving the name.
const NAME: Duration = Duration::from_secs(2);

/// How long a question waits for the very first list of replicas.
const FIRST_LIST: Duration = Duration::from_millis(500);

/// How long it is not asked once it did not know our token, unless that changes.
const REJECTED: Duration = Duration::from_secs(10);

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connecting and TLS.
    pub connect: Duration,
    /// The head of an answer; less than what a client of this proxy waits.
    pub headers: Duration,
    /// A blob without a byte for this long is broken, also where the cache lives.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), headers: Duration::from_secs(9), silence: Duration::from_secs(30) }
    }
}

/// Is told how each question ended: `ok`, `stale`, what the registry said, `unauthorized`, `unanswered` or `own`.
pub type Told = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Everything that was read before privileges went.
pub struct Prepared {
    config: ClusterCacheConfig,
    read: Read,
    tls: ClientConfig,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Reads the files. Blocks; an error here is one to stop for.
pub fn prepare(config: ClusterCacheConfig) -> Result<Prepared, ClusterCacheError> {
    config.check()?;
    let read = config.read()?;
    let tls = config.tls(read.ca_pem.as_deref())?;
    Ok(Prepared { config, read, tls })
}

/// The cluster cache.
pub struct ClusterCache {
    config: ClusterCacheConfig,
    base: Url,
    via: HeaderValue,
    resolver: Arc<dyn Resolve>,
    told: Told,
    limits: Limits,
    token: Arc<ArcSwapOption<Token>>,
    state: Mutex<State>,
    replicas: watch::Sender<Option<Replicas>>,
    look: Notify,
}

/// All that are known, by address.
type Replicas = Arc<Vec<(SocketAddr, Arc<Replica>)>>;

/// What changes.
struct State {
    read: Read,
    tls: ClientConfig,
    files: Option<String>,
    name: Option<String>,
    rejected_until: Option<Instant>,
}

impl ClusterCache {
    /// Asks nobody before [`ClusterCache::follow`] runs. `identity` is the pseudonym in our `Via`.
    pub fn new(prepared: Prepared, identity: &str, resolver: Arc<dyn Resolve>, told: Told, limits: Limits) -> Self {
        let Prepared { config, read, tls } = prepared;
        let token = Arc::new(ArcSwapOption::from_pointee(read.token.clone()));
        let via = HeaderValue::from_str(&format!("1.1 {identity}")).unwrap_or(HeaderValue::from_static("1.1 larder"));
        Self {
            base: config.base(),
            config,
            via,
            resolver,
            told,
            limits,
            token,
            state: Mutex::new(State { read, tls, files: None, name: None, rejected_until: None }),
            replicas: watch::Sender::new(None),
            look: Notify::new(),
        }
    }

    /// What a person should know, if anything is wrong with it: pulls go to the registries then.
    pub fn trouble(&self) -> Option<String> {
        let now = Instant::now();
        let state = self.state();
        if state.rejected_until.is_some() {
            return Some(format!(
                "{} does not know this node's token ({}): look at its --token-file; pulls go to the registries",
                self.config.url,
                self.config.token.as_ref().map_or("--cache-token-file".to_owned(), |path| path.display().to_string())
            ));
        }
        if let Some(trouble) = state.files.as_ref().or(state.name.as_ref()) {
            return Some(trouble.clone());
        }
        drop(state);
        let replicas = self.replicas.borrow().clone()?;
        let all_gone = !replicas.iter().any(|(_, replica)| replica.is_available(now));
        all_gone.then(|| format!("{} does not answer; pulls go to the registries", self.config.url))
    }

    /// Follows the name's addresses and the files until `shutdown`.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let follow = async {
            loop {
                self.read_again().await;
                self.resolve_again().await;
                let is_empty = self.replicas.borrow().as_ref().is_none_or(|replicas| replicas.is_empty());
                let pause = if is_empty { LOOK_AGAIN } else { LOOK };
                // Whoever wants it sooner is told so soon enough.
                let _ = timeout(pause, self.look.notified()).await;
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    /// On a blocking thread: the files may be on a disk that hangs.
    async fn read_again(&self) {
        let config = self.config.clone();
        let read = tokio::task::spawn_blocking(move || config.read()).await;
        let Ok(read) = read else { return };
        let taken = read.and_then(|read| self.take(read));
        let trouble = taken.err().map(|error| format!("{error}; what was read before stays in force"));
        let mut state = self.state();
        if let Some(trouble) = trouble.as_ref().filter(|trouble| state.files.as_ref() != Some(trouble)) {
            tracing::warn!("cluster cache: {trouble}");
        }
        state.files = trouble;
    }

    fn take(&self, read: Read) -> Result<(), ClusterCacheError> {
        if self.state().read == read {
            return Ok(());
        }
        let tls = self.config.tls(read.ca_pem.as_deref())?;
        let mut state = self.state();
        if state.read.token != read.token {
            tracing::info!("the token for the cluster cache was read again");
            self.token.store(read.token.clone().map(Arc::new));
            state.rejected_until = None;
        }
        let is_new_authority = state.read.ca_pem != read.ca_pem;
        (state.read, state.tls) = (read, tls);
        drop(state);
        if is_new_authority {
            tracing::info!("the certificates for the cluster cache were read again");
            // Made anew with the next look at the name, which follows.
            self.replicas.send_modify(|replicas| {
                if replicas.is_some() {
                    *replicas = Some(Arc::default());
                }
            });
        }
        Ok(())
    }

    async fn resolve_again(&self) {
        let found = match self.config.url.host() {
            Some(Host::Ipv4(address)) => Ok(vec![IpAddr::V4(address)]),
            Some(Host::Ipv6(address)) => Ok(vec![IpAddr::V6(address)]),
            Some(Host::Domain(name)) => match timeout(NAME, self.resolver.resolve(name)).await {
                Ok(Ok(found)) if !found.is_empty() => Ok(found),
                Ok(Ok(_)) => Err("it has no address".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            },
            None => Ok(Vec::new()),
        };
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                // The addresses of before may still be right: names go away more often than services do.
                let text = format!("{} cannot be resolved: {reason}", self.config.url);
                let mut state = self.state();
                if state.name.as_ref() != Some(&text) {
                    tracing::warn!("cluster cache: {text}");
                }
                state.name = Some(text);
                drop(state);
                self.replicas.send_if_modified(|replicas| {
                    let is_first = replicas.is_none();
                    replicas.get_or_insert_default();
                    is_first
                });
                return;
            }
        };
        self.state().name = None;
        let port = self.config.url.port_or_known_default().unwrap_or(443);
        let mut addresses: Vec<_> = found.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let known = self.replicas.borrow().clone().unwrap_or_default();
        if known.len() == addresses.len() && known.iter().map(|(address, _)| address).eq(&addresses) {
            return;
        }
        let kept = |address: &SocketAddr| known.iter().find(|(known, _)| known == address).cloned();
        let list: Vec<_> = addresses
            .iter()
            .map(|address| kept(address).unwrap_or_else(|| (*address, self.replica(*address))))
            .collect();
        tracing::info!(?addresses, "cluster cache");
        self.replicas.send_replace(Some(Arc::new(list)));
    }

    fn replica(&self, address: SocketAddr) -> Arc<Replica> {
        let network = Arc::new(Network {
            // Whoever wrote the URL down meant it, wherever it is.
            boundary: Boundary::new(true, std::slice::from_ref(&self.base)),
            resolver: Arc::new(At(address.ip())),
            proxies: Arc::new(ProxyEnvironment::new(&ProxyVariables::default())),
            limit: self.limits.connect,
        });
        let tls = self.state().tls.clone();
        let (via, token) = (self.via.clone(), Arc::clone(&self.token));
        Arc::new(Replica::new(address.to_string(), self.base.clone(), &network, tls, via, token))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a question to the replicas, those for `key` first, until `until`.
    async fn ask<Q: Question>(
        &self,
        name: Name,
        key: String,
        question: Q,
        until: Instant,
    ) -> Result<Given<Q::Answer>, SourceError> {
        if name.registry.is_loopback_or_single_label() {
            return Err(SourceError::Refused { reason: format!("{} means another machine there", name.registry) });
        }
        let until = until.min(Instant::now() + self.limits.headers);
        let asked = self.ask_in_order(&name, &key, &question, until).await;
        (self.told)(match &asked {
            Ok(given) if given.unconfirmed.is_some() => "stale",
            Ok(_) => "ok",
            Err(NotGiven { why, .. }) => why,
        });
        asked.map_err(|not| not.error)
    }

    async fn ask_in_order<Q: Question>(
        &self,
        name: &Name,
        key: &str,
        question: &Q,
        until: Instant,
    ) -> Result<Given<Q::Answer>, NotGiven> {
        if self.state().rejected_until.is_some_and(|until| until > Instant::now()) {
            return Err(NotGiven::unauthorized());
        }
        let replicas = self.known(until).await;
        let addresses: Vec<_> = replicas.iter().map(|(address, _)| *address).collect();
        let in_order = rank::ranked(&addresses, key).into_iter().filter_map(|place| replicas.get(place));
        let now = Instant::now();
        let available = in_order.filter(|(_, replica)| replica.is_available(now)).take(MOST_REPLICAS);
        let mut outcome = Err(NotGiven::unanswered(SourceError::CircuitOpen));
        for (_, replica) in available {
            outcome = self.ask_one(replica, name, question, until).await;
            match &outcome {
                Err(not) if !is_the_registrys_word(&not.error) && Instant::now() < until => {
                    tracing::debug!(replica = replica.shown, error = %not.error, "the cluster cache has no answer");
                }
                _ => break,
            }
        }
        outcome
    }

    /// The replicas, as soon as they are known at all.
    async fn known(&self, until: Instant) -> Replicas {
        let mut replicas = self.replicas.subscribe();
        let first = until.min(Instant::now() + FIRST_LIST);
        let known = timeout_at(first, replicas.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|known| known.clone()).unwrap_or_default()
    }

    async fn ask_one<Q: Question>(
        &self,
        replica: &Arc<Replica>,
        name: &Name,
        question: &Q,
        until: Instant,
    ) -> Result<Given<Q::Answer>, NotGiven> {
        let mut headers = question.headers().map_err(NotGiven::unanswered)?;
        headers.insert(hop::TIMEOUT, hop::timeout_header(until.saturating_duration_since(Instant::now())));
        let url = self.url(name, &question.path(), question.query());
        let wanted = Wanted { kind: Q::KIND, method: question.method(), url, headers };
        let answer = replica.ask(&wanted, until).await.map_err(NotGiven::unanswered)?;
        let unconfirmed = match word(answer.status, &answer.headers) {
            Word::Content(unconfirmed) => unconfirmed,
            Word::Registry(error) => return Err(NotGiven { why: error.verdict().as_str(), error }),
            Word::Unauthorized => {
                self.rejected();
                return Err(NotGiven::unauthorized());
            }
            Word::Own => {
                let reason = format!("the cluster cache answered {} for itself", answer.status.as_u16());
                return Err(NotGiven { why: "own", error: SourceError::Unreachable { reason } });
            }
        };
        if self.state().rejected_until.take().is_some() {
            tracing::info!("the cluster cache knows this node again");
        }
        let answer = question.understand(answer, until).await.map_err(NotGiven::unanswered)?;
        Ok(Given { answer, unconfirmed, replica: Arc::clone(replica) })
    }

    fn rejected(&self) {
        let mut state = self.state();
        if state.rejected_until.is_none() {
            tracing::warn!(url = %self.config.url, "the cluster cache does not know this node's token; pulls go to the registries");
        }
        state.rejected_until = Some(Instant::now() + REJECTED);
        drop(state);
        // The file may hold another one by now.
        self.look.notify_one();
    }

    fn url(&self, name: &Name, path: &str, query: Option<&str>) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}/{path}", self.base.path(), name.repository));
        url.set_query(query);
        url.query_pairs_mut().append_pair("ns", name.registry.as_str());
        url
    }
}

/// An answer.
struct Given<T> {
    answer: T,
    unconfirmed: Option<Unconfirmed>,
    replica: Arc<Replica>,
}

/// None, and the word for whoever counts.
struct NotGiven {
    why: &'static str,
    error: SourceError,
}

impl NotGiven {
    fn unanswered(error: SourceError) -> Self {
        Self { why: "unanswered", error }
    }

    fn unauthorized() -> Self {
        let reason = "the cluster cache does not know our token".to_owned();
        Self { why: "unauthorized", error: SourceError::Unreachable { reason } }
    }
}

/// A name that means this address, whatever DNS says: the name stays in `Host` and in TLS.
struct At(IpAddr);

impl Resolve for At {
    fn resolve(&self, _: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Ok(vec![self.0])))
    }
}

/// Names of the cluster, as the system resolves them: with its search domains, which names of registries never have.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceResolver;

impl Resolve for ServiceResolver {
    fn resolve(&self, host: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect()) })
    }
}

impl Source for ClusterCache {
    fn head_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        self.head_manifest_in_time(name, reference, deadline, deadline)
    }

    fn head_manifest_in_time(
        &self,
        name: &Name,
        reference: &ManifestReference,
        waiting: Instant,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        let (name, reference) = (name.clone(), reference.clone());
        Box::pin(async move {
            let key = key(&name, &reference);
            let given = self.ask(name, key, HeadManifest(reference), waiting.min(deadline)).await?;
            Ok(ManifestHead { unconfirmed: given.unconfirmed, ..given.answer })
        })
    }

    fn get_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestBody, SourceError>> {
        let (name, reference) = (name.clone(), reference.clone());
        Box::pin(async move {
            let is_tag = matches!(reference, ManifestReference::Tag(_));
            let key = key(&name, &reference);
            let given = self.ask(name, key, GetManifest(reference), deadline).await?;
            if is_tag && given.unconfirmed.is_some() {
                // There is no place for it in this answer, and for the registry's word of now it must not be taken.
                let reason = "the cluster cache has heard nothing of the registry".to_owned();
                return Err(SourceError::Unreachable { reason });
            }
            Ok(given.answer)
        })
    }

    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>> {
        let (name, digest) = (name.clone(), digest.clone());
        Box::pin(async move { Ok(self.ask(name, digest.to_string(), HeadBlob(digest), deadline).await?.answer) })
    }

    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        _etag: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>> {
        let (name, digest, silence) = (name.clone(), digest.clone(), self.limits.silence);
        Box::pin(async move {
            let key = digest.to_string();
            // What it has under a digest does not change. An ETag that we were given may be the registry's.
            let given = self.ask(name, key, GetBlob { digest, from, etag: None, silence }, deadline).await?;
            let body = given.replica.watched(given.answer.body);
            Ok(BlobStream { etag: None, body, ..given.answer })
        })
    }

    fn tags(&self, name: &Name, query: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let (name, question) = (name.clone(), GetListing::new("tags/list".into(), query));
        Box::pin(async move {
            let key = format!("{}/{}", name.registry, name.repository);
            Ok(self.ask(name, key, question, deadline).await?.answer)
        })
    }

    fn referrers(
        &self,
        name: &Name,
        digest: &Digest,
        query: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let (name, key) = (name.clone(), digest.to_string());
        let question = GetListing::new(format!("referrers/{digest}"), query);
        Box::pin(async move { Ok(self.ask(name, key, question, deadline).await?.answer) })
    }
}

/// What decides the replica: the digest, or the whole reference where there is none.
fn key(name: &Name, reference: &ManifestReference) -> String {
    match reference {
        ManifestReference::Digest(digest) => digest.to_string(),
        ManifestReference::Tag(tag) => format!("{}/{}:{tag}", name.registry, name.repository),
    }
}
