//! The objects on the bucket that removal is about. How they are written as text is in `key_text`.
//!
//! But for marks, which say the same however often they are written, no key is written twice: each ends in a [`Unique`].
//! So a request that arrives late cannot replace anything newer, and a delete that arrives late hits only what was meant.
//! Records whose whole content fits are nothing but a key, and are read by listing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_oci::Digest;

use super::{Reference, Word};

/// A time by the bucket's own clock, in seconds since 1970: an object's Last-Modified. Never compared with a clock of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketTime(pub u64);

impl BucketTime {
    /// Whether at least `span` lies between this time and `now`.
    pub fn is_past(self, span: Duration, now: Self) -> bool {
        now.0 >= self.0.saturating_add(span.as_secs())
    }
}

/// A segment of a key that somebody chose: a cluster's id, a holder, the name under which an image is pinned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

impl Label {
    /// 1 to 128 of `a-z`, `0-9`, `.`, `_`, `-`, the first a letter or a digit.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (first && text.len() <= 128 && text.bytes().all(inner)).then(|| Self(text.into()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes a key unlike every other that ever was: a random text of the machine's own, and which of its attempts this is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unique {
    pub(super) seed: Arc<str>,
    pub(super) attempt: u32,
}

impl Unique {
    /// Sorts before every other; no key has it.
    pub(super) fn lowest() -> Self {
        Self { seed: "".into(), attempt: 0 }
    }
}

impl fmt::Display for Unique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seed, self.attempt)
    }
}

/// Where a machine takes its unique names from. Made from a random seed (128 bits or more) that no other machine ever had.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Names {
    seed: Arc<str>,
    taken: u32,
}

impl Names {
    /// `seed`: 1 to 64 of `a-z` and `0-9`.
    pub fn new(seed: &str) -> Option<Self> {
        is_seed(seed).then(|| Self { seed: seed.into(), taken: 0 })
    }

    /// A name that was never given before.
    pub fn take(&mut self) -> Unique {
        self.taken = self.taken.saturating_add(1);
        Unique { seed: Arc::clone(&self.seed), attempt: self.taken }
    }
}

pub(super) fn is_seed(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// One generation of a blob: several may hold the same bytes, and each has its own life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// What it holds.
    pub digest: Digest,
    /// Which of those that hold it.
    pub generation: Unique,
}

/// Who has reasons to keep: `pull` of every cluster, a cluster's controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The cluster that it belongs to.
    pub cluster: Label,
    /// Its name there.
    pub holder: Label,
}

/// What a holder calls a pin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinName {
    /// Whose pin it is.
    pub owner: Owner,
    /// The image, as the holder names it (the hash of its reference).
    pub image: Label,
}

/// An object on the bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A complete blob.
    Blob(Held),
    /// That generation is condemned, for ever: nobody may begin to rely on it.
    Mark(Held),
    /// A reason to keep the digests that it lists.
    Pin(PinName, Unique),
    /// All that this holder wanted at that time is pinned, and was found to be there.
    Declaration(Owner, BucketTime, Unique),
    /// Written so that its Last-Modified tells the bucket's time.
    Clock(Label, Unique),
    /// What the brake of that cluster's collector compares with.
    Reference(Label, Reference, Unique),
    /// What a person told that cluster's collector.
    Word(Label, Word),
}

impl Key {
    /// The generation that it is or marks.
    pub(crate) fn into_held(self) -> Option<Held> {
        if let Self::Blob(held) | Self::Mark(held) = self { Some(held) } else { None }
    }

    /// Whose it is, if it is a cluster's own.
    pub(super) fn cluster(&self) -> Option<&Label> {
        match self {
            Self::Blob(_) | Self::Mark(_) => None,
            Self::Pin(PinName { owner, .. }, _) | Self::Declaration(owner, ..) => Some(&owner.cluster),
            Self::Clock(cluster, _) | Self::Reference(cluster, ..) | Self::Word(cluster, _) => Some(cluster),
        }
    }
}

/// What can be listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// Every blob.
    Blobs,
    /// The generations of one.
    BlobsOf(Digest),
    /// Every mark.
    Marks,
    /// Those of one digest.
    MarksOf(Digest),
    /// The declarations of a cluster's holders.
    Holders(Label),
    /// Every pin of a cluster.
    Pins(Label),
    /// Every pin of that name, usually one.
    PinsOf(PinName),
    /// Clocks, references and words of a cluster's collectors.
    Removal(Label),
    /// Whatever there is of a cluster.
    Cluster(Label),
}

impl Prefix {
    /// Whether `key` is listed under it.
    pub fn covers(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Blobs, Key::Blob(_)) | (Self::Marks, Key::Mark(_)) => true,
            (Self::BlobsOf(digest), Key::Blob(held)) | (Self::MarksOf(digest), Key::Mark(held)) => {
                held.digest == *digest
            }
            (Self::Holders(cluster), Key::Declaration(owner, ..)) => owner.cluster == *cluster,
            (Self::Pins(cluster), Key::Pin(name, _)) => name.owner.cluster == *cluster,
            (Self::PinsOf(wanted), Key::Pin(name, _)) => name == wanted,
            (Self::Removal(cluster), Key::Clock(of, _) | Key::Reference(of, ..) | Key::Word(of, _)) => of == cluster,
            (Self::Cluster(cluster), key) => key.cluster() == Some(cluster),
            _ => false,
        }
    }
}
