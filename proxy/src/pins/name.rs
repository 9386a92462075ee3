//! Who holds which image, and the order in which pins are listed.

use std::fmt;
use std::sync::Arc;

use larder_oci::{Algorithm, Digest, ImageReference};

use crate::store::Name;

/// See [`Place::shard`].
pub(crate) const SHARDS: usize = 256;

/// Who wants something kept: `pull`, a controller, a person. A folder and a segment of a key are called so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(Arc<str>);

/// Why a text is no holder's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("holder {0:?} must be 1 to 63 of a-z, 0-9, '.' and '-', beginning with a letter or a digit")]
pub struct HolderError(String);

impl Holder {
    /// 1 to 63 of `a-z`, `0-9`, `.`, `-`, the first a letter or a digit.
    pub fn parse(text: &str) -> Result<Self, HolderError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        if first && text.len() <= 63 && text.bytes().all(inner) {
            Ok(Self(text.into()))
        } else {
            Err(HolderError(text.chars().take(80).collect()))
        }
    }

    /// Who holds what was pulled through. Its pins give way, oldest first, where there is no room otherwise; nobody else's do.
    pub fn pull() -> Self {
        Self("pull".into())
    }

    /// Whether it is [`Holder::pull`].
    pub fn is_pull(&self) -> bool {
        &*self.0 == "pull"
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One holder has one pin of one reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PinName {
    /// Who.
    pub holder: Holder,
    /// What. Two references of one image (a tag, its digest) are two pins.
    pub image: ImageReference,
}

impl PinName {
    /// By which `pull` keeps a manifest of a repository; `None`: there is no reference to that.
    pub(crate) fn of_pull(name: &Name, digest: &Digest) -> Option<Self> {
        let image = ImageReference::parse(&format!("{name}@{digest}")).ok()?;
        Some(Self { holder: Holder::pull(), image })
    }

    /// Where [`Self::of_pull`] stands in listings, if there is such a one. Nothing is parsed for it: it is asked for with each of 100,000 pins that are listed.
    pub(crate) fn place_of_pull(name: &Name, digest: &Digest) -> Place {
        Place { holder: Holder::pull(), key: key(&format!("{name}@{digest}")) }
    }

    /// Where it stands in listings.
    pub fn place(&self) -> Place {
        Place { holder: self.holder.clone(), key: key(&self.image.to_string()) }
    }
}

fn key(reference: &str) -> String {
    Digest::of(Algorithm::Sha256, reference.as_bytes()).hex().to_owned()
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.image, self.holder)
    }
}

/// A place in a listing: by holder, then by the hash of the reference, which is how pins are named where a reference is too long or has a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub(crate) holder: Holder,
    /// SHA-256 of the reference in full, in 64 hexadecimal digits.
    pub(crate) key: String,
}

impl Place {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (holder, key) = text.split_once('/')?;
        Self::new(Holder::parse(holder).ok()?, key)
    }

    /// A holder and 64 hexadecimal digits.
    pub(crate) fn new(holder: Holder, key: &str) -> Option<Self> {
        let is_hash = key.len() == 64 && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| Self { holder, key: key.to_owned() })
    }

    /// Whose pin stands there.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// One of [`SHARDS`], by the hash: for folders and locks that many pins share.
    pub(crate) fn shard(&self) -> usize {
        self.key.get(..2).and_then(|hex| usize::from_str_radix(hex, 16).ok()).unwrap_or(0)
    }

    /// The hash of the reference, in hexadecimal.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.holder, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_a_plain_name() {
        for good in ["pull", "controller", "a", "0", "a.b-c", &"a".repeat(63)] {
            assert_eq!(Holder::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "A", "a/b", "a_b", "ä", "a b", "a\0", &"a".repeat(64)] {
            assert!(Holder::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Holder::pull().is_pull() && !Holder::parse("pulls").unwrap().is_pull());
    }

    #[test]
    fn the_place_of_a_pull_is_known_without_its_reference() {
        let digest = Digest::of(Algorithm::Sha256, b"it");
        for text in ["alpine:3", "docker.io/team/app", "localhost:5000/app:v1", "[::1]:5000/a/b/c", "10.0.0.1/x"] {
            let ImageReference { registry, repository, .. } = ImageReference::parse(text).unwrap();
            let name = Name { registry, repository };
            let pin = PinName::of_pull(&name, &digest).unwrap();
            assert_eq!(PinName::place_of_pull(&name, &digest), pin.place(), "{text}");
        }
    }

    #[test]
    fn a_place_is_read_back_exactly() {
        let name = PinName { holder: Holder::parse("me").unwrap(), image: ImageReference::parse("alpine:3").unwrap() };
        let same = PinName { image: ImageReference::parse("docker.io/library/alpine:3").unwrap(), ..name.clone() };
        assert_eq!(name.place(), same.place());
        assert_eq!(Place::parse(&name.place().to_string()), Some(name.place()));
        for bad in
            ["", "me", "me/", "me/00", "/00", &format!("me/{}", "A".repeat(64)), &format!("me/{}/", "a".repeat(64))]
        {
            assert_eq!(Place::parse(bad), None, "{bad:?}");
        }
    }
}
