//! Lists of tags: what the origin says, and while it is away what we know.

use http::Method;
use larder_oci::Tag;
use tokio::time::Instant;
use url::form_urlencoded;

use super::{Puller, answer, attachment, referrers};
use crate::reply::{Outcome, Reply, ReplySource};
use crate::source::{Listing, SourceError, Unconfirmed, Verdict};
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
            Err(error) => {
                let known = self.known_tags(name, query, error.verdict()).await;
                known.unwrap_or_else(|| answer::of_error(&error))
            }
        };
        answer::to_method(reply, &method)
    }

    async fn known_tags(&self, name: &Name, query: Option<&str>, said: Verdict) -> Option<Reply> {
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
        let (tags, link) = Page::of(query).cut(tags);
        let tags: Vec<_> = tags.iter().map(Tag::as_str).collect();
        let list = serde_json::json!({ "name": name.repository.as_str(), "tags": tags });
        let listing = Listing {
            bytes: list.to_string().into(),
            media_type: "application/json".to_owned(),
            link,
            filters: None,
            unconfirmed: Some(Unconfirmed { said, age: None }),
        };
        Some(answer::listing(listing, Outcome::new(ReplySource::Store, "stale")))
    }
}

/// The part of a list that was asked for (distribution specification, "Listing Tags").
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    most: Option<usize>,
    last: Option<String>,
}

impl Page {
    fn of(query: Option<&str>) -> Self {
        let mut page = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "n" => page.most = value.parse().ok(),
                "last" => page.last = Some(value.into_owned()),
                _ => {}
            }
        }
        page
    }

    /// The tags of it, and the `Link` to what follows.
    fn cut(&self, mut tags: Vec<Tag>) -> (Vec<Tag>, Option<String>) {
        tags.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        if let Some(last) = &self.last {
            tags.retain(|tag| tag.as_str() > last.as_str());
        }
        let Some(most) = self.most.filter(|most| *most < tags.len()) else { return (tags, None) };
        tags.truncate(most);
        // A page without an end has no next one.
        let link = tags.last().map(|end| format!("<?n={most}&last={end}>; rel=\"next\""));
        (tags, link)
    }
}

/// As it came: where the cluster cache only remembers it, that is said here too.
pub(super) fn passed_on(listing: Listing) -> Reply {
    answer::listing(listing, Outcome::new(ReplySource::Origin, "passed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(query: Option<&str>) -> (String, Option<String>) {
        let tags = ["v2", "v10", "latest", "v1"].map(|tag| Tag::parse(tag).unwrap()).to_vec();
        let (tags, link) = Page::of(query).cut(tags);
        (tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" "), link)
    }

    #[test]
    fn no_more_than_asked_for_in_lexical_order_and_where_it_goes_on() {
        let next = |last: &str, n| Some(format!("<?n={n}&last={last}>; rel=\"next\""));
        assert_eq!(cut(None), ("latest v1 v10 v2".to_owned(), None));
        assert_eq!(cut(Some("n=2")), ("latest v1".to_owned(), next("v1", 2)));
        assert_eq!(cut(Some("n=2&last=v1")), ("v10 v2".to_owned(), None));
        assert_eq!(cut(Some("last=v10")), ("v2".to_owned(), None));
        assert_eq!(cut(Some("last=a&n=1")), ("latest".to_owned(), next("latest", 1)));
        assert_eq!(cut(Some("n=0")), (String::new(), None));
        assert_eq!(cut(Some("n=many")), ("latest v1 v10 v2".to_owned(), None));
    }
}
