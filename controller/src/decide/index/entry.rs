//! One image of the index: its users, counted so that a Pod comes and goes at the cost of its own images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_oci::Digest;

use super::kept::{Kept, KeptUse};
use super::{NAMED_USERS, PodName, Wanted};
use crate::decide::Moment;
use crate::decide::filter::LeftOut;
use crate::decide::pod::PullPolicy;

/// What a Pod says of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// None: it counts.
    pub(super) left_out: Option<LeftOut>,
    is_always: bool,
    digests: BTreeSet<Arc<Digest>>,
}

impl Share {
    pub(super) fn of(used: &KeptUse, left_out: Option<LeftOut>) -> Self {
        let is_always = used.policy == PullPolicy::Always;
        Self { left_out, is_always, digests: used.digest.iter().map(Arc::clone).collect() }
    }

    /// Of two uses in one Pod: one that counts makes good for one that does not, and what does not count says nothing.
    pub(super) fn join(&mut self, other: Self) {
        match (&self.left_out, &other.left_out) {
            (Some(_), None) => *self = other,
            (None, Some(_)) => {}
            (Some(this), Some(that)) => self.left_out = Some(this.min(that).clone()),
            (None, None) => {
                self.is_always |= other.is_always;
                self.digests.extend(other.digests);
            }
        }
    }
}

/// Without Pods there may be 100,000 of them, which were used some time within the last month: they are small.
#[derive(Debug)]
pub(super) struct Entry {
    /// Why it is left out wherever it is used.
    pub(super) left_out: Option<LeftOut>,
    /// `None`: no Pod names it.
    pods: Option<Box<Pods>>,
    first_used: Option<Moment>,
    last_used: Option<Moment>,
}

/// What the Pods say that name it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pods {
    users: BTreeSet<Arc<PodName>>,
    nodes: BTreeMap<Arc<str>, usize>,
    namespaces: BTreeMap<Arc<str>, usize>,
    digests: BTreeMap<Arc<Digest>, usize>,
    always: usize,
    of_daemon_sets: usize,
    ended: usize,
    /// Where those are that have ended.
    ended_in: BTreeMap<Arc<str>, usize>,
    uses_left_out: BTreeMap<LeftOut, usize>,
}

/// Of an image that none names.
static NONE: Pods = Pods {
    users: BTreeSet::new(),
    nodes: BTreeMap::new(),
    namespaces: BTreeMap::new(),
    digests: BTreeMap::new(),
    always: 0,
    of_daemon_sets: 0,
    ended: 0,
    ended_in: BTreeMap::new(),
    uses_left_out: BTreeMap::new(),
};

impl Entry {
    pub(super) fn new(left_out: Option<LeftOut>) -> Self {
        Self { left_out, pods: None, first_used: None, last_used: None }
    }

    fn pods(&self) -> &Pods {
        self.pods.as_deref().unwrap_or(&NONE)
    }

    pub(super) fn add(&mut self, name: &Arc<PodName>, kept: &Kept, share: &Share, now: Moment) {
        let pods = self.pods.get_or_insert_default();
        if let Some(left_out) = &share.left_out {
            *pods.uses_left_out.entry(left_out.clone()).or_default() += 1;
            return;
        }
        if let Some(ended) = kept.ended {
            pods.ended += 1;
            more(&mut pods.ended_in, &name.namespace);
            self.seen(Some(kept.created.unwrap_or(now)));
            self.seen(Some(ended));
            return;
        }
        pods.users.insert(Arc::clone(name));
        more(&mut pods.namespaces, &name.namespace);
        if let Some(node) = &kept.node {
            more(&mut pods.nodes, node);
        }
        for digest in &share.digests {
            more(&mut pods.digests, digest);
        }
        pods.always += usize::from(share.is_always);
        pods.of_daemon_sets += usize::from(kept.is_of_daemon_set);
        self.seen(Some(kept.created.unwrap_or(now)));
        self.seen(Some(now));
    }

    pub(super) fn remove(&mut self, name: &Arc<PodName>, kept: &Kept, share: &Share, now: Moment) {
        let Some(pods) = &mut self.pods else { return };
        let was_in_use = share.left_out.is_none() && kept.ended.is_none();
        if let Some(left_out) = &share.left_out {
            less(&mut pods.uses_left_out, left_out);
        } else if kept.ended.is_some() {
            pods.ended = pods.ended.saturating_sub(1);
            less(&mut pods.ended_in, &name.namespace);
        } else {
            pods.users.remove(name);
            less(&mut pods.namespaces, &name.namespace);
            if let Some(node) = &kept.node {
                less(&mut pods.nodes, node);
            }
            for digest in &share.digests {
                less(&mut pods.digests, digest);
            }
            pods.always = pods.always.saturating_sub(usize::from(share.is_always));
            pods.of_daemon_sets = pods.of_daemon_sets.saturating_sub(usize::from(kept.is_of_daemon_set));
        }
        if **pods == NONE {
            self.pods = None;
        }
        if was_in_use {
            self.seen(Some(now));
        }
    }

    /// Used at this time. A clock that was set back takes nothing away.
    pub(super) fn seen(&mut self, at: Option<Moment>) {
        if let Some(at) = at {
            self.first_used = Some(self.first_used.map_or(at, |first| first.min(at)));
            self.last_used = self.last_used.max(Some(at));
        }
    }

    /// Only what is remembered of the past: a Pod that is there will be its first use again.
    pub(super) fn forget(&mut self) {
        let pods = self.pods();
        if pods.users.is_empty() && pods.ended == 0 {
            self.first_used = None;
            self.last_used = None;
        }
    }

    /// Nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        let pods = self.pods();
        pods.users.is_empty() && pods.ended == 0 && pods.uses_left_out.is_empty() && self.last_used.is_none()
    }

    /// The pointer to a digest that is known already.
    pub(super) fn digest(&self, digest: &Digest) -> Option<Arc<Digest>> {
        self.pods().digests.get_key_value(digest).map(|(known, _)| Arc::clone(known))
    }

    /// Whose it is: where it is used, else where Pods that have ended still lie.
    pub(super) fn namespaces(&self) -> BTreeSet<Arc<str>> {
        let pods = self.pods();
        let of = if pods.namespaces.is_empty() { &pods.ended_in } else { &pods.namespaces };
        of.keys().map(Arc::clone).collect()
    }

    /// Why all that use it are left out, if they are: the first reason, and how many Pods.
    pub(super) fn all_left_out(&self) -> Option<(&LeftOut, usize)> {
        let pods = self.pods();
        let count = pods.uses_left_out.values().sum();
        let why = pods.uses_left_out.keys().next().filter(|_| pods.users.is_empty() && pods.ended == 0)?;
        Some((why, count))
    }

    pub(super) fn first_used(&self) -> Option<Moment> {
        self.first_used
    }

    pub(super) fn wanted(&self, now: Moment) -> Wanted {
        let pods = self.pods();
        let is_used = !pods.users.is_empty();
        Wanted {
            used_by: pods.users.len(),
            users: pods.users.iter().take(NAMED_USERS).map(|name| PodName::clone(name)).collect(),
            digests: pods.digests.iter().map(|(digest, count)| (Digest::clone(digest), *count)).collect(),
            namespaces: self.namespaces(),
            nodes: pods.nodes.len(),
            is_of_daemon_set: pods.of_daemon_sets > 0,
            is_always: pods.always > 0,
            ended: pods.ended,
            first_used: self.first_used,
            last_used: if is_used { self.last_used.max(Some(now)) } else { self.last_used },
            left_out: pods.uses_left_out.clone(),
        }
    }
}

fn more<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.clone(), 1);
        }
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
