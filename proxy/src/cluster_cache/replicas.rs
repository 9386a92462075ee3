//! The list of replicas, which follows the name's addresses, and the files.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use url::Host;

use super::config::Read;
use super::replica::Replica;
use super::{ClusterCache, ClusterCacheError, Replicas};
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

    /// The replicas, as soon as they are known at all.
    pub(super) async fn known(&self, until: Instant) -> Replicas {
        let mut replicas = self.replicas.subscribe();
        let first = until.min(Instant::now() + FIRST_LIST);
        let known = timeout_at(first, replicas.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|known| known.clone()).unwrap_or_default()
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
