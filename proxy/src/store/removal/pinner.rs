//! Pinning: the pin first, then a look at each of its blobs.
//!
//! From the moment that its pin is on the bucket, whoever condemns a blob of it *later* will find the pin before deleting. So the
//! pinner relies on any generation that is not condemned when it looks, which is after. What is condemned may be about
//! to go whatever the pin says; it is copied to a new generation, or fetched again. Marks are listed before blobs: a mark that
//! is tidied away in between was that of a blob that was gone before, and so is not found.

use std::collections::BTreeSet;

use larder_oci::Digest;

use super::rules::{Rule, Rules};
use super::{Answer, Body, Held, Key, Names, Operation, PinName, Prefix, Step, Unique};

/// How a pinner ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pinned {
    /// Every blob is there and stays as long as this pin does.
    Complete(Key),
    /// The pin is written, but these blobs are nowhere, and their origin does not deliver them now. To be tried again.
    Lacking(BTreeSet<Digest>),
}

/// Writes a pin, or writes it anew (a renewal, an image that means something else now): the older ones of its name go after.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pinner {
    rules: Rules,
    name: PinName,
    digests: BTreeSet<Digest>,
    names: Names,
    /// Of the pin's key.
    pin: Unique,
    /// Of the next blob that is written.
    generation: Unique,
    /// Pins to release once this one is complete.
    older: BTreeSet<Key>,
    written: bool,
    /// Not looked for yet.
    todo: BTreeSet<Digest>,
    /// Looked for, and nowhere.
    lacking: BTreeSet<Digest>,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Older {
        after: Option<Key>,
        complete: bool,
    },
    Write,
    /// Lists the marks of a digest, then its blobs.
    Look {
        digest: Digest,
        blobs: bool,
        after: Option<Key>,
        marked: BTreeSet<Held>,
        found: BTreeSet<Held>,
    },
    /// From one of these, or from the origin.
    Make {
        digest: Digest,
        from: BTreeSet<Held>,
    },
    Release,
    Lacking,
}

impl Pinner {
    /// Pins `digests` as `name`.
    pub fn new(name: PinName, digests: BTreeSet<Digest>, names: Names) -> Self {
        Self::with(name, digests, names, Rules::default())
    }

    pub(super) fn with(name: PinName, digests: BTreeSet<Digest>, mut names: Names, rules: Rules) -> Self {
        let (pin, generation) = (names.take(), names.take());
        let pin = if rules.keep(Rule::NewPinKey) { pin } else { Unique::lowest() };
        let (older, todo) = (BTreeSet::new(), digests.clone());
        let stage = Stage::Older { after: None, complete: false };
        let lacking = BTreeSet::new();
        Self { rules, name, digests, names, pin, generation, older, written: false, todo, lacking, stage }
    }

    /// The same from a later step, for whoever has listed the older pins of the name himself: before this one was written (`own`: it is the pin that
    /// this one goes on with; each of `older` is one that `own` replaces, whoever goes on with whichever), or before this began. As if it had paused there.
    pub fn knowing(
        name: PinName,
        digests: BTreeSet<Digest>,
        older: BTreeSet<Key>,
        own: Option<Unique>,
        names: Names,
    ) -> Self {
        let mut pinner = Self::new(name, digests, names);
        pinner.older = older;
        pinner.stage = match own {
            Some(own) => {
                (pinner.pin, pinner.written) = (own, true);
                pinner.look_for_next()
            }
            None => Stage::Write,
        };
        pinner
    }

    /// The pin that is complete, from the moment on that it is: releasing older ones comes after.
    pub fn complete(&self) -> Option<Key> {
        matches!(self.stage, Stage::Release | Stage::Older { complete: true, .. }).then(|| self.own())
    }

    /// What it wants next.
    pub fn next(&self) -> Step<Pinned> {
        let list = |prefix, after: &Option<Key>| Operation::List { prefix, after: after.clone() };
        Step::Do(match &self.stage {
            Stage::Older { after, .. } => list(Prefix::PinsOf(self.name.clone()), after),
            Stage::Write => Operation::Put(self.own(), Body::Pin(self.digests.clone())),
            Stage::Look { digest, blobs: false, after, .. } => list(Prefix::MarksOf(digest.clone()), after),
            Stage::Look { digest, blobs: true, after, .. } => list(Prefix::BlobsOf(digest.clone()), after),
            Stage::Make { digest, from } => match from.last() {
                Some(held) if self.rules.keep(Rule::NewGeneration) => {
                    Operation::Copy(held.clone(), self.generation.clone())
                }
                Some(held) => Operation::Copy(held.clone(), held.generation.clone()),
                None => Operation::Fetch(Held { digest: digest.clone(), generation: self.generation.clone() }),
            },
            Stage::Release => match self.older.first() {
                Some(key) => Operation::Delete(key.clone()),
                None => return Step::Done(Pinned::Complete(self.own())),
            },
            Stage::Lacking => return Step::Done(Pinned::Lacking(self.lacking.clone())),
        })
    }

    /// What came of it.
    pub fn feed(&mut self, answer: Answer) {
        let stage = std::mem::replace(&mut self.stage, Stage::Write);
        let taken_for_done = answer == Answer::Unknown && !self.rules.keep(Rule::UnknownIsNotDone);
        let answer = if taken_for_done { Answer::Done } else { answer };
        self.stage = match (stage, answer) {
            (Stage::Older { complete, .. }, Answer::Page { entries, last, .. }) => {
                let own = self.own();
                let after = entries.last().map(|entry| entry.key.clone());
                self.older.extend(entries.into_iter().map(|entry| entry.key).filter(|key| *key != own));
                match (last, complete) {
                    (false, _) => Stage::Older { after, complete },
                    (true, true) => Stage::Release,
                    (true, false) if self.rules.keep(Rule::PinBeforeLook) => Stage::Write,
                    (true, false) => self.look_for_next(),
                }
            }
            (Stage::Write, Answer::Done) => {
                self.written = true;
                self.look_for_next()
            }
            // It may be there, or get there later: another key, and this one is released with the older ones.
            (Stage::Write, _) => {
                self.older.insert(self.own());
                self.pin = self.names.take();
                Stage::Write
            }
            (Stage::Look { digest, blobs, mut marked, mut found, .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                let listed = if blobs { &mut found } else { &mut marked };
                listed.extend(entries.into_iter().filter_map(|entry| entry.key.into_held()));
                let usable = |held: &Held| !marked.contains(held) || !self.rules.keep(Rule::CondemnedIsNotUsable);
                let both = blobs == self.rules.keep(Rule::MarksBeforeBlobs);
                match (last, both) {
                    (false, _) => Stage::Look { digest, blobs, after, marked, found },
                    (true, false) => Stage::Look { digest, blobs: !blobs, after: None, marked, found },
                    (true, true) if found.iter().any(usable) => self.look_for_next(),
                    (true, true) => Stage::Make { digest, from: found },
                }
            }
            // What was written under a new generation after the pin was: nobody condemned it without finding the pin after.
            (Stage::Make { .. }, Answer::Done) => {
                self.generation = self.names.take();
                self.look_for_next()
            }
            (Stage::Make { digest, mut from }, Answer::NotFound) => {
                if from.pop_last().is_some() {
                    Stage::Make { digest, from }
                } else {
                    self.lacking.insert(digest);
                    self.look_for_next()
                }
            }
            // Whatever is there by now, it is looked at anew; what is written then has another generation.
            (Stage::Look { digest, .. } | Stage::Make { digest, .. }, _) => {
                self.generation = self.names.take();
                self.look_for(digest)
            }
            (Stage::Release, _) => {
                self.older.pop_first();
                Stage::Release
            }
            (stage @ (Stage::Older { .. } | Stage::Lacking), _) => stage,
        };
    }

    fn own(&self) -> Key {
        Key::Pin(self.name.clone(), self.pin.clone())
    }

    fn look_for_next(&mut self) -> Stage {
        // Only a variant of the protocol looks before it writes.
        if !self.written && self.rules.keep(Rule::PinBeforeLook) {
            return Stage::Write;
        }
        match self.todo.pop_first() {
            Some(digest) => self.look_for(digest),
            None if !self.written => Stage::Write,
            None if !self.lacking.is_empty() => Stage::Lacking,
            None if self.rules.keep(Rule::ReleasesOnlyOlder) => Stage::Release,
            None => Stage::Older { after: None, complete: true },
        }
    }

    fn look_for(&self, digest: Digest) -> Stage {
        let blobs = !self.rules.keep(Rule::MarksBeforeBlobs);
        Stage::Look { digest, blobs, after: None, marked: BTreeSet::new(), found: BTreeSet::new() }
    }
}
