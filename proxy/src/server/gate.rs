//! Who may ask, where a proxy serves more than its own node: everybody else gets 401 before anything is read or fetched.
//!
//! A caller says a token, as Bearer or as the password of Basic (any user name: skopeo and crane can say no token otherwise), or comes
//! from a network that needs none. Who has which token is for a [`Callers`] to say. The challenge is Basic alone: there is no token server
//! that a Bearer challenge could name.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::secret::Token;

/// Somebody who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For the log: who it is, and behind a space where it is.
    pub name: String,
}

impl Caller {
    /// Who it is, wherever.
    pub fn who(&self) -> &str {
        self.name.split(' ').next().unwrap_or_default()
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unaccepted {
    /// Nobody has it.
    Unknown,
    /// It cannot be told now, for this reason; whoever asks may try again, or elsewhere.
    CannotTell(String),
}

/// Who has which token.
pub trait Callers: fmt::Debug + Send + Sync + 'static {
    /// Whose token this is.
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Unaccepted>>;
}

/// Several who know tokens, asked one after the other. Without any, nobody has a token.
#[derive(Debug, Clone)]
pub struct AnyOf(pub Vec<Arc<dyn Callers>>);

impl Callers for AnyOf {
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Unaccepted>> {
        Box::pin(async move {
            let mut why = Unaccepted::Unknown;
            for callers in &self.0 {
                match callers.caller(token).await {
                    Ok(caller) => return Ok(caller),
                    // Another one may know it; if not, it is true that it cannot be told.
                    Err(reason @ Unaccepted::CannotTell(_)) => why = reason,
                    Err(Unaccepted::Unknown) => {}
                }
            }
            Err(why)
        })
    }
}

/// Where a connection comes from; `None` if the system did not say.
pub(crate) type Peer = Option<IpAddr>;

/// The door of a proxy that others may reach.
#[derive(Clone)]
pub struct Gate {
    /// Who has a token.
    pub callers: Arc<dyn Callers>,
    /// Networks whose machines need none.
    pub anonymous: Vec<IpNet>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

/// What a caller that is not let in is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TurnedAway {
    pub(crate) status: StatusCode,
    pub(crate) message: &'static str,
    pub(crate) challenge: Option<HeaderValue>,
}

impl Gate {
    /// Whether these may ask.
    pub(crate) async fn admit(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, TurnedAway> {
        if let Some(token) = token(headers) {
            return match self.callers.caller(&token).await {
                Ok(caller) => Ok(caller),
                Err(Unaccepted::Unknown) => Err(unauthorized("nobody has this token")),
                Err(Unaccepted::CannotTell(reason)) => {
                    // Of every request; that it is so, and since when, is for the readiness to say.
                    tracing::debug!(reason, "whose token it is cannot be told");
                    let message = "whose token it is cannot be told now";
                    Err(TurnedAway { status: StatusCode::SERVICE_UNAVAILABLE, message, challenge: None })
                }
            };
        }
        // An address of IPv4 on a socket of IPv6 is the same machine.
        let peer = peer.map(|address| address.to_canonical());
        if peer.is_some_and(|address| self.anonymous.iter().any(|network| network.contains(&address))) {
            return Ok(Caller { name: "anonymous".to_owned() });
        }
        Err(unauthorized("a token is needed: as Bearer, or as the password of any user"))
    }
}

fn unauthorized(message: &'static str) -> TurnedAway {
    TurnedAway {
        status: StatusCode::UNAUTHORIZED,
        message,
        challenge: Some(HeaderValue::from_static(
            "Basic realm=\"Larder: the token is the password\", charset=\"UTF-8\"",
        )),
    }
}

/// Adds the challenge to an answer.
pub(crate) fn challenge(headers: &mut HeaderMap, challenge: Option<HeaderValue>) {
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
}

/// Whether a token was said: who was let in then was known by it.
pub(super) fn says_a_token(headers: &HeaderMap) -> bool {
    token(headers).is_some()
}

/// RFC 6750 §2.1, RFC 7617 §2. Schemes are not case-sensitive (RFC 9110 §11.1).
fn token(headers: &HeaderMap) -> Option<Token> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    let text = if scheme.eq_ignore_ascii_case("bearer") {
        Zeroizing::new(rest.to_owned())
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = Zeroizing::new(BASE64_STANDARD.decode(rest).ok()?);
        let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Zeroizing::new(password.to_owned())
    } else {
        return None;
    };
    (!text.is_empty()).then(|| Token::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows one token.
    #[derive(Debug)]
    struct One;

    impl Callers for One {
        fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Unaccepted>> {
            Box::pin(std::future::ready(match token.expose() {
                "right" => Ok(Caller { name: "node-1".to_owned() }),
                "later" => Err(Unaccepted::CannotTell("the API server is away".to_owned())),
                _ => Err(Unaccepted::Unknown),
            }))
        }
    }

    async fn admit(authorization: Option<&str>, peer: &str) -> Result<String, u16> {
        let gate = Gate { callers: Arc::new(One), anonymous: vec!["10.1.0.0/16".parse().unwrap()] };
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let admitted = gate.admit(&headers, Some(peer.parse().unwrap())).await;
        if let Err(TurnedAway { status: StatusCode::UNAUTHORIZED, challenge, .. }) = &admitted {
            assert!(challenge.as_ref().unwrap().to_str().unwrap().starts_with("Basic realm="));
        }
        admitted.map(|caller| caller.name).map_err(|away| away.status.as_u16())
    }

    #[tokio::test]
    async fn a_token_opens_it_in_both_forms_and_nothing_else_does() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let outside = "192.0.2.1";
        for right in ["Bearer right".to_owned(), "bearer right".to_owned(), basic("anybody:right"), basic(":right")] {
            assert_eq!(admit(Some(&right), outside).await, Ok("node-1".to_owned()), "{right}");
        }
        let wrong = ["Bearer wrong", "Bearer ", "Bearer", "right", "Digest right", "Basic right", "Basic !!!", ""];
        for wrong in wrong.map(str::to_owned).into_iter().chain([basic("right:"), basic("right"), basic("right:wrong")])
        {
            assert_eq!(admit(Some(&wrong), outside).await, Err(401), "{wrong}");
        }
        assert_eq!(admit(None, outside).await, Err(401));
        assert_eq!(admit(Some("Bearer later"), outside).await, Err(503));
    }

    #[tokio::test]
    async fn of_several_who_know_tokens_it_is_enough_that_one_knows_it() {
        /// Knows another one.
        #[derive(Debug)]
        struct Other;

        impl Callers for Other {
            fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Unaccepted>> {
                let known = matches!(token.expose(), "other" | "later");
                let caller = Caller { name: "node-2".to_owned() };
                Box::pin(std::future::ready(if known { Ok(caller) } else { Err(Unaccepted::Unknown) }))
            }
        }

        let both = AnyOf(vec![Arc::new(One), Arc::new(Other)]);
        let ask = async |callers: &AnyOf, text: &str| {
            callers.caller(&Token::new(Zeroizing::new(text.to_owned()))).await.map(|caller| caller.name)
        };
        assert_eq!(ask(&both, "right").await.as_deref(), Ok("node-1"));
        assert_eq!(ask(&both, "other").await.as_deref(), Ok("node-2"));
        assert_eq!(ask(&both, "later").await.as_deref(), Ok("node-2"), "the first could not tell");
        assert_eq!(ask(&both, "wrong").await, Err(Unaccepted::Unknown));
        assert!(matches!(ask(&AnyOf(vec![Arc::new(One)]), "later").await, Err(Unaccepted::CannotTell(_))));
        assert_eq!(ask(&AnyOf(Vec::new()), "right").await, Err(Unaccepted::Unknown));
    }

    #[tokio::test]
    async fn chosen_networks_need_none_but_a_wrong_token_is_wrong_there_too() {
        assert_eq!(admit(None, "10.1.2.3").await, Ok("anonymous".to_owned()));
        assert_eq!(admit(None, "::ffff:10.1.2.3").await, Ok("anonymous".to_owned()));
        assert_eq!(admit(None, "10.2.0.1").await, Err(401));
        assert_eq!(admit(Some("Bearer wrong"), "10.1.2.3").await, Err(401));
        assert_eq!(admit(Some("Bearer right"), "10.1.2.3").await, Ok("node-1".to_owned()));
    }
}
