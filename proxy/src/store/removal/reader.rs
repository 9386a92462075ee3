//! Reading a blob, whichever generations come and go meanwhile: its bytes are the same in all of them.

use larder_oci::Digest;

use super::rules::{Rule, Rules};
use super::{Answer, Held, Key, Operation, Prefix, Step};

/// How a reader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Read {
    /// It has every part.
    Complete,
    /// There is no generation of it: the origin is asked.
    Missing,
    /// The bucket did not answer: the origin is asked.
    Unanswered,
}

/// Reads the parts of a blob one after the other, going on with another generation when one is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reader {
    rules: Rules,
    digest: Digest,
    parts: u8,
    part: u8,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Find { after: Option<Key>, found: Option<Held> },
    Get(Held),
    Done(Read),
}

impl Reader {
    /// Reads `digest` in so many parts.
    pub fn new(digest: Digest, parts: u8) -> Self {
        Self::with(digest, parts, Rules::default())
    }

    pub(super) fn with(digest: Digest, parts: u8, rules: Rules) -> Self {
        Self { rules, digest, parts, part: 0, stage: Stage::Find { after: None, found: None } }
    }

    /// What it wants next.
    pub fn next(&self) -> Step<Read> {
        match &self.stage {
            Stage::Find { after, .. } => {
                Step::Do(Operation::List { prefix: Prefix::BlobsOf(self.digest.clone()), after: after.clone() })
            }
            Stage::Get(held) => Step::Do(Operation::GetBlob(held.clone(), self.part)),
            Stage::Done(read) => Step::Done(*read),
        }
    }

    /// What came of it.
    pub fn feed(&mut self, answer: Answer) {
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Done(Read::Unanswered)), answer) {
            (Stage::Find { found, .. }, Answer::Page { entries, last, .. }) => {
                let after = entries.last().map(|entry| entry.key.clone());
                let found = found.or_else(|| entries.into_iter().find_map(|entry| entry.key.into_held()));
                match (last, found) {
                    (false, found) => Stage::Find { after, found },
                    (true, Some(held)) => Stage::Get(held),
                    (true, None) => Stage::Done(Read::Missing),
                }
            }
            (Stage::Get(held), Answer::Done) => {
                self.part = self.part.saturating_add(1);
                if self.part >= self.parts { Stage::Done(Read::Complete) } else { Stage::Get(held) }
            }
            (Stage::Get(_), Answer::NotFound) if self.rules.keep(Rule::LooksAgain) => {
                Stage::Find { after: None, found: None }
            }
            (Stage::Get(_), Answer::NotFound) => Stage::Done(Read::Missing),
            (Stage::Done(read), _) => Stage::Done(read),
            (Stage::Find { .. } | Stage::Get(_), _) => Stage::Done(Read::Unanswered),
        };
    }
}
