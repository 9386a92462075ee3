//! Whether an endpoint may be asked now. Pure: time comes in as a value.
//!
//! An endpoint is two servers: the registry and the one that gives tokens for it. Either one's failing is the endpoint's;
//! each has a breaker of its own, because a registry whose token server is down still answers (401) all the time.

use tokio::time::Instant;
use url::Url;

use super::breaker::{Breaker, Failure};
use super::observe::RequestKind;
use crate::source::SourceError;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Registry,
    TokenServer,
}

/// What an event did to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// As before.
    Same,
    /// It is given up: start probing.
    Opened,
    /// It is asked again.
    Closed,
}

/// One endpoint's state.
#[derive(Debug, Default)]
pub(super) struct Health {
    registry: Breaker,
    token_server: Breaker,
    realm: Option<Url>,
    peace: Peace,
}

/// Until when it wants to be left in peace. Quotas are on manifests: whoever has used his up may still finish the layers that he has begun
/// with, so what is said about the one is not held against the other.
#[derive(Debug, Default)]
struct Peace {
    documents: Option<Instant>,
    blobs: Option<Instant>,
}

impl Peace {
    fn until(&self, kind: RequestKind) -> Option<Instant> {
        match kind {
            RequestKind::Blob => self.blobs,
            RequestKind::Manifest | RequestKind::Listing => self.documents,
            RequestKind::Token | RequestKind::Probe => None,
        }
    }
}

impl Health {
    /// Whether a question of this kind may be asked, or why not.
    pub(super) fn admit(&self, kind: RequestKind, now: Instant) -> Result<(), SourceError> {
        if self.is_open() {
            return Err(SourceError::CircuitOpen);
        }
        match self.peace.until(kind) {
            Some(until) if until > now => Err(SourceError::RateLimited { retry_after: Some(until - now) }),
            _ => Ok(()),
        }
    }

    /// Given up until a probe is answered.
    pub(super) fn is_open(&self) -> bool {
        self.registry.is_open() || self.token_server.is_open()
    }

    /// A request that began at `began` failed, or (`None`) was answered.
    pub(super) fn record(&mut self, side: Side, failure: Option<Failure>, began: Instant, now: Instant) -> Change {
        let was_open = self.is_open();
        let breaker = match side {
            Side::Registry => &mut self.registry,
            Side::TokenServer => &mut self.token_server,
        };
        match failure {
            None => breaker.succeeded(now),
            Some(failure) => breaker.failed(failure, began, now),
        }
        match (was_open, self.is_open()) {
            (false, true) => Change::Opened,
            (true, false) => Change::Closed,
            _ => Change::Same,
        }
    }

    /// What to ask to learn whether one side answers again; `None` if it is not given up.
    pub(super) fn failing(&self, side: Side, base: &Url) -> Option<Url> {
        match side {
            Side::Registry => self.registry.is_open().then(|| base.clone()),
            Side::TokenServer => self.realm.clone().filter(|_| self.token_server.is_open()),
        }
    }

    /// Where tokens were asked for last.
    pub(super) fn token_server_is(&mut self, realm: Url) {
        self.realm = Some(realm);
    }

    /// It answered 429 to a question of this kind. Without a token there is nothing that it could be asked.
    pub(super) fn leave_in_peace(&mut self, kind: RequestKind, until: Instant) {
        if kind != RequestKind::Blob {
            self.peace.documents = Some(until);
        }
        if matches!(kind, RequestKind::Blob | RequestKind::Token) {
            self.peace.blobs = Some(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_registry_s_own_answers_do_not_excuse_its_token_server() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let base = Url::parse("https://registry.example.com/v2/").unwrap();
        let realm = Url::parse("https://auth.example.com/token").unwrap();
        let mut health = Health::default();
        health.token_server_is(realm.clone());
        assert_eq!(health.record(Side::TokenServer, Some(Failure::Silent), now, now), Change::Opened);
        assert_eq!(health.record(Side::Registry, None, now, now), Change::Same);
        assert_eq!(health.admit(RequestKind::Blob, now), Err(SourceError::CircuitOpen));
        assert_eq!(health.failing(Side::Registry, &base), None);
        assert_eq!(health.failing(Side::TokenServer, &base), Some(realm));

        assert_eq!(health.record(Side::Registry, Some(Failure::Silent), later, later), Change::Same);
        assert_eq!(health.failing(Side::Registry, &base), Some(base.clone()));
        assert_eq!(health.record(Side::TokenServer, None, later, later), Change::Same);
        assert_eq!(health.record(Side::Registry, None, later, later), Change::Closed);
        assert_eq!(health.admit(RequestKind::Blob, later), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn is_left_in_peace_for_as_long_as_it_asked() {
        let now = Instant::now();
        let (soon, then) = (now + Duration::from_secs(2), now + Duration::from_secs(5));
        let limited = Err(SourceError::RateLimited { retry_after: Some(Duration::from_secs(3)) });
        let kinds = [RequestKind::Manifest, RequestKind::Listing, RequestKind::Blob];
        for (said_of, expected) in [
            (RequestKind::Manifest, [&limited, &limited, &Ok(())]),
            (RequestKind::Blob, [&Ok(()), &Ok(()), &limited]),
            (RequestKind::Token, [&limited; 3]),
        ] {
            let mut health = Health::default();
            health.leave_in_peace(said_of, then);
            assert_eq!(kinds.map(|kind| health.admit(kind, soon)).each_ref(), expected, "{said_of:?}");
            assert_eq!(kinds.map(|kind| health.admit(kind, then)), [Ok(()), Ok(()), Ok(())]);
        }
    }
}
