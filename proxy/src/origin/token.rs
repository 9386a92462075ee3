//! Anonymous tokens (the distribution token specification): a registry answers 401 with a challenge, its token server
//! gives a token to anyone, and the token opens the repository for a few minutes.
//!
//! The invariant: one request to the token server serves everyone who waits for the same repository, and goes on when the
//! one who began it leaves. Tokens are kept per endpoint and repository, are not shown and leave no copy of ours behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use larder_oci::Repository;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::secret::Token;
use crate::source::SourceError;

/// Repositories of one endpoint whose tokens are kept.
const MOST_TOKENS: usize = 1024;
/// What the specification says when a token server does not.
const USUAL_LIFE: Duration = Duration::from_mins(1);
/// However long a token server says.
const LONGEST_LIFE: Duration = Duration::from_hours(1);

/// A token with the time until which it is used.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) token: Token,
    until: Instant,
}

/// What a registry wants a token server to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenChallenge {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

impl TokenChallenge {
    /// The URL to ask for a token that may pull this repository.
    pub(super) fn url(&self, repository: &Repository) -> Url {
        let mut url = self.realm.clone();
        let usual = format!("repository:{repository}:pull");
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            // Not every registry's scope is the usual one.
            query.append_pair("scope", self.scope.as_deref().unwrap_or(&usual));
        }
        url
    }
}

impl Grant {
    /// From the token server's answer.
    pub(super) fn parse(body: &[u8], now: Instant) -> Result<Self, SourceError> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            token: Zeroed,
            #[serde(default)]
            access_token: Zeroed,
            expires_in: Option<serde_json::Value>,
        }
        // What serde says might show a piece of it.
        let body: Body = serde_json::from_slice(body)
            .map_err(|_| SourceError::Protocol { reason: "the token server's answer is not a token".into() })?;
        let token = [body.token.0, body.access_token.0].into_iter().flatten().find(|token| !token.is_empty());
        let token = Token::new(
            token.ok_or_else(|| SourceError::Protocol { reason: "the token server's answer holds no token".into() })?,
        );
        if token.header().is_none() {
            return Err(SourceError::Protocol { reason: "the token server's token fits in no header".into() });
        }
        let said = body
            .expires_in
            .and_then(|seconds| seconds.as_f64())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let life = said.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
        // Not used to its very end: requests take time and clocks differ.
        let slack = (life / 5).min(Duration::from_secs(30));
        Ok(Self { token, until: now + life.saturating_sub(slack) })
    }
}

/// A string of a document that is wiped when dropped.
#[derive(Default)]
struct Zeroed(Option<Zeroizing<String>>);

impl<'de> Deserialize<'de> for Zeroed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new)))
    }
}

type Outcome = Result<Arc<Grant>, SourceError>;
/// A token that is being asked for.
pub(super) type Pending = Shared<BoxFuture<'static, Outcome>>;

enum State {
    Pending(Pending),
    Held(Arc<Grant>),
}

struct Slot {
    challenge: TokenChallenge,
    state: State,
}

/// What is known before a request is sent.
pub(super) enum AtHand {
    /// Nothing: ask without a token, the answer will say.
    Nothing,
    /// A token that should be good.
    Grant(Arc<Grant>),
    /// No good token, but where to get one.
    Challenge(TokenChallenge),
}

/// The tokens of one endpoint.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Repository, Slot>>);

impl Tokens {
    pub(super) fn at_hand(&self, repository: &Repository, now: Instant) -> AtHand {
        match self.lock().get(repository) {
            None => AtHand::Nothing,
            Some(Slot { state: State::Held(grant), .. }) if grant.until > now => AtHand::Grant(Arc::clone(grant)),
            Some(slot) => AtHand::Challenge(slot.challenge.clone()),
        }
    }

    /// Where this repository's tokens come from, if that is known.
    pub(super) fn challenge(&self, repository: &Repository) -> Option<TokenChallenge> {
        self.lock().get(repository).map(|slot| slot.challenge.clone())
    }

    /// A token other than `refused`, which the registry did not take: one that somebody else got meanwhile, or is just
    /// getting, or a new one, from `fetch`.
    pub(super) fn renew(
        self: &Arc<Self>,
        repository: &Repository,
        challenge: TokenChallenge,
        refused: Option<&Arc<Grant>>,
        now: Instant,
        fetch: impl Future<Output = Result<Grant, SourceError>> + Send + 'static,
    ) -> Pending {
        let mut slots = self.lock();
        match slots.get(repository).map(|slot| &slot.state) {
            Some(State::Pending(pending)) => return pending.clone(),
            Some(State::Held(grant))
                if grant.until > now && !refused.is_some_and(|refused| Arc::ptr_eq(refused, grant)) =>
            {
                return std::future::ready(Ok(Arc::clone(grant))).boxed().shared();
            }
            _ => {}
        }
        let (tokens, key) = (Arc::clone(self), repository.clone());
        let task = tokio::spawn(async move {
            let outcome = fetch.await.map(Arc::new);
            tokens.settle(&key, &outcome);
            outcome
        });
        let pending = async move {
            task.await.unwrap_or_else(|error| Err(SourceError::Unreachable { reason: format!("token task: {error}") }))
        };
        let pending = pending.boxed().shared();
        make_room(&mut slots, now);
        slots.insert(repository.clone(), Slot { challenge, state: State::Pending(pending.clone()) });
        pending
    }

    fn settle(&self, repository: &Repository, outcome: &Outcome) {
        let mut slots = self.lock();
        match outcome {
            Ok(grant) => {
                if let Some(slot) = slots.get_mut(repository) {
                    slot.state = State::Held(Arc::clone(grant));
                }
            }
            // The next one asks the registry itself again: its challenge may say something else by then.
            Err(_) => {
                slots.remove(repository);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Repository, Slot>> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets expired tokens; when that is not enough, all that are not being asked for: they cost one request each.
fn make_room(slots: &mut HashMap<Repository, Slot>, now: Instant) {
    if slots.len() >= MOST_TOKENS {
        slots.retain(|_, slot| match &slot.state {
            State::Pending(_) => true,
            State::Held(grant) => grant.until > now,
        });
    }
    if slots.len() >= MOST_TOKENS {
        slots.retain(|_, slot| matches!(slot.state, State::Pending(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_token_servers_answer() {
        let now = Instant::now();
        let life = |body: &str| Grant::parse(body.as_bytes(), now).map(|grant| (grant.until - now).as_secs());
        assert_eq!(life(r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#), Ok(270));
        assert_eq!(life(r#"{"access_token":"t"}"#), Ok(48));
        assert_eq!(life(r#"{"token":"","access_token":"t","expires_in":10}"#), Ok(8));
        for strange in ["1e300", "-1", "null", "\"300\""] {
            assert_eq!(life(&format!("{{\"token\":\"t\",\"expires_in\":{strange}}}")), Ok(48), "{strange}");
        }
        assert_eq!(life(r#"{"token":"t","expires_in":999999999}"#), Ok(3570));
        for body in ["", "{}", "[]", r#"{"token":null}"#, r#"{"token":""}"#, r#"{"token":"a\nb: c"}"#] {
            assert!(matches!(life(body), Err(SourceError::Protocol { .. })), "{body}");
        }
    }

    #[test]
    fn what_token_servers_are_asked() {
        let repository = Repository::parse("library/nginx").unwrap();
        let challenge = |scope: Option<&str>| TokenChallenge {
            realm: Url::parse("https://auth.example.com/token?account=x").unwrap(),
            service: Some("registry & co".into()),
            scope: scope.map(Into::into),
        };
        let asked = challenge(None).url(&repository).to_string();
        let expected = "https://auth.example.com/token?account=x&service=registry+%26+co";
        assert_eq!(asked, format!("{expected}&scope=repository%3Alibrary%2Fnginx%3Apull"));
        assert_eq!(challenge(Some("aws")).url(&repository).to_string(), format!("{expected}&scope=aws"));
    }

    #[test]
    fn tokens_are_not_shown() {
        let token = Token::new(Zeroizing::new("abc".into()));
        assert!(!format!("{token:?} {:?}", token.header().unwrap()).contains("abc"));
    }
}
