//! Whether all is there that a pin promises: its blobs, as far as that is seen without reading them, and the records by which they are given.

use std::collections::BTreeSet;

use larder_oci::{Digest, ImageReference};

use super::blobs::Removal;
use super::record;
use super::shared::Shared;
use super::{layout, sidecar};
use crate::pins::Content;
use crate::pins::records::{Lacking, name_of, tag_of};
use crate::store::{Name, StoreError};

/// What of it is not there; what is cut short goes.
pub(super) fn missing(shared: &Shared, content: &Content) -> Result<BTreeSet<Digest>, StoreError> {
    let mut missing = BTreeSet::new();
    for digest in &content.digests {
        if let Some(inode) = cut_short(shared, digest)? {
            shared.remove_damaged(digest, Removal::DamagedInode(inode))?;
        }
        if !shared.blobs.has(&shared.folder, digest)? {
            missing.insert(digest.clone());
        }
    }
    Ok(missing)
}

/// The file of a blob that is certainly not all of it: it is empty, or not as long as its checksums say. Where neither is seen, its bytes are the scrub's matter.
fn cut_short(shared: &Shared, digest: &Digest) -> Result<Option<u64>, StoreError> {
    let Some(blob) = shared.folder.facts(&layout::blob(digest))?.filter(|blob| blob.regular) else { return Ok(None) };
    let is_short = match sidecar::read(&shared.folder, digest) {
        Some(checksums) => checksums.length() != blob.length,
        None => blob.length == 0 && Digest::of(digest.algorithm(), b"") != *digest,
    };
    Ok(is_short.then_some(blob.inode))
}

/// Its records that are not there.
pub(super) fn lacking(shared: &Shared, image: &ImageReference, content: &Content) -> Result<Lacking, StoreError> {
    let (name, mut lacking) = (name_of(image), Lacking::default());
    for digest in &content.digests {
        if record::link(shared, &name, digest)?.is_none() {
            lacking.links.push(digest.clone());
        }
    }
    if let Some(tag) = tag_of(image) {
        let means = record::tag(shared, &name, &tag)?.map(|record| record.digest);
        let is_given = match means {
            Some(digest) => digest == content.root || is_given(shared, &name, &digest)?,
            None => false,
        };
        lacking.tag = (!is_given).then_some(tag);
    }
    Ok(lacking)
}

fn is_given(shared: &Shared, name: &Name, digest: &Digest) -> Result<bool, StoreError> {
    Ok(record::link(shared, name, digest)?.is_some() && shared.blobs.has(&shared.folder, digest)?)
}
