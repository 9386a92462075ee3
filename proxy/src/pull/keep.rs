//! For whoever keeps images without being asked by a client: the same answers, the same fetches, and why there is none in words.
//!
//! Everything goes the way of a client's request (settings, evidence, one flight for all who ask, pacing, the rules about addresses), so what may not
//! be pulled may not be kept either.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use larder_oci::{Digest, ManifestReference, Tag};
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
    Refused(String),
    /// It may be otherwise later.
    #[error("{0}")]
    Later(String),
}

/// A manifest or index.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

/// What the origin says of a tag, and what is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revalidated {
    /// What the origin says that it means now; else what it says instead, and in words.
    pub(crate) upstream: Result<Digest, (Verdict, String)>,
    /// What it is given as while the origin is away.
    pub(crate) held: Option<Digest>,
}

impl Puller {
    /// What a reference means now, with its bytes; it is stored on the way.
    pub(crate) async fn find(&self, name: &Name, reference: &ManifestReference) -> Result<Found, Unkept> {
        let shared = &self.shared;
        if !shared.permits(name) {
            return Err(not_permitted());
        }
        let deadline = Instant::now() + self.answer;
        let ManifestAnswer { reply, given } = match reference {
            ManifestReference::Tag(tag) if referrers::is_reserved(tag) => return Err(not_permitted()),
            ManifestReference::Tag(tag) => shared.by_tag(name, tag, &Method::GET, deadline).await,
            ManifestReference::Digest(digest) => shared.by_digest(name, digest, &Method::GET, deadline).await,
        };
        let Some(given) = given.filter(|_| reply.status == StatusCode::OK) else {
            return Err(shared.why_not(name, &reply, &format!("the manifest {reference}")));
        };
        let bytes = document(reply.body).await.map_err(|reason| Unkept::Later(format!("{reference}: {reason}")))?;
        if let (ManifestReference::Tag(tag), true) = (reference, given.confirmed) {
            shared.put_tag(name, tag, given.digest.clone(), None).await;
        }
        Ok(Found { digest: given.digest, bytes })
    }

    /// Sees that a blob is in the store, with evidence that this repository delivers it. `arrived` hears of bytes as they come.
    pub(crate) async fn keep_blob(&self, name: &Name, digest: &Digest, arrived: impl Fn(u64)) -> Result<(), Unkept> {
        let health = self.shared.store.health();
        if !health.writable() && self.shared.held(name, digest).await.is_none() {
            return Err(Unkept::Later(format!("the store takes nothing now: it is {}", health.as_str())));
        }
        let reply = self.blob(name, digest, None, Method::GET).await;
        if reply.status != StatusCode::OK {
            return Err(self.shared.why_not(name, &reply, &format!("the blob {digest}")));
        }
        let Body::Live(mut live) = reply.body else { return Ok(()) };
        while let Some(piece) = live.next().await {
            match piece {
                Ok(bytes) => arrived(bytes.len() as u64),
                Err(error) => return Err(Unkept::Later(format!("the blob {digest} broke off: {error}"))),
            }
        }
        Ok(())
    }

    /// Asks the origin for a tag with a HEAD, which costs no pull quota, and writes down what it says if that is held.
    pub(crate) async fn revalidate(&self, name: &Name, tag: &Tag) -> Result<Revalidated, Unkept> {
        let shared = &self.shared;
        if !shared.permits(name) || referrers::is_reserved(tag) {
            return Err(not_permitted());
        }
        let held = shared.cached(name, tag).await.map(|cached| cached.digest().clone());
        // Not as one whose patience is short because something is cached: whoever asks so wants the origin's word.
        let upstream = match shared.ask(name, tag, false, Instant::now() + self.answer).await {
            Ok(named) if named.unconfirmed.is_none() => Ok(named.digest),
            Ok(_) => {
                let words = "only the cluster cache's memory answers, not the registry";
                Err((Verdict::Unreachable, words.to_owned()))
            }
            Err(error @ SourceError::NeedsCredentials { .. }) if held.is_none() => {
                return Err(Unkept::Refused(format!("{error}: {PRIVATE}")));
            }
            Err(error) => Err((error.verdict(), error.to_string())),
        };
        Ok(Revalidated { upstream, held })
    }
}

const PRIVATE: &str = "private images are not kept yet; the engine pulls them with its own credentials";

fn not_permitted() -> Unkept {
    Unkept::Refused("the settings do not allow it: see allow, deny and skip in the registries file".to_owned())
}

impl Shared {
    fn why_not(&self, name: &Name, reply: &Reply, what: &str) -> Unkept {
        let said = reply.headers.get(hop::ORIGIN).and_then(|value| value.to_str().ok()).and_then(Verdict::parse);
        let registry = &name.registry;
        match said {
            Some(Verdict::Denied) if self.denied.contains(name) => {
                Unkept::Refused(format!("{registry} wants credentials for {}: {PRIVATE}", name.repository))
            }
            Some(Verdict::Denied) => Unkept::Later(format!("{registry} does not give {what} to anyone")),
            Some(Verdict::NotFound) => Unkept::Later(format!("{registry} does not have {what}")),
            Some(Verdict::RateLimited) => Unkept::Later(format!("{registry} limits the rate of requests")),
            Some(Verdict::ServerError) => {
                Unkept::Later(format!("{registry} is in trouble: it answered an error for {what}"))
            }
            Some(Verdict::Timeout) => Unkept::Later(format!("{registry} did not answer in time for {what}")),
            Some(Verdict::Unreachable) => Unkept::Later(format!("{registry} cannot be reached for {what}")),
            _ if reply.outcome.result == "refused" && reply.status == StatusCode::NOT_FOUND => {
                Unkept::Refused(format!(
                    "our own rules do not let {what} of {registry} be fetched: an address, plain HTTP, or a policy (the log says which)"
                ))
            }
            _ => Unkept::Later(format!("{what} cannot be given now: {}", reply.outcome.result)),
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
