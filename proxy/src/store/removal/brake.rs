//! The brake: a sudden drop of more than a quarter of all pins is more often somebody's mistake (a controller that lost its
//! state, a cluster that came back empty) than a wish. Then everything stays until a person says so.
//!
//! A number is kept for comparison, the [`Reference`]. It follows the pins up at once and down only after a while, so that images that go
//! one by one never stop anything. While the brake is on it does not move: waiting alone releases nothing.

use super::rules::{Rule, Rules};
use super::{BucketTime, Policy, Wait};

/// How many pins there were, of all clusters, and since when that number is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// How many.
    pub pins: u64,
    /// The bucket's time when it was written down.
    pub since: BucketTime,
}

impl Reference {
    /// Whether so many pins, compared with it, are a sudden drop that a person has to answer for.
    pub fn stops_at(&self, pins: u64, policy: &Policy) -> bool {
        is_sudden(self.pins, pins, policy)
    }
}

/// A person's word: compared with this reference, so few pins are right. It is good for that reference only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    /// What the person saw.
    pub reference: Reference,
    /// How few.
    pub down_to: u64,
}

/// What the collector's own cluster has written down, and what others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Before<'a> {
    pub(super) own: Option<Reference>,
    /// The most that another cluster's collector compares with. Only a reason to wait, and only at first.
    pub(super) others: Option<u64>,
    pub(super) words: &'a [Word],
}

/// Whether there may be `pins` now, and what is to be written down before anything goes.
pub(super) fn check(
    pins: u64,
    before: Before<'_>,
    now: BucketTime,
    policy: &Policy,
    rules: Rules,
) -> (Result<(), Wait>, Option<Reference>) {
    let here = Reference { pins, since: now };
    let Some(reference) = before.own else {
        let pins = pins.max(before.others.unwrap_or(0));
        return (Err(Wait::NothingToCompare), Some(Reference { pins, ..here }));
    };
    if pins > reference.pins {
        return (Ok(()), Some(here));
    }
    if is_sudden(reference.pins, pins, policy) {
        let named = |word: &&Word| word.reference == reference || !rules.keep(Rule::WordForOne);
        if before.words.iter().filter(named).any(|word| pins >= word.down_to) {
            return (Ok(()), Some(here));
        }
        if rules.keep(Rule::Brake) {
            return (Err(Wait::Brake { reference, pins }), None);
        }
    }
    let follows = pins < reference.pins && reference.since.is_past(policy.sudden, now);
    (Ok(()), follows.then_some(here))
}

/// More than a quarter, and more than a few; or all of them.
fn is_sudden(before: u64, pins: u64, policy: &Policy) -> bool {
    let drop = before.saturating_sub(pins);
    let few = drop <= policy.small && pins > 0;
    drop > 0 && u128::from(drop) * 4 > u128::from(before) && !few
}
