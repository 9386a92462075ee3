//! What a collector does about what it saw: a function of the listings and the bucket's time. Which order they were made in is
//! `collector`'s matter, and half of the safety.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;

use super::brake::{self, Before};
use super::holders;
use super::rules::{Rule, Rules};
use super::{BucketTime, Declaration, Held, Label, Owner, PinName, Policy, Reference, Unique, Word};
use crate::pins::Holder;

/// What a run of a collector saw, in the order in which it was listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// The marks, before anything else was looked at.
    pub condemned: BTreeMap<Held, BucketTime>,
    /// Every cluster of which there is anything.
    pub clusters: BTreeSet<Label>,
    /// What the own cluster's collectors wrote down last.
    pub reference: Option<(Reference, BucketTime)>,
    /// The most that other clusters' collectors compare with.
    pub others: Option<u64>,
    /// What persons said to the own cluster.
    pub words: Vec<Word>,
    /// Each holder's newest declaration.
    pub declared: BTreeMap<Owner, Declaration>,
    /// The pins of every cluster, by name.
    pub pins: BTreeSet<PinName>,
    /// What they reach.
    pub kept: BTreeSet<Digest>,
    /// A record that this version cannot read, or a pin of which it cannot be told what it reaches.
    pub unreadable: bool,
    /// The marks once more.
    pub condemned_since: BTreeMap<Held, BucketTime>,
    /// The blobs, last.
    pub blobs: BTreeMap<Held, BucketTime>,
}

/// Why nothing goes now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Wait {
    /// Nobody has anything on this bucket.
    #[error("there is no cluster on this bucket: nothing is removed before one has declared its pins")]
    NoCluster,
    /// A cluster has records and no holder.
    #[error(
        "cluster {0} has declared nothing: start its cache, or forget the cluster (larder-cache forget-cluster {0})"
    )]
    NoHolder(Label),
    /// A holder has pins and no declaration.
    #[error("holder {} of cluster {} has pins and never declared them complete: {}", .0.holder, .0.cluster, way_out(.0))]
    NeverDeclared(Owner),
    /// A holder has not declared its set for too long.
    #[error("holder {} of cluster {} last declared its pins complete as of {} (seconds since 1970, the bucket's clock): {}", .0.holder, .0.cluster, .1.0, way_out(.0))]
    Stale(Owner, BucketTime),
    /// The first run of a cluster's collectors only writes down how many pins there are.
    #[error("the number of pins was written down for the first time; the next run compares with it")]
    NothingToCompare,
    /// The brake.
    #[error("there are {pins} pins where there were {}: if that is right, say so (larder-cache release-brake)", reference.pins)]
    Brake {
        /// What was compared with.
        reference: Reference,
        /// How many there are.
        pins: u64,
    },
    /// See [`View::unreadable`].
    #[error(
        "a pin or another record cannot be read, it may be of a newer version: update this cache, or remove the record"
    )]
    Unreadable,
    /// The bucket did not answer in the middle of a run.
    #[error("the bucket did not answer; the next run begins anew")]
    Unanswered,
}

/// What a person does about a holder that is silent.
fn way_out(Owner { cluster, holder }: &Owner) -> String {
    if holder.to_string() == Holder::pull().as_str() {
        return format!("start its cache, or forget the cluster (larder-cache forget-cluster {cluster})");
    }
    format!(
        "start it, or, if there is no such holder any more, have a cache of that cluster forget it (DELETE /v1/holders/{holder} of its \
         control API, docs/control-api.md), or forget the whole cluster (larder-cache forget-cluster {cluster})"
    )
}

/// Something to be done about an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// Nobody may begin to rely on it.
    Condemn(Held, Reason),
    /// The blob goes.
    Remove(Held, Reason),
    /// Its mark goes, long after the blob.
    Tidy(Held),
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No pin reaches it.
    Unpinned,
    /// It is pinned, and there is another generation that is not condemned.
    Another,
}

/// What a run comes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Whether anything may go, and if not, why.
    pub verdict: Result<(), Wait>,
    /// To be written down before anything else is done.
    pub reference: Option<Reference>,
    /// What to do then.
    pub acts: Vec<Act>,
}

/// What to do about `view`, which a run saw that began at `now`.
pub(super) fn decide(view: &View, now: BucketTime, policy: &Policy, rules: Rules) -> Decision {
    let wait = |wait| Decision { verdict: Err(wait), reference: None, acts: Vec::new() };
    if view.unreadable {
        return wait(Wait::Unreadable);
    }
    let pinning = view.pins.iter().map(|name| name.owner.clone()).collect();
    if let Err(reason) = holders::check(&view.clusters, &view.declared, &pinning, now, policy, rules) {
        return wait(reason);
    }
    let pins = u64::try_from(view.pins.len()).unwrap_or(u64::MAX);
    let own = view.reference.map(|(reference, _)| reference);
    let before = Before { own, others: view.others, words: &view.words };
    let (verdict, reference) = brake::check(pins, before, now, policy, rules);
    let acts = if verdict.is_ok() { acts(view, now, policy, rules) } else { Vec::new() };
    Decision { verdict, reference, acts }
}

/// Those of one digest, without a look at the others.
fn generations<'a>(blobs: &'a BTreeMap<Held, BucketTime>, digest: &'a Digest) -> impl Iterator<Item = &'a Held> {
    let first = Held { digest: digest.clone(), generation: Unique::lowest() };
    blobs.range(first..).map(|(held, _)| held).take_while(move |held| held.digest == *digest)
}

fn acts(view: &View, now: BucketTime, policy: &Policy, rules: Rules) -> Vec<Act> {
    // A mark that was made after the pins were listed says nothing about them.
    let condemned = if rules.keep(Rule::PinsAfterMarks) { &view.condemned } else { &view.condemned_since };
    let marked = if rules.keep(Rule::LaterWitness) { &view.condemned_since } else { &view.condemned };
    let usable = |held: &&Held| !marked.contains_key(*held);
    let mut acts = Vec::new();
    for (held, born) in &view.blobs {
        let pinned = view.kept.contains(&held.digest);
        let others = || generations(&view.blobs, &held.digest).filter(|other| *other != held).filter(usable);
        match condemned.get(held) {
            Some(_) if pinned && !rules.keep(Rule::MarksStay) => acts.push(Act::Tidy(held.clone())),
            Some(since) => {
                let due = since.is_past(policy.grace, now) || !rules.keep(Rule::Grace);
                if due && !pinned {
                    acts.push(Act::Remove(held.clone(), Reason::Unpinned));
                } else if due && (others().next().is_some() || !rules.keep(Rule::Witness)) {
                    acts.push(Act::Remove(held.clone(), Reason::Another));
                }
            }
            None if view.condemned_since.contains_key(held) || !born.is_past(policy.young, now) => {}
            None if !pinned && !rules.keep(Rule::CondemnedFirst) => {
                acts.push(Act::Remove(held.clone(), Reason::Unpinned));
            }
            None if !pinned => acts.push(Act::Condemn(held.clone(), Reason::Unpinned)),
            // All collectors leave the same one: the first.
            None if others().any(|other| other < held) => acts.push(Act::Condemn(held.clone(), Reason::Another)),
            None => {}
        }
    }
    let gone = |held: &Held| !view.blobs.contains_key(held);
    let over = |since: &BucketTime| since.is_past(policy.tombstone, now) || !rules.keep(Rule::Tombstone);
    acts.extend(
        view.condemned
            .iter()
            .filter(|(held, since)| gone(held) && over(since))
            .map(|(held, _)| Act::Tidy(held.clone())),
    );
    acts.truncate(policy.most);
    acts
}
