//! Who must have spoken before anything goes: every cluster of which there is anything, and every holder that is known by a
//! declaration or by a pin. Whatever is missing is a reason to wait, never one to remove.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{Rule, Rules};
use super::{BucketTime, Label, Owner, Policy, Wait};

/// What the listings said of a holder's declarations: the newest by what it states, and by when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Declaration {
    /// The bucket's time when the holder began to look at what it wants.
    pub as_of: BucketTime,
    /// When the bucket took the record.
    pub modified: BucketTime,
}

/// Whether every holder has declared a complete set recently. `pinning`: those that have pins.
pub(super) fn check(
    clusters: &BTreeSet<Label>,
    declared: &BTreeMap<Owner, Declaration>,
    pinning: &BTreeSet<Owner>,
    now: BucketTime,
    policy: &Policy,
    rules: Rules,
) -> Result<(), Wait> {
    if rules.keep(Rule::KnownHolders) {
        if clusters.is_empty() {
            return Err(Wait::NoCluster);
        }
        if let Some(cluster) = clusters.iter().find(|cluster| declared.keys().all(|owner| owner.cluster != **cluster)) {
            return Err(Wait::NoHolder(cluster.clone()));
        }
        if let Some(owner) = pinning.iter().find(|owner| !declared.contains_key(*owner)) {
            return Err(Wait::NeverDeclared(owner.clone()));
        }
    }
    let stale = |declared: &Declaration| {
        let at = if rules.keep(Rule::StatedTime) { declared.as_of } else { declared.modified };
        now > at && at.is_past(policy.declared_within, now)
    };
    match declared.iter().find(|(_, declared)| stale(declared)) {
        Some((owner, declared)) if rules.keep(Rule::FreshHolders) => Err(Wait::Stale(owner.clone(), declared.as_of)),
        _ => Ok(()),
    }
}
