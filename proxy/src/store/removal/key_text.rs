//! Keys as text, below the store's prefix on the bucket. What cannot be read back exactly is no key of ours.

use std::fmt;

use larder_oci::Digest;

use super::key::is_seed;
use super::{BucketTime, Held, Key, Label, Owner, PinName, Prefix, Reference, Unique, Word};

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(held) => write!(f, "{}{}", Prefix::BlobsOf(held.digest.clone()), held.generation),
            Self::Mark(held) => write!(f, "{}{}", Prefix::MarksOf(held.digest.clone()), held.generation),
            Self::Pin(name, unique) => write!(f, "{}{unique}", Prefix::PinsOf(name.clone())),
            Self::Declaration(owner, as_of, unique) => {
                write!(f, "{}{}/{}-{unique}", Prefix::Holders(owner.cluster.clone()), owner.holder, as_of.0)
            }
            Self::Clock(cluster, unique) => write!(f, "{}clock/{unique}", Prefix::Removal(cluster.clone())),
            Self::Reference(cluster, Reference { pins, since }, unique) => {
                write!(f, "{}reference/{}-{pins}-{unique}", Prefix::Removal(cluster.clone()), since.0)
            }
            Self::Word(cluster, Word { reference: Reference { pins, since }, down_to }) => {
                write!(f, "{}word/{}-{pins}-{down_to}", Prefix::Removal(cluster.clone()), since.0)
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blobs => f.write_str("blobs/"),
            Self::BlobsOf(digest) => write!(f, "blobs/{}/{}/", digest.algorithm().as_str(), digest.hex()),
            Self::Marks => f.write_str("condemned/"),
            Self::MarksOf(digest) => write!(f, "condemned/{}/{}/", digest.algorithm().as_str(), digest.hex()),
            Self::Holders(cluster) => write!(f, "clusters/{cluster}/holders/"),
            Self::Pins(cluster) => write!(f, "clusters/{cluster}/pins/"),
            Self::PinsOf(PinName { owner: Owner { cluster, holder }, image }) => {
                write!(f, "clusters/{cluster}/pins/{holder}/{image}/")
            }
            Self::Removal(cluster) => write!(f, "clusters/{cluster}/removal/"),
            Self::Cluster(cluster) => write!(f, "clusters/{cluster}/"),
        }
    }
}

impl Key {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let segments: Vec<&str> = text.split('/').collect();
        match *segments.as_slice() {
            ["blobs", algorithm, hex, generation] => Some(Self::Blob(held(algorithm, hex, generation)?)),
            ["condemned", algorithm, hex, generation] => Some(Self::Mark(held(algorithm, hex, generation)?)),
            ["clusters", cluster, "pins", holder, image, last] => {
                let name = PinName { owner: owner(cluster, holder)?, image: Label::parse(image)? };
                Some(Self::Pin(name, unique(last)?))
            }
            ["clusters", cluster, "holders", holder, last] => {
                let (as_of, last) = last.split_once('-')?;
                Some(Self::Declaration(owner(cluster, holder)?, BucketTime(number(as_of)?), unique(last)?))
            }
            ["clusters", cluster, "removal", kind, last] => removal(Label::parse(cluster)?, kind, last),
            _ => None,
        }
    }
}

fn removal(cluster: Label, kind: &str, last: &str) -> Option<Key> {
    let parts: Vec<&str> = last.split('-').collect();
    let reference = |since, pins| Some(Reference { pins: number(pins)?, since: BucketTime(number(since)?) });
    match (kind, parts.as_slice()) {
        ("clock", [last]) => Some(Key::Clock(cluster, unique(last)?)),
        ("reference", [since, pins, last]) => Some(Key::Reference(cluster, reference(since, pins)?, unique(last)?)),
        ("word", [since, pins, down_to]) => {
            Some(Key::Word(cluster, Word { reference: reference(since, pins)?, down_to: number(down_to)? }))
        }
        _ => None,
    }
}

fn held(algorithm: &str, hex: &str, generation: &str) -> Option<Held> {
    Some(Held { digest: Digest::parse(&format!("{algorithm}:{hex}")).ok()?, generation: unique(generation)? })
}

fn owner(cluster: &str, holder: &str) -> Option<Owner> {
    Some(Owner { cluster: Label::parse(cluster)?, holder: Label::parse(holder)? })
}

fn unique(text: &str) -> Option<Unique> {
    let (seed, attempt) = text.split_once('.')?;
    let attempt = u32::try_from(number(attempt)?).ok()?;
    is_seed(seed).then(|| Unique { seed: seed.into(), attempt })
}

/// Digits without a sign or leading zeros, so that one number has one text.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}
