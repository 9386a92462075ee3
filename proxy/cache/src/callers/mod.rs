//! Callers by tokens of ServiceAccounts: TokenReview while the API server is there, saved keys while it is not.
//!
//! A token → [`memory`] (was it asked about?) → [`claims`] (could it be ours at all?) → its signature, if it names a known key → a
//! review, one for all who come with the same token → if nothing was said in time, [`saved`] keys. Invariants: nobody waits for the API
//! server longer than [`REVIEW`], and not at all once it is known to be away; what somebody made up costs it nothing, or a turn of
//! [`unknown_keys`].

mod claims;
mod keys;
mod memory;
mod saved;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unknown_keys;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use larder_process::readiness::Condition;
use larder_proxy::secret::{Token, TokenHasher};
use larder_proxy::server::gate::{Caller, Callers, Unaccepted};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::claims::Claims;
pub(crate) use self::claims::Whose;
use self::memory::{ACCEPTED, Answer, Hash, Memory, REFUSED};
pub(crate) use self::saved::SavedKeys;
use self::saved::{READING, Signature, Verdict};
use self::unknown_keys::Turns;
use crate::kubernetes::Counts;
use crate::kubernetes::api_server::{ApiError, Reviews};

/// How long a caller waits for a review: a node takes a cache for dead after two and a half seconds without a sign.
const REVIEW: Duration = Duration::from_secs(1);

/// Reviews under way at once.
const REVIEWS: usize = 64;

/// Callers of certain accounts, with tokens for certain audiences.
#[derive(Clone)]
pub(crate) struct TokenCallers(Arc<Inner>);

struct Inner {
    whose: Whose,
    api: Arc<dyn Reviews>,
    keys: Arc<SavedKeys>,
    counts: Counts,
    hasher: TokenHasher,
    memory: Memory,
    running: Mutex<HashMap<Hash, Running>>,
    places: Arc<Semaphore>,
    turns: Turns,
    condition: OnceLock<Condition>,
}

/// A review that several may wait for. It goes on when all of them have left: its answer is remembered.
type Running = Shared<BoxFuture<'static, Result<Answer, ApiError>>>;

impl fmt::Debug for TokenCallers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenCallers").field("whose", &self.0.whose).finish_non_exhaustive()
    }
}

impl TokenCallers {
    pub(crate) fn new(
        whose: Whose,
        api: Arc<dyn Reviews>,
        keys: Arc<SavedKeys>,
        counts: Counts,
    ) -> anyhow::Result<Self> {
        let hasher = TokenHasher::random().context("the system gives no random bytes")?;
        Ok(Self(Arc::new(Inner {
            whose,
            api,
            keys,
            counts,
            hasher,
            memory: Memory::default(),
            running: Mutex::default(),
            places: Arc::new(Semaphore::new(REVIEWS)),
            turns: Turns::default(),
            condition: OnceLock::new(),
        })))
    }

    /// Where it is told that the API server does not let us.
    pub(crate) fn tell(&self, condition: Condition) {
        let _ = self.0.condition.set(condition);
    }
}

impl Callers for TokenCallers {
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let inner = &self.0;
            let hash = inner.hasher.hash(token.expose());
            let hash = hash.ok_or_else(|| Unaccepted::CannotTell("the token cannot be hashed".to_owned()))?;
            // First of all: it is so with every request of a pull but the first.
            if let Some(answer) = inner.memory.get(&hash) {
                return answer;
            }
            let Some(claims) = inner.whose.on_its_face(token) else { return Err(Unaccepted::Unknown) };
            let signature = inner.keys.signature(token);
            if signature == Signature::Wrong {
                // Anybody can write such a token, so it is not worth a question.
                inner.counts.count("saved_keys_refused");
                return Err(Unaccepted::Unknown);
            }
            if !inner.keys.away() {
                match timeout(REVIEW, inner.review(hash, token, claims, signature)).await {
                    Ok(Ok(answer)) => return answer,
                    // It said no to us, not to the token; asking for the keys would tell nothing new.
                    Ok(Err(ApiError::Refused { .. } | ApiError::Conflict | ApiError::Busy | ApiError::Strange(_))) => {}
                    Ok(Err(ApiError::Away(_))) | Err(_) => drop(timeout(READING, inner.keys.check(READING)).await),
                }
            }
            match inner.keys.verdict(token, &inner.whose) {
                Verdict::Accepted(claims) => {
                    inner.counts.count("saved_keys_accepted");
                    Ok(Caller { name: claims.name() })
                }
                Verdict::Refused => {
                    inner.counts.count("saved_keys_refused");
                    Err(Unaccepted::Unknown)
                }
                Verdict::CannotTell(reason) => {
                    inner.counts.count("saved_keys_refused");
                    Err(Unaccepted::CannotTell(reason))
                }
            }
        })
    }
}

impl Inner {
    /// The review of a token: the one that runs, or a new one.
    fn review(self: &Arc<Self>, hash: Hash, token: &Token, claims: Claims, signature: Signature) -> Running {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(review) = running.get(&hash) {
            return review.clone();
        }
        let busy = || std::future::ready(Err(ApiError::Busy)).boxed().shared();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return busy() };
        if signature == Signature::OfUnknownKey && !self.turns.take() {
            return busy();
        }
        let (inner, token) = (Arc::clone(self), token.clone());
        let task = tokio::spawn(async move {
            // Also when it is unwound.
            let _end = End { inner: &inner, hash, _place: place };
            inner.reviewed(hash, &token, &claims).await
        });
        let review = async move { task.await.unwrap_or_else(|error| Err(ApiError::Strange(error.to_string()))) };
        let review = review.boxed().shared();
        running.insert(hash, review.clone());
        review
    }

    async fn reviewed(&self, hash: Hash, token: &Token, claims: &Claims) -> Result<Answer, ApiError> {
        let reviewed = self.api.review(token, &self.whose.audiences).await;
        if let Some(condition) = self.condition.get() {
            match &reviewed {
                Ok(_) => {
                    condition.clear();
                }
                Err(error @ (ApiError::Refused { .. } | ApiError::Strange(_))) => {
                    let text =
                        format!("{error}; may this account create tokenreviews? Saved keys say whose a token is");
                    if condition.set(text) {
                        tracing::error!("{error}; may this account create tokenreviews?");
                    }
                }
                Err(_) => {}
            }
        }
        let reviewed = reviewed.inspect_err(|_| self.counts.count("unanswered"))?;
        // An API server that does not look at audiences names none, and its word is not for us.
        let good = reviewed.is_some_and(|reviewed| {
            reviewed.username == claims.sub && reviewed.audiences.iter().any(|one| self.whose.audiences.contains(one))
        });
        let (answer, lasts) = if good {
            self.counts.count("accepted");
            self.keys.accepted(token);
            let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
            let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok()).unwrap_or(Duration::ZERO);
            (Ok(Caller { name: claims.name() }), left.min(ACCEPTED))
        } else {
            self.counts.count("refused");
            (Err(Unaccepted::Unknown), REFUSED)
        };
        self.memory.put(hash, answer.clone(), lasts);
        Ok(answer)
    }
}

/// The end of a review.
struct End<'a> {
    inner: &'a Inner,
    hash: Hash,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
    }
}
