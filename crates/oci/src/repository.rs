//! A repository's name: the path of an image within its registry.

/// A repository name by the grammar of the distribution specification ("Pulling manifests", `<name>`), at most 255
/// characters. It can hold neither an empty segment nor `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// Why a text names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// Longer than the 255 characters that registries accept.
    #[error("repository name is longer than 255 characters")]
    TooLong,
    /// Not `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` in each segment.
    #[error(
        "repository name {0:?} must be lower-case letters, digits and separators (., _, __, -) between them, in segments divided by /"
    )]
    Grammar(String),
}

impl Repository {
    /// Parses `segment[/segment…]`.
    pub fn parse(text: &str) -> Result<Self, RepositoryError> {
        if text.len() > 255 {
            return Err(RepositoryError::TooLong);
        }
        if text.split('/').all(is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RepositoryError::Grammar(text.to_owned()))
        }
    }

    /// The name as references and URLs write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name below Docker Hub's `library/`, when it has one segment only; itself otherwise. That may make it too long.
    pub fn in_docker_hub(self) -> Result<Self, RepositoryError> {
        if self.0.contains('/') { Ok(self) } else { Self::parse(&format!("library/{}", self.0)) }
    }
}

crate::string_type!(Repository, RepositoryError);

fn is_segment(segment: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (segment.bytes().next(), segment.bytes().last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    segment
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_specification() {
        for text in ["a", "library/nginx", "a.b/c_d/e__f/g---h", "0/1"] {
            assert!(Repository::parse(text).is_ok(), "{text}");
        }
        for text in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", ".", "..", "a/../b", "a%2fb", "a b",
            "é",
        ] {
            assert!(Repository::parse(text).is_err(), "{text:?}");
        }
        assert!(Repository::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn docker_hub_keeps_its_own_images_in_library() {
        assert_eq!(Repository::parse("nginx").unwrap().in_docker_hub().unwrap().as_str(), "library/nginx");
        assert_eq!(Repository::parse("team/app").unwrap().in_docker_hub().unwrap().as_str(), "team/app");
        assert_eq!(Repository::parse(&"a".repeat(248)).unwrap().in_docker_hub(), Err(RepositoryError::TooLong));
    }
}
