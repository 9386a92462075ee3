//! One address behind the cluster cache's name: asking it, and noticing that it does not live.
//!
//! A cache that takes its time may be waiting for a slow registry; one that was stopped looks the same. So whoever waits longer than
//! [`QUIET`] asks it for a sign of life, which costs it nothing; without one within [`PULSE`] the replica is given up, for everybody,
//! until it answers again. A dead cache so costs a pull at most once in a while. The sign is asked for on a connection that is kept for
//! that, since a cache with no room for another connection is busy, not dead; and beside it on a new one, since a kept one may hang by
//! itself.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::health::{Health, Sign};
use crate::hop;
use crate::origin::breaker::Failure;
use crate::origin::client::{Answer, Client, Told, Wanted};
use crate::origin::connect::Network;
use crate::origin::{RequestKind, body, probe};
use crate::secret::Token;
use crate::source::SourceError;

/// Without a byte for so long, a sign of life is asked for.
const QUIET: Duration = Duration::from_secs(1);

/// It has so long to give one.
const PULSE: Duration = Duration::from_millis(1500);

/// The kept connection gets this head start before a new one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// How often the kept connection is used, so that neither side closes it.
const KEPT: Duration = Duration::from_secs(15);

/// A replica that nobody has asked for so long needs no connection.
const INTEREST: Duration = Duration::from_mins(5);

/// A question that had less time than this says nothing by not being answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// A body that brings less than this while it is waited for as long as [`Limits::silence`](super::Limits::silence) is as good as none.
const TRICKLE: u64 = 64 << 10;

/// One replica.
pub(super) struct Replica {
    pub(super) shown: String,
    pub(super) base: Url,
    client: Client,
    /// For signs of life: one connection that is kept, and new ones.
    kept: Client,
    fresh: Client,
    token: Arc<ArcSwapOption<Token>>,
    silence: Duration,
    health: Mutex<Health>,
    last_sign: tokio::sync::Mutex<Option<(Instant, Sign)>>,
    last_asked: Mutex<Option<Instant>>,
    /// For the task that looks after it.
    wake: Arc<Notify>,
}

impl Replica {
    pub(super) fn new(
        shown: String,
        base: Url,
        network: &Arc<Network>,
        tls: &ClientConfig,
        via: &HeaderValue,
        token: Arc<ArcSwapOption<Token>>,
        silence: Duration,
    ) -> Arc<Self> {
        let told: Told = Arc::new(|_, _| {});
        let client = |idle| {
            Client::with_idle(idle, Arc::clone(network), tls.clone(), via.clone(), Arc::clone(&told)).following_none()
        };
        let wake = Arc::new(Notify::new());
        let replica = Arc::new(Self {
            shown,
            base,
            client: Client::new(Arc::clone(network), tls.clone(), via.clone(), Arc::clone(&told)).following_none(),
            kept: client(1),
            fresh: client(0),
            token,
            silence,
            health: Mutex::default(),
            last_sign: tokio::sync::Mutex::default(),
            last_asked: Mutex::default(),
            wake: Arc::clone(&wake),
        });
        tokio::spawn(look_after(Arc::downgrade(&replica), wake));
        replica
    }

    /// Whether it may be asked now.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        self.health().is_available(now)
    }

    /// Whether it does not know our token.
    pub(super) fn rejects_us(&self) -> bool {
        self.health().rejects_us()
    }

    /// It does not know our token. True if that is news.
    pub(super) fn rejected(&self) -> bool {
        let is_news = self.health().rejected();
        self.wake.notify_one();
        is_news
    }

    /// There is another token.
    pub(super) fn may_know_us(&self) {
        self.health().may_know_us();
    }

    /// Why it is not asked now, where it did not answer.
    pub(super) fn reason(&self) -> Option<String> {
        self.health().reason().map(ToOwned::to_owned)
    }

    /// The head of its answer, whatever that is.
    pub(super) async fn ask(self: &Arc<Self>, wanted: &Wanted, until: Instant) -> Result<Answer, SourceError> {
        let began = Instant::now();
        self.wanted(began);
        let token = self.token.load_full();
        let mut asking = pin!(self.client.ask(wanted, token.as_deref(), until));
        let answered = loop {
            tokio::select! {
                answered = &mut asking => break answered,
                lives = self.quiet() => {
                    if !lives {
                        let dead = self.dead();
                        self.failed(Failure::Silent, &dead, began);
                        return Err(dead);
                    }
                }
            }
        };
        match answered {
            Ok(answer) => {
                self.answered(&answer.headers);
                Ok(answer)
            }
            // Whether it is the replica that hangs is found by its pulse: a question may take long.
            Err(failed) if failed.error == SourceError::Timeout => {
                let replica = Arc::clone(self);
                tokio::spawn(async move {
                    if !replica.sign().await.lives() {
                        replica.failed(Failure::Silent, &replica.dead(), began);
                    } else if until.duration_since(began) >= PATIENCE
                        && replica.health().left_unanswered(Instant::now())
                    {
                        tracing::warn!(
                            replica = replica.shown,
                            "the cluster cache lives there and answers nothing: left alone for a while"
                        );
                        replica.wake.notify_one();
                    }
                });
                Err(failed.error)
            }
            Err(failed) => {
                if let Some(failure) = failed.failure.filter(|_| !failed.spoke) {
                    self.failed(failure, &failed.error, began);
                }
                Err(failed.error)
            }
        }
    }

    /// A body of this replica, which ends with an error when the replica does not live any more, or does not get on.
    pub(super) fn watched(
        self: &Arc<Self>,
        body: BoxStream<'static, Result<Bytes, SourceError>>,
    ) -> BoxStream<'static, Result<Bytes, SourceError>> {
        let state = Some((body, Arc::clone(self), Pace::default()));
        stream::unfold(state, |state| async {
            let (mut body, replica, mut pace) = state?;
            let began = Instant::now();
            let piece = loop {
                tokio::select! {
                    piece = body.next() => break piece,
                    lives = replica.quiet() => {
                        if !lives {
                            replica.failed(Failure::Silent, &replica.dead(), began);
                            let reason = format!("the cluster cache at {} does not live any more", replica.shown);
                            break Some(Err(SourceError::Broken { reason }));
                        }
                    }
                }
            };
            match piece? {
                Ok(piece) if pace.is_kept(piece.len(), began.elapsed(), replica.silence) => {
                    Some((Ok(piece), Some((body, replica, pace))))
                }
                Ok(_) => {
                    let reason = format!("the cluster cache at {} gives next to nothing", replica.shown);
                    Some((Err(SourceError::Broken { reason }), None))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// After a while without a word: whether it lives.
    async fn quiet(&self) -> bool {
        sleep(QUIET).await;
        self.sign().await.lives()
    }

    /// Its sign of life. One question for all who want to know.
    async fn sign(&self) -> Sign {
        let mut last = self.last_sign.lock().await;
        if let Some((at, sign)) = *last
            && at.elapsed() < QUIET
        {
            return sign;
        }
        let sign = self.either_sign(Instant::now() + PULSE).await;
        *last = Some((Instant::now(), sign));
        sign
    }

    /// On the connection that is kept, and if that takes a while on a new one beside it.
    async fn either_sign(&self, until: Instant) -> Sign {
        let mut kept = pin!(self.sign_on(&self.kept, until));
        let mut fresh = pin!(self.sign_on(&self.fresh, until));
        match timeout(HEAD_START, &mut kept).await {
            Ok(Sign::None) => fresh.await,
            Ok(sign) => sign,
            Err(_) => tokio::select! {
                sign = &mut kept => if sign.lives() { sign } else { fresh.await },
                sign = &mut fresh => if sign.lives() { sign } else { kept.await },
            },
        }
    }

    async fn sign_on(&self, client: &Client, until: Instant) -> Sign {
        let wanted =
            Wanted { kind: RequestKind::Probe, method: Method::GET, url: self.base.clone(), headers: HeaderMap::new() };
        let token = self.token.load_full();
        match client.ask(&wanted, token.as_deref(), until).await {
            Ok(answer) => {
                let draining = answer.headers.contains_key(hop::DRAINING);
                let knows_us = !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
                body::drain(answer.body).await;
                Sign::Answered { draining, knows_us }
            }
            Err(failed) if failed.spoke => Sign::Busy,
            Err(_) => Sign::None,
        }
    }

    fn dead(&self) -> SourceError {
        SourceError::Unreachable { reason: format!("the cluster cache at {} gives no sign of life", self.shown) }
    }

    /// Somebody asks it: from now on a connection is kept.
    fn wanted(&self, now: Instant) {
        let mut last = self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        if last.replace(now).is_none_or(|last| now.duration_since(last) >= INTEREST) {
            self.wake.notify_one();
        }
    }

    fn is_wanted(&self, now: Instant) -> bool {
        let last = self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.duration_since(last) < INTEREST)
    }

    fn answered(&self, headers: &HeaderMap) {
        if self.health().answered(headers.contains_key(hop::DRAINING), Instant::now()) {
            tracing::info!(replica = self.shown, "the cluster cache is about to stop there, and is left alone");
            self.wake.notify_one();
        }
    }

    fn failed(&self, failure: Failure, error: &SourceError, began: Instant) {
        if self.health().failed(failure, error.to_string(), began, Instant::now()) {
            tracing::warn!(
                replica = self.shown,
                ?failure,
                %error,
                "the cluster cache does not answer there: not asked until it does"
            );
            self.wake.notify_one();
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing that holds it can panic half-way through a change.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How fast a body comes, in the time in which it is waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Counts a piece; whether the body gets on.
    pub(super) fn is_kept(&mut self, bytes: usize, waited: Duration, silence: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.bytes >= TRICKLE {
            *self = Self::default();
        }
        self.waited < silence
    }
}

/// One task for each replica, until it is none any more: keeps a connection while it is asked, and while it is left alone looks for when
/// it may be asked again.
async fn look_after(replica: Weak<Replica>, wake: Arc<Notify>) {
    let mut pauses = probe::pauses();
    let mut was_away = false;
    loop {
        if was_away {
            sleep(pauses.next().unwrap_or(KEPT)).await;
        } else {
            // Whoever wakes us does so because there is something to do.
            let _ = timeout(KEPT, wake.notified()).await;
        }
        let Some(replica) = replica.upgrade() else { return };
        let now = Instant::now();
        if !was_away && !replica.is_available(now) {
            was_away = true;
            pauses = probe::pauses();
        } else if was_away {
            let sign = replica.sign().await;
            let mut health = replica.health();
            health.learn(sign, now);
            was_away = !health.is_available(now);
            drop(health);
            if !was_away {
                tracing::info!(replica = replica.shown, "the cluster cache may be asked there again");
            }
        } else if replica.is_wanted(now) {
            // What it says is for those who wait for an answer to learn.
            replica.sign_on(&replica.kept, now + PULSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_trickles_is_as_good_as_none_and_a_slow_reader_is_no_trickle() {
        let (second, silence) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut pace = Pace::default();
        assert!((0..29).all(|_| pace.is_kept(100, second, silence)) && !pace.is_kept(100, second, silence));
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| pace.is_kept(4096, second, silence)), "4 KiB/s");
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| pace.is_kept(1, Duration::ZERO, silence)), "nobody waited");
    }
}
