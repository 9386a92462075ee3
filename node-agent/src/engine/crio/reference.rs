//! Image references as the containers/image library takes them apart (`docker/reference`), as far as a configuration is
//! judged by them: what is a host, what is a name, what is too long.

/// The library's `NameTotalLengthMax`: host, slash and repository together.
const MAX_NAME: usize = 255;

/// The name of a repository without tag and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'text> {
    /// `host[:port]`, where the name begins with one.
    pub(super) domain: Option<&'text str>,
    /// The rest.
    pub(super) path: &'text str,
}

/// `DomainRegexp`, anchored: host names and IPv4 addresses with an optional port; no IPv6 address.
pub(super) fn is_domain(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let component = |component: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !component.is_empty()
            && component.bytes().all(inner)
            && !component.starts_with('-')
            && !component.ends_with('-')
    };
    host.split('.').all(component) && port.is_none_or(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// One part of a repository's path: lower case and digits, with `.`, `_`, `__` or any number of dashes between them.
pub(super) fn is_component(text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        rest = rest.get(word..).unwrap_or_default();
        rest = match rest {
            [] => return true,
            [b'_', b'_', rest @ ..] | [b'_' | b'.', rest @ ..] => rest,
            [b'-', ..] => rest.get(rest.iter().take_while(|byte| **byte == b'-').count()..).unwrap_or_default(),
            _ => return false,
        };
    }
}

/// `reference.Parse` of something that may have neither tag nor digest.
pub(super) fn name_only(text: &str) -> Option<Name<'_>> {
    if text.is_empty() || text.len() > MAX_NAME {
        return None;
    }
    let is_path = |path: &str| path.split('/').all(is_component);
    match text.split_once('/') {
        Some((domain, path)) if is_domain(domain) && is_path(path) => Some(Name { domain: Some(domain), path }),
        _ if is_path(text) => Some(Name { domain: None, path: text }),
        _ => None,
    }
}

/// Left of an alias (`validateShortName`): a name that begins with no host.
pub(super) fn is_short_name(text: &str) -> bool {
    name_only(text).is_some_and(|name| !name.domain.is_some_and(is_explicit))
}

/// Right of an alias (`parseShortNameValue`): a name that begins with a host.
pub(super) fn is_full_name(text: &str) -> bool {
    name_only(text).is_some_and(|name| name.domain.is_some_and(is_explicit))
}

fn is_explicit(domain: &str) -> bool {
    domain.contains(['.', ':']) || domain == "localhost"
}

/// A rewritten reference is parsed again, and an error fails the whole pull, the primary included (`rewriteReference`).
/// Whether a repository below `location` survives that.
pub(super) fn can_hold_repositories(location: &str) -> bool {
    name_only(&format!("{location}/x")).is_some_and(|name| name.domain.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_library_does() {
        for component in ["a", "a.b", "a_b", "a__b", "a---b", "reg.example.com__5000", "0a"] {
            assert!(is_component(component), "{component}");
        }
        for component in ["", "a_", "_a", "a___b", "a..b", "A", "a:b", "a._b", "a-", "[::1]", "a.-b"] {
            assert!(!is_component(component), "{component}");
        }
        for domain in ["a", "a.b", "A-b.c:5000", "127.0.0.1:80"] {
            assert!(is_domain(domain), "{domain}");
        }
        for domain in ["", "a.", "-a", "a:", "a:x", "a_b", "[::1]", "a:1:2", "*.a"] {
            assert!(!is_domain(domain), "{domain}");
        }
        assert_eq!(name_only("foo:5000/bar"), Some(Name { domain: Some("foo:5000"), path: "bar" }));
        assert_eq!(name_only("a_b.com/x"), Some(Name { domain: None, path: "a_b.com/x" }));
        assert!(name_only("foo:tag").is_none() && name_only("foo@sha256:00").is_none());
        assert!(is_short_name("foo/bar") && !is_short_name("a.b/c") && !is_short_name("localhost/c"));
        assert!(is_full_name("a.b/c") && is_full_name("localhost/c") && !is_full_name("foo/bar"));
        assert!(can_hold_repositories("127.0.0.1:7439/reg__5000"));
        assert!(!can_hold_repositories("127.0.0.1:7439/reg:5000") && !can_hold_repositories("127.0.0.1:7439/[::1]"));
    }
}
