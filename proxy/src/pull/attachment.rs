//! Signatures, attestations and SBOMs, which are kept beside an image as tags of its own digest: `sha256-<hex>.sig`.
//!
//! A client that has to verify takes a 404 for "there is none", and one that has not asks all the same and fails with anything
//! else. So "there is none" is said only where the origin says so, and is remembered as long as the image is: an unsigned image
//! stays pullable while its origin is away, and a signed one is never taken for unsigned because the origin was in trouble.
//!
//! How absence is written down: the tag's record names the image itself, which no attachment ever is.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use larder_oci::{Digest, ErrorBody, ErrorCode, Tag};
use tokio::time::Instant;

use super::manifest::ManifestAnswer;
use super::{Shared, answer};
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::source::SourceError;
use crate::store::Name;

/// What cosign calls them.
const KINDS: [&str; 3] = ["sig", "att", "sbom"];

/// The image that a tag is an attachment of.
pub(super) fn image_of(tag: &Tag) -> Option<Digest> {
    let (digest, kind) = tag.as_str().rsplit_once('.')?;
    let hex = digest.strip_prefix("sha256-")?;
    KINDS.contains(&kind).then(|| Digest::parse(&format!("sha256:{hex}")).ok()).flatten()
}

impl Shared {
    /// The attachment `tag` of `image`.
    pub(super) async fn attachment(
        self: &Arc<Self>,
        name: &Name,
        tag: &Tag,
        image: &Digest,
        method: &Method,
        deadline: Instant,
    ) -> ManifestAnswer {
        let is_known_absent = self.is_known_absent(name, tag, image).await;
        let cached = if is_known_absent { None } else { self.cached(name, tag).await };
        let said = self.ask_once(name, tag, cached.is_some() || is_known_absent, deadline).await;
        match (&said, cached) {
            (Err(SourceError::NotFound), Some(cached)) if !self.is_withdrawn(name, image, deadline).await => {
                // The origin has deleted the image with all that belonged to it.
                self.answer_said(name, Some(cached), said, method, deadline).await
            }
            (Err(SourceError::NotFound), _) => {
                self.note_absent(name, tag, image).await;
                absent(ReplySource::None).into()
            }
            (Err(error), None) if is_known_absent => {
                self.count_stale(name, error.verdict());
                answer::stale(absent(ReplySource::Store), error.verdict(), None).into()
            }
            (Err(error), None) => {
                answer::refusal(StatusCode::BAD_GATEWAY, answer::of_error(error).outcome.result).into()
            }
            (_, cached) => self.answer_said(name, cached, said, method, deadline).await,
        }
    }

    /// Whether the last that the origin said of it was that there is none.
    pub(super) async fn is_known_absent(&self, name: &Name, tag: &Tag, image: &Digest) -> bool {
        self.store.tag(name, tag).await.ok().flatten().is_some_and(|record| record.digest == *image)
    }

    /// The origin has the image still, so it is the attachment alone that it does not want to be used any more.
    async fn is_withdrawn(self: &Arc<Self>, name: &Name, image: &Digest, deadline: Instant) -> bool {
        let budget = Instant::now() + self.freshness.budget(&name.registry);
        self.head_by_digest(name, image, budget.min(deadline)).await.is_ok()
    }

    /// Only of what we hold: the record goes with the image, and nobody fills the store by asking.
    async fn note_absent(&self, name: &Name, tag: &Tag, image: &Digest) {
        if !matches!(self.store.link(name, image).await, Ok(Some(_))) {
            return;
        }
        self.put_tag(name, tag, image.clone(), None).await;
    }
}

/// With the code in its body: without it clients up to containers/image 5.28 take it for a failure and give up the pull.
fn absent(source: ReplySource) -> Reply {
    let json = Bytes::from(ErrorBody::new(ErrorCode::ManifestUnknown, "there is no such attachment").to_json());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(json.len()));
    Reply::new(StatusCode::NOT_FOUND, headers, Body::Bytes(json), Outcome::new(source, "not_found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_tags_are_attachments() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for kind in KINDS {
            let tag = Tag::parse(&format!("sha256-{hex}.{kind}")).unwrap();
            assert_eq!(image_of(&tag), Digest::parse(&format!("sha256:{hex}")).ok());
        }
        for text in ["v1.sig", "sha256-12.sig", &format!("sha256-{hex}"), &format!("sha256-{hex}.tar"), "latest"] {
            assert_eq!(image_of(&Tag::parse(text).unwrap()), None, "{text}");
        }
    }
}
