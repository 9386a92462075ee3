//! Questions whose answers are passed on: `tags/list`, `referrers`.

use http::header::{ACCEPT, LINK};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use larder_oci::media_type::OCI_INDEX;
use tokio::time::Instant;
use url::form_urlencoded;

use super::body;
use super::client::Answer;
use super::observe::RequestKind;
use super::question::{Question, expect_whole, media_type};
use crate::source::{Listing, MAXIMUM_DOCUMENT, SourceError};

const LARGEST_QUERY: usize = 1024;

/// By what a list of referrers was filtered (distribution specification, "Listing Referrers").
pub(crate) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// GET of a listing.
pub(crate) struct GetListing {
    path: String,
    query: Option<String>,
}

impl GetListing {
    pub(crate) fn new(path: String, query: Option<&str>) -> Self {
        Self { path, query: query.and_then(known_parameters) }
    }
}

impl Question for GetListing {
    type Answer = Listing;
    const KIND: RequestKind = RequestKind::Listing;

    fn method(&self) -> Method {
        Method::GET
    }

    fn path(&self) -> String {
        self.path.clone()
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn headers(&self) -> Result<HeaderMap, SourceError> {
        let accept = HeaderValue::from_str(&format!("{OCI_INDEX}, application/json, */*"));
        Ok(accept.into_iter().map(|accept| (ACCEPT, accept)).collect())
    }

    async fn understand(&self, answer: Answer, until: Instant) -> Result<Listing, SourceError> {
        expect_whole(&answer)?;
        let media_type = media_type(&answer.headers).unwrap_or_else(|| "application/json".into());
        let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let (link, filters) = (text(LINK), text(FILTERS));
        let bytes = body::read(answer.body, MAXIMUM_DOCUMENT, until).await?;
        Ok(Listing { bytes, media_type, link, filters, unconfirmed: None })
    }
}

/// Only what the distribution API has, and where Quay continues a list: `ns` and whatever else a client sends is not the
/// registry's business.
pub(crate) fn known_parameters(query: &str) -> Option<String> {
    if query.len() > LARGEST_QUERY {
        return None;
    }
    let known = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| matches!(name.as_ref(), "n" | "last" | "next_page" | "artifactType"));
    let known = form_urlencoded::Serializer::new(String::new()).extend_pairs(known).finish();
    (!known.is_empty()).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_parameters_are_sent_on() {
        assert_eq!(known_parameters("n=10&last=v1.0&ns=docker.io").as_deref(), Some("n=10&last=v1.0"));
        assert_eq!(known_parameters("artifactType=a%2Fb#x").as_deref(), Some("artifactType=a%2Fb%23x"));
        assert_eq!(known_parameters("ns=docker.io"), None);
        assert_eq!(known_parameters(&format!("last={}", "x".repeat(LARGEST_QUERY))), None);
    }
}
