//! Whether the disks have the room that a run takes: nodes are containers, and share the machine's.
//!
//! On a disk that is nearly full everything starts and then keeps nothing (`store: full` in a log), and cases fail for reasons that are none.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::statvfs;

/// What a run writes: file systems of nodes, their images, registries, a bucket, the images of cases. Measured: 4 GiB with one case. The stores
/// of cases leave nothing free beside it (`reserve: "0"`).
const WRITTEN: u64 = 8 << 30;

/// Fails where a run would not fit on the disk of a folder.
pub fn must_have_room(folder: &Path) -> Result<()> {
    let disk =
        statvfs(folder).with_context(|| format!("could not ask how full the disk of {} is", folder.display()))?;
    if let Some(reason) = lack(disk.blocks_available().saturating_mul(disk.fragment_size())) {
        bail!("the disk of {} {reason}", folder.display());
    }
    Ok(())
}

/// What is missing, if anything.
fn lack(available: u64) -> Option<String> {
    (available < WRITTEN).then(|| {
        format!(
            "has {} MiB free, and a cluster needs {} MiB: make room, or name another disk (LARDER_PARTS; for a Docker that runs already, its \
             data-root)",
            available >> 20,
            WRITTEN >> 20,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_much_is_missing() {
        let said = lack(WRITTEN - 1).unwrap();
        for words in ["has 8191 MiB free", "needs 8192 MiB", "make room"] {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(lack(WRITTEN), None);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = must_have_room(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/at/all"), "{error:#}");
    }
}
