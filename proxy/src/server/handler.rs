//! One request: route, loop check, range, then whoever answers, and back to the wire.
//!
//! Nothing here decides what is served; [`Answer`] does (`pull`, put behind it in `program`). What the server answers by
//! itself: `/v2/`, canaries, probes, and everything that is no request of ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LINK, RANGE,
    VIA,
};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Uri};
use larder_oci::{ByteRange, ErrorBody, ErrorCode};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::account::Account;
use super::gate::{self, Gate, Peer, TurnedAway};
use super::paging::next_page;
use super::probe::Probe;
use super::route::{Refusal, Route, namespace_parameter, query_without_namespace, route};
use super::socket::SocketState;
use super::wire::{WireBody, respond};
use crate::hop;
use crate::metrics::Metrics;
use crate::pull::Follows;
use crate::reply::{Body, Outcome, Reply, ReplySource};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A routed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What for.
    pub route: Route,
    /// GET or HEAD.
    pub method: Method,
    /// The one range of a GET; `None` for all of it.
    pub range: Option<ByteRange>,
    /// The client's query without `ns`.
    pub query: Option<String>,
    /// A manifest is a promise of the rest: the client stays with whoever gave it the manifest, which is so where it names the
    /// registry in the path (CRI-O), not in `ns` (containerd, which asks the next one for each thing that this one does not give).
    pub promised: bool,
    /// How long the head of the answer may take, where the client says how long it waits.
    pub within: Option<Duration>,
    /// The fingerprint of what the client was told of the registry, where it says so: nobody else's endpoints are an answer to it.
    pub settings: Option<String>,
    /// Whether it follows a redirect to where a blob is kept.
    pub follows: Follows,
}

/// Whoever answers requests for images.
pub trait Answer: Send + Sync + 'static {
    /// The reply to a manifest, blob, tags or referrers request.
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Reply>;

    /// Told once, when the server is to stop: whoever answers begins nothing new from now on and is done when the clients that
    /// cannot turn elsewhere any more have what they were promised, or have gone quiet. New connections are served until then.
    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Everything that requests need; shared by all connections.
pub(super) struct Handler {
    pub(super) answer: Arc<dyn Answer>,
    pub(super) probe: Arc<Probe>,
    pub(super) metrics: Arc<Metrics>,
    /// The pseudonym that our own requests carry in `Via`.
    pub(super) via: String,
    /// Who may ask; `None`: everybody who reaches us.
    pub(super) gate: Option<Gate>,
    /// Cancelled from when we are to stop.
    pub(super) stop: CancellationToken,
}

impl Handler {
    /// Answers one request. `state` is that of its connection.
    pub(super) async fn handle<B: http_body::Body>(
        self: Arc<Self>,
        request: Request<B>,
        peer: Peer,
        state: Arc<SocketState>,
    ) -> Result<Response<WireBody>, Infallible> {
        let (parts, body) = request.into_parts();
        // Nobody has a reason to send one. Where it ends is what somebody in between may see differently (RFC 9112 §11.2).
        let has_body = !body.is_end_stream();
        drop(body);
        let routed = route(&parts.method, parts.uri.path(), parts.uri.query());
        let account = Account::open(Arc::clone(&self.metrics), &parts.method, routed.as_ref().ok());
        let span = account.span().clone();
        let reply = async {
            if let Some(gate) = &self.gate {
                match gate.admit(&parts.headers, peer).await {
                    Ok(caller) => {
                        state.let_in();
                        tracing::debug!(caller = caller.name, "may ask");
                    }
                    Err(away) => return turned_away(away),
                }
            }
            self.reply(routed, &parts, peer).await
        };
        let mut reply = reply.instrument(span).await;
        if self.gate.is_some() && self.stop.is_cancelled() {
            reply.headers.insert(hop::DRAINING, HeaderValue::from_static("1"));
        }
        if has_body {
            reply.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(respond(reply, &parts.method, account, &state))
    }

    async fn reply(&self, routed: Result<Route, Refusal>, parts: &Parts, peer: Peer) -> Reply {
        let Parts { method, headers, uri, .. } = parts;
        let route = match routed {
            Ok(route) => route,
            Err(refusal) => return refused(&refusal),
        };
        if has_passed_here(headers, &self.via) {
            tracing::warn!("a request of our own came back: an endpoint leads here");
            return own(StatusCode::BAD_GATEWAY, Bytes::new(), "loop");
        }
        let query = uri.query();
        match route {
            Route::Base => own(StatusCode::OK, Bytes::from_static(b"{}"), "ok"),
            Route::Probe => {
                let answer = self.probe.answer(query.unwrap_or_default());
                own(answer.status, Bytes::from(answer.json), "ok")
            }
            Route::Canary { nonce } => {
                self.probe.record_canary(&nonce);
                // containerd gives the pull up at a 304 and asks nobody else, so no origin is bothered.
                own(StatusCode::NOT_MODIFIED, Bytes::new(), "canary")
            }
            Route::Manifest { .. }
            | Route::Blob { .. }
            | Route::Tags { .. }
            | Route::Catalog
            | Route::Referrers { .. } => {
                let range = if method == Method::GET { range(headers) } else { None };
                let promised = query.is_none_or(|query| namespace_parameter(query).is_none());
                let query = query_without_namespace(query);
                let within = hop::within(headers);
                let settings = headers.get(hop::SETTINGS).and_then(|text| text.to_str().ok()).map(ToOwned::to_owned);
                let follows = match (&self.gate, &route) {
                    (Some(_), Route::Blob { .. }) => follows(headers, uri, peer),
                    _ => Follows::No,
                };
                let asked = Asked { route, method: method.clone(), range, query, promised, within, settings, follows };
                let reply = self.answer.answer(asked).await;
                paged(reply, uri)
            }
        }
    }
}

/// A list that goes on goes on here.
fn paged(mut reply: Reply, uri: &Uri) -> Reply {
    if let Some(link) = reply.headers.remove(LINK) {
        let next = link.to_str().ok().and_then(|link| next_page(link, uri.path(), uri.query()));
        if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
            reply.headers.insert(LINK, next);
        }
    }
    reply
}

/// The range of a request. More than one, one that is not understood, and one that depends on a condition count as none: the
/// whole content is the answer to those (RFC 9110 §14.2, §13.1.5).
fn range(headers: &HeaderMap) -> Option<ByteRange> {
    let mut values = headers.get_all(RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !headers.contains_key(IF_RANGE) => ByteRange::parse_header(value.to_str().ok()?).ok(),
        _ => None,
    }
}

/// Whether a caller of a service follows redirects. A machine that is let in for its address alone is none that a signed URL is given to.
fn follows(headers: &HeaderMap, uri: &Uri, peer: Peer) -> Follows {
    let host = || {
        let named = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let authority = uri.authority().cloned().or(named)?;
        Some(authority.host().to_owned())
    };
    match headers.get(hop::REDIRECT) {
        _ if !gate::says_a_token(headers) => Follows::No,
        Some(said) if *said == hop::FOLLOWS => Follows::Yes,
        Some(_) => Follows::No,
        None => host().map_or(Follows::No, |asked| Follows::Unsaid {
            asked,
            machine: peer.map(|address| address.to_canonical()),
        }),
    }
}

/// Whether `Via` names us: `Via: 1.1 larder-ab12, 1.1 other (comment)` (RFC 9110 §7.6.3).
fn has_passed_here(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(pseudonym))
}

/// One who may not ask.
fn turned_away(away: TurnedAway) -> Reply {
    let TurnedAway { status, message, challenge } = away;
    let json = ErrorBody::new(ErrorCode::Unauthorized, message).to_json();
    let mut reply = own(status, Bytes::from(json), "unauthorized");
    gate::challenge(&mut reply.headers, challenge);
    reply
}

fn refused(refusal: &Refusal) -> Reply {
    let json = ErrorBody::new(refusal.code, &refusal.message).to_json();
    let mut reply = own(refusal.status, Bytes::from(json), "bad_request");
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        reply.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    reply
}

/// An answer of the server's own.
fn own(status: StatusCode, json: Bytes, result: &'static str) -> Reply {
    let mut headers = HeaderMap::new();
    headers
        .insert(HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(json.len()));
    }
    if !json.is_empty() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    Reply::new(status, headers, Body::Bytes(json), Outcome::new(ReplySource::None, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn one_range_counts_and_nothing_else() {
        for (given, expected) in [
            (headers(&[]), None),
            (headers(&[(RANGE, "bytes=5-")]), Some(ByteRange::From(5))),
            (headers(&[(RANGE, "bytes=0-9")]), Some(ByteRange::FromTo { first: 0, last: 9 })),
            (headers(&[(RANGE, "bytes=0-1,5-6")]), None),
            (headers(&[(RANGE, "bytes=9-1")]), None),
            (headers(&[(RANGE, "lines=1-")]), None),
            (headers(&[(RANGE, "bytes=5-"), (IF_RANGE, "\"etag\"")]), None),
        ] {
            assert_eq!(range(&given), expected, "{given:?}");
        }
        let mut twice = headers(&[(RANGE, "bytes=5-")]);
        twice.append(RANGE, HeaderValue::from_static("bytes=6-"));
        assert_eq!(range(&twice), None);
    }

    #[test]
    fn only_who_is_known_by_a_token_is_sent_on_and_it_is_known_whom_a_tool_would_tell() {
        let of =
            |pairs: &[(HeaderName, &'static str)], uri: &str| follows(&headers(pairs), &uri.parse().unwrap(), None);
        let token = (http::header::AUTHORIZATION, "Bearer token");
        let host = (HOST, "cache.example:7443");
        let unsaid = |asked: &str| Follows::Unsaid { asked: asked.to_owned(), machine: None };
        assert_eq!(of(&[token.clone(), host.clone()], "/v2/"), unsaid("cache.example"));
        assert_eq!(of(&[token.clone(), (HOST, "[::1]:7443")], "/v2/"), unsaid("[::1]"));
        assert_eq!(of(&[token.clone(), host.clone()], "http://other.example/v2/"), unsaid("other.example"));
        assert_eq!(of(std::slice::from_ref(&token), "/v2/"), Follows::No);
        assert_eq!(of(std::slice::from_ref(&host), "/v2/"), Follows::No);
        for (said, expected) in [("yes", Follows::Yes), ("no", Follows::No), ("", Follows::No), ("YES", Follows::No)] {
            let said = (hop::REDIRECT, said);
            assert_eq!(of(&[token.clone(), host.clone(), said.clone()], "/v2/"), expected);
            assert_eq!(of(&[host.clone(), said], "/v2/"), Follows::No, "nobody knows who this is");
        }
    }

    #[test]
    fn a_request_that_passed_here_is_known_by_via() {
        let passed = |value| has_passed_here(&headers(&[(VIA, value)]), "larder-ab12");
        assert!(passed("1.1 larder-ab12"));
        assert!(passed("1.0 fred, 1.1 larder-ab12 (Larder)"));
        assert!(!passed("1.1 larder-ab123"));
        assert!(!passed("1.1 fred (1.1 larder-ab12x)"));
        assert!(!has_passed_here(&HeaderMap::new(), "larder-ab12"));
    }
}
