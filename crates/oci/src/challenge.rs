//! Challenges of a `WWW-Authenticate` header (RFC 9110 §11.6.1, RFC 6750 §3, the distribution token specification).

use std::collections::BTreeMap;

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A token from `realm`, which is a URL and untrusted.
    Bearer {
        /// Where the token is to be had.
        realm: String,
        /// The `service` parameter for it.
        service: Option<String>,
        /// The `scope` parameter for it.
        scope: Option<String>,
    },
    /// User and password.
    Basic {
        /// A text for people.
        realm: Option<String>,
    },
    /// A scheme that registries don't use; its name.
    Other(String),
}

impl Challenge {
    /// All challenges of one header value, in order. What can't be understood is left out, never an error: another
    /// challenge of the same header may still serve.
    pub fn parse_all(value: &str) -> Vec<Self> {
        let mut challenges = Vec::new();
        let mut current: Option<(String, BTreeMap<String, String>)> = None;
        for item in items(value) {
            match item {
                Item::Scheme(scheme) => {
                    challenges.extend(current.take().and_then(finished));
                    current = Some((scheme, BTreeMap::new()));
                }
                Item::Parameter(name, text) => {
                    if let Some((_, parameters)) = &mut current {
                        // The first one counts: a second could only be there to confuse.
                        parameters.entry(name).or_insert(text);
                    }
                }
            }
        }
        challenges.extend(current.and_then(finished));
        challenges
    }
}

fn finished((scheme, mut parameters): (String, BTreeMap<String, String>)) -> Option<Challenge> {
    match scheme.as_str() {
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        }),
        "basic" => Some(Challenge::Basic { realm: parameters.remove("realm") }),
        _ => Some(Challenge::Other(scheme)),
    }
}

enum Item {
    Scheme(String),
    Parameter(String, String),
}

/// Splits a header value into schemes and parameters.
fn items(value: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            // Not a token: skip one character, so that nothing can loop.
            let Some(character) = rest.chars().next() else { return items };
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
            continue;
        }
        let unspaced = after.trim_start_matches([' ', '\t']);
        if let Some(text) = unspaced.strip_prefix('=') {
            let (text, after) = parameter_value(text.trim_start_matches([' ', '\t']));
            items.push(Item::Parameter(word.to_ascii_lowercase(), text));
            rest = after;
        } else {
            items.push(Item::Scheme(word.to_ascii_lowercase()));
            rest = after;
        }
    }
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        return (token.to_owned(), rest);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            _ => value.push(character),
        }
    }
    (value, "")
}

/// RFC 9110 §5.6.2 `tchar`.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) }
    }

    #[test]
    fn challenges_of_registries_in_use() {
        assert_eq!(
            Challenge::parse_all(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#
            ),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/nginx:pull,push")
            )]
        );
        assert_eq!(Challenge::parse_all("Basic realm=Registry"), [Challenge::Basic { realm: Some("Registry".into()) }]);
        assert_eq!(Challenge::parse_all("basic"), [Challenge::Basic { realm: None }]);
    }

    #[test]
    fn several_in_one_header() {
        assert_eq!(
            Challenge::parse_all(r#"Negotiate, Basic realm="a, b", Bearer realm = "https://x/\"t\"" , service=s"#),
            [
                Challenge::Other("negotiate".into()),
                Challenge::Basic { realm: Some("a, b".into()) },
                bearer("https://x/\"t\"", Some("s"), None)
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        assert_eq!(Challenge::parse_all(r#"Bearer service="s""#), []);
        assert_eq!(Challenge::parse_all(r#"realm="https://x""#), []);
        assert_eq!(Challenge::parse_all(""), []);
        assert_eq!(Challenge::parse_all(r#"Bearer realm="a",realm="b""#), [bearer("a", None, None)]);
    }

    proptest! {
        #[test]
        fn no_header_panics_or_loops(value in ".{0,200}") {
            let _ = Challenge::parse_all(&value);
        }
    }
}
