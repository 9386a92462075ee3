//! One run of a collector, step by step. Its order is half of the protocol: **marks, then pins, then marks again, then blobs**.
//!
//! A generation is removed only if it was in the first listing of marks, so the pins that were listed after it know: whoever
//! wrote a pin later found the mark and made itself a new generation. Marks come before blobs, so that a blob without a mark is
//! not one whose mark was tidied away in between. A run may stop, pause or die anywhere; nothing that it has
//! in mind is worth more than what it has written, and the next run begins anew.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::decide::decide;
use super::rules::{Rule, Rules};
use super::{
    Act, Answer, Body, BucketTime, Declaration, Entry, Key, Label, Names, Operation, Policy, Prefix, Step, Unique,
    View, Wait,
};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    /// Whether anything could go, and if not, why.
    pub verdict: Result<(), Wait>,
    /// How many generations it condemned.
    pub condemned: usize,
    /// How many it removed.
    pub removed: usize,
}

/// A run, as a machine. Several may be under way at a time, of one cluster and of several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collector {
    rules: Rules,
    policy: Arc<Policy>,
    cluster: Label,
    names: Names,
    clock: Unique,
    now: Option<BucketTime>,
    view: View,
    /// References that are not needed any more.
    litter: Vec<Key>,
    /// Clocks of others, who run now or were killed. They are listed before our own, so how old they are is not known yet.
    clocks: Vec<(Key, BucketTime)>,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Clock,
    Marks { after: Option<Key> },
    Clusters,
    Records { todo: VecDeque<Prefix>, after: Option<Key>, pins: VecDeque<Key> },
    MarksAgain { after: Option<Key> },
    Blobs { after: Option<Key> },
    Acting { todo: VecDeque<Operation>, run: Run },
}

impl Collector {
    /// A run of a collector of `cluster`.
    pub fn new(cluster: Label, policy: Arc<Policy>, names: Names) -> Self {
        Self::with(cluster, policy, names, Rules::default())
    }

    pub(super) fn with(cluster: Label, policy: Arc<Policy>, mut names: Names, rules: Rules) -> Self {
        let clock = names.take();
        let view = View::default();
        let (litter, clocks, stage) = (Vec::new(), Vec::new(), Stage::Clock);
        Self { rules, policy, cluster, names, clock, now: None, view, litter, clocks, stage }
    }

    /// What it wants next.
    pub fn next(&self) -> Step<Run> {
        let list =
            |prefix: &Prefix, after: &Option<Key>| Operation::List { prefix: prefix.clone(), after: after.clone() };
        Step::Do(match &self.stage {
            Stage::Clock => Operation::Put(self.clock_key(), Body::Empty),
            Stage::Marks { after } | Stage::MarksAgain { after } => list(&Prefix::Marks, after),
            Stage::Clusters => Operation::Clusters,
            Stage::Records { todo, after, pins } => match (pins.front(), todo.front()) {
                (Some(pin), _) => Operation::GetPin(pin.clone()),
                (None, Some(prefix)) => list(prefix, after),
                (None, None) => list(&Prefix::Marks, &None),
            },
            Stage::Blobs { after } => list(&Prefix::Blobs, after),
            Stage::Acting { todo, run } => match todo.front() {
                Some(operation) => operation.clone(),
                None => return Step::Done(run.clone()),
            },
        })
    }

    /// What came of it.
    pub fn feed(&mut self, answer: Answer) {
        let stage = std::mem::replace(&mut self.stage, Stage::Clock);
        self.stage = match (stage, answer) {
            // What is only half done is no harm, and what it was for is looked at again by the next run.
            (Stage::Acting { mut todo, run }, _) => {
                todo.pop_front();
                Stage::Acting { todo, run }
            }
            (Stage::Clock, Answer::Done) => Stage::Marks { after: None },
            (Stage::Marks { .. }, Answer::Page { entries, foreign, last }) => {
                let after = self.take(entries, foreign, false);
                if last { Stage::Clusters } else { Stage::Marks { after } }
            }
            (Stage::Clusters, Answer::Clusters(clusters)) => {
                let todo = self.records(&clusters);
                self.view.clusters = clusters;
                Stage::Records { todo, after: None, pins: VecDeque::new() }
            }
            (Stage::Records { todo, after, pins }, answer) => self.record(todo, after, pins, answer),
            (Stage::MarksAgain { .. }, Answer::Page { entries, foreign, last }) => {
                let after = self.take(entries, foreign, true);
                match last {
                    true if self.rules.keep(Rule::WitnessThere) => Stage::Blobs { after: None },
                    true => self.act(),
                    false => Stage::MarksAgain { after },
                }
            }
            // What is not ours among the blobs is nothing that could be removed.
            (Stage::Blobs { .. }, Answer::Page { entries, foreign: _, last }) => {
                let after = self.take(entries, false, false);
                match last {
                    true if self.rules.keep(Rule::WitnessThere) => self.act(),
                    true => Stage::MarksAgain { after: None },
                    false => Stage::Blobs { after },
                }
            }
            _ => self.end(Wait::Unanswered),
        };
    }

    /// What is read of each cluster. All pins come after all that says whether they are complete, so that a declaration never
    /// speaks of pins that were listed before it.
    fn records(&self, clusters: &BTreeSet<Label>) -> VecDeque<Prefix> {
        let counted = |cluster: &&Label| self.rules.keep(Rule::EveryCluster) || **cluster == self.cluster;
        let said =
            clusters.iter().flat_map(|cluster| [Prefix::Removal(cluster.clone()), Prefix::Holders(cluster.clone())]);
        said.chain(clusters.iter().filter(counted).cloned().map(Prefix::Pins)).collect()
    }

    fn record(
        &mut self,
        mut todo: VecDeque<Prefix>,
        after: Option<Key>,
        mut pins: VecDeque<Key>,
        answer: Answer,
    ) -> Stage {
        match (pins.pop_front(), answer) {
            (Some(Key::Pin(name, _)), Answer::Pin(digests)) => {
                self.view.pins.insert(name);
                self.view.kept.extend(digests);
            }
            // Unpinned since it was listed.
            (Some(_), Answer::NotFound) => {}
            (Some(_), Answer::Unreadable) => self.view.unreadable = true,
            (None, Answer::Page { entries, foreign, last }) => {
                pins =
                    entries.iter().map(|entry| &entry.key).filter(|key| matches!(key, Key::Pin(..))).cloned().collect();
                let after = self.take(entries, foreign, false);
                if last {
                    todo.pop_front();
                }
                return self.records_from(todo, if last { None } else { after }, pins);
            }
            _ => return self.end(Wait::Unanswered),
        }
        self.records_from(todo, after, pins)
    }

    fn records_from(&mut self, todo: VecDeque<Prefix>, after: Option<Key>, pins: VecDeque<Key>) -> Stage {
        if !todo.is_empty() || !pins.is_empty() {
            return Stage::Records { todo, after, pins };
        }
        // Without its own clock a run has no time to compare with.
        if self.now.is_none() {
            return self.end(Wait::Unanswered);
        }
        let marks_first = self.rules.keep(Rule::WitnessThere);
        if marks_first { Stage::MarksAgain { after: None } } else { Stage::Blobs { after: None } }
    }

    /// Takes a page into the view; returns where the next one begins.
    fn take(&mut self, entries: Vec<Entry>, foreign: bool, again: bool) -> Option<Key> {
        self.view.unreadable |= foreign;
        let after = entries.last().map(|entry| entry.key.clone());
        for Entry { key, modified } in entries {
            match key {
                Key::Blob(held) => _ = self.view.blobs.insert(held, modified),
                Key::Mark(held) if again => _ = self.view.condemned_since.insert(held, modified),
                Key::Mark(held) => _ = self.view.condemned.insert(held, modified),
                Key::Declaration(owner, as_of, _) => {
                    let declared = Declaration { as_of, modified };
                    let newest = self.view.declared.entry(owner).or_insert(declared);
                    newest.as_of = newest.as_of.max(as_of);
                    newest.modified = newest.modified.max(modified);
                }
                Key::Pin(..) => {}
                Key::Clock(..) | Key::Reference(..) | Key::Word(..) => self.take_own(key, modified),
            }
        }
        after
    }

    fn take_own(&mut self, key: Key, modified: BucketTime) {
        let stated = self.rules.keep(Rule::StatedReference);
        match key {
            Key::Clock(cluster, unique) if cluster == self.cluster && unique == self.clock => self.now = Some(modified),
            Key::Reference(ref cluster, reference, _) if *cluster == self.cluster => {
                let newer = |(known, at): (super::Reference, BucketTime)| {
                    if stated { (reference.since, reference.pins) > (known.since, known.pins) } else { modified > at }
                };
                if self.view.reference.is_none_or(newer) {
                    self.view.reference = Some((reference, modified));
                }
                self.litter.push(key);
            }
            Key::Reference(_, reference, _) => self.view.others = self.view.others.max(Some(reference.pins)),
            Key::Word(cluster, word) if cluster == self.cluster => self.view.words.push(word),
            Key::Clock(ref cluster, _) if *cluster == self.cluster => self.clocks.push((key, modified)),
            _ => {}
        }
    }

    fn act(&mut self) -> Stage {
        // What was seen is not needed any more.
        let view = std::mem::take(&mut self.view);
        let Some(now) = self.now else { return self.end(Wait::Unanswered) };
        let decision = decide(&view, now, &self.policy, self.rules);
        let mut todo = VecDeque::new();
        // First, lest a run that dies in between leaves the next one with an older number.
        let mut litter = std::mem::take(&mut self.litter);
        match decision.reference {
            Some(reference) => {
                let key = Key::Reference(self.cluster.clone(), reference, self.names.take());
                todo.push_back(Operation::Put(key, Body::Empty));
            }
            None => litter.clear(),
        }
        // Whoever is under way and has not read his yet would begin anew.
        let clocks = std::mem::take(&mut self.clocks).into_iter();
        let left = clocks.filter(|(_, modified)| modified.is_past(self.policy.young, now)).map(|(key, _)| key);
        todo.extend(litter.into_iter().chain(left).map(Operation::Delete));
        let mut run = Run { verdict: decision.verdict, condemned: 0, removed: 0 };
        for act in decision.acts {
            match act {
                Act::Condemn(held, _) => {
                    run.condemned += 1;
                    todo.push_back(Operation::Put(Key::Mark(held), Body::Empty));
                }
                Act::Remove(held, _) => {
                    run.removed += 1;
                    // Written anew, so that its age tells how long the blob is gone at most.
                    if self.rules.keep(Rule::CondemnedFirst) {
                        todo.push_back(Operation::Put(Key::Mark(held.clone()), Body::Empty));
                    }
                    todo.push_back(Operation::Delete(Key::Blob(held)));
                }
                Act::Tidy(held) => todo.push_back(Operation::Delete(Key::Mark(held))),
            }
        }
        todo.push_back(Operation::Delete(self.clock_key()));
        Stage::Acting { todo, run }
    }

    fn end(&mut self, wait: Wait) -> Stage {
        self.view = View::default();
        self.litter.clear();
        self.clocks.clear();
        let run = Run { verdict: Err(wait), condemned: 0, removed: 0 };
        Stage::Acting { todo: VecDeque::from([Operation::Delete(self.clock_key())]), run }
    }

    fn clock_key(&self) -> Key {
        Key::Clock(self.cluster.clone(), self.clock.clone())
    }
}
