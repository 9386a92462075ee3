//! What a machine asks of the bucket, one at a time, and what it is told.

use std::collections::BTreeSet;

use larder_oci::Digest;

use super::{BucketTime, Held, Key, Label, Prefix, Unique};

/// What a machine wants next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step<T> {
    /// Carry this out once, without repeating it by yourself, and feed the answer.
    Do(Operation),
    /// It is at its end.
    Done(T),
}

/// One request to the bucket. Each is carried out at most once by whoever asks; the way to the bucket may still lose it,
/// repeat it, or deliver it late.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// The keys below a prefix, in the bucket's order, from the one after `after`. Answer: [`Answer::Page`].
    List {
        /// Below what.
        prefix: Prefix,
        /// The last key of the page before.
        after: Option<Key>,
    },
    /// The clusters of which there is anything: the common prefixes below `clusters/`. Answer: [`Answer::Clusters`].
    Clusters,
    /// Reads a pin. Answer: [`Answer::Pin`], [`Answer::Unreadable`], [`Answer::NotFound`].
    GetPin(Key),
    /// Reads a part of a blob (which part is the reader's matter). Answer: [`Answer::Done`], [`Answer::NotFound`].
    GetBlob(Held, u8),
    /// Writes a record. Answer: [`Answer::Done`].
    Put(Key, Body),
    /// Copies a generation to a new one, complete or not at all. Answer: [`Answer::Done`]; [`Answer::NotFound`]: there is none to copy.
    Copy(Held, Unique),
    /// Brings a blob from its origin, verified, complete or not at all. Answer: [`Answer::Done`]; [`Answer::NotFound`]: the origin
    /// does not deliver it now.
    Fetch(Held),
    /// Removes an object, whatever it is by then. Answer: [`Answer::Done`], whether or not there was one.
    Delete(Key),
}

/// What a record holds beside its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Body {
    /// Nothing.
    Empty,
    /// The digests that a pin keeps: index, manifests, configurations, layers, whatever the image needs.
    Pin(BTreeSet<Digest>),
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The bucket said that it is done.
    Done,
    /// The bucket said that it is not there.
    NotFound,
    /// A part of a listing.
    Page {
        /// In the bucket's order.
        entries: Vec<Entry>,
        /// Keys below the prefix that this version cannot read.
        foreign: bool,
        /// Whether the listing ends here.
        last: bool,
    },
    /// The clusters.
    Clusters(BTreeSet<Label>),
    /// A pin's digests.
    Pin(BTreeSet<Digest>),
    /// There is a record, and this version cannot read it.
    Unreadable,
    /// It is not known whether it happened, will happen, or never will: a timeout, a broken connection, a 5xx.
    Unknown,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Which object.
    pub key: Key,
    /// Its Last-Modified.
    pub modified: BucketTime,
}
