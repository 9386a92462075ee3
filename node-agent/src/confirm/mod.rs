//! The proof that the engine asks us: a pull of a name that nobody else can know, of which the proxy then says that it
//! was asked for it.
//!
//! The proxy refuses that pull at once and asks no origin for it, so no image stays behind. One pull for each kind of
//! placement, each by a registry to which that kind applies. "Configured" means the outcome of this, and nothing less.

use crate::placement::Nonce;
use larder_oci::Registry;
use serde::Serialize;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

#[cfg(test)]
mod tests;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A registry that exists nowhere (RFC 2606): every engine that obeys a catch-all asks the proxy for it.
pub const NOWHERE: &str = "larder.invalid";

/// One pull may take so long. It normally fails within milliseconds.
const PULL_LIMIT: Duration = Duration::from_secs(20);

/// Asks the engine for an image as kubelet does.
pub trait PullProbe: Send + Sync {
    /// Pulls `reference`. `Ok` when there was an answer, whatever it was: `true` if the image was pulled, `false` with the
    /// engine's words if it was not. `Err` when the engine could not be asked.
    fn pull(&self, reference: &str) -> BoxFuture<'_, Result<PullAnswer, String>>;
}

/// What an engine said to a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullAnswer {
    /// It has the image now.
    Pulled,
    /// It has not, in its own words.
    Failed(String),
}

/// Asks our proxy, and makes sure that it is ours.
pub trait SeenProbe: Send + Sync {
    /// Whether it was asked for a repository `larder-probe/<nonce>`. `Err` says why there is no trustworthy answer.
    fn seen(&self, nonce: &str) -> BoxFuture<'_, Result<bool, String>>;
}

/// What one canary found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmation {
    /// The proxy was asked at this time.
    Confirmed {
        /// When.
        at: SystemTime,
    },
    /// There is no telling: the engine did not answer, or the proxy could not be asked whether it was.
    NotAsked {
        /// In words for people.
        reason: String,
    },
    /// The proxy was not asked, and why that may be.
    NotSeen {
        /// In words for people.
        reason: String,
        /// The engine failed before it asked anybody: its pulls fail with or without us.
        by_itself: bool,
    },
}

impl Confirmation {
    /// Whether the engine was seen to ask us.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed { .. })
    }
}

/// The registry that stands for every one without an entry of its own.
pub fn nowhere() -> Option<Registry> {
    Registry::parse(NOWHERE).ok()
}

/// Sends one canary through `registry`.
pub async fn confirm(pull: &dyn PullProbe, seen: &dyn SeenProbe, registry: &Registry) -> Confirmation {
    let nonce = match Nonce::fresh() {
        Ok(nonce) => nonce,
        Err(error) => return not_asked(format!("no random numbers: {error}")),
    };
    let reference = format!("{registry}/larder-probe/{nonce}:probe");
    let answer = tokio::time::timeout(PULL_LIMIT, pull.pull(&reference)).await;
    // Asked also after a pull without an answer: what counts is what arrived.
    match seen.seen(nonce.as_str()).await {
        Ok(true) => Confirmation::Confirmed { at: SystemTime::now() },
        Ok(false) => match answer {
            Err(_) => not_asked(format!("the engine did not answer within {} s", PULL_LIMIT.as_secs())),
            Ok(Err(reason)) => not_asked(format!("the engine could not be asked: {reason}")),
            Ok(Ok(PullAnswer::Pulled)) => not_seen("the engine got the image from somewhere else".to_owned()),
            Ok(Ok(PullAnswer::Failed(words))) if asked_somebody(&words) => {
                not_seen(format!("the engine asked elsewhere: {}", shortened(&words)))
            }
            Ok(Ok(PullAnswer::Failed(words))) => Confirmation::NotSeen {
                reason: format!("the engine failed by itself, with or without us: {}", shortened(&words)),
                by_itself: true,
            },
        },
        Err(reason) => not_asked(format!("the proxy could not be asked: {reason}")),
    }
}

fn not_asked(reason: String) -> Confirmation {
    Confirmation::NotAsked { reason }
}

fn not_seen(reason: String) -> Confirmation {
    Confirmation::NotSeen { reason, by_itself: false }
}

/// An engine that asked a registry names the request, or the address that it could not reach, or says what the registry
/// answered. One that could not read its own certificates or files has neither.
fn asked_somebody(words: &str) -> bool {
    const SIGNS: [&str; 6] = ["://", "dial ", "lookup ", "not found", "unexpected status", "no such host"];
    SIGNS.iter().any(|sign| words.contains(sign))
}

/// Engines repeat themselves; the beginning tells the story.
fn shortened(words: &str) -> String {
    const LIMIT: usize = 300;
    let plain: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if plain.chars().count() <= LIMIT { plain } else { plain.chars().take(LIMIT).chain(['…']).collect() }
}
