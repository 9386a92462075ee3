//! What was there at one look over all blobs of a store.

use std::collections::HashSet;

use larder_oci::Digest;

use super::Content;
use super::kept::short;

/// Digests that are there, by 64 bits that are made of each: a million of them take some twenty megabytes, for as long as pins are compared with it. One
/// that is taken for another is found by who reads it.
#[derive(Debug, Default)]
pub struct Overview(HashSet<u64>);

impl Overview {
    /// This one is there.
    pub(crate) fn note(&mut self, digest: &Digest) {
        self.0.insert(short(digest));
    }

    /// Whether all of it was there.
    pub fn has_all_of(&self, content: &Content) -> bool {
        content.digests.iter().all(|digest| self.0.contains(&short(digest)))
    }
}
