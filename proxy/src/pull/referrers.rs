//! The manifests that refer to one: what the origin says, kept with the image for when it is away.
//!
//! The list is stored as the document that it is, under a tag of its image that is ours alone and never served as a tag.

use std::sync::Arc;

use http::Method;
use larder_oci::{Algorithm, Digest, Tag};
use tokio::time::Instant;

use super::held::read_document;
use super::listing::passed_on;
use super::{Puller, Shared, answer};
use crate::reply::{Outcome, Reply, ReplySource};
use crate::source::{Listing, SourceError, Unconfirmed, Verdict};
use crate::store::Name;

/// What our own tags begin with.
const RESERVED: &str = "_larder.";

/// Whether a tag is one of ours, whatever a repository has under that name.
pub(super) fn is_reserved(tag: &Tag) -> bool {
    tag.as_str().starts_with(RESERVED)
}

fn kept_under(digest: &Digest) -> Option<Tag> {
    Tag::parse(&format!("{RESERVED}referrers.{}-{}", digest.algorithm().as_str(), digest.hex())).ok()
}

impl Puller {
    /// `GET` or `HEAD /v2/<name>/referrers/<digest>`; `query` as in [`Puller::tags`].
    pub async fn referrers(&self, name: &Name, digest: &Digest, query: Option<&str>, method: Method) -> Reply {
        let shared = &self.shared;
        if !shared.permits(name) {
            return answer::refused();
        }
        let deadline = Instant::now() + self.answer;
        let reply = match shared.source.referrers(name, digest, query, deadline).await {
            Ok(listing) => {
                if query.is_none() && listing.link.is_none() && listing.unconfirmed.is_none() {
                    shared.keep_referrers(name, digest, &listing);
                }
                passed_on(listing)
            }
            // Clients take a 404 for "none"; an origin that could not say is a 502.
            Err(
                error @ (SourceError::NotFound | SourceError::NeedsCredentials { .. } | SourceError::Refused { .. }),
            ) => answer::of_error(&error),
            // All of them, also where some were asked for: a client that filters sees by a header that we did not.
            Err(error) => {
                let kept = shared.kept_referrers(name, digest, error.verdict()).await;
                kept.unwrap_or_else(|| answer::of_error(&error))
            }
        };
        answer::to_method(reply, &method)
    }
}

impl Shared {
    /// Only of what we hold, so that nobody fills the store by asking. Nobody waits for it.
    fn keep_referrers(self: &Arc<Self>, name: &Name, digest: &Digest, listing: &Listing) {
        let Some(tag) = kept_under(digest) else { return };
        let (shared, name, image, listing) = (Arc::clone(self), name.clone(), digest.clone(), listing.clone());
        tokio::spawn(async move {
            if !matches!(shared.store.link(&name, &image).await, Ok(Some(_))) {
                return;
            }
            let list = Digest::of(Algorithm::Sha256, &listing.bytes);
            let size = listing.bytes.len() as u64;
            if let Err(error) = shared.store.put_bytes(&list, listing.bytes).await {
                tracing::debug!(%image, %error, "a list of referrers could not be stored");
                return;
            }
            shared.put_link(&name, &list, Some(listing.media_type), Some(size), None).await;
            shared.put_tag(&name, &tag, list, None).await;
        });
    }

    async fn kept_referrers(&self, name: &Name, digest: &Digest, said: Verdict) -> Option<Reply> {
        let record = self.store.tag(name, &kept_under(digest)?).await.ok().flatten()?;
        let held = self.held(name, &record.digest).await?;
        let bytes = read_document(&held.blob).await.ok()?;
        let media_type = held.link.media_type.unwrap_or_else(|| larder_oci::media_type::OCI_INDEX.to_owned());
        let unconfirmed = Some(Unconfirmed { said, age: None });
        let listing = Listing { bytes, media_type, link: None, filters: None, unconfirmed };
        Some(answer::listing(listing, Outcome::new(ReplySource::Store, "stale")))
    }
}
