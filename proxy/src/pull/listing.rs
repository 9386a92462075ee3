//! Lists of tags: what the origin says, and while it is away what we know.

use http::Method;
use tokio::time::Instant;

use super::{Puller, answer, attachment, referrers};
use crate::reply::{Outcome, Reply, ReplySource};
use crate::source::{Listing, SourceError, Verdict};
use crate::store::Name;

impl Puller {
    /// `GET` or `HEAD /v2/<name>/tags/list`; `query` is the client's, without the question mark and without what is for us.
    ///
    /// A `Link` header of the origin comes back as the origin wrote it, a path of the origin's: the server, which knows how the
    /// client addressed the repository, rewrites it.
    pub async fn tags(&self, name: &Name, query: Option<&str>, method: Method) -> Reply {
        let shared = &self.shared;
        if !shared.permits(name) {
            return answer::refused();
        }
        let deadline = Instant::now() + self.answer;
        let reply = match shared.source.tags(name, query, deadline).await {
            Ok(listing) => passed_on(listing),
            // That there is no such repository, and that it is private, is for the origin to say.
            Err(
                error @ (SourceError::NotFound | SourceError::NeedsCredentials { .. } | SourceError::Refused { .. }),
            ) => answer::of_error(&error),
            Err(error) => self.known_tags(name, error.verdict()).await.unwrap_or_else(|| answer::of_error(&error)),
        };
        answer::to_method(reply, &method)
    }

    async fn known_tags(&self, name: &Name, said: Verdict) -> Option<Reply> {
        let mut tags = Vec::new();
        for tag in self.shared.store.tags(name).await.ok()? {
            let is_ours = match attachment::image_of(&tag) {
                Some(image) => self.shared.is_known_absent(name, &tag, &image).await,
                None => referrers::is_reserved(&tag),
            };
            if !is_ours {
                tags.push(tag);
            }
        }
        if tags.is_empty() {
            return None;
        }
        let list = serde_json::json!({ "name": name.repository.as_str(), "tags": tags });
        let outcome = Outcome::new(ReplySource::Store, "stale");
        let reply = answer::listing(list.to_string().into(), "application/json", None, outcome);
        Some(answer::stale(reply, said, None))
    }
}

/// As it came: where the cluster cache only remembers it, that is said here too.
pub(super) fn passed_on(listing: Listing) -> Reply {
    let Listing { bytes, media_type, link, unconfirmed } = listing;
    let reply = answer::listing(bytes, &media_type, link.as_deref(), Outcome::new(ReplySource::Origin, "passed"));
    match unconfirmed {
        Some(unsure) => answer::stale(reply, unsure.said, unsure.age),
        None => reply,
    }
}
