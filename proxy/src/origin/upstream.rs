//! A registry as the settings describe it: its endpoints in order of preference, asked one after the other.
//!
//! The last endpoint is the one whose word counts: what it says is what is reported when none has the answer. The others
//! get half of the time that is left each, so that one that hangs does not use up what the next one needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Method};
use larder_oci::{Registry, Repository};
use rustls::ClientConfig;
use tokio::time::Instant;
use url::Url;

use super::address::{Boundary, default_endpoint};
use super::client::{Client, Told, Wanted};
use super::connect::Network;
use super::endpoint::Endpoint;
use super::observe::{Lane, Observer, RequestKind};
use super::question::Question;
use super::queue::{Queue, QueueLimits, Turn};
use crate::settings::RegistrySettings;
use crate::source::SourceError;

/// One registry.
pub(super) struct Upstream {
    endpoints: Vec<Arc<Endpoint>>,
    documents: Arc<Queue>,
    blobs: Arc<Queue>,
    /// The endpoints are one address under two schemes; holds the one that answered last.
    either_scheme: Option<AtomicUsize>,
}

/// Where a registry is asked, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) endpoints: Vec<Url>,
    /// They are one address under two schemes.
    pub(super) either_scheme: bool,
}

impl Addresses {
    /// Without endpoints in the settings it is the registry itself: over https, and if it is listed as insecure (then the
    /// certificate does not matter either) over plain http where there is no TLS.
    pub(super) fn of(registry: &Registry, settings: &RegistrySettings) -> Result<Self, SourceError> {
        let nonsense = |_| SourceError::Refused { reason: format!("{registry} is no address") };
        if settings.endpoints.is_empty() {
            let schemes: &[&str] =
                if settings.insecure && !registry.is_docker_hub() { &["https", "http"] } else { &["https"] };
            let endpoints: Result<Vec<Url>, _> =
                schemes.iter().map(|scheme| default_endpoint(registry, scheme)).collect();
            return Ok(Self { endpoints: endpoints.map_err(nonsense)?, either_scheme: schemes.len() > 1 });
        }
        if let Some(plain) = settings.endpoints.iter().find(|url| url.scheme() != "https" && !settings.insecure) {
            let reason = format!("{plain} is not https, and {registry} is not listed as insecure");
            return Err(SourceError::Refused { reason });
        }
        Ok(Self { endpoints: settings.endpoints.clone(), either_scheme: false })
    }

    pub(super) fn boundary(&self, listed: bool) -> Boundary {
        Boundary::new(listed, &self.endpoints)
    }
}

impl Upstream {
    pub(super) fn new(
        registry: &Registry,
        addresses: &Addresses,
        network: Arc<Network>,
        tls: ClientConfig,
        via: HeaderValue,
        limits: &QueueLimits,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let told: Told = {
            let (registry, observer) = (registry.clone(), Arc::clone(observer));
            Arc::new(move |kind, outcome| observer.request(&registry, kind, outcome))
        };
        let client = Arc::new(Client::new(network, tls, via, told));
        let endpoint = |url| {
            Arc::new(Endpoint::new(
                registry.clone(),
                url,
                addresses.either_scheme,
                Arc::clone(&client),
                Arc::clone(observer),
            ))
        };
        let queue = |lane| Arc::new(Queue::new(registry, lane, limits, observer));
        Self {
            endpoints: addresses.endpoints.iter().map(endpoint).collect(),
            documents: queue(Lane::Document),
            blobs: queue(Lane::Blob),
            either_scheme: addresses.either_scheme.then(AtomicUsize::default),
        }
    }

    /// Asks one endpoint after the other until one answers, when it is this question's turn.
    pub(super) async fn ask<Q: Question>(
        &self,
        repository: &Repository,
        question: &Q,
        deadline: Instant,
    ) -> Result<Q::Answer, SourceError> {
        // Before the turn, which a HEAD may be waiting for, and that costs no quota.
        if counts_as_pull(question)
            && let Some(first) = self.endpoints.first()
            && first.admits(Q::KIND)
        {
            first.hold_back(deadline).await;
        }
        let turn = self.turn::<Q>(repository, deadline).await;
        let answer = match &self.either_scheme {
            None => self.in_order(repository, question, deadline).await?,
            Some(working) => self.either(working, repository, question, deadline).await?,
        };
        Ok(match turn {
            Some(turn) => Q::hold(answer, turn),
            None => answer,
        })
    }

    /// `None`: nobody will be asked, and to hear that nobody need wait.
    async fn turn<Q: Question>(&self, repository: &Repository, deadline: Instant) -> Option<Turn> {
        if !self.endpoints.iter().any(|endpoint| endpoint.admits(Q::KIND)) {
            return None;
        }
        let queue = match Q::LANE {
            Lane::Document => &self.documents,
            Lane::Blob => &self.blobs,
        };
        Some(queue.turn(repository, deadline).await)
    }

    async fn in_order<Q: Question>(
        &self,
        repository: &Repository,
        question: &Q,
        deadline: Instant,
    ) -> Result<Q::Answer, SourceError> {
        let mut outcome = Err(SourceError::Refused { reason: "the registry has no endpoint".into() });
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let last = index + 1 == self.endpoints.len();
            if index > 0 && counts_as_pull(question) {
                endpoint.hold_back(half_way(deadline)).await;
            }
            outcome = ask(endpoint, repository, question, if last { deadline } else { half_way(deadline) }).await;
            match &outcome {
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(endpoint = endpoint.shown(), %repository, %error, "an endpoint has no answer");
                }
            }
        }
        outcome
    }

    /// The scheme that answered last first; the other one only where that gets no connection.
    async fn either<Q: Question>(
        &self,
        working: &AtomicUsize,
        repository: &Repository,
        question: &Q,
        deadline: Instant,
    ) -> Result<Q::Answer, SourceError> {
        let first = working.load(Ordering::Relaxed);
        let mut outcome = Err(SourceError::Refused { reason: "the registry has no endpoint".into() });
        for offset in 0..self.endpoints.len() {
            let index = (first + offset) % self.endpoints.len();
            let Some(endpoint) = self.endpoints.get(index) else { break };
            let answered = ask(endpoint, repository, question, deadline).await;
            let connected = !matches!(
                answered,
                Err(SourceError::Unreachable { .. } | SourceError::CircuitOpen | SourceError::Timeout)
            );
            // When neither connects, the one that used to is the one to report.
            if connected || offset == 0 {
                outcome = answered;
            }
            if connected {
                working.store(index, Ordering::Relaxed);
                break;
            }
        }
        outcome
    }
}

async fn ask<Q: Question>(
    endpoint: &Arc<Endpoint>,
    repository: &Repository,
    question: &Q,
    until: Instant,
) -> Result<Q::Answer, SourceError> {
    let url = endpoint.url(repository, &question.path(), question.query());
    let wanted = Wanted { kind: Q::KIND, method: question.method(), url, headers: question.headers()? };
    let answer = endpoint.ask(repository, &wanted, until).await?;
    question.understand(answer, until).await
}

/// What registries count: the bytes of manifests. A HEAD is free.
fn counts_as_pull<Q: Question>(question: &Q) -> bool {
    Q::KIND == RequestKind::Manifest && question.method() == Method::GET
}

fn half_way(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(registry: &str, insecure: bool, endpoints: &[&str]) -> Result<Vec<String>, SourceError> {
        let endpoints = endpoints.iter().map(|url| Url::parse(url).unwrap()).collect();
        let settings = RegistrySettings { endpoints, insecure, ..RegistrySettings::default() };
        let addresses = Addresses::of(&Registry::parse(registry).unwrap(), &settings)?;
        Ok(addresses.endpoints.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn where_a_registry_is_asked() {
        let of = |registry, insecure, endpoints| addresses(registry, insecure, endpoints).unwrap();
        assert_eq!(of("reg.example.com", false, &[]), ["https://reg.example.com/"]);
        assert_eq!(of("docker.io", true, &[]), ["https://registry-1.docker.io/"]);
        assert_eq!(of("10.0.0.1:5000", true, &[]), ["https://10.0.0.1:5000/", "http://10.0.0.1:5000/"]);
        let mirrors = ["https://a.example.com/hub", "https://b.example.com/"];
        assert_eq!(of("docker.io", false, &mirrors), mirrors);
        assert!(matches!(
            addresses("reg.example.com", false, &["http://a.example.com"]),
            Err(SourceError::Refused { .. })
        ));
        assert_eq!(of("reg.example.com", true, &["http://a.example.com"]), ["http://a.example.com/"]);
    }
}
