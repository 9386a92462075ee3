//! What the cluster cache said, as values. Pure.
//!
//! Nothing of it is believed without being looked at: a text has an end and no control characters, a digest is one, a pin is the one that was asked for.

use bytes::Bytes;
use http::StatusCode;
use larder_oci::{Digest, ImageReference};
use serde::Deserialize;
use serde_json::Value;

use super::error::{CacheError, Code};
use crate::decide::platforms::Platforms;
use crate::decide::{Image, Moment};

/// The longest words that are shown to a person, in characters.
const WORDS: usize = 500;

/// The longest place in a list, in bytes.
const PLACE: usize = 512;

/// An answer that came in full.
pub(super) struct Said {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Said {
    /// The body, if the status is one of these.
    pub(super) fn of(self, expected: &[StatusCode]) -> Result<Bytes, CacheError> {
        if expected.contains(&self.status) {
            return Ok(self.body);
        }
        if self.status.is_client_error() {
            return Err(CacheError::Refused { status: self.status.as_u16(), code: self.code(), reason: self.words() });
        }
        Err(CacheError::Strange { reason: format!("status {}", self.status.as_u16()) })
    }

    /// The same, to a program.
    fn code(&self) -> Option<Code> {
        #[derive(Deserialize)]
        struct Coded {
            code: Code,
        }
        serde_json::from_slice::<Coded>(&self.body).ok().map(|coded| coded.code)
    }

    /// What it says of an error, to a person.
    pub(super) fn words(&self) -> String {
        #[derive(Deserialize)]
        struct Words {
            #[serde(default)]
            error: Option<String>,
            #[serde(default)]
            errors: Vec<Message>,
        }
        #[derive(Deserialize)]
        struct Message {
            #[serde(default)]
            message: String,
        }
        let Ok(words) = serde_json::from_slice::<Words>(&self.body) else { return String::new() };
        let text = words.error.or_else(|| words.errors.into_iter().next().map(|error| error.message));
        shown(&text.unwrap_or_default())
    }
}

/// A text of somebody else, to be shown.
pub(super) fn shown(text: &str) -> String {
    let mut characters = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    let mut short: String = characters.by_ref().take(WORDS).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

/// Where a pin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinState {
    /// Its turn comes.
    Queued,
    /// It is under way.
    Fetching,
    /// All of it is there.
    Complete,
    /// It failed, and is tried again.
    Waiting,
    /// It is not fetched as things are.
    Refused,
}

/// How much is known to be needed, and is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Amount {
    /// Needed, as far as is known.
    pub known: u64,
    /// There.
    pub fetched: u64,
}

/// A pin as the cache shows it. There may be 100,000 of them in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What is kept.
    pub image: Image,
    /// On which platforms. What is none that anybody here would ask for is left out; where none is left, that is all platforms.
    pub platforms: Platforms,
    /// Where it is.
    pub state: PinState,
    /// Why it is not complete, if it is known.
    pub error: Option<Box<str>>,
    /// The same, to a program.
    pub code: Option<Code>,
    /// What the reference means.
    pub digest: Option<Digest>,
    /// What is kept until that is complete.
    pub until_then: Option<Digest>,
    /// Bytes.
    pub bytes: Amount,
    /// Blobs.
    pub blobs: Amount,
    /// Since when it is wished for as it is.
    pub put_at: Moment,
    /// When a client of the cache last used it, as far as the replica that was asked knows.
    pub last_pull: Option<Moment>,
    /// When its registry last said that the reference means `digest`, where that was asked of this very pin and is known.
    pub confirmed_at: Option<Moment>,
}

#[derive(Deserialize)]
struct Written {
    holder: String,
    image: String,
    #[serde(default)]
    platforms: Vec<String>,
    put_at: u64,
    state: PinState,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    code: Option<Code>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    until_then: Option<String>,
    #[serde(default)]
    bytes: Amount,
    #[serde(default)]
    blobs: Amount,
    #[serde(default)]
    last_pull: Option<u64>,
    #[serde(default)]
    confirmed_at: Option<u64>,
}

pub(super) fn strange(what: &str) -> impl Fn(serde_json::Error) -> CacheError {
    move |error| CacheError::Strange {
        reason: format!("{what}, line {}, column {}: {}", error.line(), error.column(), shown(&error.to_string())),
    }
}

fn digest(text: Option<String>) -> Result<Option<Digest>, CacheError> {
    let parsed = text.map(|text| Digest::parse(&text)).transpose();
    parsed.map_err(|error| CacheError::Strange { reason: format!("a digest that is none: {error}") })
}

impl Written {
    fn checked(self, holder: &str) -> Result<Pin, CacheError> {
        let Self {
            holder: its,
            image,
            platforms,
            put_at,
            state,
            error,
            code,
            digest: root,
            until_then,
            bytes,
            blobs,
            last_pull,
            confirmed_at,
        } = self;
        let time = |seconds: u64| Moment::from_millis(seconds.saturating_mul(1000));
        if its != holder {
            return Err(CacheError::Strange { reason: format!("a pin of {:?}, not of {holder:?}", shown(&its)) });
        }
        let image = ImageReference::parse(&image)
            .map_err(|error| CacheError::Strange { reason: format!("a pin of no image: {error}") })?;
        Ok(Pin {
            image: Image::of(image),
            platforms: Platforms::of_words(platforms.get(..64).unwrap_or(&platforms)),
            state,
            error: error.map(|text| shown(&text).into()),
            code,
            digest: digest(root)?,
            until_then: digest(until_then)?,
            bytes,
            blobs,
            put_at: time(put_at),
            last_pull: last_pull.map(time),
            confirmed_at: confirmed_at.map(time),
        })
    }
}

/// A pin of this holder and this image.
pub(super) fn pin(body: &[u8], holder: &str, image: &ImageReference) -> Result<Pin, CacheError> {
    let written: Written = serde_json::from_slice(body).map_err(strange("a pin"))?;
    let pin = written.checked(holder)?;
    if pin.image != Image::of(image.clone()) {
        return Err(CacheError::Strange { reason: format!("a pin of {}, not of {image}", pin.image) });
    }
    Ok(pin)
}

/// Some of the pins of a holder.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) pins: Vec<Result<Pin, CacheError>>,
    pub(super) next: Option<String>,
}

pub(super) fn page(body: &[u8], holder: &str) -> Result<Page, CacheError> {
    #[derive(Deserialize)]
    struct Listed {
        pins: Vec<Value>,
        #[serde(default)]
        next: Option<String>,
    }
    let listed: Listed = serde_json::from_slice(body).map_err(strange("a list of pins"))?;
    if listed.next.as_ref().is_some_and(|next| next.is_empty() || next.len() > PLACE) {
        return Err(CacheError::Strange { reason: "the place of the next page".to_owned() });
    }
    let one = |value| serde_json::from_value::<Written>(value).map_err(strange("a pin in a list"))?.checked(holder);
    Ok(Page { pins: listed.pins.into_iter().map(one).collect(), next: listed.next })
}

/// When a declaration began.
pub(super) fn as_of(body: &[u8]) -> Result<u64, CacheError> {
    #[derive(Deserialize)]
    struct Begun {
        as_of: u64,
    }
    serde_json::from_slice::<Begun>(body).map(|begun| begun.as_of).map_err(strange("the beginning of a declaration"))
}

/// What is to be fetched of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Planned {
    /// All of it; none: nobody says it now.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Why, in a word of the control API's.
    #[serde(default)]
    pub code: Option<Code>,
    /// The same, to a person.
    #[serde(default)]
    pub error: Option<String>,
}

pub(super) fn planned(body: &[u8]) -> Result<Planned, CacheError> {
    let planned: Planned = serde_json::from_slice(body).map_err(strange("a plan"))?;
    Ok(Planned { error: planned.error.map(|text| shown(&text)), ..planned })
}

/// What a registry says of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revalidation {
    /// What the reference means at its registry; `None`: it did not say.
    pub upstream: Option<Digest>,
    /// What the cache holds for it.
    pub held: Option<Digest>,
    /// Why the registry did not say, in one word of the cache's.
    pub verdict: Option<String>,
    /// The same, to a person.
    pub error: Option<String>,
}

pub(super) fn revalidation(body: &[u8]) -> Result<Revalidation, CacheError> {
    #[derive(Deserialize)]
    struct Asked {
        #[serde(default)]
        upstream: Option<String>,
        #[serde(default)]
        held: Option<String>,
        #[serde(default)]
        verdict: Option<String>,
        #[serde(default)]
        error: Option<String>,
    }
    let asked: Asked = serde_json::from_slice(body).map_err(strange("a revalidation"))?;
    Ok(Revalidation {
        upstream: digest(asked.upstream)?,
        held: digest(asked.held)?,
        verdict: asked.verdict.map(|text| shown(&text)),
        error: asked.error.map(|text| shown(&text)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(text: &str) -> ImageReference {
        ImageReference::parse(text).unwrap()
    }

    fn written() -> Value {
        let digest = format!("sha256:{}", "a".repeat(64));
        json!({"holder": "me", "image": "docker.io/library/alpine:3", "put_at": 1_790_000_000, "state": "fetching", "digest": digest,
               "bytes": {"known": 9, "fetched": 4}, "blobs": {"known": 4, "fetched": 3}, "later": "what we do not know"})
    }

    fn bytes(value: &Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    #[test]
    fn a_pin_is_the_one_that_was_asked_for() {
        let read = pin(&bytes(&written()), "me", &image("alpine:3")).unwrap();
        assert_eq!((read.state, read.bytes.fetched, read.held()), (PinState::Fetching, 4, None));
        assert_eq!(read.last_pull, None);
        let mut pulled = written();
        pulled["last_pull"] = json!(1_790_000_001);
        pulled["confirmed_at"] = json!(1_790_000_002);
        let pulled = pin(&bytes(&pulled), "me", &image("alpine:3")).unwrap();
        assert_eq!(pulled.last_pull, Some(Moment::from_seconds(1_790_000_001)));
        assert_eq!((pulled.confirmed_at, read.confirmed_at), (Some(Moment::from_seconds(1_790_000_002)), None));
        for (key, value, part) in [
            ("holder", json!("you"), "not of"),
            ("image", json!("docker.io/library/alpine:4"), "alpine:4"),
            ("image", json!("UPPER CASE"), "no image"),
            ("digest", json!("sha256:short"), "digest"),
            ("state", json!("asleep"), "asleep"),
            ("bytes", json!({"known": -1, "fetched": 0}), "a pin"),
        ] {
            let mut wrong = written();
            wrong[key] = value;
            let error = pin(&bytes(&wrong), "me", &image("alpine:3")).unwrap_err();
            assert!(matches!(&error, CacheError::Strange { reason } if reason.contains(part)), "{key}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_understood_in_a_list_leaves_the_rest_of_it() {
        let listed = json!({"pins": [written(), {"holder": "me"}, written()], "next": "me/0"});
        let read = page(&bytes(&listed), "me").unwrap();
        assert_eq!(read.pins.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(read.next.as_deref(), Some("me/0"));
        let long = json!({"pins": [], "next": "a".repeat(5000)});
        assert!(page(&bytes(&long), "me").is_err());
    }

    #[test]
    fn words_of_others_are_short_and_harmless() {
        let said = |status, body: &Value| Said { status, body: bytes(body).into() };
        let refused = said(StatusCode::BAD_REQUEST, &json!({"error": format!("no\n\u{1b}[31m{}", "x".repeat(9000))}));
        let words = refused.words();
        assert!(words.starts_with("no  [31mxx") && words.chars().count() == WORDS + 1, "{words}");
        assert!(matches!(refused.of(&[StatusCode::OK]), Err(CacheError::Refused { status: 400, code: None, .. })));
        for (code, expected) in [("private", Code::Private), ("what is new", Code::Other)] {
            let refused = said(StatusCode::FORBIDDEN, &json!({"error": "no", "code": code})).of(&[StatusCode::OK]);
            assert!(matches!(refused, Err(CacheError::Refused { code: Some(code), .. }) if code == expected));
        }
        let registry =
            said(StatusCode::UNAUTHORIZED, &json!({"errors": [{"code": "UNAUTHORIZED", "message": "who?"}]}));
        assert_eq!(registry.words(), "who?");
        let page_of_a_proxy = Said { status: StatusCode::FOUND, body: Bytes::from_static(b"<html>") };
        assert_eq!(page_of_a_proxy.words(), "");
        assert!(matches!(page_of_a_proxy.of(&[StatusCode::OK]), Err(CacheError::Strange { .. })));
    }
}
