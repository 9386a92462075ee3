//! Where content comes from when the store does not have it: the trait [`Source`], what it answers and how it fails.
//!
//! A source hands out what the other side says and nothing else: a digest in an answer was computed from the bytes, or
//! is the other side's own word in a HEAD, and a failure says whose fault it is ([`SourceError`]), so that `pull` can
//! decide, cell by cell, between the stored answer and a refusal ([`Verdict`]). Every call ends by its deadline.
//!
//! Asked by `pull` (tags, manifests) and `fetch` (blobs); implemented by `origin` (the registry), `cluster_cache` (whoever asks it for
//! the whole cluster) and [`Chain`] (first this one, then that one).

mod chain;
mod doubts;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use larder_oci::{Digest, ManifestReference};
use thiserror::Error;
use tokio::time::Instant;

use crate::store::Name;

pub use chain::Chain;
pub(crate) use chain::is_the_registrys_word;
pub(crate) use doubts::{Doubts, Order};

/// The most bytes of a manifest, index or listing that a source hands out; more is [`SourceError::Protocol`].
pub const MAXIMUM_DOCUMENT: usize = 4 * 1024 * 1024;

/// What a HEAD of a manifest said. Nothing of it is verified: there were no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`; not every registry sends it.
    pub digest: Option<Digest>,
    /// `Content-Length`, in bytes.
    pub size: Option<u64>,
    /// `Content-Type` without parameters.
    pub media_type: Option<String>,
    /// It is not the registry's word of now, but what somebody (the cluster cache) last heard from it.
    pub unconfirmed: Option<Unconfirmed>,
}

/// Why an answer is not the registry's word of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What the registry says, or does, instead.
    pub said: Verdict,
    /// How long ago it said this, if that is known.
    pub age: Option<Duration>,
}

/// A manifest or index, byte for byte as the other side sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestBody {
    /// Computed from `bytes`; equal to what was asked for when that was a digest.
    pub digest: Digest,
    /// `Content-Type` without parameters, or else the `mediaType` in the bytes.
    pub media_type: String,
    /// At most [`MAXIMUM_DOCUMENT`] bytes.
    pub bytes: Bytes,
}

/// What a HEAD of a blob said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobHead {
    /// `Content-Length`, in bytes.
    pub size: Option<u64>,
}

/// A blob on its way. Nothing of it is verified against the digest: whoever stores or delivers it does that.
pub struct BlobStream {
    /// The offset of the first byte that `body` yields: what was asked for, or 0 when the other side ignored the range
    /// (or its `ETag` changed); the reader then skips or starts anew.
    pub first: u64,
    /// The whole blob's length, in bytes, if the other side said it.
    pub total: Option<u64>,
    /// A strong `ETag`, for [`Source::get_blob`] when this stream breaks.
    pub etag: Option<String>,
    /// Ends without an error only after as many bytes as were announced; otherwise its last item is
    /// [`SourceError::Broken`].
    pub body: BoxStream<'static, Result<Bytes, SourceError>>,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream")
            .field("first", &self.first)
            .field("total", &self.total)
            .field("etag", &self.etag)
            .finish_non_exhaustive()
    }
}

/// A list that is passed on as it came: `tags/list`, `referrers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// At most [`MAXIMUM_DOCUMENT`] bytes.
    pub bytes: Bytes,
    /// `Content-Type` without parameters; `application/json` if there was none.
    pub media_type: String,
    /// The `Link` header as it came (the next page, a path of the other side's).
    pub link: Option<String>,
    /// `OCI-Filters-Applied`: by what the list was filtered, where that was asked for and done.
    pub filters: Option<String>,
    /// It is not the registry's word of now.
    pub unconfirmed: Option<Unconfirmed>,
}

/// Someone who can be asked for an image: a registry, the cluster cache.
///
/// A dropped future gives up its request. `deadline` bounds the whole call, but for [`Source::get_blob`], where it
/// bounds the time until the headers are there. The futures borrow only the source: names are copied into them, so that
/// a caller may spawn them.
pub trait Source: Send + Sync + 'static {
    /// What the other side says a reference means now. Costs no pull quota on Docker Hub.
    fn head_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>>;

    /// The same for somebody who waits until `waiting` only, while an answer is of use until `deadline`. Whoever can say something less
    /// good in time, does: see [`ManifestHead::unconfirmed`].
    fn head_manifest_in_time(
        &self,
        name: &Name,
        reference: &ManifestReference,
        waiting: Instant,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        let _ = waiting;
        self.head_manifest(name, reference, deadline)
    }

    /// The manifest's or index's bytes.
    fn get_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestBody, SourceError>>;

    /// Whether the other side gives this blob to anyone through this repository.
    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>>;

    /// The blob from byte `from` on; `etag` is what an earlier [`BlobStream`] of the same blob had.
    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        etag: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>>;

    /// `tags/list`; `query` is the client's (`n`, `last`), without the question mark.
    fn tags(&self, name: &Name, query: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>>;

    /// `referrers/<digest>`; `query` is the client's (`artifactType`), without the question mark.
    fn referrers(
        &self,
        name: &Name,
        digest: &Digest,
        query: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>>;

    /// What came for it turned out wrong: other bytes, another length. Whether the next question about it goes to somebody else, who may
    /// have it right.
    fn distrust(&self, name: &Name, digest: &Digest) -> bool {
        let _ = (name, digest);
        false
    }
}

/// Why there is no answer. Cloned to everyone who waits for the same fetch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// The registry answered 404.
    #[error("not found at the registry")]
    NotFound,
    /// 401 or 403 without, or even with, an anonymous token.
    #[error("the registry wants credentials (status {status})")]
    NeedsCredentials {
        /// 401 or 403; the token server's own status if it was that one who refused.
        status: u16,
    },
    /// 429 now, or a while ago and the registry is still left in peace.
    #[error("the registry limits the rate of requests")]
    RateLimited {
        /// How much longer it wants to be left in peace.
        retry_after: Option<Duration>,
    },
    /// A failing registry, or failing storage behind it.
    #[error("the registry answered {status}")]
    Server {
        /// 5xx, or 408; from storage behind the registry 401 and 403, too.
        status: u16,
    },
    /// No answer before the deadline.
    #[error("the registry did not answer in time")]
    Timeout,
    /// No connection, no name, no valid certificate, or the connection ended before the answer.
    #[error("the registry cannot be reached: {reason}")]
    Unreachable {
        /// For people.
        reason: String,
    },
    /// It failed several times just now and is asked again in the background only.
    #[error("the registry failed before and is being probed")]
    CircuitOpen,
    /// Our own rules: a forbidden address, plain HTTP, `skip`, `allow` and `deny`. The other side was not asked.
    #[error("refused by our own rules: {reason}")]
    Refused {
        /// For people.
        reason: String,
    },
    /// Nonsense from the other side: its fault, and asking again changes nothing.
    #[error("the registry does not keep to the protocol: {reason}")]
    Protocol {
        /// For people.
        reason: String,
    },
    /// The bytes are not those of the digest.
    #[error("the registry sent {actual} for {expected}")]
    Mismatch {
        /// What was asked for or announced.
        expected: Digest,
        /// What the bytes are.
        actual: Digest,
    },
    /// The answer began well and ended too early, or stopped for too long; a resume may help.
    #[error("the answer broke off: {reason}")]
    Broken {
        /// For people.
        reason: String,
    },
}

impl SourceError {
    /// The column of the table "what the origin says about something that we hold".
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::NotFound => Verdict::NotFound,
            Self::NeedsCredentials { .. } => Verdict::Denied,
            Self::RateLimited { .. } => Verdict::RateLimited,
            Self::Server { .. } | Self::Protocol { .. } | Self::Mismatch { .. } | Self::Broken { .. } => {
                Verdict::ServerError
            }
            Self::Timeout => Verdict::Timeout,
            // Refused is no word of the origin's: what `deny` forbids is refused by `pull` before it asks anyone.
            Self::Unreachable { .. } | Self::CircuitOpen | Self::Refused { .. } => Verdict::Unreachable,
        }
    }
}

/// What the origin says about something that we hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It has what we have.
    Ok,
    /// The tag means something else now.
    Changed,
    /// 404.
    NotFound,
    /// 401 or 403.
    Denied,
    /// 429.
    RateLimited,
    /// 5xx, or an answer that makes no sense.
    ServerError,
    /// No answer in time.
    Timeout,
    /// No connection.
    Unreachable,
}

impl Verdict {
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::Changed,
        Self::NotFound,
        Self::Denied,
        Self::RateLimited,
        Self::ServerError,
        Self::Timeout,
        Self::Unreachable,
    ];

    /// The word for it: in metrics, and between a node and the cluster cache.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }

    /// The reverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}
