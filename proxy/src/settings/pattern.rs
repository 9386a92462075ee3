//! The patterns of `allow` and `deny`: globs over `registry/repository`.
//!
//! Rules, all of them: a pattern is compared segment by segment with `docker.io/library/nginx`; `*` stands for any
//! characters of one segment; `**` as a segment of its own stands for any number of segments, none included; a pattern
//! without `/` names a registry and everything in it. The names are canonical (`docker.io`, `library/`), so one spelling
//! is enough. Matching takes time linear in the product of both lengths: no pattern can make it explode.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::store::Name;

/// Longest pattern that is accepted, in bytes.
const LONGEST: usize = 512;

/// One glob over `registry/repository`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
}

/// Why a text is no pattern.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{reason} in the pattern {text:?}; write for example \"quay.io\", \"docker.io/library/*\" or \"*.example.com/team/**\""
)]
pub struct PatternError {
    text: String,
    reason: &'static str,
}

impl Pattern {
    /// Checks a pattern's text.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |reason| Err(PatternError { text: text.chars().take(LONGEST).collect(), reason });
        if text.is_empty() {
            return error("there is nothing");
        }
        if text.len() > LONGEST {
            return error("there are more than 512 characters");
        }
        if text.contains("://") {
            return error("there is a scheme (https://), which does not belong");
        }
        if let Some(reason) = text.split('/').find_map(|segment| match segment {
            "" => Some("there is an empty segment"),
            "**" => None,
            other if other.contains("**") => Some("`**` is not a segment of its own"),
            other if !other.bytes().all(is_pattern_byte) => Some("there is a character that no image name has"),
            _ => None,
        }) {
            return error(reason);
        }
        Ok(Self { text: text.to_owned() })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches a repository of a registry.
    pub fn matches(&self, name: &Name) -> bool {
        self.matches_text(name.registry.as_str(), name.repository.as_str())
    }

    fn matches_text(&self, registry: &str, repository: &str) -> bool {
        if !self.text.contains('/') {
            return self.text == "**" || segment_matches(&self.text, registry);
        }
        let pattern: Vec<&str> = self.text.split('/').collect();
        let names: Vec<&str> = std::iter::once(registry).chain(repository.split('/')).collect();
        wildcard(&pattern, &names, |part| *part == "**", |part, name| segment_matches(part, name))
    }
}

fn is_pattern_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*:[]".contains(&byte)
}

fn segment_matches(pattern: &str, text: &str) -> bool {
    wildcard(pattern.as_bytes(), text.as_bytes(), |byte| *byte == b'*', |byte, other| byte == other)
}

/// Glob matching with one kind of wildcard, by going back to the last wildcard only (which is enough for globs).
fn wildcard<P, T>(pattern: &[P], text: &[T], is_wildcard: impl Fn(&P) -> bool, equal: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(item) = text.get(position) {
        match pattern.get(at) {
            Some(part) if is_wildcard(part) => {
                retry = Some((at, position));
                at += 1;
            }
            Some(part) if equal(part, item) => {
                at += 1;
                position += 1;
            }
            _ => match retry {
                Some((wildcard_at, from)) => {
                    retry = Some((wildcard_at, from + 1));
                    at = wildcard_at + 1;
                    position = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_none_or(|rest| rest.iter().all(is_wildcard))
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, registry: &str, repository: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches_text(registry, repository)
    }

    #[test]
    fn a_pattern_matches_by_the_stated_rules() {
        for (pattern, registry, repository, expected) in [
            ("quay.io", "quay.io", "a/b/c", true),
            ("quay.io", "quay.io:5000", "a", false),
            ("*.example.com", "reg.example.com", "a", true),
            ("*.example.com", "example.com", "a", false),
            ("*", "anything:5000", "a/b", true),
            ("**", "anything", "a/b", true),
            ("docker.io/library/*", "docker.io", "library/nginx", true),
            ("docker.io/library/*", "docker.io", "library/a/b", false),
            ("docker.io/library/**", "docker.io", "library/a/b", true),
            ("docker.io/library/**", "docker.io", "library", true),
            ("docker.io/**/nginx", "docker.io", "nginx", true),
            ("docker.io/**/nginx", "docker.io", "a/b/nginx", true),
            ("docker.io/**/nginx", "docker.io", "a/b/nginx-x", false),
            ("**/nginx", "docker.io", "library/nginx", true),
            ("*/team/**", "reg.example.com:5000", "team/app", true),
            ("docker.io/lib*ry/n*x", "docker.io", "library/nginx", true),
        ] {
            assert_eq!(matches(pattern, registry, repository), expected, "{pattern} against {registry}/{repository}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said_clearly() {
        let said: Vec<String> = ["", "/a", "a//b", "a/", "https://quay.io", "a/b**", "Docker.io", "a b"]
            .iter()
            .map(|text| Pattern::parse(text).unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    proptest! {
        /// Many stars cost no exponential time, and a text always matches itself.
        #[test]
        fn matching_is_bounded(stars in "(\\*[ab]){0,40}", name in "[ab]{1,200}") {
            if let Ok(pattern) = Pattern::parse(&format!("r/{stars}*")) {
                let _ = pattern.matches_text("r", &name);
            }
            let itself = Pattern::parse(&format!("r/{name}")).unwrap();
            prop_assert!(itself.matches_text("r", &name));
        }
    }
}
