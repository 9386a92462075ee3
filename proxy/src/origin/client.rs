//! One question to the outside and its answer: request, redirects, the rules on every hop.
//!
//! Invariants: a credential goes to the host that it was meant for and never on to another; https never becomes http;
//! every hop is checked against the [`Boundary`](super::address::Boundary); nothing waits beyond its limit; the head of an
//! answer is bounded. URLs of storage carry signatures, so what is shown of a URL is its host.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, LOCATION, PROXY_AUTHORIZATION, USER_AGENT, VIA};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::Instant;
use url::Url;

use super::body;
use super::breaker::Failure;
use super::connect::{ConnectError, Connector, Network, Used};
use super::observe::{RequestKind, RequestOutcome};
use crate::secret::Token;
use crate::source::SourceError;

const MOST_REDIRECTS: usize = 5;
const MOST_HEADERS: usize = 100;
/// Of an answer's head; the pieces of a body are at most this long, too.
const LARGEST_HEAD: usize = 128 * 1024;
const IDLE_CONNECTIONS: usize = 16;
/// Less than what servers usually keep a connection for.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// An endpoint that had less time than this to answer has not failed.
const PATIENCE: Duration = Duration::from_secs(2);

const OUR_NAME: &str = concat!("larder/", env!("CARGO_PKG_VERSION"));

/// What is asked.
pub(crate) struct Wanted {
    pub(crate) kind: RequestKind,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
}

/// An answer whose head has arrived.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// Somebody else than the host that was asked gave it: storage behind a registry.
    pub(crate) elsewhere: bool,
    /// Status and headers of the very first answer: the registry's own word.
    pub(crate) own_status: StatusCode,
    pub(crate) own_headers: HeaderMap,
}

/// No answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: SourceError,
    /// What the host that was asked did, if it was its fault and not that of one that it led to.
    pub(crate) failure: Option<Failure>,
    /// Somebody answered there, though not in the language that was asked: whoever that is lives.
    pub(crate) spoke: bool,
    /// The certificate that was shown is not trusted.
    pub(crate) untrusted: bool,
}

/// Everything that asks one registry, with the connections to it.
pub(crate) struct Client {
    http: legacy::Client<Connector, Empty<Bytes>>,
    network: Arc<Network>,
    via: HeaderValue,
    told: Told,
    redirects: usize,
}

/// Whoever is told how each request ended.
pub(crate) type Told = Arc<dyn Fn(RequestKind, RequestOutcome) + Send + Sync>;

impl Client {
    pub(crate) fn new(network: Arc<Network>, tls: ClientConfig, via: HeaderValue, told: Told) -> Self {
        Self::with_idle(IDLE_CONNECTIONS, network, tls, via, told)
    }

    /// One that keeps at most so many connections that nobody uses; with 0 each request has a connection of its own.
    pub(crate) fn with_idle(
        idle: usize,
        network: Arc<Network>,
        tls: ClientConfig,
        via: HeaderValue,
        told: Told,
    ) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(idle)
            .http1_max_headers(MOST_HEADERS)
            .http1_max_buf_size(LARGEST_HEAD)
            .build(Connector::new(Arc::clone(&network), tls));
        Self { http, network, via, told, redirects: MOST_REDIRECTS }
    }

    /// The same, to whom a redirect is an answer like any other.
    pub(crate) fn following_none(self) -> Self {
        Self { redirects: 0, ..self }
    }

    /// Asks, and follows redirects. `token` goes only to the host of `wanted`. No answer by `until` is a
    /// [`SourceError::Timeout`].
    pub(crate) async fn ask(&self, wanted: &Wanted, token: Option<&Token>, until: Instant) -> Result<Answer, Failed> {
        let mut url = wanted.url.clone();
        let mut own: Option<(StatusCode, HeaderMap)> = None;
        let mut elsewhere = false;
        for _ in 0..=self.redirects {
            let token = token.filter(|_| !elsewhere);
            let first = own.is_none();
            let response = self
                .hop(wanted, &url, token, until)
                .await
                .map_err(|failed| Failed { failure: failed.failure.filter(|_| first), ..failed })?;
            let (head, body) = response.into_parts();
            let (own_status, own_headers) = own.get_or_insert_with(|| (head.status, head.headers.clone())).clone();
            let next = match self.redirects {
                0 => None,
                _ => next_hop(&url, head.status, &head.headers).map_err(Failed::innocent)?,
            };
            let Some(next) = next else {
                check_encoding(&head.headers, head.status).map_err(Failed::innocent)?;
                return Ok(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                    elsewhere,
                    own_status,
                    own_headers,
                });
            };
            body::drain(body).await;
            elsewhere |= next.origin() != wanted.url.origin();
            url = next;
        }
        let reason = format!("more than {MOST_REDIRECTS} redirects");
        Err(Failed::innocent(SourceError::Protocol { reason }))
    }

    async fn hop(
        &self,
        wanted: &Wanted,
        url: &Url,
        token: Option<&Token>,
        until: Instant,
    ) -> Result<Response<Incoming>, Failed> {
        let began = Instant::now();
        let answered = tokio::time::timeout_at(until, self.once_more(wanted, url, token)).await;
        let (result, outcome) = match answered {
            Ok(Ok(response)) => {
                let outcome = RequestOutcome::Status(response.status().as_u16());
                (Ok(response), outcome)
            }
            Ok(Err(failed)) => {
                let outcome = match failed.error {
                    SourceError::Refused { .. } => RequestOutcome::Refused,
                    SourceError::Timeout => RequestOutcome::Timeout,
                    _ => RequestOutcome::Unreachable,
                };
                (Err(failed), outcome)
            }
            Err(_) => {
                let failure = (began.elapsed() >= PATIENCE).then_some(Failure::Silent);
                (Err(Failed { failure, ..Failed::innocent(SourceError::Timeout) }), RequestOutcome::Timeout)
            }
        };
        (self.told)(wanted.kind, outcome);
        result
    }

    /// A connection from the pool may have been closed by the other side just now; that is no answer, so ask again.
    async fn once_more(&self, wanted: &Wanted, url: &Url, token: Option<&Token>) -> Result<Response<Incoming>, Failed> {
        // As many as may lie idle, and the new one.
        let mut left = IDLE_CONNECTIONS;
        loop {
            let request = self.request(wanted, url, token).map_err(Failed::innocent)?;
            let error = match self.http.request(request).await {
                Ok(response) => {
                    if let Some(used) = response.extensions().get::<Used>() {
                        used.mark();
                    }
                    return Ok(response);
                }
                Err(error) => error,
            };
            let mut extensions = http::Extensions::new();
            if let Some(connected) = error.connect_info() {
                connected.get_extras(&mut extensions);
            }
            let stale = extensions.get::<Used>().is_some_and(Used::before);
            if !stale || left == 0 {
                return Err(not_answered(&error, url));
            }
            left -= 1;
        }
    }

    fn request(&self, wanted: &Wanted, url: &Url, token: Option<&Token>) -> Result<Request<Empty<Bytes>>, SourceError> {
        let nonsense = |what: &str| SourceError::Protocol { reason: format!("{} {what}", shown(url)) };
        let uri: Uri = url.as_str().parse().map_err(|_| nonsense("is no address"))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = wanted.method.clone();
        let headers = request.headers_mut();
        headers.clone_from(&wanted.headers);
        headers.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        // A blob's bytes are those of its digest; an encoding on top of them would have to be taken off again.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(VIA, self.via.clone());
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.header().ok_or_else(|| nonsense("gave us a token that is none"))?);
        }
        if uri.scheme_str() == Some("http")
            && let Some(proxy) = self.network.proxies.proxy(&uri)
            && let Some(authorization) = proxy.authorization
        {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        *request.uri_mut() = uri;
        Ok(request)
    }
}

impl Failed {
    /// The host that was asked answers; that is all that the breaker wants to know.
    fn innocent(error: SourceError) -> Self {
        Self { error, failure: None, spoke: false, untrusted: false }
    }
}

fn not_answered(error: &legacy::Error, url: &Url) -> Failed {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return not_connected(error);
        }
        cause = error.source();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let reason = format!("{} did not answer: {innermost}", shown(url));
    // It spoke, but not HTTP.
    if error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_parse) {
        let failed = Failed::innocent(SourceError::Protocol { reason });
        return Failed { failure: Some(Failure::NotConnected), spoke: true, ..failed };
    }
    Failed { failure: Some(Failure::NotConnected), ..Failed::innocent(SourceError::Unreachable { reason }) }
}

fn not_connected(error: &ConnectError) -> Failed {
    match error {
        ConnectError::Forbidden(forbidden) => Failed::innocent(SourceError::Refused { reason: forbidden.to_string() }),
        ConnectError::Timeout => {
            let error = SourceError::Unreachable { reason: error.to_string() };
            Failed { failure: Some(Failure::Silent), ..Failed::innocent(error) }
        }
        _ => Failed {
            error: SourceError::Unreachable { reason: error.to_string() },
            failure: Some(Failure::NotConnected),
            spoke: matches!(error, ConnectError::Tls { spoke: true, .. }),
            untrusted: matches!(error, ConnectError::Tls { untrusted: true, .. }),
        },
    }
}

/// Where a redirect leads, if this is one.
fn next_hop(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, SourceError> {
    let redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = headers.get(LOCATION).filter(|_| redirect) else {
        return Ok(None);
    };
    let nonsense = |reason: &str| SourceError::Protocol { reason: format!("{} redirects {reason}", shown(from)) };
    let location = location.to_str().map_err(|_| nonsense("to what is no URL"))?;
    let mut next = from.join(location).map_err(|_| nonsense("to what is no URL"))?;
    check_hop(from, &next)?;
    next.set_fragment(None);
    Ok(Some(next))
}

/// Whether one URL may lead to another: a redirect, or a challenge to its token realm.
pub(crate) fn check_hop(from: &Url, next: &Url) -> Result<(), SourceError> {
    let refused = |what: &str| {
        let reason = format!("{} leads to {what}", shown(from));
        Err(SourceError::Refused { reason })
    };
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return refused("plain http"),
        _ => return refused("something that is not http"),
    }
    if !next.username().is_empty() || next.password().is_some() {
        return refused("a URL with a password");
    }
    Ok(())
}

fn check_encoding(headers: &HeaderMap, status: StatusCode) -> Result<(), SourceError> {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !status.is_success() || headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    Err(SourceError::Protocol { reason: "the answer has a content encoding that nobody asked for".into() })
}

/// What of a URL may be shown.
pub(crate) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_lead() {
        let next = |from: &str, location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
            next_hop(&Url::parse(from).unwrap(), StatusCode::TEMPORARY_REDIRECT, &headers)
                .map(|next| next.unwrap().to_string())
        };
        assert_eq!(next("https://a.example/v2/x", "/y#z").unwrap(), "https://a.example/y");
        assert_eq!(next("https://a.example/v2/x", "//b.example/y?s=1").unwrap(), "https://b.example/y?s=1");
        assert_eq!(next("http://a.example/", "https://b.example/").unwrap(), "https://b.example/");
        assert_eq!(next("http://a.example/", "http://b.example/").unwrap(), "http://b.example/");
        for location in ["http://a.example/", "file:///etc/passwd", "ftp://a.example/", "https://u:p@a.example/"] {
            assert!(matches!(next("https://a.example/", location), Err(SourceError::Refused { .. })), "{location}");
        }
        assert!(matches!(next("https://a.example/", "https://["), Err(SourceError::Protocol { .. })));
    }

    #[test]
    fn signatures_are_not_shown() {
        let url = Url::parse("https://storage.example:8443/b?X-Amz-Signature=secret").unwrap();
        assert_eq!(shown(&url), "https://storage.example:8443");
    }
}
