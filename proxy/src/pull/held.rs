//! What the store holds for a repository, and serving it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::Method;
use larder_oci::{Digest, media_type};

use super::Shared;
use super::answer::{self, Extent};
use super::moves::Heard;
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::source::MAXIMUM_DOCUMENT;
use crate::store::{CHUNK, CheckedRange, Link, Name, StoreError, StoredBlob};

/// How long an answer waits for the store, so that the engine's next request finds it there. A disk that is slower than that
/// goes on by itself.
pub(super) const STORING: Duration = Duration::from_millis(500);

/// Content and the evidence that this repository delivers it.
pub(super) struct Held {
    pub(super) link: Link,
    pub(super) blob: StoredBlob,
}

impl Shared {
    /// Content that may be served through this repository. A store that fails holds nothing.
    pub(super) async fn held(&self, name: &Name, digest: &Digest) -> Option<Held> {
        let (link, blob) = found(self.store.held(name, digest).await)?;
        Some(Held { link, blob })
    }

    /// Content, whoever delivered it: not to be served without evidence.
    pub(super) async fn stored(&self, digest: &Digest) -> Option<StoredBlob> {
        found(self.store.blob(digest).await)
    }

    /// Writes evidence down, unless what is there says the same and is not old. It is as old as what was `heard`.
    pub(super) async fn put_link(
        &self,
        name: &Name,
        digest: &Digest,
        media_type: Option<String>,
        size: Option<u64>,
        heard: Heard,
    ) -> Link {
        let now = SystemTime::now();
        let old = found(self.store.link(name, digest).await);
        // One from the future was written by a clock that was wrong.
        let confirmed_before = old.as_ref().map(|old| old.confirmed_at).filter(|at| *at <= now);
        let said_at = heard.unwrap_or(now);
        let confirmed_at = confirmed_before.map_or(said_at, |before| before.max(said_at));
        let link = Link {
            digest: digest.clone(),
            media_type: media_type.or_else(|| old.as_ref().and_then(|old| old.media_type.clone())),
            size: size.or_else(|| old.as_ref().and_then(|old| old.size)),
            public: true,
            confirmed_at,
        };
        let is_new = old.is_none_or(|old| {
            let is_known = confirmed_before.is_some_and(|before| {
                confirmed_at.duration_since(before).is_ok_and(|younger| younger < self.limits.confirmation)
            });
            !is_known || !old.public || old.media_type != link.media_type
        });
        if is_new {
            let (store, name, written) = (Arc::clone(&self.store), name.clone(), link.clone());
            let writing = tokio::spawn(async move {
                if let Err(error) = store.put_link(&name, written).await {
                    tracing::debug!(%error, "a link could not be written");
                }
            });
            if tokio::time::timeout(STORING, writing).await.is_err() {
                tracing::debug!(%digest, "the store takes its time");
            }
        }
        link
    }

    /// A manifest from the store; `None` if it turned out damaged.
    pub(super) async fn stored_manifest(&self, digest: &Digest, held: Held, method: &Method) -> Option<Reply> {
        let Held { link, blob } = held;
        let content_type = match link.media_type {
            Some(media_type) => media_type,
            None => media_type_of(&read_document(&blob).await.ok()?),
        };
        let size = blob.len();
        let body = self.stored_body(digest, blob, 0..size, method).await?;
        Some(answer::manifest(digest, &content_type, size, body, Outcome::new(ReplySource::Store, "hit")))
    }

    /// A blob from the store; `None` if it turned out damaged.
    pub(super) async fn stored_blob(
        &self,
        digest: &Digest,
        blob: StoredBlob,
        extent: Extent,
        method: &Method,
    ) -> Option<Reply> {
        let range = match extent {
            Extent::Whole(_) => 0..blob.len(),
            Extent::Part { first, end, .. } => first..end,
        };
        let body = self.stored_body(digest, blob, range, method).await?;
        Some(answer::blob(digest, extent, body, Outcome::new(ReplySource::Store, "hit")))
    }

    /// Bytes of a stored blob, the first of which have passed their check: what is wrong with them is not the client's concern, it
    /// gets the origin's. What is found later ends in a cut. A small blob is checked for its length, too, which a HEAD says.
    pub(super) async fn stored_body(
        &self,
        digest: &Digest,
        blob: StoredBlob,
        range: Range<u64>,
        method: &Method,
    ) -> Option<Body> {
        if method == Method::HEAD && blob.len() > CHUNK as u64 {
            return Some(Body::Empty);
        }
        let mut range = CheckedRange::new(blob, range);
        if let Err(error) = range.begin(self.limits.first_chunk).await {
            tracing::debug!(%digest, %error, "a stored blob cannot be read; asking the origin");
            return None;
        }
        Some(if method == Method::HEAD { Body::Empty } else { Body::File(range) })
    }
}

/// All bytes of a small blob.
pub(super) async fn read_document(blob: &StoredBlob) -> io::Result<Bytes> {
    let length = usize::try_from(blob.len()).unwrap_or(usize::MAX);
    if length > MAXIMUM_DOCUMENT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut range = CheckedRange::new(blob.clone(), 0..blob.len());
    let mut bytes = BytesMut::with_capacity(length);
    while let Some(part) = std::future::poll_fn(|context| range.poll_next(context)).await {
        bytes.extend_from_slice(&part?);
    }
    Ok(bytes.freeze())
}

/// What a manifest says that it is, where no header said it.
pub(super) fn media_type_of(bytes: &[u8]) -> String {
    let children = larder_oci::children(bytes).ok();
    let stated = children.as_ref().and_then(|children| children.media_type.clone());
    stated.unwrap_or_else(|| {
        let is_index = children.is_some_and(|children| !children.manifests.is_empty());
        if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST }.to_owned()
    })
}

/// What is in the store; one that fails is logged by itself and counts as empty.
fn found<T>(answer: Result<Option<T>, StoreError>) -> Option<T> {
    answer.unwrap_or_else(|error| {
        tracing::debug!(%error, "the store does not answer");
        None
    })
}
