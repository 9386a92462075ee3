//! What a Pod writes (`nginx:1.25`) and what a registry is asked for (a tag or a digest).

use std::fmt;

use crate::{Digest, DigestError, Registry, RegistryError, Repository, RepositoryError, Tag, TagError};

/// Which manifest of a repository: the distribution API's `<reference>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManifestReference {
    /// Whatever the tag means at the moment.
    Tag(Tag),
    /// Exactly this content.
    Digest(Digest),
}

impl ManifestReference {
    /// Parses a digest (it has a colon) or a tag (it cannot have one).
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') { Ok(Self::Digest(Digest::parse(text)?)) } else { Ok(Self::Tag(Tag::parse(text)?)) }
    }
}

impl fmt::Display for ManifestReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An image as a Pod names it, in full: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// Where it is.
    pub registry: Registry,
    /// Its name there.
    pub repository: Repository,
    /// The tag; `latest` when neither tag nor digest is written.
    pub tag: Option<Tag>,
    /// The digest, which decides when both are written.
    pub digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The registry part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The repository part.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl ImageReference {
    /// Parses as Docker and the engines do: the first segment is a registry when it holds a dot or a colon, or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if names_a_registry(first) => (Registry::parse(first)?, path),
            _ => (Registry::docker_hub(), rest),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(Tag::parse(tag)?)),
            None => (path, None),
        };
        let mut repository = Repository::parse(path)?;
        if registry.is_docker_hub() {
            repository = repository.in_docker_hub()?;
        }
        let tag = if tag.is_none() && digest.is_none() { Some(Tag::latest()) } else { tag };
        Ok(Self { registry, repository, tag, digest })
    }

    /// What a registry is asked for: the digest where there is one.
    pub fn manifest_reference(&self) -> ManifestReference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => ManifestReference::Digest(digest.clone()),
            (None, Some(tag)) => ManifestReference::Tag(tag.clone()),
            (None, None) => ManifestReference::Tag(Tag::latest()),
        }
    }
}

fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for ImageReference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_become_full_names() {
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("registry-1.docker.io/team/app:1", "docker.io/team/app:1"),
            ("localhost/a:1", "localhost/a:1"),
            ("reg.example.com:5000/a/b", "reg.example.com:5000/a/b:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), full);
        }
    }

    #[test]
    fn a_digest_decides() {
        let both = ImageReference::parse(&format!("ghcr.io/a/b:1@{DIGEST}")).unwrap();
        assert_eq!(both.to_string(), format!("ghcr.io/a/b:1@{DIGEST}"));
        assert_eq!(both.manifest_reference().to_string(), DIGEST);
        let alone = ImageReference::parse(&format!("ghcr.io/a/b@{DIGEST}")).unwrap();
        assert_eq!(alone.tag, None);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in ["", "a:", "a@", "a:b:c", "ghcr.io/", "ghcr.io/A", "a/b@sha256:1", "ghcr.io:x/a", "a b"] {
            assert!(ImageReference::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_the_same(text in "[a-z./:@0-9A-Z_-]{0,60}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                prop_assert_eq!(ImageReference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
