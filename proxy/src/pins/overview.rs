//! What was there at one look over all blobs and records of a store.

use std::collections::HashSet;

use larder_oci::{Digest, Tag};

use super::KeptPin;
use super::kept::{hashed, short};
use super::records::{name_of, tag_of};
use crate::store::Name;

/// What is there, by 64 bits that are made of each: a million of them take some twenty megabytes, for as long as pins are compared with it. One
/// that is taken for another is found by who reads it.
#[derive(Debug, Default)]
pub struct Overview {
    blobs: HashSet<u64>,
    links: HashSet<u64>,
    tags: HashSet<u64>,
}

impl Overview {
    /// This one is there.
    pub(crate) fn note(&mut self, digest: &Digest) {
        self.blobs.insert(short(digest));
    }

    /// That this repository delivers it is written down.
    pub(crate) fn note_link(&mut self, name: &Name, digest: &Digest) {
        self.links.insert(hashed((name, digest)));
    }

    /// What this tag means is written down.
    pub(crate) fn note_tag(&mut self, name: &Name, tag: &Tag) {
        self.tags.insert(hashed((name, tag)));
    }

    /// Whether all was there by which what this pin promises is given.
    pub fn has_all_of(&self, kept: &KeptPin) -> bool {
        let Some(content) = kept.promised() else { return true };
        let name = name_of(&kept.pin.name.image);
        let has =
            |digest: &Digest| self.blobs.contains(&short(digest)) && self.links.contains(&hashed((&name, digest)));
        content.digests.iter().all(has)
            && tag_of(&kept.pin.name.image).is_none_or(|tag| self.tags.contains(&hashed((&name, &tag))))
    }
}
