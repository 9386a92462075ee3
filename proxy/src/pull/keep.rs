//! For whoever keeps images without being asked by a client: the same answers, the same fetches, and why there is none in words.
//!
//! Everything goes the way of a client's request (settings, evidence, one flight for all who ask, pacing, the rules about addresses), so what may not
//! be pulled may not be kept either.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use larder_oci::{Digest, ImageReference, ManifestReference, Registry, Tag};
use tokio::time::Instant;

use super::manifest::ManifestAnswer;
use super::{Puller, Shared, referrers};
use crate::hop;
use crate::reply::{Body, Reply};
use crate::source::{MAXIMUM_DOCUMENT, SourceError, Verdict};
use crate::store::Name;

/// Why something cannot be kept now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unkept {
    /// It is private, or the rules say no: later it will be the same, unless a person changes something.
    #[error("{0}")]
    Refused(Reason),
    /// It may be otherwise later.
    #[error("{0}")]
    Later(Reason),
}

impl Unkept {
    /// It stays so.
    pub(crate) fn refused(code: Code, words: impl Into<String>) -> Self {
        Self::Refused(Reason { code, words: words.into() })
    }

    /// It may be otherwise later.
    pub(crate) fn later(code: Code, words: impl Into<String>) -> Self {
        Self::Later(Reason { code, words: words.into() })
    }
}

/// Why, to a program and to a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub(crate) struct Reason {
    pub(crate) code: Code,
    pub(crate) words: String,
}

/// Why, to a program: the control API's `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It needs credentials.
    Private,
    /// Settings or our own rules do not allow it.
    NotPermitted,
    /// It is there for none of the platforms.
    NoPlatform,
    /// It is more than any image is.
    TooLarge,
    /// What the registry says, or does, instead.
    Origin(Verdict),
    /// It came, and was not what it should be, or not all of it.
    Broken,
    /// The store does not take it.
    Store,
    /// It takes long, and others are first.
    Slow,
}

impl Code {
    /// Its registry says that there is no such thing.
    pub(crate) fn is_absence(self) -> bool {
        self == Self::Origin(Verdict::NotFound)
    }

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::NotPermitted => "not_permitted",
            Self::NoPlatform => "no_platform",
            Self::TooLarge => "too_large",
            Self::Origin(verdict) => verdict.as_str(),
            Self::Broken => "broken",
            Self::Store => "store",
            Self::Slow => "slow",
        }
    }
}

/// A manifest or index.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

/// What the origin says of a reference, and what is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revalidated {
    /// What the origin says that the reference means now; else what it says instead, and in words.
    pub(crate) upstream: Result<Digest, (Verdict, String)>,
    /// What it is given as while the origin is away.
    pub(crate) held: Option<Digest>,
}

impl Puller {
    /// What a reference means now, with its bytes; it is stored on the way.
    pub(crate) async fn find(&self, name: &Name, reference: &ManifestReference) -> Result<Found, Unkept> {
        let shared = &self.shared;
        if !shared.permits(name) {
            return Err(not_permitted(name));
        }
        let deadline = Instant::now() + self.answer;
        let ManifestAnswer { reply, given } = match reference {
            ManifestReference::Tag(tag) if referrers::is_reserved(tag) => return Err(reserved(tag)),
            ManifestReference::Tag(tag) => shared.by_tag(name, tag, &Method::GET, deadline).await,
            ManifestReference::Digest(digest) => shared.by_digest(name, digest, &Method::GET, deadline).await,
        };
        let Some(given) = given.filter(|_| reply.status == StatusCode::OK) else {
            return Err(shared.why_not(name, &reply, &format!("the manifest {reference}")));
        };
        let bytes = document(reply.body)
            .await
            .map_err(|reason| Unkept::later(Code::Broken, format!("{reference}: {reason}")))?;
        if let (ManifestReference::Tag(tag), true) = (reference, given.confirmed) {
            shared.put_tag(name, tag, given.digest.clone(), None).await;
        }
        Ok(Found { digest: given.digest, bytes })
    }

    /// Whether a manifest of an image would have to be fetched, of those that are among `digests`. Nobody is asked.
    pub(crate) async fn lacks_manifest(&self, root: &Digest, digests: &BTreeSet<Digest>) -> bool {
        let (mut waiting, mut seen) = (vec![root.clone()], BTreeSet::new());
        while let Some(digest) = waiting.pop() {
            let Some(children) = self.shared.stored_children(&digest).await else { return true };
            let manifests = children.manifests.into_iter().map(|manifest| manifest.digest);
            waiting.extend(manifests.filter(|digest| digests.contains(digest) && seen.insert(digest.clone())));
        }
        false
    }

    /// Sees that a blob is in the store, with evidence that this repository delivers it. `arrived` hears of bytes as they come.
    pub(crate) async fn keep_blob(&self, name: &Name, digest: &Digest, arrived: impl Fn(u64)) -> Result<(), Unkept> {
        let health = self.shared.store.health();
        if !health.writable() && self.shared.held(name, digest).await.is_none() {
            let words = format!("the store takes nothing now: it is {}", health.as_str());
            return Err(Unkept::later(Code::Store, words));
        }
        let reply = self.blob(name, digest, None, Method::GET).await;
        if reply.status != StatusCode::OK {
            return Err(self.shared.why_not(name, &reply, &format!("the blob {digest}")));
        }
        let Body::Live(mut live) = reply.body else { return Ok(()) };
        while let Some(piece) = live.next().await {
            match piece {
                Ok(bytes) => arrived(bytes.len() as u64),
                Err(error) => {
                    return Err(Unkept::later(Code::Broken, format!("the blob {digest} broke off: {error}")));
                }
            }
        }
        Ok(())
    }

    /// When the origin last said that a reference means this digest, or that it has it, as far as that is written down: what was given meanwhile without its
    /// word is no confirmation.
    pub(crate) async fn confirmed_at(&self, image: &ImageReference, digest: &Digest) -> Option<SystemTime> {
        let name = Name { registry: image.registry.clone(), repository: image.repository.clone() };
        let store = &self.shared.store;
        match image.manifest_reference() {
            ManifestReference::Tag(tag) => {
                let record = store.tag(&name, &tag).await.ok().flatten();
                record.filter(|record| record.digest == *digest).map(|record| record.checked_at)
            }
            ManifestReference::Digest(_) => {
                store.link(&name, digest).await.ok().flatten().map(|link| link.confirmed_at)
            }
        }
    }

    /// Asks the origin for a reference with a HEAD, which costs no pull quota; what it says of a tag is written down if that is held.
    pub(crate) async fn revalidate(&self, name: &Name, reference: &ManifestReference) -> Result<Revalidated, Unkept> {
        if !self.shared.permits(name) {
            return Err(not_permitted(name));
        }
        match reference {
            ManifestReference::Tag(tag) => self.revalidate_tag(name, tag).await,
            ManifestReference::Digest(digest) => self.revalidate_digest(name, digest).await,
        }
    }

    /// Whether the origin still has it, whatever we hold.
    async fn revalidate_digest(&self, name: &Name, digest: &Digest) -> Result<Revalidated, Unkept> {
        let (shared, deadline) = (&self.shared, Instant::now() + self.answer);
        let held = shared.held(name, digest).await.map(|_| digest.clone());
        let said = match shared.head_by_digest(name, digest, deadline).await {
            // Registries that do not know HEAD must be asked for the bytes.
            Err(SourceError::Protocol { .. }) => {
                let reference = ManifestReference::Digest(digest.clone());
                let body = shared.get_manifest_of_the_origin(name, &reference, deadline).await;
                body.map(|body| (Some(body.digest), None))
            }
            answer => answer.map(|head| (head.digest, head.unconfirmed)),
        };
        let upstream = match said {
            Ok((_, Some(_))) => Err((Verdict::Unreachable, ONLY_HEARD.to_owned())),
            Ok((Some(other), None)) if other != *digest => {
                Err((Verdict::ServerError, format!("{} says that this is {other}", name.registry)))
            }
            Ok((_, None)) => Ok(digest.clone()),
            Err(error) => Err(no_word(&error, held.is_some())?),
        };
        Ok(Revalidated { upstream, held })
    }

    async fn revalidate_tag(&self, name: &Name, tag: &Tag) -> Result<Revalidated, Unkept> {
        let shared = &self.shared;
        if referrers::is_reserved(tag) {
            return Err(reserved(tag));
        }
        let held = shared.cached(name, tag).await.map(|cached| cached.digest().clone());
        // Not as one whose patience is short because something is cached: whoever asks so wants the origin's word.
        let upstream = match shared.ask(name, tag, false, Instant::now() + self.answer).await {
            Ok(named) if named.unconfirmed.is_none() => Ok(named.digest),
            Ok(_) => Err((Verdict::Unreachable, ONLY_HEARD.to_owned())),
            Err(error) => Err(no_word(&error, held.is_some())?),
        };
        Ok(Revalidated { upstream, held })
    }
}

/// What the origin says instead of what was asked; what was never public is refused.
fn no_word(error: &SourceError, is_held: bool) -> Result<(Verdict, String), Unkept> {
    if matches!(error, SourceError::NeedsCredentials { .. }) && !is_held {
        return Err(Unkept::refused(Code::Private, format!("{error}: {PRIVATE}")));
    }
    Ok((error.verdict(), error.to_string()))
}

const ONLY_HEARD: &str = "only the cluster cache's memory answers, not the registry";

const PRIVATE: &str = "private images are not kept yet; the engine pulls them with its own credentials";

fn not_permitted(name: &Name) -> Unkept {
    let registry = &name.registry;
    let words = format!(
        "the settings of the cluster cache do not allow it: see allow, deny and skip in its registries file, and skip in the UpstreamRegistry of {registry}"
    );
    Unkept::refused(Code::NotPermitted, words)
}

fn reserved(tag: &Tag) -> Unkept {
    Unkept::refused(
        Code::NotPermitted,
        format!("{tag} is a tag of the cluster cache's own: give the image another one"),
    )
}

/// What to do where one of our own rules is in the way.
fn forbidden(registry: &Registry, what: &str, rule: Option<&str>) -> Unkept {
    let rule = rule.unwrap_or("the log of the cluster cache says which rule is in the way");
    let words = format!(
        "the cluster cache must not ask {registry} for {what}: {rule}; if this registry is meant, name it in the cache's registries file or make an UpstreamRegistry of it, with the endpoints that it has, and insecure: true where that is plain HTTP"
    );
    Unkept::refused(Code::NotPermitted, words)
}

impl Shared {
    fn why_not(&self, name: &Name, reply: &Reply, what: &str) -> Unkept {
        let said = reply.headers.get(hop::ORIGIN).and_then(|value| value.to_str().ok()).and_then(Verdict::parse);
        let registry = &name.registry;
        let by_origin = |verdict: Verdict, words: String| Unkept::later(Code::Origin(verdict), words);
        match said {
            Some(Verdict::Denied) if self.denied.contains(name) => {
                let words = format!("{registry} wants credentials for {}: {PRIVATE}", name.repository);
                Unkept::refused(Code::Private, words)
            }
            Some(said @ Verdict::Denied) => by_origin(said, format!("{registry} does not give {what} to anyone")),
            Some(said @ Verdict::NotFound) => by_origin(said, format!("{registry} does not have {what}")),
            Some(said @ Verdict::RateLimited) => by_origin(said, format!("{registry} limits the rate of requests")),
            Some(said @ Verdict::ServerError) => {
                by_origin(said, format!("{registry} is in trouble: it answered an error for {what}"))
            }
            Some(said @ Verdict::Timeout) => by_origin(said, format!("{registry} did not answer in time for {what}")),
            Some(said @ Verdict::Unreachable) => by_origin(said, format!("{registry} cannot be reached for {what}")),
            _ if reply.outcome.result == "refused" && reply.status == StatusCode::NOT_FOUND => {
                forbidden(registry, what, reply.rule.as_deref())
            }
            _ => Unkept::later(Code::Store, format!("{what} cannot be given now: {}", reply.outcome.result)),
        }
    }
}

/// The bytes of a manifest.
async fn document(body: Body) -> Result<Bytes, String> {
    match body {
        Body::Bytes(bytes) => Ok(bytes),
        Body::Empty => Ok(Bytes::new()),
        Body::File(mut range) => {
            let mut bytes = BytesMut::new();
            while let Some(piece) = poll_fn(|context| range.poll_next(context)).await {
                bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
                if bytes.len() > MAXIMUM_DOCUMENT {
                    return Err("it is larger than any manifest".to_owned());
                }
            }
            Ok(bytes.freeze())
        }
        Body::Live(mut live) => {
            let mut bytes = BytesMut::new();
            while let Some(piece) =
                poll_fn(|context| futures_util::Stream::poll_next(Pin::new(&mut live), context)).await
            {
                bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
                if bytes.len() > MAXIMUM_DOCUMENT {
                    return Err("it is larger than any manifest".to_owned());
                }
            }
            Ok(bytes.freeze())
        }
    }
}
