//! One name back to what it held, as an atomic step.

use std::path::Path;

use super::journal::Original;
use crate::host::{Host, HostError, Occupant, parent};

/// Replaces `over` by what was there before us. A directory is not put back by this, nor removed.
pub(super) fn put_back(host: &dyn Host, path: &Path, original: &Original, over: &Occupant) -> Result<(), HostError> {
    match (original, over) {
        (Original::Absent, Occupant::Absent) => return Ok(()),
        (Original::Absent, Occupant::Is(_)) => host.remove(path, over)?,
        (Original::File { bytes, attributes, .. }, _) => return host.write(path, bytes, attributes, over),
        (Original::Link { target, owner }, _) => {
            let staged = host.stage_link(path, target, Some(*owner));
            if let Err(error) = staged.and_then(|()| host.commit(path, over)) {
                drop(host.discard(path));
                return Err(error);
            }
        }
    }
    host.sync_directory(parent(path)?)
}
