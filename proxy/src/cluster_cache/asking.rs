//! Asking: which replicas, in which order, and what their answers mean.

use std::sync::{Arc, PoisonError};

use http::HeaderValue;
use tokio::time::Instant;
use url::Url;

use super::rank::ranked;
use super::replica::Replica;
use super::word::{Word, word};
use super::{ClusterCache, MOST_REPLICAS, OTHER_SETTINGS};
use crate::hop;
use crate::origin::client::Wanted;
use crate::origin::question::Question;
use crate::source::{SourceError, Unconfirmed, is_the_registrys_word};
use crate::store::Name;

/// An answer.
pub(super) struct Given<T> {
    pub(super) answer: T,
    pub(super) unconfirmed: Option<Unconfirmed>,
    pub(super) is_elsewhere: bool,
    pub(super) replica: Arc<Replica>,
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

    fn settings() -> Self {
        let reason = "the cluster cache was told something else of this registry".to_owned();
        Self { why: "settings", error: SourceError::Refused { reason } }
    }

    fn unauthorized() -> Self {
        let reason = "the cluster cache does not know our token".to_owned();
        Self { why: "unauthorized", error: SourceError::Unreachable { reason } }
    }
}

impl ClusterCache {
    /// Puts a question to the replicas, those for `key` first, until `until`.
    pub(super) async fn ask<Q: Question>(
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
            Ok(given) if given.is_elsewhere => "redirected",
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
        let settings = self.settings.load().fingerprint(&name.registry);
        if settings.as_ref().is_some_and(|settings| self.has_other_settings(name, settings)) {
            return Err(NotGiven::settings());
        }
        let replicas = self.known(until).await;
        let addresses: Vec<_> = replicas.iter().map(|(address, _)| *address).collect();
        let in_order = ranked(&addresses, key).into_iter().filter_map(|place| replicas.get(place));
        let now = Instant::now();
        let available = in_order.filter(|(_, replica)| replica.is_available(now)).take(MOST_REPLICAS);
        let mut outcome = Err(if replicas.iter().any(|(_, replica)| replica.rejects_us()) {
            NotGiven::unauthorized()
        } else {
            NotGiven::unanswered(SourceError::CircuitOpen)
        });
        for (_, replica) in available {
            outcome = self.ask_one(replica, name, question, settings.as_deref(), until).await;
            match &outcome {
                Err(not) if !is_the_registrys_word(&not.error) && Instant::now() < until => {
                    tracing::debug!(replica = replica.shown, error = %not.error, "the cluster cache has no answer");
                }
                _ => break,
            }
        }
        outcome
    }

    async fn ask_one<Q: Question>(
        &self,
        replica: &Arc<Replica>,
        name: &Name,
        question: &Q,
        settings: Option<&str>,
        until: Instant,
    ) -> Result<Given<Q::Answer>, NotGiven> {
        let mut headers = question.headers().map_err(NotGiven::unanswered)?;
        headers.insert(hop::TIMEOUT, hop::timeout_header(until.saturating_duration_since(Instant::now())));
        if let Some(settings) = settings.and_then(|settings| HeaderValue::from_str(settings).ok()) {
            headers.insert(hop::SETTINGS, settings);
        }
        let url = url(&replica.base, name, &question.path(), question.query());
        let follows = headers.get(hop::REDIRECT).is_some_and(|said| *said == hop::FOLLOWS);
        let wanted = Wanted { kind: Q::KIND, method: question.method(), url, headers };
        let answer = replica.ask(&wanted, until).await.map_err(NotGiven::unanswered)?;
        let word = word(answer.status, &answer.headers);
        // One that does not say which settings it went by went by its own.
        let went_by = answer.headers.get(hop::SETTINGS).and_then(|text| text.to_str().ok());
        if let Some(settings) = settings
            && went_by != Some(settings)
            && (went_by.is_some() || !matches!(word, Word::Unauthorized | Word::Own))
        {
            self.note_other_settings(name, settings);
            return Err(NotGiven::settings());
        }
        let is_elsewhere = word == Word::Elsewhere;
        let unconfirmed = match word {
            Word::Content(unconfirmed) => unconfirmed,
            Word::Elsewhere if follows => None,
            Word::Registry(error) => return Err(NotGiven { why: error.verdict().as_str(), error }),
            Word::Unauthorized => {
                self.rejected(replica);
                return Err(NotGiven::unauthorized());
            }
            Word::Elsewhere | Word::Own => {
                let reason = format!("the cluster cache answered {} for itself", answer.status.as_u16());
                return Err(NotGiven { why: "own", error: SourceError::Unreachable { reason } });
            }
        };
        let answer = question.understand(answer, until).await.map_err(NotGiven::unanswered)?;
        Ok(Given { answer, unconfirmed, is_elsewhere, replica: Arc::clone(replica) })
    }

    fn has_other_settings(&self, name: &Name, settings: &str) -> bool {
        let known = self.other_settings.lock().unwrap_or_else(PoisonError::into_inner);
        // Hardly ever is anything in it.
        !known.is_empty()
            && known.get(&(name.registry.clone(), settings.to_owned())).is_some_and(|until| *until > Instant::now())
    }

    fn note_other_settings(&self, name: &Name, settings: &str) {
        let mut known = self.other_settings.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.retain(|_, until| *until + OTHER_SETTINGS > now);
        if known.insert((name.registry.clone(), settings.to_owned()), now + OTHER_SETTINGS).is_none() {
            tracing::info!(registry = %name.registry,
                "the cluster cache has other endpoints or policies for this registry, so this node asks the registry itself; \
                 to change that, say the same in the registries files of both, or have the cache read UpstreamRegistry objects as nodes do \
                 (`larder-cache run --kubernetes`, in the chart `cache.kubernetes`)");
        }
    }

    fn rejected(&self, replica: &Replica) {
        if replica.rejected() {
            tracing::warn!(url = %self.config.url, replica = replica.shown,
                "the cluster cache does not know this node's token there; it is not asked there until it does");
        }
        // The file may hold another one by now.
        self.look.notify_one();
    }
}

fn url(base: &Url, name: &Name, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{}/{path}", base.path(), name.repository));
    url.set_query(query);
    url.query_pairs_mut().append_pair("ns", name.registry.as_str());
    url
}
