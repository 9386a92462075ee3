//! A holder's declaration that all it wants is pinned, as of a time of the bucket's clock that was before it looked.
//!
//! The time is in the record: one that arrives late says how old it is. It is read off the bucket by writing there.

use super::{Answer, Body, BucketTime, Key, Names, Operation, Owner, Prefix, Step, Unique};

/// Where a declaration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Declared {
    /// The holder looks at what it wants now, completes the pins of it, removes its other pins, and calls
    /// [`Declarer::complete`]. If it cannot complete one, it declares nothing.
    Look,
    /// It is declared.
    Done,
    /// The bucket did not answer: begin anew.
    Unanswered,
}

/// Declares a holder's set complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Declarer {
    owner: Owner,
    /// Until it has told the time to whoever looks now.
    clock: Option<Unique>,
    declaration: Unique,
    older: Vec<Key>,
    as_of: Option<BucketTime>,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Clock,
    Time { after: Option<Key> },
    Look,
    Older { after: Option<Key> },
    Put,
    Release,
    Unanswered,
}

impl Declarer {
    /// Begins a declaration of `owner`.
    pub fn new(owner: Owner, mut names: Names) -> Self {
        let (clock, declaration) = (names.take(), names.take());
        Self { owner, clock: Some(clock), declaration, older: Vec::new(), as_of: None, stage: Stage::Clock }
    }

    /// The end of one that another machine began, which has told the time: the holder has looked since.
    pub fn looked(owner: Owner, as_of: BucketTime, mut names: Names) -> Self {
        let (older, stage) = (Vec::new(), Stage::Older { after: None });
        Self { owner, clock: None, declaration: names.take(), older, as_of: Some(as_of), stage }
    }

    /// The time of which it will speak, once it is known, and what told it, which is not needed any more.
    pub fn time(&self) -> Option<(BucketTime, Key)> {
        Some((self.as_of?, self.clock_key()?))
    }

    fn clock_key(&self) -> Option<Key> {
        Some(Key::Clock(self.owner.cluster.clone(), self.clock.clone()?))
    }

    /// What it wants next.
    pub fn next(&self) -> Step<Declared> {
        let list = |prefix, after: &Option<Key>| Operation::List { prefix, after: after.clone() };
        let cluster = || self.owner.cluster.clone();
        Step::Do(match &self.stage {
            Stage::Clock => match self.clock_key() {
                Some(clock) => Operation::Put(clock, Body::Empty),
                None => return Step::Done(Declared::Unanswered),
            },
            Stage::Time { after } => list(Prefix::Removal(cluster()), after),
            Stage::Look => return Step::Done(Declared::Look),
            Stage::Older { after } => list(Prefix::Holders(cluster()), after),
            Stage::Put => {
                let as_of = self.as_of.unwrap_or(BucketTime(0));
                Operation::Put(Key::Declaration(self.owner.clone(), as_of, self.declaration.clone()), Body::Empty)
            }
            Stage::Release => match self.older.last() {
                Some(key) => Operation::Delete(key.clone()),
                None => return Step::Done(Declared::Done),
            },
            Stage::Unanswered => return Step::Done(Declared::Unanswered),
        })
    }

    /// Every pin that the holder wants, looked up since [`Declared::Look`], is complete, and it has no others.
    pub fn complete(&mut self) {
        if self.stage == Stage::Look {
            self.stage = Stage::Older { after: None };
        }
    }

    /// What came of it.
    pub fn feed(&mut self, answer: Answer) {
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Unanswered), answer) {
            (Stage::Clock, Answer::Done) => Stage::Time { after: None },
            (Stage::Time { .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                let own = |key: &Key| matches!(key, Key::Clock(_, unique) if Some(unique) == self.clock.as_ref());
                let time = entries.iter().find(|entry| own(&entry.key)).map(|entry| entry.modified);
                self.as_of = self.as_of.or(time);
                match (last, self.as_of) {
                    (_, Some(_)) => Stage::Look,
                    (false, None) => Stage::Time { after },
                    (true, None) => Stage::Unanswered,
                }
            }
            (Stage::Older { .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                // One that speaks of a later time says more than this one.
                let as_of = self.as_of.unwrap_or(BucketTime(0));
                let same =
                    |key: &Key| matches!(key, Key::Declaration(owner, of, _) if *owner == self.owner && *of <= as_of);
                self.older.extend(entries.into_iter().map(|entry| entry.key).filter(same));
                if last { Stage::Put } else { Stage::Older { after } }
            }
            (Stage::Put, Answer::Done) => {
                let clock = self.clock_key();
                self.older.extend(clock);
                Stage::Release
            }
            (Stage::Release, _) => {
                self.older.pop();
                Stage::Release
            }
            (Stage::Look, _) => Stage::Look,
            _ => Stage::Unanswered,
        };
    }
}
