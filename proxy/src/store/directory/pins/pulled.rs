//! What was pulled through keeps itself for a while, and gives way.

use super::{FOLDERS, delete, places, read};
use crate::pins::Holder;
use crate::store::StoreError;
use crate::store::directory::layout;
use crate::store::directory::room::Oldest;
use crate::store::directory::shared::Shared;

/// Pins of `pull` that one walk can choose to let go of.
const MAXIMUM_GIVING_WAY: usize = 1024;

/// Lets go of the longest unused pins of `pull`, until `bytes` are theirs; whether there was one.
pub(in crate::store::directory) fn give_way(shared: &Shared, bytes: u64) -> bool {
    let holder = Holder::pull();
    let mut oldest = Oldest::new(MAXIMUM_GIVING_WAY);
    for folder in 0..FOLDERS {
        for place in places(shared, layout::PINS, &holder, folder).unwrap_or_default() {
            if let Ok(Some(facts)) = shared.folder.facts(&layout::pin(layout::PINS, &place)) {
                oldest.show(facts.modified, facts.length, place);
            }
        }
    }
    let (mut freed, mut any) = (0_u64, false);
    for (_, _, place) in oldest.into_sorted() {
        let Ok(Some(kept)) = read(shared, &place) else {
            // It keeps nothing.
            let _ = delete(shared, &place);
            continue;
        };
        match delete(shared, &place) {
            Ok(true) => {
                tracing::debug!(image = %kept.pin.name.image, "store: what was pulled through gives way");
                any = true;
                freed = freed.saturating_add(kept.pin.content.map_or(0, |content| content.bytes));
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(image = %kept.pin.name.image, %error, "store: a pin of what was pulled through cannot be removed");
                break;
            }
        }
        if any && freed >= bytes {
            break;
        }
    }
    any
}

/// Lets go of what was pulled through and not used for so long, in one folder.
pub(in crate::store::directory) fn expire(shared: &Shared, folder: usize) -> Result<(), StoreError> {
    for place in places(shared, layout::PINS, &Holder::pull(), folder)? {
        let facts = shared.folder.facts(&layout::pin(layout::PINS, &place))?;
        let age = facts.and_then(|facts| shared.now().duration_since(facts.modified).ok());
        if age.is_some_and(|age| age >= shared.config.pull_kept) {
            delete(shared, &place)?;
        }
    }
    Ok(())
}
