//! The file beside a large blob that holds its checksums.
//!
//! It is durable before the blob gets its name and goes with the blob. One that cannot be used counts as absent: the blob is served all
//! the same, and the scrub writes a new one.

use std::sync::Arc;

use larder_oci::Digest;

use super::folder::Folder;
use super::layout;
use crate::store::StoreError;
use crate::store::checksums::{Checksums, MAXIMUM_ENCODED};

/// The checksums of a blob, if there are any of use.
pub(super) fn read(folder: &Folder, digest: &Digest) -> Option<Arc<Checksums>> {
    let path = layout::checksums(digest);
    let encoded = match folder.read(&path, MAXIMUM_ENCODED) {
        Ok(encoded) => encoded?,
        Err(error) => {
            tracing::warn!(%error, "store: checksums cannot be read");
            return None;
        }
    };
    match Checksums::decode(digest, &encoded) {
        Ok(checksums) => Some(Arc::new(checksums)),
        Err(reason) => {
            tracing::warn!(path = %folder.shown(&path).display(), reason, "store: damaged checksums count as absent");
            None
        }
    }
}

/// Writes them down, durably, over older ones.
pub(super) fn write(folder: &Folder, digest: &Digest, checksums: &Checksums) -> Result<(), StoreError> {
    folder.replace(&layout::checksums(digest), &checksums.encode(digest))
}
