//! `_catalog`: the repositories of which something was seen here, as they are asked for here: with their registry in front.
//!
//! `GET /v2/_catalog?n=&last=` as the distribution registry has it (the specification leaves it out). What it names may be given, not must: evidence outlives
//! its blobs a little, and what the settings do not let be served is left out.

use http::{Method, StatusCode};
use larder_oci::{Registry, Repository};
use url::form_urlencoded;

use super::{Puller, answer};
use crate::reply::{Outcome, Reply, ReplySource};
use crate::source::Listing;
use crate::store::Name;

/// Repositories in a page, unless somebody says otherwise, and the most that one may say.
const PAGE: usize = 100;
const MAXIMUM_PAGE: usize = 1000;

impl Puller {
    /// `GET` or `HEAD /v2/_catalog`.
    pub async fn catalog(&self, query: Option<&str>, method: Method) -> Reply {
        let (mut limit, mut last) = (PAGE, None);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "n" => limit = value.parse().map_or(PAGE, |n: usize| n.clamp(1, MAXIMUM_PAGE)),
                "last" => last = parse(&value),
                _ => {}
            }
        }
        let names = match self.shared.store.names(last.as_ref(), limit).await {
            Ok(names) => names,
            Err(error) => {
                tracing::debug!(%error, "the store does not list repositories");
                return answer::refusal(StatusCode::BAD_GATEWAY, "unavailable");
            }
        };
        let next = names.last().filter(|_| names.len() >= limit).map(|last| {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("last", &shown(last))
                .append_pair("n", &limit.to_string())
                .finish();
            format!("</v2/_catalog?{query}>; rel=\"next\"")
        });
        let listed: Vec<String> = names.iter().filter(|name| self.shared.permits(name)).map(shown).collect();
        let json = serde_json::json!({ "repositories": listed }).to_string();
        let outcome = Outcome::new(ReplySource::Store, "hit");
        let media_type = "application/json".to_owned();
        let listing = Listing { bytes: json.into(), media_type, link: next, filters: None, unconfirmed: None };
        answer::to_method(answer::listing(listing, outcome), &method)
    }
}

fn shown(name: &Name) -> String {
    format!("{}/{}", name.registry.path_segment(), name.repository.as_str())
}

fn parse(text: &str) -> Option<Name> {
    let (registry, repository) = text.split_once('/')?;
    let registry = Registry::from_path_segment(registry).ok()?;
    Some(Name { registry, repository: Repository::parse(repository).ok()? })
}
