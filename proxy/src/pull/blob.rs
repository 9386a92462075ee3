//! Blobs: from the store, or from the origin on their way into it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use larder_oci::{ByteRange, Digest, Hasher};
use tokio::time::Instant;

use super::answer::{self, Extent};
use super::{Follows, Puller, Shared};
use crate::fetch::{FetchError, Opened, OpenedBody};
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::source::{BlobHead, SourceError};
use crate::store::{Name, StoredBlob};

impl Puller {
    /// `GET` or `HEAD /v2/<name>/blobs/<digest>`, with the `Range` of a GET if there is one.
    pub async fn blob(&self, name: &Name, digest: &Digest, range: Option<ByteRange>, method: Method) -> Reply {
        if !self.shared.permits(name) {
            return answer::refused();
        }
        // Only GET has ranges (RFC 9110 §14.2).
        let range = range.filter(|_| method == Method::GET);
        // Who asks for the headers, or for a part, is answered here, but for a node that wants the rest: it says so if it was not served there.
        let follows = match (range, &self.follows) {
            (None, follows) if method == Method::GET => follows,
            (Some(ByteRange::From(_)), follows @ Follows::Yes) => follows,
            _ => &Follows::No,
        };
        let deadline = Instant::now() + self.answer;
        let reply = self.shared.blob(name, digest, range, &method, follows, deadline).await;
        answer::to_method(reply, &method)
    }
}

impl Shared {
    async fn blob(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        range: Option<ByteRange>,
        method: &Method,
        follows: &Follows,
        deadline: Instant,
    ) -> Reply {
        if let Some(held) = self.held(name, digest).await
            && let Some(reply) = self.hit(digest, held.blob, range, method, follows).await
        {
            return reply;
        }
        if self.fetcher.refuses(name, digest) {
            return answer::refusal(StatusCode::BAD_GATEWAY, "refused");
        }
        if let Err(error) = self.known_to_be_denied(name) {
            return answer::of_error(&error);
        }
        if let Some(blob) = self.stored(digest).await {
            if let Err(error) = self.evidence(name, digest, Some(blob.len()), deadline).await {
                return answer::of_error(&error);
            }
            if let Some(reply) = self.hit(digest, blob, range, method, follows).await {
                return reply;
            }
        }
        let answered = if method == Method::HEAD {
            self.head(name, digest, deadline).await
        } else {
            self.fetch(name, digest, range, deadline).await
        };
        answered.unwrap_or_else(|error| answer::of_error(&error))
    }

    async fn hit(
        &self,
        digest: &Digest,
        blob: StoredBlob,
        range: Option<ByteRange>,
        method: &Method,
        follows: &Follows,
    ) -> Option<Reply> {
        if let Some(reply) = self.elsewhere(digest, &blob, follows).await {
            return Some(reply);
        }
        let total = blob.len();
        let extent = match range.map(|range| range.resolve(total)) {
            None => Extent::Whole(Some(total)),
            Some(Some(range)) => Extent::Part { first: range.start, end: range.end, total },
            Some(None) => {
                // Unless it only is so because the file is shorter than it was.
                self.stored_body(digest, blob, 0..total, method).await?;
                return Some(answer::out_of_range(total));
            }
        };
        self.stored_blob(digest, blob, extent, method).await
    }

    async fn head(self: &Arc<Self>, name: &Name, digest: &Digest, deadline: Instant) -> Result<Reply, SourceError> {
        let size = match self.fetcher.length_in_flight(name, digest) {
            Some(length) => Some(length),
            None => self.confirmed(name, digest, None, deadline).await?.size,
        };
        let outcome = Outcome::new(ReplySource::Origin, "miss");
        Ok(answer::blob(digest, Extent::Whole(size), Body::Empty, outcome))
    }

    /// Evidence that this very repository has the blob, of which we have `length` bytes if that is known; written down.
    async fn evidence(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        length: Option<u64>,
        deadline: Instant,
    ) -> Result<(), SourceError> {
        let size = self.confirmed(name, digest, length, deadline).await?.size;
        // The question may have been somebody's who did not know the length.
        if length.is_some() && size != length {
            return Err(SourceError::Protocol { reason: "it does not say the length of this blob".to_owned() });
        }
        // Of unknown length it is the origin's word for this request only: next time the length is known.
        if length.is_some() {
            self.put_link(name, digest, None, size, None).await;
        }
        Ok(())
    }

    /// What the origin says of a blob: one question for all who ask.
    async fn confirmed(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        length: Option<u64>,
        deadline: Instant,
    ) -> Result<BlobHead, SourceError> {
        let mut flight = self.blob_heads.join((name.clone(), digest.clone()), || {
            let (shared, name, digest) = (Arc::clone(self), name.clone(), digest.clone());
            async move {
                let head = shared.confirm(&name, &digest, length).await;
                shared.learn_of_part(&name, head).await
            }
        });
        flight.answer(deadline).await.unwrap_or(Err(SourceError::Timeout))
    }

    /// A HEAD, where it speaks of this blob; else the bytes. Networks that want one to log in answer 200 to whatever is asked, some
    /// registries know half of HEAD, and some storage lets nobody ask so: only bytes that have the digest tell these apart.
    async fn confirm(&self, name: &Name, digest: &Digest, length: Option<u64>) -> Result<BlobHead, SourceError> {
        let deadline = Instant::now() + self.limits.background;
        match self.source.head_blob(name, digest, deadline).await {
            Ok(BlobHead { size: Some(size) }) if length.is_none_or(|length| length == size) => {
                return Ok(BlobHead { size: Some(size) });
            }
            Ok(_) | Err(SourceError::Protocol { .. } | SourceError::Server { status: 401 | 403 }) => {}
            Err(SourceError::NeedsCredentials { .. }) if self.denied.is_public(name) => {}
            Err(error) => return Err(error),
        }
        let stream = self.source.get_blob(name, digest, 0, None, deadline).await?;
        // A length that agrees is enough, and without anything to compare with the answer is; the bytes are left with them.
        if length.is_none() || stream.total == length {
            return Ok(BlobHead { size: stream.total });
        }
        let mut hasher = Hasher::new(digest.algorithm());
        let mut body = stream.body;
        while let Some(piece) = body.next().await {
            hasher.update(&piece?);
            if length.is_some_and(|length| hasher.bytes_hashed() > length) {
                break;
            }
        }
        let size = hasher.bytes_hashed();
        let actual = hasher.finish();
        if actual != *digest {
            return Err(SourceError::Mismatch { expected: digest.clone(), actual });
        }
        Ok(BlobHead { size: Some(size) })
    }

    async fn fetch(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        range: Option<ByteRange>,
        deadline: Instant,
    ) -> Result<Reply, SourceError> {
        let (mut proven, mut unreadable) = (false, false);
        loop {
            match self.fetcher.open(name, digest, range, proven, deadline).await {
                Ok(Opened::Body(opened)) => {
                    self.denied.note_public(name);
                    return Ok(arriving(digest, opened));
                }
                Ok(Opened::Stored(blob)) => {
                    if let Some(reply) = self.hit(digest, blob, range, &Method::GET, &Follows::No).await {
                        return Ok(reply);
                    }
                    // What was damaged is gone by the next time; what our disk does not give is the engine's to get.
                    if std::mem::replace(&mut unreadable, true) {
                        return Ok(answer::refusal(StatusCode::BAD_GATEWAY, "unavailable"));
                    }
                }
                Ok(Opened::OutOfRange(total)) => return Ok(answer::out_of_range(total)),
                Ok(Opened::NeedsEvidence) => {
                    // What the other repository's origin says of the length is known soon, if ever.
                    let length = self.fetcher.length_when_known(digest, deadline).await;
                    self.evidence(name, digest, length, deadline).await?;
                    proven = true;
                }
                Err(FetchError::Source { error, .. }) => return self.learn_of_part(name, Err(error)).await,
                Err(FetchError::Late { .. }) => return Err(SourceError::Timeout),
                Err(error) => {
                    tracing::debug!(%error, "a blob is refused");
                    return Ok(answer::refusal(StatusCode::BAD_GATEWAY, "refused"));
                }
            }
        }
    }
}

fn arriving(digest: &Digest, opened: OpenedBody) -> Reply {
    let OpenedBody { total, range, body, joined } = opened;
    let extent = match (range, total) {
        (Some(range), Some(total)) => Extent::Part { first: range.start, end: range.end, total },
        (_, total) => Extent::Whole(total),
    };
    let outcome = Outcome::new(ReplySource::Origin, if joined { "joined" } else { "miss" });
    answer::blob(digest, extent, Body::Live(body), outcome)
}
