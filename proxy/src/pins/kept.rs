//! What pins keep, for those who look for something to remove: how many pins reach a digest, without the pins.
//!
//! A digest is known by 64 bits that are made of it, so that a million of them take some tens of megabytes. Two that share them are kept for each
//! other's sake, which does no harm.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use larder_oci::Digest;

use super::{Content, KeptPin, Pin};

/// Who keeps a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeptBy {
    /// Nobody.
    Nobody,
    /// Only what was pulled through: it gives way where there is no room otherwise.
    Pull,
    /// A holder who said so.
    Holder,
}

/// How many pins reach each digest.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pull: HashMap<u64, Count>,
    holders: HashMap<u64, Count>,
}

/// Of one digest.
#[derive(Debug, Default)]
struct Count {
    pins: u32,
    /// Those of them that are complete.
    complete: u32,
}

/// By which it is known in this process. Keyed: whoever asks for a digest that somebody made up is not to meet one that is kept, for what a complete pin has
/// lost is looked for in all pins.
pub(crate) fn short(digest: &Digest) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(digest.hex())
}

impl Kept {
    /// Who keeps it.
    pub(crate) fn by(&self, digest: &Digest) -> KeptBy {
        let digest = short(digest);
        if self.holders.contains_key(&digest) {
            KeptBy::Holder
        } else if self.pull.contains_key(&digest) {
            KeptBy::Pull
        } else {
            KeptBy::Nobody
        }
    }

    /// Whether a complete pin of a holder reaches it: that it is not there is news.
    pub(crate) fn is_promised(&self, digest: &Digest) -> bool {
        self.holders.get(&short(digest)).is_some_and(|count| count.complete > 0)
    }

    /// Whether no pin reaches anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.pull.is_empty() && self.holders.is_empty()
    }

    /// One more pin.
    pub(crate) fn add(&mut self, kept: &KeptPin) {
        let counts = self.of(kept);
        for digest in reached(kept) {
            let count = counts.entry(digest).or_default();
            count.pins = count.pins.saturating_add(1);
            count.complete = count.complete.saturating_add(u32::from(kept.complete));
        }
    }

    /// One pin less, which was added as it is.
    pub(crate) fn remove(&mut self, kept: &KeptPin) {
        let counts = self.of(kept);
        for digest in reached(kept) {
            if let Some(count) = counts.get_mut(&digest) {
                count.pins -= 1;
                count.complete = count.complete.saturating_sub(u32::from(kept.complete));
                if count.pins == 0 {
                    counts.remove(&digest);
                }
            }
        }
    }

    fn of(&mut self, kept: &KeptPin) -> &mut HashMap<u64, Count> {
        if kept.pin.name.holder.is_pull() { &mut self.pull } else { &mut self.holders }
    }
}

/// Each as often as it is named, so that adding and removing are each other's opposite.
fn reached(kept: &KeptPin) -> impl Iterator<Item = u64> {
    let contents = [kept.pin.content.as_ref(), kept.older.as_ref()];
    contents.into_iter().flatten().flat_map(|content| content.digests.iter().map(short))
}

/// What is to be written for a pin that follows `old`, before it is known what of it is there; `None`: there is one of a newer wish.
pub(crate) fn follow(old: Option<KeptPin>, mut pin: Pin) -> Option<KeptPin> {
    let Some(old) = old else { return Some(KeptPin { pin: whole(pin), complete: false, older: None }) };
    if old.pin.put_at > pin.put_at {
        return None;
    }
    pin = whole(pin);
    let older = if old.complete { old.pin.content } else { old.older };
    Some(KeptPin { pin, complete: false, older })
}

/// The root is reached, too.
fn whole(pin: Pin) -> Pin {
    let content = pin.content.map(|mut content: Content| {
        content.digests.insert(content.root.clone());
        content
    });
    Pin { content, ..pin }
}

impl KeptPin {
    /// Whether what it is was found out before, and is to be made whole: it has lost something, or was never fetched to its end. A new wish does not say
    /// what it is, and one that follows something else that is complete may ask anew.
    pub(crate) fn goes_on_as_planned(&self) -> bool {
        self.pin.content.as_ref().is_some_and(|content| self.older.as_ref().is_none_or(|older| older == content))
    }

    /// The same once all that it reaches was found.
    pub(crate) fn completed(self) -> Self {
        Self { complete: true, older: None, ..self }
    }
}
