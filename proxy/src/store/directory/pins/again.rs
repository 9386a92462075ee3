//! Whether all is still there that a pin promises, and records that are not there, which are written anew.

use larder_oci::ImageReference;

use super::{put_over, read, write_document};
use crate::pins::records::{Anew, Lacking};
use crate::pins::{Content, KeptPin, Place, Put};
use crate::store::directory::shared::Shared;
use crate::store::directory::{DirectoryStore, whole};
use crate::store::lease::lock;
use crate::store::{Store as _, StoreError};

/// See [`Pins::look_again`](crate::pins::Pins::look_again): what came of it, and what has to be written anew by which image. Reads only, unless something is missing.
pub(super) fn look_again(shared: &Shared, place: &Place) -> Result<Option<Looked>, StoreError> {
    let Some(_writing) = shared.pins.lock(place) else { return Ok(None) };
    let Some(old) = read(shared, place)? else { return Ok(None) };
    let Some(content) = old.promised().cloned() else { return Ok(None) };
    let missing = whole::missing(shared, &content)?;
    let image = old.pin.name.image.clone();
    let lacking = whole::lacking(shared, &image, &content)?;
    let put = match (missing.is_empty(), old.complete) {
        (true, true) => Put::Complete,
        (false, true) => put_over(shared, place, Some(&old), old.pin.clone())?,
        (is_whole, false) => {
            note_older(shared, place, &old, !is_whole)?;
            if is_whole { Put::Complete } else { Put::Incomplete(missing) }
        }
    };
    Ok(Some(Looked { put, image, content, lacking }))
}

/// What a look at a pin has found.
pub(super) struct Looked {
    pub(super) put: Put,
    pub(super) image: ImageReference,
    pub(super) content: Content,
    pub(super) lacking: Lacking,
}

/// With the place's lock held.
fn note_older(shared: &Shared, place: &Place, old: &KeptPin, older_lacks: bool) -> Result<(), StoreError> {
    if old.older_lacks == older_lacks {
        return Ok(());
    }
    let next = KeptPin { older_lacks, ..old.clone() };
    write_document(shared, place, &next)?;
    if shared.pins.includes(place) {
        let mut kept = lock(&shared.pins.kept);
        kept.add(&next);
        kept.remove(old);
    }
    Ok(())
}

impl DirectoryStore {
    /// One after the other: an image may have thousands, and no operation on a disk takes long.
    pub(super) async fn write_anew(&self, anew: Anew) -> Result<(), StoreError> {
        for link in anew.links {
            self.put_link(&anew.name, link).await?;
        }
        if let Some((tag, record)) = anew.tag {
            self.put_tag(&anew.name, &tag, record).await?;
        }
        Ok(())
    }
}
