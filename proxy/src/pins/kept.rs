//! What pins keep, for those who look for something to remove: how many pins reach a digest, without the pins.
//!
//! A digest is known by 64 bits that are made of it, so that a million of them take some tens of megabytes. Two that share them are kept for each
//! other's sake, which does no harm.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
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
    /// Those of them that promise it: they are complete, or it is of what stays until they are.
    promised: u32,
}

/// By which it is known in this process. Keyed: whoever asks for a digest that somebody made up is not to meet one that is kept, for what a complete pin has
/// lost is looked for in all pins.
pub(crate) fn short(digest: &Digest) -> u64 {
    hashed(digest.hex())
}

/// The same of something else.
pub(crate) fn hashed(what: impl Hash) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(what)
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

    /// Whether a pin of a holder promises it: that it is not there is news.
    pub(crate) fn is_promised(&self, digest: &Digest) -> bool {
        self.holders.get(&short(digest)).is_some_and(|count| count.promised > 0)
    }

    /// Whether no pin reaches anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.pull.is_empty() && self.holders.is_empty()
    }

    /// One more pin.
    pub(crate) fn add(&mut self, kept: &KeptPin) {
        let counts = self.of(kept);
        for (digest, is_promised) in reached(kept) {
            let count = counts.entry(digest).or_default();
            count.pins = count.pins.saturating_add(1);
            count.promised = count.promised.saturating_add(u32::from(is_promised));
        }
    }

    /// One pin less, which was added as it is.
    pub(crate) fn remove(&mut self, kept: &KeptPin) {
        let counts = self.of(kept);
        for (digest, is_promised) in reached(kept) {
            if let Some(count) = counts.get_mut(&digest) {
                count.pins -= 1;
                count.promised = count.promised.saturating_sub(u32::from(is_promised));
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

/// Each as often as it is named, so that adding and removing are each other's opposite; and whether it is promised. What is known to be lost is not.
fn reached(kept: &KeptPin) -> impl Iterator<Item = (u64, bool)> {
    let older_stays = kept.promised().is_some() && !kept.complete && !kept.older_lacks;
    let contents = [(kept.pin.content.as_ref(), kept.complete), (kept.older.as_ref(), older_stays)];
    let known = contents.into_iter().filter_map(|(content, is_promised)| Some((content?, is_promised)));
    known.flat_map(|(content, is_promised)| content.digests.iter().map(move |digest| (short(digest), is_promised)))
}

/// What is to be written for a pin that follows `old`, before it is known what of it is there; `None`: there is one of a newer wish.
pub(crate) fn follow(old: Option<KeptPin>, mut pin: Pin) -> Option<KeptPin> {
    let Some(old) = old else {
        return Some(KeptPin { pin: whole(pin), complete: false, older: None, older_lacks: false });
    };
    if old.pin.put_at > pin.put_at {
        return None;
    }
    pin = whole(pin);
    let (older, older_lacks) = if old.complete { (old.pin.content, false) } else { (old.older, old.older_lacks) };
    Some(KeptPin { pin, complete: false, older, older_lacks })
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

    /// What is there and stays, as far as anybody knows: what it reaches if it is complete, else what an older one does. What it has lost itself is being
    /// brought again, and no promise.
    pub(crate) fn promised(&self) -> Option<&Content> {
        let older = || self.older.as_ref().filter(|older| Some(*older) != self.pin.content.as_ref());
        if self.complete { self.pin.content.as_ref() } else { older() }
    }

    /// The same once all that it reaches was found.
    pub(crate) fn completed(self) -> Self {
        Self { complete: true, older: None, older_lacks: false, ..self }
    }
}
