//! What a person types to name a bucket: `s3://name/prefix`, `gs://name/prefix`, `az://container/prefix`. Pure.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Whose interface a bucket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon's, and everything that is compatible with it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3://",
            Self::Gcs => "gs://",
            Self::Azure => "az://",
        }
    }
}

/// A bucket, and the folder in it that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAddress {
    /// Whose interface it speaks.
    pub provider: Provider,
    /// Of the bucket; Azure calls it container.
    pub name: String,
    /// Without a slash at either end; empty for the whole bucket.
    pub prefix: String,
}

/// Why a text names no bucket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It begins with something else.
    #[error("a bucket is written s3://NAME/PREFIX, gs://NAME/PREFIX or az://CONTAINER/PREFIX, not {0:?}")]
    Scheme(String),
    /// No name, or a character that no provider allows in one.
    #[error("{0:?} cannot be a bucket's name: letters, digits, dots, dashes and underscores, 3 to 63 of them")]
    Name(String),
    /// A prefix that could not be told from another one, or that a server would change.
    #[error(
        "{0:?} cannot be a prefix: segments of letters, digits and ._-, at most 200 characters, none of them . or .."
    )]
    Prefix(String),
}

impl FromStr for BucketAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let of = |provider: Provider| text.strip_prefix(provider.scheme()).map(|rest| (provider, rest));
        let Some((provider, rest)) = Provider::ALL.into_iter().find_map(of) else {
            return Err(AddressError::Scheme(text.to_owned()));
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').filter(|prefix| !prefix.is_empty()).unwrap_or(prefix);
        if !(3..=63).contains(&name.len()) || !is_plain(name) {
            return Err(AddressError::Name(name.to_owned()));
        }
        let segments_fit = prefix.is_empty() || prefix.split('/').all(is_plain);
        if !segments_fit || prefix.len() > 200 {
            return Err(AddressError::Prefix(prefix.to_owned()));
        }
        Ok(Self { provider, name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.provider.scheme(), self.name)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Which cluster's records are read and written. A bucket may be shared by many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterId(String);

/// Why a text names no cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot be a cluster's id: a-z, 0-9 and ._-, at most 63 of them, the first a letter or a digit")]
pub struct ClusterIdError(String);

impl ClusterId {
    /// As it stands in keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        let lower = |byte: u8| !byte.is_ascii_uppercase();
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let fits = first && is_plain(text) && text.len() <= 63 && text.bytes().all(lower);
        if fits { Ok(Self(text.to_owned())) } else { Err(ClusterIdError(text.to_owned())) }
    }
}

/// What needs no encoding anywhere and leads nowhere else.
fn is_plain(segment: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_read_as_they_are_shown() {
        for (text, provider, name, prefix) in [
            ("s3://images", Provider::S3, "images", ""),
            ("gs://images/larder", Provider::Gcs, "images", "larder"),
            ("az://images/a/b.c", Provider::Azure, "images", "a/b.c"),
        ] {
            let address: BucketAddress = text.parse().unwrap();
            assert_eq!((address.provider, address.name.as_str(), address.prefix.as_str()), (provider, name, prefix));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("s3://images/a/".parse::<BucketAddress>().unwrap().prefix, "a");
    }

    #[test]
    fn what_would_be_another_place_than_it_looks_is_refused() {
        for text in ["images", "http://images", "s3:images", "S3://images"] {
            assert!(matches!(text.parse::<BucketAddress>(), Err(AddressError::Scheme(_))), "{text}");
        }
        for text in ["s3://", "s3:///a", "s3://im ages", "s3://a@b.c", "s3://im?x", "s3://.."] {
            assert!(matches!(text.parse::<BucketAddress>(), Err(AddressError::Name(_))), "{text}");
        }
        for text in ["s3://images//", "s3://images/a//b", "s3://images/../b", "s3://images/a b", "s3://images/a%2fb"] {
            assert!(matches!(text.parse::<BucketAddress>(), Err(AddressError::Prefix(_))), "{text}");
        }
        for text in ["", ".", "..", "a/b", "a b", "Prod", "-a", "_a"] {
            assert!(text.parse::<ClusterId>().is_err(), "{text}");
        }
        assert_eq!("prod-eu.1".parse::<ClusterId>().unwrap().as_str(), "prod-eu.1");
    }
}
