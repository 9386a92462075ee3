//! What callers wish for and take back: written in the turn of its name, whatever is done about it meanwhile.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Keeper;
use crate::pins::{Holder, MAXIMUM_PAGE, Pin, PinName, PinsError, Place, Platforms};

/// Pins of a holder that is forgotten.
const DELETED_AT_ONCE: usize = 8;

impl Keeper {
    /// Writes a wish, unless there is the same already.
    pub(in crate::control) async fn wish(&self, name: &PinName, platforms: Platforms) -> Result<(), PinsError> {
        let turn = self.writings.turn(&name.place()).await;
        let old = self.pins.get(name).await?;
        turn.wished();
        if old.as_ref().is_some_and(|old| old.pin.platforms == platforms) {
            return Ok(());
        }
        let after = old.map(|old| old.pin.put_at + Duration::from_nanos(1));
        let put_at = after.map_or_else(SystemTime::now, |after| after.max(SystemTime::now()));
        self.pins.put(Pin { name: name.clone(), platforms, put_at, content: None }).await?;
        Ok(())
    }

    /// Removes a pin, whatever is done about it now.
    pub(in crate::control) async fn delete(&self, name: &PinName) -> Result<(), PinsError> {
        let place = name.place();
        self.writings.settled(&place).await;
        {
            let turn = self.writings.turn(&place).await;
            turn.deleted();
            self.pins.delete(name).await?;
        }
        self.forget(&place);
        Ok(())
    }

    /// Removes all pins of a holder, and then what it has declared: as long as there is one of the two, nobody takes it for gone. Whether there
    /// was one of the two.
    pub(in crate::control) async fn forget_holder(&self, holder: &Holder) -> Result<bool, PinsError> {
        let (mut after, mut found) = (None, self.pins.declared(holder).await?.is_some());
        loop {
            let page = self.pins.list(Some(holder), after.as_ref(), MAXIMUM_PAGE).await?;
            found |= !page.pins.is_empty();
            let deleting = stream::iter(page.pins).map(|kept| async move { self.delete(&kept.pin.name).await });
            deleting.buffer_unordered(DELETED_AT_ONCE).try_collect::<()>().await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // Also where nothing was found: what cannot be read is no declaration.
        self.pins.undeclare(holder).await?;
        Ok(found)
    }

    /// Holders that have pins, in their order, but for `pull`; at most so many.
    pub(in crate::control) async fn holders(&self, most: usize) -> Result<Vec<Holder>, PinsError> {
        let (mut after, mut holders) = (None, Vec::new());
        while holders.len() < most {
            let page = self.pins.list(None, after.as_ref(), 1).await?;
            after = match page.pins.first() {
                Some(kept) => {
                    let holder = kept.pin.name.holder.clone();
                    // Behind all of its pins.
                    let last = Place::new(holder.clone(), &"f".repeat(64));
                    if !holder.is_pull() {
                        holders.push(holder);
                    }
                    last
                }
                None => page.next,
            };
            if after.is_none() {
                break;
            }
        }
        Ok(holders)
    }
}
