//! What holders declare: as of when all that they want is pinned.

use super::{BucketPins, unanswered};
use crate::pins::{AsOf, Declared, Failed, Holder, PinsError};
use crate::store::bucket::keeping::machine::run;
use crate::store::removal::{self, Answer, BucketTime, Declarer, Key, Prefix};

/// Pins that are not complete, at a time.
const INCOMPLETE: usize = 100;

impl BucketPins {
    pub(super) async fn begin(&self, holder: &Holder) -> Result<AsOf, PinsError> {
        let mut declarer = Declarer::new(self.owner(holder)?, self.names()?);
        let hands = self.of_store(None);
        match run(&mut declarer, &hands, |_, _| {}).await.map_err(|_| unanswered())? {
            removal::Declared::Look => {}
            removal::Declared::Done | removal::Declared::Unanswered => return Err(unanswered()),
        }
        let (as_of, clock) = declarer.time().ok_or_else(unanswered)?;
        self.shared.client.delete(&self.shared.plain().place(&clock)).await?;
        Ok(AsOf(as_of.0))
    }

    pub(super) async fn declare(&self, holder: &Holder, as_of: AsOf, failed: &Failed) -> Result<Declared, PinsError> {
        if as_of > self.begin(holder).await? {
            return Ok(Declared::Future);
        }
        let mut after = None;
        loop {
            // One that failed is followed by others, as a rule.
            let page =
                self.page(Some(holder), after.as_ref(), if failed.is_empty() { 1 } else { INCOMPLETE }, true).await?;
            if let Some(kept) = page.pins.into_iter().find(|kept| !failed.has(&kept.pin)) {
                return Ok(Declared::Incomplete(kept.pin.name));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if self.declared(holder).await?.is_some_and(|declared| declared >= as_of) {
            return Ok(Declared::Done);
        }
        let mut declarer = Declarer::looked(self.owner(holder)?, BucketTime(as_of.0), self.names()?);
        match run(&mut declarer, &self.of_store(None), |_, _| {}).await {
            Ok(removal::Declared::Done) => Ok(Declared::Done),
            Ok(removal::Declared::Look | removal::Declared::Unanswered) | Err(_) => Err(unanswered()),
        }
    }

    /// The holder's declarations, and of when each is.
    async fn declarations(&self, holder: &Holder) -> Result<Vec<(Key, AsOf)>, PinsError> {
        let owner = self.owner(holder)?;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let prefix = Prefix::Holders(owner.cluster.clone());
            let Answer::Page { entries, last, .. } = self.shared.plain().page(&prefix, after.as_ref()).await? else {
                return Err(unanswered());
            };
            after = entries.last().map(|entry| entry.key.clone());
            found.extend(entries.into_iter().filter_map(|entry| match &entry.key {
                Key::Declaration(of, as_of, _) if *of == owner => Some((entry.key.clone(), AsOf(as_of.0))),
                _ => None,
            }));
            if last {
                return Ok(found);
            }
        }
    }

    pub(super) async fn declared(&self, holder: &Holder) -> Result<Option<AsOf>, PinsError> {
        Ok(self.declarations(holder).await?.into_iter().map(|(_, as_of)| as_of).max())
    }

    /// No rule of removal rests on a declaration that is gone: who has pins and none is waited for.
    pub(super) async fn undeclare(&self, holder: &Holder) -> Result<(), PinsError> {
        for (key, _) in self.declarations(holder).await? {
            self.shared.client.delete(&self.shared.plain().place(&key)).await?;
        }
        Ok(())
    }
}
