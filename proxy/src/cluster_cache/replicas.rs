//! The list of replicas, which follows the name's addresses, and the files.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use super::config::Read;
use super::replica::Replica;
use super::{ClusterCache, ClusterCacheError, Replicas, not_read};
use crate::origin::address::Boundary;
use crate::origin::connect::Network;
use crate::origin::{ProxyEnvironment, ProxyVariables, Resolve};

/// How often name and files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The same while no replica is known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// For resolving the name.
const NAME: Duration = Duration::from_secs(2);

/// How long a question waits for the very first list of replicas.
const FIRST_LIST: Duration = Duration::from_millis(500);

impl ClusterCache {
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
        let mut state = self.state();
        let trouble = taken.err().map(|error| not_read(&error, state.read.is_some()));
        if let Some(trouble) = trouble.as_ref().filter(|trouble| state.files.as_ref() != Some(trouble)) {
            tracing::warn!("cluster cache: {trouble}");
        }
        state.files = trouble;
    }

    fn take(&self, read: Read) -> Result<(), ClusterCacheError> {
        if self.state().read.as_ref().is_some_and(|(known, _)| *known == read) {
            return Ok(());
        }
        let tls = self.config.tls(read.ca_pem.as_deref())?;
        let before = self.state().read.replace((read.clone(), tls));
        let (token, ca_pem) = before.map_or((None, None), |(before, _)| (before.token, before.ca_pem));
        if token != read.token {
            tracing::info!("the token for the cluster cache was read");
            self.token.store(read.token.map(Arc::new));
            for (_, replica) in self.replicas.borrow().iter().flat_map(|replicas| replicas.iter()) {
                replica.may_know_us();
            }
        }
        let is_new_authority = ca_pem != read.ca_pem;
        if is_new_authority {
            tracing::info!("the certificates for the cluster cache were read");
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
        let Some((_, tls)) = self.state().read.clone() else {
            // Nobody waits for a list that there cannot be.
            self.replicas.send_if_modified(|replicas| replicas.replace(Arc::default()).is_none());
            return;
        };
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
                // The addresses of before may still be right, names go away more often than services do; and the addresses for just that.
                let text = format!("{} cannot be resolved: {reason}", self.config.url);
                let mut state = self.state();
                if state.name.as_ref() != Some(&text) {
                    tracing::warn!("cluster cache: {text}");
                }
                state.name = Some(text);
                drop(state);
                let known = self.replicas.borrow().clone().unwrap_or_default();
                let known = known.iter().map(|(address, _)| *address);
                return self.are(known.chain(self.config.addresses.iter().copied()).collect(), &tls);
            }
        };
        if self.state().name.take().is_some() {
            tracing::info!(url = %self.config.url, "the cluster cache's name is resolved again");
        }
        let port = self.config.url.port_or_known_default().unwrap_or(443);
        self.are(found.into_iter().map(|address| SocketAddr::new(address, port)).collect(), &tls);
    }

    /// The replicas are those at these addresses.
    fn are(&self, mut addresses: Vec<SocketAddr>, tls: &ClientConfig) {
        addresses.sort_unstable();
        addresses.dedup();
        let before = self.replicas.borrow().clone();
        let is_first = before.is_none();
        let known = before.unwrap_or_default();
        if !is_first && known.len() == addresses.len() && known.iter().map(|(address, _)| address).eq(&addresses) {
            return;
        }
        let kept = |address: &SocketAddr| known.iter().find(|(known, _)| known == address).cloned();
        let list: Vec<_> = addresses
            .iter()
            .map(|address| kept(address).unwrap_or_else(|| (*address, self.replica(*address, tls))))
            .collect();
        tracing::info!(?addresses, "cluster cache");
        self.replicas.send_replace(Some(Arc::new(list)));
    }

    fn replica(&self, address: SocketAddr, tls: &ClientConfig) -> Arc<Replica> {
        let network = Arc::new(Network {
            // Whoever wrote the URL down meant it, wherever it is.
            boundary: Boundary::new(true, std::slice::from_ref(&self.base)),
            resolver: Arc::new(At(address)),
            proxies: Arc::new(ProxyEnvironment::new(&ProxyVariables::default())),
            limit: self.limits.connect,
        });
        let token = Arc::clone(&self.token);
        Replica::new(address.to_string(), self.base_at(address), &network, tls, &self.via, token, self.limits.silence)
    }

    /// What requests to a replica begin with. Its port may be another one than the name's.
    fn base_at(&self, address: SocketAddr) -> Url {
        let mut base = self.base.clone();
        // A URL of http or https has a port.
        let _ = base.set_port(Some(address.port()));
        base
    }

    /// The replicas, as soon as they are known at all.
    pub(super) async fn known(&self, until: Instant) -> Replicas {
        let mut replicas = self.replicas.subscribe();
        let first = until.min(Instant::now() + FIRST_LIST);
        let known = timeout_at(first, replicas.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|known| known.clone()).unwrap_or_default()
    }
}

/// A name that means this address, whatever DNS says: the name stays in `Host` and in TLS.
struct At(SocketAddr);

impl Resolve for At {
    fn resolve(&self, _: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Ok(vec![self.0.ip()])))
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
