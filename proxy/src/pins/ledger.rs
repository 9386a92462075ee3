//! Pins in memory, in the order in which they are listed: what a store keeps that lives as long as the process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use larder_oci::Digest;

use super::kept::{Kept, follow};
use super::{AsOf, Content, Declared, Failed, Holder, KeptPin, MAXIMUM_PAGE, Page, Pin, PinName, Place, Put};

/// The pins.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pins: BTreeMap<Place, KeptPin>,
    declared: BTreeMap<Holder, AsOf>,
    pub(crate) kept: Kept,
}

impl Ledger {
    /// `is_here` is asked after the pin is in force.
    pub(crate) fn put(&mut self, pin: Pin, is_here: impl Fn(&Digest) -> bool) -> Put {
        let Some(mut next) = follow(self.get(&pin.name), pin) else { return Put::Superseded };
        let missing = next.pin.content.as_ref().map(|content| missing(content, is_here));
        let put = match missing {
            Some(missing) if missing.is_empty() => {
                next = next.completed();
                Put::Complete
            }
            missing => Put::Incomplete(missing.unwrap_or_default()),
        };
        self.write(next);
        put
    }

    /// See [`Pins::protect`](super::Pins::protect).
    pub(crate) fn protect(&mut self, pin: Pin) -> bool {
        let old = self.get(&pin.name);
        let complete = old.as_ref().filter(|old| old.complete).map(|old| old.pin.clone());
        let Some(next) = follow(old, pin) else { return false };
        if complete.as_ref() != Some(&next.pin) {
            self.write(next);
        }
        true
    }

    fn write(&mut self, next: KeptPin) {
        self.kept.add(&next);
        if let Some(old) = self.pins.insert(next.pin.name.place(), next) {
            self.kept.remove(&old);
        }
    }

    /// See [`Pins::look_again`](super::Pins::look_again).
    pub(crate) fn look_again(&mut self, name: &PinName, is_here: impl Fn(&Digest) -> bool) -> Option<Put> {
        let kept = self.get(name)?;
        let missing = missing(kept.promised()?, &is_here);
        if kept.complete {
            return Some(self.put(kept.pin, is_here));
        }
        self.write(KeptPin { older_lacks: !missing.is_empty(), ..kept });
        Some(if missing.is_empty() { Put::Complete } else { Put::Incomplete(missing) })
    }

    pub(crate) fn get(&self, name: &PinName) -> Option<KeptPin> {
        self.pins.get(&name.place()).cloned()
    }

    pub(crate) fn delete(&mut self, name: &PinName) -> bool {
        let removed = self.pins.remove(&name.place());
        if let Some(removed) = &removed {
            self.kept.remove(removed);
        }
        removed.is_some()
    }

    pub(crate) fn list(&self, after: Option<&Place>, limit: usize, is_wanted: impl Fn(&KeptPin) -> bool) -> Page {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let mut found = self.pins.range((from, Bound::Unbounded)).filter(|(_, kept)| is_wanted(kept));
        let mut page = Page::default();
        let mut last = None;
        for (place, kept) in found.by_ref().take(limit.clamp(1, MAXIMUM_PAGE)) {
            page.pins.push(kept.clone());
            last = Some(place.clone());
        }
        page.next = if found.next().is_some() { last } else { None };
        page
    }

    pub(crate) fn declare(&mut self, holder: &Holder, as_of: AsOf, failed: &Failed, now: AsOf) -> Declared {
        if as_of > now {
            return Declared::Future;
        }
        let stands_in_the_way =
            |kept: &&KeptPin| kept.pin.name.holder == *holder && !kept.complete && !failed.has(&kept.pin);
        if let Some(kept) = self.pins.values().find(stands_in_the_way) {
            return Declared::Incomplete(kept.pin.name.clone());
        }
        let newest = self.declared.entry(holder.clone()).or_insert(as_of);
        *newest = as_of.max(*newest);
        Declared::Done
    }

    pub(crate) fn declared(&self, holder: &Holder) -> Option<AsOf> {
        self.declared.get(holder).copied()
    }

    pub(crate) fn undeclare(&mut self, holder: &Holder) {
        self.declared.remove(holder);
    }

    /// Lets go of the longest unused pin of `pull`; whether there was one.
    pub(crate) fn give_way(&mut self) -> bool {
        let of_pull = self.pins.values().filter(|kept| kept.pin.name.holder.is_pull());
        let oldest = of_pull.min_by_key(|kept| kept.pin.put_at).map(|kept| kept.pin.name.clone());
        oldest.is_some_and(|name| self.delete(&name))
    }
}

fn missing(content: &Content, is_here: impl Fn(&Digest) -> bool) -> BTreeSet<Digest> {
    content.digests.iter().filter(|digest| !is_here(digest)).cloned().collect()
}
