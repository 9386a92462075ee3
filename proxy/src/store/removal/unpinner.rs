//! Unpinning: every pin of a name is removed, and looked for again until there is none.

use std::collections::BTreeSet;

use super::{Answer, Key, Operation, PinName, Prefix, Step};

/// Removes the pins of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unpinner {
    name: PinName,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    List { after: Option<Key>, found: BTreeSet<Key> },
    Delete(BTreeSet<Key>),
    Done,
}

impl Unpinner {
    /// Unpins `name`.
    pub fn new(name: PinName) -> Self {
        Self { name, stage: Stage::List { after: None, found: BTreeSet::new() } }
    }

    /// What it wants next.
    pub fn next(&self) -> Step<()> {
        let list = |after: Option<Key>| Operation::List { prefix: Prefix::PinsOf(self.name.clone()), after };
        match &self.stage {
            Stage::List { after, .. } => Step::Do(list(after.clone())),
            Stage::Delete(keys) => {
                Step::Do(keys.first().map_or_else(|| list(None), |key| Operation::Delete(key.clone())))
            }
            Stage::Done => Step::Done(()),
        }
    }

    /// What came of it.
    pub fn feed(&mut self, answer: Answer) {
        let again = || Stage::List { after: None, found: BTreeSet::new() };
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Done), answer) {
            (Stage::List { mut found, .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                found.extend(entries.into_iter().map(|entry| entry.key));
                match (last, found.is_empty()) {
                    (false, _) => Stage::List { after, found },
                    (true, true) => Stage::Done,
                    (true, false) => Stage::Delete(found),
                }
            }
            (Stage::Delete(mut keys), Answer::Done) => {
                keys.pop_first();
                if keys.is_empty() { again() } else { Stage::Delete(keys) }
            }
            (Stage::List { .. } | Stage::Delete(_), _) => again(),
            (Stage::Done, _) => Stage::Done,
        };
    }
}
