//! One place where a registry can be asked: the token dance, what an answer's status means, and when to leave it alone.
//!
//! While the endpoint is given up (`breaker`) or wants to be left in peace (429), a question fails at once. `upstream`
//! decides which endpoint comes next; `client` does the asking.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Method, StatusCode};
use larder_oci::{Challenge, Registry, Repository};
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroize as _;

use super::body;
use super::breaker::Failure;
use super::client::{Answer, Client, Failed, Wanted, check_hop, shown};
use super::health::{Change, Health, Side};
use super::observe::{Heard, Observer, RequestKind, Trouble, Word};
use super::pacing::{self, Pace};
use super::probe;
use super::token::{AtHand, Grant, TokenChallenge, Tokens};
use crate::source::SourceError;

/// A token server has this long, whoever still waits for it.
const TOKEN_LIMIT: Duration = Duration::from_secs(10);
const LARGEST_TOKEN: usize = 64 * 1024;

/// A probe has this long.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// One endpoint of a registry.
pub(super) struct Endpoint {
    registry: Registry,
    /// Ends in `/v2/`, or in what the settings have instead.
    base: Url,
    /// Another one is the same address under the other scheme.
    either_scheme: bool,
    client: Arc<Client>,
    observer: Arc<dyn Observer>,
    tokens: Arc<Tokens>,
    health: Mutex<Health>,
    pace: Mutex<Pace>,
    /// Somebody asked while it was given up: a reason to probe soon.
    wanted: Arc<Notify>,
}

impl Endpoint {
    /// `address` as the settings have it.
    pub(super) fn new(
        registry: Registry,
        address: &Url,
        either_scheme: bool,
        client: Arc<Client>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            registry,
            base: base(address),
            either_scheme,
            client,
            observer,
            tokens: Arc::default(),
            health: Mutex::default(),
            pace: Mutex::default(),
            wanted: Arc::default(),
        }
    }

    /// The URL of something of a repository: `manifests/latest`.
    pub(super) fn url(&self, repository: &Repository, path: &str, query: Option<&str>) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{repository}/{path}", self.base.path()));
        url.set_query(query);
        url
    }

    /// What may be shown of it.
    pub(super) fn shown(&self) -> String {
        shown(&self.base)
    }

    /// Asks, with an anonymous token if the registry wants one. `Ok` is a 200 or 206.
    pub(super) async fn ask(
        self: &Arc<Self>,
        repository: &Repository,
        wanted: &Wanted,
        until: Instant,
    ) -> Result<Answer, SourceError> {
        self.admit(wanted.kind, Instant::now())?;
        let (grant, fresh) = match self.tokens.at_hand(repository, Instant::now()) {
            AtHand::Nothing => (None, false),
            AtHand::Grant(grant) => (Some(grant), false),
            AtHand::Challenge(challenge) => (Some(self.token(repository, challenge, None, until).await?), true),
        };
        let answer = self.exchange(wanted, grant.as_deref(), until).await?;
        if fresh {
            return self.judge(wanted.kind, answer);
        }
        let Some(challenge) = self.challenge(&answer, repository, grant.is_some())? else {
            return self.judge(wanted.kind, answer);
        };
        body::drain(answer.body).await;
        let grant = self.token(repository, challenge, grant.as_ref(), until).await?;
        let answer = self.exchange(wanted, Some(&grant), until).await?;
        self.judge(wanted.kind, answer)
    }

    /// Whether it would be asked now.
    pub(super) fn admits(&self, kind: RequestKind) -> bool {
        self.health().admit(kind, Instant::now()).is_ok()
    }

    fn admit(&self, kind: RequestKind, now: Instant) -> Result<(), SourceError> {
        let admitted = self.health().admit(kind, now);
        if admitted == Err(SourceError::CircuitOpen) {
            self.wanted.notify_one();
        }
        admitted
    }

    /// Waits until the registry's quota has room for one more pull, as far as somebody who waits can be made to.
    pub(super) async fn hold_back(&self, until: Instant) {
        let now = Instant::now();
        let at = self.pace().next(now).min(now + until.saturating_duration_since(now) / 2);
        if at > now {
            self.observer.held_back(&self.registry, at.duration_since(now));
            tokio::time::sleep_until(at).await;
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        wanted: &Wanted,
        grant: Option<&Grant>,
        until: Instant,
    ) -> Result<Answer, SourceError> {
        let began = Instant::now();
        match self.client.ask(wanted, grant.map(|grant| &grant.token), until).await {
            Ok(answer) => {
                let failure = failure_of(answer.own_status);
                self.record(Side::Registry, failure, began);
                self.tell_answer(Side::Registry, wanted, &answer, grant.is_some(), began);
                if let Some(quota) = pacing::rate_limit(&answer.own_headers, SystemTime::now()) {
                    self.pace().heard(quota);
                    self.observer.rate_limit(&self.registry, quota);
                }
                Ok(answer)
            }
            Err(failed) => {
                if failed.failure.is_some() {
                    self.record(Side::Registry, failed.failure, began);
                    self.tell_failed(Side::Registry, wanted, &failed);
                }
                Err(failed.error)
            }
        }
    }

    /// Where the registry wants us to get a token, if that is what it says.
    fn challenge(
        &self,
        answer: &Answer,
        repository: &Repository,
        had_token: bool,
    ) -> Result<Option<TokenChallenge>, SourceError> {
        if answer.elsewhere {
            return Ok(None);
        }
        match answer.status {
            StatusCode::UNAUTHORIZED => bearer(&self.base, &answer.headers),
            // Some say so when a token has expired.
            StatusCode::FORBIDDEN if had_token => Ok(self.tokens.challenge(repository)),
            _ => Ok(None),
        }
    }

    async fn token(
        self: &Arc<Self>,
        repository: &Repository,
        challenge: TokenChallenge,
        refused: Option<&Arc<Grant>>,
        until: Instant,
    ) -> Result<Arc<Grant>, SourceError> {
        let fetch = {
            let (endpoint, repository, challenge) = (Arc::clone(self), repository.clone(), challenge.clone());
            async move { endpoint.fetch_token(&repository, &challenge).await }
        };
        let pending = self.tokens.renew(repository, challenge, refused, Instant::now(), fetch);
        tokio::time::timeout_at(until, pending).await.map_err(|_| SourceError::Timeout)?
    }

    async fn fetch_token(
        self: &Arc<Self>,
        repository: &Repository,
        challenge: &TokenChallenge,
    ) -> Result<Grant, SourceError> {
        let began = Instant::now();
        let until = began + TOKEN_LIMIT;
        let url = challenge.url(repository);
        let wanted = Wanted { kind: RequestKind::Token, method: Method::GET, url, headers: HeaderMap::new() };
        self.health().token_server_is(challenge.realm.clone());
        let answer = match self.client.ask(&wanted, None, until).await {
            Ok(answer) => answer,
            Err(failed) => {
                if failed.failure.is_some() {
                    self.record(Side::TokenServer, failed.failure, began);
                    self.tell_failed(Side::TokenServer, &wanted, &failed);
                }
                return Err(failed.error);
            }
        };
        let failure = failure_of(answer.own_status);
        self.record(Side::TokenServer, failure, began);
        self.tell_answer(Side::TokenServer, &wanted, &answer, false, began);
        match answer.status.as_u16() {
            200 => {
                let body = body::read(answer.body, LARGEST_TOKEN, until).await?;
                let grant = Grant::parse(&body, Instant::now());
                if let Ok(mut body) = body.try_into_mut() {
                    body.zeroize();
                }
                grant
            }
            429 => Err(self.leave_in_peace(RequestKind::Token, &answer)),
            status @ (408 | 500..) => Err(SourceError::Server { status }),
            // It was asked for what anyone may have.
            status @ 400.. => Err(SourceError::NeedsCredentials { status }),
            status => Err(SourceError::Protocol { reason: format!("the token server answered {status}") }),
        }
    }

    /// What a status means.
    fn judge(&self, kind: RequestKind, answer: Answer) -> Result<Answer, SourceError> {
        match answer.status.as_u16() {
            200 | 206 => Ok(answer),
            // Storage that refuses what the registry sent us for says nothing about who may have it.
            status @ (401 | 403) if answer.elsewhere => Err(SourceError::Server { status }),
            status @ (401 | 403) => Err(SourceError::NeedsCredentials { status }),
            404 | 410 => Err(SourceError::NotFound),
            429 if answer.elsewhere => Err(SourceError::RateLimited {
                retry_after: Some(pacing::retry_after(&answer.headers, SystemTime::now())),
            }),
            429 => Err(self.leave_in_peace(kind, &answer)),
            // It says that it does not know the method (RFC 9110 §15.6.2), as 405 does.
            501 => Err(SourceError::Protocol { reason: "unexpected status 501".to_owned() }),
            status @ (408 | 500..) => Err(SourceError::Server { status }),
            status => Err(SourceError::Protocol { reason: format!("unexpected status {status}") }),
        }
    }

    fn leave_in_peace(&self, kind: RequestKind, answer: &Answer) -> SourceError {
        let wait = pacing::retry_after(&answer.headers, SystemTime::now());
        self.health().leave_in_peace(kind, Instant::now() + wait);
        let side = if kind == RequestKind::Token { Side::TokenServer } else { Side::Registry };
        self.tell(side, Word::Limited(wait));
        // Nothing is asked until then, so this is said once each time, and explains what is stale or refused meanwhile.
        tracing::warn!(registry = %self.registry, endpoint = self.shown(), kind = kind.as_str(), seconds = wait.as_secs(),
            "the registry limits the rate of requests; it is left in peace that long, what is held is served");
        SourceError::RateLimited { retry_after: Some(wait) }
    }

    /// Tells a breaker; without a failure, that there was an answer.
    fn record(self: &Arc<Self>, side: Side, failure: Option<Failure>, began: Instant) {
        let change = self.health().record(side, failure, began, Instant::now());
        match change {
            Change::Same => {}
            Change::Opened => {
                tracing::warn!(registry = %self.registry, endpoint = self.shown(), ?side, "the endpoint fails; probing it");
                self.observer.circuit(&self.registry, true);
                tokio::spawn(probe::until_it_answers(Arc::downgrade(self), Arc::clone(&self.wanted)));
            }
            Change::Closed => {
                tracing::info!(registry = %self.registry, endpoint = self.shown(), "the endpoint answers again");
                self.observer.circuit(&self.registry, false);
            }
        }
    }

    /// Asks what failed once more, and whether all is well now.
    pub(super) async fn probe(self: &Arc<Self>) -> bool {
        for side in [Side::Registry, Side::TokenServer] {
            let Some(url) = self.health().failing(side, &self.base) else { continue };
            let began = Instant::now();
            let wanted = Wanted { kind: RequestKind::Probe, method: Method::GET, url, headers: HeaderMap::new() };
            let failure = match self.client.ask(&wanted, None, began + PROBE_LIMIT).await {
                Ok(answer) => {
                    self.tell_answer(side, &wanted, &answer, false, began);
                    failure_of(answer.own_status)
                }
                Err(failed) => {
                    if failed.failure.is_some() {
                        self.tell_failed(side, &wanted, &failed);
                    }
                    failed.failure
                }
            };
            self.record(side, failure, began);
        }
        !self.health().is_open()
    }

    /// Whoever wants to know how the registry is doing hears that it answered. Of a 429 it hears in [`Self::leave_in_peace`].
    fn tell_answer(&self, side: Side, wanted: &Wanted, answer: &Answer, had_token: bool, began: Instant) {
        let status = answer.own_status;
        let word = if failure_of(status).is_some() {
            Word::Failed(Trouble::Failing, format!("{} answered {}", shown(&wanted.url), status.as_u16()))
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            return;
        } else {
            let is_only_that = side == Side::Registry && wanted.kind != RequestKind::Blob && !answer.elsewhere;
            // Some say 403 when a token has expired.
            let with_token = had_token && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            Word::Answered { took: is_only_that.then(|| began.elapsed()), with_token }
        };
        self.tell(side, word);
    }

    fn tell_failed(&self, side: Side, wanted: &Wanted, failed: &Failed) {
        // It speaks the other one.
        if failed.spoke && self.either_scheme {
            return;
        }
        let trouble = if failed.untrusted { Trouble::Untrusted } else { Trouble::Unreachable };
        let message = match side {
            Side::Registry => failed.error.to_string(),
            Side::TokenServer => format!("{}, which gives its tokens: {}", shown(&wanted.url), failed.error),
        };
        self.tell(side, Word::Failed(trouble, message));
    }

    fn tell(&self, side: Side, word: Word) {
        let heard = Heard { endpoint: self.shown(), is_token_server: side == Side::TokenServer, word };
        self.observer.heard(&self.registry, heard);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing that holds it can panic half-way through a change.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // The probe looks up and finds nobody.
        self.wanted.notify_one();
    }
}

/// With the version of the API, unless the settings have it already: `https://harbor.example.com/v2/project` is
/// how a registry is spelled that keeps another's content below a path.
fn base(address: &Url) -> Url {
    let mut base = address.clone();
    let path = address.path().trim_end_matches('/');
    let versioned = path == "/v2" || path.starts_with("/v2/");
    base.set_path(&format!("{path}{}", if versioned { "/" } else { "/v2/" }));
    base.set_query(None);
    base.set_fragment(None);
    base
}

/// The first Bearer challenge of an answer.
fn bearer(base: &Url, headers: &HeaderMap) -> Result<Option<TokenChallenge>, SourceError> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let found = values.flat_map(Challenge::parse_all).find_map(|challenge| match challenge {
        Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
        Challenge::Basic { .. } | Challenge::Other(_) => None,
    });
    let Some((realm, service, scope)) = found else { return Ok(None) };
    let realm =
        Url::parse(&realm).map_err(|_| SourceError::Protocol { reason: "the challenge's realm is no URL".into() })?;
    check_hop(base, &realm)?;
    Ok(Some(TokenChallenge { realm, service, scope }))
}

/// What a status says about whoever sent it.
fn failure_of(status: StatusCode) -> Option<Failure> {
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED).then_some(Failure::ServerError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let table = [
            ("https://registry.example.com", "https://registry.example.com/v2/"),
            ("https://registry.example.com/?x=1#y", "https://registry.example.com/v2/"),
            ("https://registry.example.com/v2", "https://registry.example.com/v2/"),
            ("https://mirror.example.com/hub/", "https://mirror.example.com/hub/v2/"),
            ("https://harbor.example.com/v2/project", "https://harbor.example.com/v2/project/"),
            ("https://mirror.example.com/v2x", "https://mirror.example.com/v2x/v2/"),
        ];
        for (address, expected) in table {
            assert_eq!(base(&Url::parse(address).unwrap()).as_str(), expected);
        }
    }

    #[test]
    fn realms() {
        let base = Url::parse("https://registry.example.com/v2/").unwrap();
        let realm = |value: &str| {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.parse().unwrap())]);
            bearer(&base, &headers).map(|found| found.map(|challenge| challenge.realm.to_string()))
        };
        let good = r#"Basic realm="x", Bearer realm="https://auth.example.com/token",service="s""#;
        assert_eq!(realm(good), Ok(Some("https://auth.example.com/token".into())));
        assert_eq!(realm(r#"Basic realm="x""#), Ok(None));
        assert!(matches!(realm(r#"Bearer realm="http://auth.example.com/""#), Err(SourceError::Refused { .. })));
        assert!(matches!(realm(r#"Bearer realm="/token""#), Err(SourceError::Protocol { .. })));
    }
}
