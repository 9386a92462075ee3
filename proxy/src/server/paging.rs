//! The next page of a list, as the client can ask for it here.
//!
//! A registry says where its next page is in a `Link` header (distribution specification, "Listing Tags"; RFC 8288): a path or a
//! URL of its own, which means nothing here and would lead a client round us. What counts of it is the query; the rest is
//! how this client asked: its path, and `ns` if it said the registry so. Pure.

use url::form_urlencoded;

use super::route::namespace_parameter;
use crate::origin::known_parameters;

/// The value of `Link` for a client that asked for `path?query`; `None` where there is no next page that can be asked for.
pub(super) fn next_page(link: &str, path: &str, query: Option<&str>) -> Option<String> {
    let target = next_target(link)?;
    let next = target.split_once('?')?.1.split('#').next()?;
    // A parameter that we would not pass on would lead to the first page again, and so on for ever.
    let known = known_parameters(next)?;
    let given = form_urlencoded::parse(next.as_bytes()).filter(|(name, _)| name != "ns").count();
    if form_urlencoded::parse(known.as_bytes()).count() != given {
        tracing::debug!(link, "the next page cannot be asked for through us");
        return None;
    }
    let namespace = query.and_then(namespace_parameter).map(|pair| format!("&{pair}")).unwrap_or_default();
    Some(format!("<{path}?{known}{namespace}>; rel=\"next\""))
}

/// The target of the link whose relation is `next`.
fn next_target(link: &str) -> Option<&str> {
    let mut rest = link;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let (parameters, following) =
            after.find(",<").or_else(|| after.find(", <")).map_or((after, ""), |end| after.split_at(end));
        let is_next =
            parameters.split(';').filter_map(|parameter| parameter.trim().split_once('=')).any(|(key, value)| {
                key.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|relation| relation.eq_ignore_ascii_case("next"))
            });
        if is_next {
            return Some(target);
        }
        rest = following;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_as_this_one_was() {
        let by_namespace = |link| next_page(link, "/v2/team/app/tags/list", Some("n=2&ns=reg.example.com"));
        let expected = "</v2/team/app/tags/list?last=b&n=2&ns=reg.example.com>; rel=\"next\"";
        for link in [
            "</v2/team/app/tags/list?last=b&n=2>; rel=\"next\"",
            "<https://reg.example.com/v2/team/app/tags/list?last=b&n=2>; rel=next",
            "<https://storage.example.com/elsewhere?last=b&n=2#x>; title=x; REL=\"last next\"",
            "</v2/first>; rel=\"first\", </v2/team/app/tags/list?last=b&n=2>; rel=\"next\"",
            "</v2/team/app/tags/list?last=b&n=2&ns=other.example.com>; rel=\"next\"",
        ] {
            assert_eq!(by_namespace(link).as_deref(), Some(expected), "{link}");
        }
        let by_path = next_page(
            "</v2/team/app/tags/list?next_page=a%3D%3D&n=2>; rel=\"next\"",
            "/v2/reg.example.com__5000/team/app/tags/list",
            Some("n=2"),
        );
        let expected = "</v2/reg.example.com__5000/team/app/tags/list?next_page=a%3D%3D&n=2>; rel=\"next\"";
        assert_eq!(by_path.as_deref(), Some(expected));
    }

    #[test]
    fn a_page_that_cannot_be_asked_for_here_is_not_named() {
        let long = format!("</v2/a/tags/list?last={}>; rel=\"next\"", "x".repeat(5000));
        for link in [
            "",
            "nonsense",
            "</v2/a/tags/list?last=b>",
            "</v2/a/tags/list?last=b>; rel=\"prev\"",
            "</v2/a/tags/list>; rel=\"next\"",
            "</v2/a/tags/list?cursor=b&n=2>; rel=\"next\"",
            "</v2/a/tags/list?last=b; rel=\"next\"",
            &long,
        ] {
            assert_eq!(next_page(link, "/v2/a/tags/list", Some("ns=reg.example.com")), None, "{link}");
        }
    }
}
