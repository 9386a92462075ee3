//! What callers wish for and take back: written in the turn of its name, whatever is done about it meanwhile.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Keeper;
use crate::pins::{Holder, MAXIMUM_PAGE, Pin, PinName, PinsError, Platforms};

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

    /// Removes all pins of a holder, and then what it has declared: as long as there is one of the two, nobody takes it for gone.
    pub(in crate::control) async fn forget_holder(&self, holder: &Holder) -> Result<(), PinsError> {
        let mut after = None;
        loop {
            let page = self.pins.list(Some(holder), after.as_ref(), MAXIMUM_PAGE).await?;
            let deleting = stream::iter(page.pins).map(|kept| async move { self.delete(&kept.pin.name).await });
            deleting.buffer_unordered(DELETED_AT_ONCE).try_collect::<()>().await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.pins.undeclare(holder).await
    }
}
