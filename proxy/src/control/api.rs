//! What is asked of the control API and what is answered, as values. Pure.
//!
//! A holder and a reference stand in the path; what is in a body is JSON whose unknown members are refused, so that nobody believes to have said something
//! that nobody heard.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, StatusCode};
use larder_oci::ImageReference;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::keeper::{Progress, State};
use crate::pins::{AsOf, Holder, KeptPin, MAXIMUM_PAGE, PinName, Place, Platform, Platforms};

/// Pins in a page, unless somebody says otherwise.
const PAGE: usize = 100;

/// The longest that a request waits for a pin.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// More platforms than there are.
const MAXIMUM_PLATFORMS: usize = 64;

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// `PUT /v1/pins/HOLDER/IMAGE`
    Put { name: PinName, wait: Duration },
    /// `GET /v1/pins/HOLDER/IMAGE`
    Get { name: PinName },
    /// `DELETE /v1/pins/HOLDER/IMAGE`
    Delete { name: PinName },
    /// `GET /v1/pins`
    List { holder: Option<Holder>, after: Option<Place>, limit: usize },
    /// `POST /v1/holders/HOLDER/declarations`
    BeginDeclaration { holder: Holder },
    /// `PUT /v1/holders/HOLDER/declarations/AS_OF`
    Declare { holder: Holder, as_of: AsOf, without_failed: bool },
    /// `GET /v1/holders/HOLDER`
    Declared { holder: Holder },
    /// `DELETE /v1/holders/HOLDER`
    ForgetHolder { holder: Holder },
    /// `POST /v1/revalidations/IMAGE`
    Revalidate { image: ImageReference },
    /// `POST /v1/plans/IMAGE`
    Plan { image: ImageReference },
    /// `GET /v1/registries`
    Registries { after: Option<String> },
}

impl Request {
    /// Whose pins or word it changes, if it does.
    pub(super) fn writes_for(&self) -> Option<&Holder> {
        match self {
            Self::Put { name, .. } | Self::Delete { name } => Some(&name.holder),
            Self::BeginDeclaration { holder } | Self::Declare { holder, .. } | Self::ForgetHolder { holder } => {
                Some(holder)
            }
            Self::Get { .. }
            | Self::List { .. }
            | Self::Declared { .. }
            | Self::Revalidate { .. }
            | Self::Plan { .. }
            | Self::Registries { .. } => None,
        }
    }
}

/// An error for who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The same to a program, where one has to tell this error from others of its status.
    pub(super) code: Option<&'static str>,
}

impl Wrong {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None }
    }

    pub(super) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

const PATHS: &str = "there are PUT, GET and DELETE /v1/pins/HOLDER/IMAGE, GET /v1/pins, POST /v1/holders/HOLDER/declarations, \
    PUT /v1/holders/HOLDER/declarations/AS_OF, GET and DELETE /v1/holders/HOLDER, POST /v1/revalidations/IMAGE, POST /v1/plans/IMAGE and GET /v1/registries; \
    see docs/control-api.md";

/// What `method path?query` asks for. `path` and `query` are as they came, percent-encoded.
pub(super) fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Request, Wrong> {
    let path = decode(path)?;
    let rest = path.strip_prefix("/v1/").ok_or_else(|| Wrong::new(StatusCode::NOT_FOUND, PATHS))?;
    let not_allowed = || Wrong::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this path; {PATHS}"));
    let mut query = Query::parse(query)?;
    let request = if rest == "pins" {
        if *method != Method::GET {
            return Err(not_allowed());
        }
        let holder = query.take("holder").map(|text| holder(&text)).transpose()?;
        let after = query.take("after").map(|text| {
            Place::parse(&text).ok_or_else(|| Wrong::bad("after must be the next of an earlier page, as it was given"))
        });
        let limit = match query.take("limit") {
            None => PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAXIMUM_PAGE).contains(limit))
                .ok_or_else(|| Wrong::bad(format!("limit must be 1 to {MAXIMUM_PAGE}")))?,
        };
        Request::List { holder, after: after.transpose()?, limit }
    } else if let Some(rest) = rest.strip_prefix("pins/") {
        let (by, image) = rest.split_once('/').ok_or_else(|| Wrong::new(StatusCode::NOT_FOUND, PATHS))?;
        let name = PinName { holder: holder(by)?, image: image_of(image)? };
        match *method {
            Method::PUT => Request::Put { name: writable(name)?, wait: query.wait()? },
            Method::GET => Request::Get { name },
            Method::DELETE => Request::Delete { name: writable(name)? },
            _ => return Err(not_allowed()),
        }
    } else if let Some(image) = rest.strip_prefix("revalidations/") {
        if *method != Method::POST {
            return Err(not_allowed());
        }
        Request::Revalidate { image: image_of(image)? }
    } else if let Some(image) = rest.strip_prefix("plans/") {
        if *method != Method::POST {
            return Err(not_allowed());
        }
        Request::Plan { image: image_of(image)? }
    } else if rest == "registries" {
        if *method != Method::GET {
            return Err(not_allowed());
        }
        Request::Registries { after: query.take("after") }
    } else if let Some(rest) = rest.strip_prefix("holders/") {
        let segments: Vec<&str> = rest.split('/').collect();
        match (method, segments.as_slice()) {
            (&Method::GET, [by]) => Request::Declared { holder: holder(by)? },
            (&Method::DELETE, [by]) => Request::ForgetHolder { holder: others(holder(by)?)? },
            (&Method::POST, [by, "declarations"]) => Request::BeginDeclaration { holder: others(holder(by)?)? },
            (&Method::PUT, [by, "declarations", as_of]) => {
                let as_of = as_of
                    .parse()
                    .map_err(|_| Wrong::bad("AS_OF must be the as_of that beginning the declaration has answered"))?;
                let without_failed = match query.take("without").as_deref() {
                    None => false,
                    Some("failed") => true,
                    Some(_) => return Err(Wrong::bad("without can be failed, and nothing else")),
                };
                Request::Declare { holder: others(holder(by)?)?, as_of: AsOf(as_of), without_failed }
            }
            (_, [_] | [_, "declarations"] | [_, "declarations", _]) => return Err(not_allowed()),
            _ => return Err(Wrong::new(StatusCode::NOT_FOUND, PATHS)),
        }
    } else {
        return Err(Wrong::new(StatusCode::NOT_FOUND, PATHS));
    };
    query.end()?;
    Ok(request)
}

fn decode(path: &str) -> Result<String, Wrong> {
    // A plus is a plus in a path.
    let escaped = path.replace('+', "%2B");
    let mut pairs = form_urlencoded::parse(escaped.as_bytes());
    let decoded = pairs.next().map(|(key, value)| (key.into_owned(), value.into_owned()));
    match (decoded, pairs.next()) {
        (Some((path, value)), None) if value.is_empty() && !path.contains('\u{fffd}') && !path.contains('=') => {
            Ok(path)
        }
        _ => Err(Wrong::bad("the path is not a reference: it holds '&', '=' or bytes that are no UTF-8")),
    }
}

fn holder(text: &str) -> Result<Holder, Wrong> {
    Holder::parse(text).map_err(|error| Wrong::bad(error.to_string()))
}

/// What was pulled through is nobody's to say.
fn others(holder: Holder) -> Result<Holder, Wrong> {
    if holder.is_pull() {
        return Err(Wrong::bad("pull holds what was pulled through and is nobody's to change: choose another holder"));
    }
    Ok(holder)
}

fn writable(name: PinName) -> Result<PinName, Wrong> {
    Ok(PinName { holder: others(name.holder)?, ..name })
}

fn image_of(text: &str) -> Result<ImageReference, Wrong> {
    ImageReference::parse(text)
        .map_err(|error| Wrong::bad(format!("{error}; write the image in full, as docker.io/library/alpine:3")))
}

/// The query's parameters, each of which must be known.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: Option<&str>) -> Result<Self, Wrong> {
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().take(8).collect();
        let names: BTreeSet<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        if names.len() < pairs.len() {
            return Err(Wrong::bad("a parameter of the query is there twice"));
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(index).1)
    }

    fn wait(&mut self) -> Result<Duration, Wrong> {
        let Some(text) = self.take("wait") else { return Ok(Duration::ZERO) };
        let wait = text.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= LONGEST_WAIT);
        wait.ok_or_else(|| Wrong::bad(format!("wait must be 0 to {} seconds", LONGEST_WAIT.as_secs())))
    }

    fn end(self) -> Result<(), Wrong> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Wrong::bad(format!("the parameter {name:?} means nothing here"))),
        }
    }
}

/// The body of a pin that is put.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    platforms: Option<Vec<String>>,
}

/// Which platforms a body asks for; none: all of them.
pub(super) fn platforms(body: &[u8]) -> Result<Platforms, Wrong> {
    if body.is_empty() {
        return Ok(Platforms::All);
    }
    let body: PutBody = serde_json::from_slice(body)
        .map_err(|error| Wrong::bad(format!("the body must be like {{\"platforms\": [\"linux/amd64\"]}}: {error}")))?;
    let Some(texts) = body.platforms else { return Ok(Platforms::All) };
    if texts.is_empty() || texts.len() > MAXIMUM_PLATFORMS {
        return Err(Wrong::bad(format!(
            "platforms must name 1 to {MAXIMUM_PLATFORMS}; leave it out for all that there are"
        )));
    }
    let platforms: Result<BTreeSet<Platform>, _> = texts.iter().map(|text| Platform::parse(text)).collect();
    platforms.map(Platforms::Only).map_err(|error| Wrong::bad(error.to_string()))
}

/// What is empty where nothing is to be said.
pub(super) fn nothing_in(body: &[u8]) -> Result<(), Wrong> {
    if body.is_empty() { Ok(()) } else { Err(Wrong::bad("nothing is to be in the body of this request")) }
}

/// Said as long as nobody here has tried to get it.
const LOST: &str = "something of it is not there any more; it is fetched again, by digest";

/// A pin as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct PinView {
    holder: String,
    image: String,
    /// Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    platforms: Option<Vec<String>>,
    /// Seconds since 1970.
    put_at: u64,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// What the reference means; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// What is kept until this one is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_then: Option<String>,
    /// Why not all of that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until_then_error: Option<String>,
    bytes: Amount,
    blobs: Amount,
    /// When a client last used it, in seconds since 1970; absent while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_pull: Option<u64>,
    /// When the registry last said that the reference means `digest`, in seconds since 1970; of a complete pin that was asked for by itself, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed_at: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct Amount {
    known: u64,
    fetched: u64,
}

impl PinView {
    pub(super) fn new(kept: KeptPin, going_on: Option<(State, &Progress)>) -> Self {
        let KeptPin { pin, complete, older, older_lacks } = kept;
        let (state, reason) = match (complete, going_on.as_ref().map(|(state, _)| state)) {
            // What is looked at again is whole all the same.
            (true, _) => ("complete", None),
            (false, None | Some(State::Queued)) => ("queued", None),
            (false, Some(State::Fetching)) => ("fetching", None),
            (false, Some(State::Waiting(reason))) => ("waiting", Some(reason.clone())),
            (false, Some(State::Refused(reason))) => ("refused", Some(reason.clone())),
        };
        let (bytes, blobs) = match (&pin.content, going_on) {
            (Some(content), _) if complete => {
                let blobs = content.digests.len() as u64;
                (Amount { known: content.bytes, fetched: content.bytes }, Amount { known: blobs, fetched: blobs })
            }
            (_, Some((_, progress))) => {
                let read = |known: &std::sync::atomic::AtomicU64, fetched: &std::sync::atomic::AtomicU64| Amount {
                    known: known.load(Ordering::Relaxed),
                    fetched: fetched.load(Ordering::Relaxed),
                };
                (
                    read(&progress.bytes_known, &progress.bytes_fetched),
                    read(&progress.blobs_known, &progress.blobs_fetched),
                )
            }
            (Some(content), None) => (
                Amount { known: content.bytes, fetched: 0 },
                Amount { known: content.digests.len() as u64, fetched: 0 },
            ),
            (None, None) => Default::default(),
        };
        let platforms = match pin.platforms {
            Platforms::All => None,
            Platforms::Only(platforms) => Some(platforms.iter().map(ToString::to_string).collect()),
        };
        // Of one that has lost something there is no other that stays. Of one that is wanted for more platforms there is.
        let until_then = older.filter(|older| Some(older) != pin.content.as_ref()).map(|content| content.root);
        let is_lacking = older_lacks && until_then.is_some();
        let digest = pin.content.map(|content| content.root);
        Self {
            holder: pin.name.holder.to_string(),
            image: pin.name.image.to_string(),
            platforms,
            put_at: pin.put_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            state,
            error: reason.as_ref().map(|reason| reason.words.clone()),
            code: reason.as_ref().map(|reason| reason.code.as_str()),
            digest: digest.map(|digest| digest.to_string()),
            until_then: until_then.map(|digest| digest.to_string()),
            until_then_error: is_lacking.then(|| LOST.to_owned()),
            bytes,
            blobs,
            last_pull: None,
            confirmed_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, target: &str) -> Result<Request, String> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        parse(&method.parse().unwrap(), path, query)
            .map_err(|wrong| format!("{} {}", wrong.status.as_u16(), wrong.message))
    }

    #[test]
    fn a_reference_stands_in_the_path_as_it_is_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (written, full) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("docker.io/library/alpine:3", "docker.io/library/alpine:3".to_owned()),
            ("reg.example.com:5000/a/b:1", "reg.example.com:5000/a/b:1".to_owned()),
            ("reg.example.com%3A5000%2Fa%2Fb%3A1", "reg.example.com:5000/a/b:1".to_owned()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
        ] {
            match parsed("GET", &format!("/v1/pins/me/{written}")) {
                Ok(Request::Get { name }) => assert_eq!((name.holder.as_str(), name.image.to_string()), ("me", full)),
                other => panic!("{written}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let page = format!("/v1/pins?after=me/{}&limit=1000&holder=me", "a".repeat(64));
        assert!(parsed("GET", &page).is_ok());
        for (method, target, status, part) in [
            ("GET", "/", "404", "/v1/pins"),
            ("GET", "/v2/", "404", "/v1/pins"),
            ("GET", "/v1/pins/me", "404", "/v1/pins"),
            ("POST", "/v1/pins", "405", "POST"),
            ("POST", "/v1/pins/me/alpine", "405", "POST"),
            ("PUT", "/v1/pins/Me/alpine", "400", "holder"),
            ("PUT", "/v1/pins/../alpine", "400", "holder"),
            ("PUT", "/v1/pins/pull/alpine", "400", "nobody's"),
            ("DELETE", "/v1/pins/pull/alpine", "400", "nobody's"),
            ("PUT", "/v1/pins/me/Alpine", "400", "in full"),
            ("PUT", "/v1/pins/me/http://x/a", "400", "in full"),
            ("PUT", "/v1/pins/me/a%FFb", "400", "UTF-8"),
            ("PUT", "/v1/pins/me/alpine?wait=61", "400", "wait"),
            ("PUT", "/v1/pins/me/alpine?force=1", "400", "force"),
            ("GET", "/v1/pins?limit=0", "400", "limit"),
            ("GET", "/v1/pins?limit=1001", "400", "limit"),
            ("GET", "/v1/pins?limit=1&limit=2", "400", "twice"),
            ("GET", "/v1/pins?after=x", "400", "after"),
            ("POST", "/v1/revalidations/alpine@sha256:0", "400", "sha256"),
            ("POST", "/v1/registries", "405", "POST"),
            ("GET", "/v1/plans/alpine", "405", "GET"),
            ("GET", "/v1/registries?since=1", "400", "since"),
            ("PUT", "/v1/holders/me/declarations/soon", "400", "as_of"),
            ("PUT", "/v1/holders/me/declarations/7?without=all", "400", "failed"),
            ("POST", "/v1/holders/me/declarations?without=failed", "400", "without"),
            ("PUT", "/v1/holders/me", "405", "PUT"),
            ("DELETE", "/v1/holders/pull", "400", "nobody's"),
            ("DELETE", "/v1/holders/me/declarations", "405", "DELETE"),
        ] {
            let wrong = parsed(method, target).unwrap_err();
            assert!(wrong.starts_with(status) && wrong.contains(part), "{method} {target}: {wrong}");
        }
    }

    #[test]
    fn platforms_are_all_or_some_and_nothing_else_is_in_a_body() {
        assert_eq!(platforms(b"").unwrap(), Platforms::All);
        assert_eq!(platforms(b"{}").unwrap(), Platforms::All);
        let some = platforms(br#"{"platforms":["linux/amd64","linux/arm/v7"]}"#).unwrap();
        assert!(matches!(some, Platforms::Only(platforms) if platforms.len() == 2));
        for bad in [
            "[]",
            "null",
            "x",
            r#"{"platforms":[]}"#,
            r#"{"platforms":["amd64"]}"#,
            r#"{"platform":["linux/amd64"]}"#,
            r#"{"platforms":["linux/amd64"],"url":"http://169.254.169.254/"}"#,
        ] {
            assert!(platforms(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
