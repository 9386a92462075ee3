//! One address behind the cluster cache's name: asking it, and noticing that it does not live.
//!
//! A cache that takes its time may be waiting for a slow registry; one that was stopped looks the same. So whoever waits longer than
//! [`QUIET`] asks it, on a connection of its own, for a sign of life, which costs it nothing; without one within [`PULSE`] the replica
//! is given up, for everybody, until it answers again. A dead cache so costs a pull at most once in a while.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{HeaderMap, HeaderValue, Method};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::hop;
use crate::origin::breaker::{Breaker, Failure};
use crate::origin::client::{Answer, Client, Told, Wanted};
use crate::origin::connect::Network;
use crate::origin::{RequestKind, probe};
use crate::secret::Token;
use crate::source::SourceError;

/// Without a byte for so long, a sign of life is asked for.
const QUIET: Duration = Duration::from_secs(1);

/// It has so long to give one.
const PULSE: Duration = Duration::from_millis(1500);

/// How long a replica that is about to stop is left alone. It is gone by then, or another one has its address.
const DRAINING: Duration = Duration::from_secs(30);

/// One replica.
pub(super) struct Replica {
    pub(super) shown: String,
    base: Url,
    client: Client,
    /// A connection of its own for each question: one that hangs in the pool says nothing.
    pulse: Client,
    token: Arc<ArcSwapOption<Token>>,
    health: Mutex<Health>,
    last_pulse: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

#[derive(Debug, Default)]
struct Health {
    breaker: Breaker,
    /// How it failed last, in words for a person.
    reason: Option<String>,
    left_alone_until: Option<Instant>,
}

impl Replica {
    pub(super) fn new(
        shown: String,
        base: Url,
        network: &Arc<Network>,
        tls: ClientConfig,
        via: HeaderValue,
        token: Arc<ArcSwapOption<Token>>,
    ) -> Self {
        let told: Told = Arc::new(|_, _| {});
        Self {
            shown,
            base,
            client: Client::new(Arc::clone(network), tls.clone(), via.clone(), Arc::clone(&told)),
            pulse: Client::with_idle(0, Arc::clone(network), tls, via, told),
            token,
            health: Mutex::default(),
            last_pulse: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it may be asked now.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        let health = self.health();
        !health.breaker.is_open() && health.left_alone_until.is_none_or(|until| until <= now)
    }

    /// Why it is not asked now, where it did not answer.
    pub(super) fn reason(&self) -> Option<String> {
        let health = self.health();
        health.reason.clone().filter(|_| health.breaker.is_open())
    }

    /// The head of its answer, whatever that is.
    pub(super) async fn ask(self: &Arc<Self>, wanted: &Wanted, until: Instant) -> Result<Answer, SourceError> {
        let began = Instant::now();
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
                    if !replica.lives().await {
                        replica.failed(Failure::Silent, &replica.dead(), began);
                    }
                });
                Err(failed.error)
            }
            Err(failed) => {
                if let Some(failure) = failed.failure {
                    self.failed(failure, &failed.error, began);
                }
                Err(failed.error)
            }
        }
    }

    /// A body of this replica, which ends with an error when the replica does not live any more.
    pub(super) fn watched(
        self: &Arc<Self>,
        body: BoxStream<'static, Result<Bytes, SourceError>>,
    ) -> BoxStream<'static, Result<Bytes, SourceError>> {
        let state = Some((body, Arc::clone(self)));
        stream::unfold(state, |state| async {
            let (mut body, replica) = state?;
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
                Ok(piece) => Some((Ok(piece), Some((body, replica)))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// After a while without a word: whether it lives.
    async fn quiet(&self) -> bool {
        sleep(QUIET).await;
        self.lives().await
    }

    /// Whether it gives a sign of life. One question for all who want to know.
    async fn lives(&self) -> bool {
        let mut last = self.last_pulse.lock().await;
        if let Some((at, lives)) = *last
            && at.elapsed() < QUIET
        {
            return lives;
        }
        let wanted =
            Wanted { kind: RequestKind::Probe, method: Method::GET, url: self.base.clone(), headers: HeaderMap::new() };
        let token = self.token.load_full();
        let lives = self.pulse.ask(&wanted, token.as_deref(), Instant::now() + PULSE).await.is_ok();
        *last = Some((Instant::now(), lives));
        lives
    }

    fn dead(&self) -> SourceError {
        SourceError::Unreachable { reason: format!("the cluster cache at {} gives no sign of life", self.shown) }
    }

    fn answered(&self, headers: &HeaderMap) {
        let mut health = self.health();
        health.breaker.succeeded(Instant::now());
        if headers.contains_key(hop::DRAINING) && health.left_alone_until.is_none() {
            tracing::info!(replica = self.shown, "the cluster cache is about to stop there, and is left alone");
            health.left_alone_until = Some(Instant::now() + DRAINING);
        } else if !headers.contains_key(hop::DRAINING) {
            health.left_alone_until = None;
        }
    }

    fn failed(self: &Arc<Self>, failure: Failure, error: &SourceError, began: Instant) {
        let opened = {
            let mut health = self.health();
            let was_open = health.breaker.is_open();
            health.breaker.failed(failure, began, Instant::now());
            health.reason = Some(error.to_string());
            !was_open && health.breaker.is_open()
        };
        if opened {
            tracing::warn!(
                replica = self.shown,
                ?failure,
                %error,
                "the cluster cache does not answer there: not asked until it does"
            );
            tokio::spawn(until_it_lives(Arc::downgrade(self)));
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing that holds it can panic half-way through a change.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One at a time for each replica: begins when it is given up, ends when it answers or is no replica any more.
async fn until_it_lives(replica: Weak<Replica>) {
    for pause in probe::pauses() {
        sleep(pause).await;
        let Some(replica) = replica.upgrade() else { return };
        if replica.lives().await {
            tracing::info!(replica = replica.shown, "the cluster cache answers there again");
            replica.health().breaker.succeeded(Instant::now());
            return;
        }
    }
}
