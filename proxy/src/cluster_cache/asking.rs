//! Asking: which replicas, in which order, and what their answers mean.

use std::sync::Arc;

use tokio::time::Instant;
use url::Url;

use super::rank::ranked;
use super::replica::Replica;
use super::word::{Word, word};
use super::{ClusterCache, MOST_REPLICAS, REJECTED};
use crate::hop;
use crate::origin::client::Wanted;
use crate::origin::question::Question;
use crate::source::{SourceError, Unconfirmed, is_the_registrys_word};
use crate::store::Name;

/// An answer.
pub(super) struct Given<T> {
    pub(super) answer: T,
    pub(super) unconfirmed: Option<Unconfirmed>,
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
        let in_order = ranked(&addresses, key).into_iter().filter_map(|place| replicas.get(place));
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
