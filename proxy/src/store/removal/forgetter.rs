//! Forgetting a cluster that is no more: the way out of "a holder is stale, nothing goes".
//!
//! Its pins go first and its declarations last, so that one that is killed half-way leaves a stale holder, and still nothing
//! goes. The pins that are gone may set off the brake: that is for the person who typed the command to answer, with a word.
//! A cluster that is not dead loses its pins and has to pin anew: it is refused while any of its holders declared recently.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Answer, Body, BucketTime, Entry, Key, Label, Names, Operation, Policy, Prefix, Step, Unique};

/// How forgetting ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Forgotten {
    /// Nothing is left of what removal looks at.
    Done,
    /// A holder of it declared so recently: it lives.
    Alive(BucketTime),
    /// The bucket did not answer: say it again.
    Unanswered,
}

/// Removes a cluster's pins, records and declarations. Its links and tags are the shell's to remove, before this.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Forgetter {
    policy: Arc<Policy>,
    /// Whose clock is written, to read the bucket's time.
    own: Label,
    cluster: Label,
    clock: Unique,
    now: Option<BucketTime>,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Clock,
    Time { after: Option<Key> },
    List { after: Option<Key>, found: BTreeSet<(bool, Key)> },
    Delete(BTreeSet<(bool, Key)>),
    Tidy(Forgotten),
    Done(Forgotten),
}

impl Forgetter {
    /// `own` forgets `cluster`.
    pub fn new(own: Label, cluster: Label, policy: Arc<Policy>, mut names: Names) -> Self {
        Self { policy, own, cluster, clock: names.take(), now: None, stage: Stage::Clock }
    }

    /// What it wants next.
    pub fn next(&self) -> Step<Forgotten> {
        let list = |prefix, after: &Option<Key>| Operation::List { prefix, after: after.clone() };
        let clock = || Key::Clock(self.own.clone(), self.clock.clone());
        let whole = || Prefix::Cluster(self.cluster.clone());
        Step::Do(match &self.stage {
            Stage::Clock => Operation::Put(clock(), Body::Empty),
            Stage::Time { after } => list(Prefix::Removal(self.own.clone()), after),
            Stage::List { after, .. } => list(whole(), after),
            Stage::Delete(keys) => match keys.first() {
                Some((_, key)) => Operation::Delete(key.clone()),
                None => list(whole(), &None),
            },
            Stage::Tidy(_) => Operation::Delete(clock()),
            Stage::Done(forgotten) => return Step::Done(forgotten.clone()),
        })
    }

    /// What came of it.
    pub fn feed(&mut self, answer: Answer) {
        let again = || Stage::List { after: None, found: BTreeSet::new() };
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Clock), answer) {
            (Stage::Clock, Answer::Done) => Stage::Time { after: None },
            (Stage::Time { .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                let own = |key: &Key| matches!(key, Key::Clock(_, unique) if *unique == self.clock);
                self.now = entries.iter().find(|entry| own(&entry.key)).map(|entry| entry.modified);
                match (last, self.now) {
                    (_, Some(_)) => again(),
                    (false, None) => Stage::Time { after },
                    (true, None) => Stage::Tidy(Forgotten::Unanswered),
                }
            }
            (Stage::List { mut found, .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                let alive = self.alive(&entries);
                let late = |key: &Key| matches!(key, Key::Declaration(..));
                found.extend(entries.into_iter().map(|entry| (late(&entry.key), entry.key)));
                match (alive, last, found.is_empty()) {
                    (Some(as_of), ..) => Stage::Tidy(Forgotten::Alive(as_of)),
                    (None, false, _) => Stage::List { after, found },
                    (None, true, false) => Stage::Delete(found),
                    (None, true, true) => Stage::Tidy(Forgotten::Done),
                }
            }
            (Stage::Delete(mut keys), Answer::Done) => {
                keys.pop_first();
                if keys.is_empty() { again() } else { Stage::Delete(keys) }
            }
            (Stage::Tidy(forgotten) | Stage::Done(forgotten), _) => Stage::Done(forgotten),
            _ => Stage::Tidy(Forgotten::Unanswered),
        };
    }

    /// The time of a declaration that is not stale.
    fn alive(&self, entries: &[Entry]) -> Option<BucketTime> {
        let now = self.now?;
        entries.iter().find_map(|entry| match entry.key {
            Key::Declaration(_, as_of, _) if !as_of.is_past(self.policy.declared_within, now) => Some(as_of),
            _ => None,
        })
    }
}
