//! What the index keeps of a Pod, and what that says of each of its images.

use std::sync::Arc;

use larder_oci::Digest;

use super::entry::Share;
use super::{Index, MINIMUM_NODES};
use crate::decide::filter::NamespaceVerdict;
use crate::decide::pod::{Pod, PullPolicy};
use crate::decide::{Image, Moment};

/// What is kept of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) node: Option<Arc<str>>,
    pub(super) is_ignored: bool,
    pub(super) is_of_daemon_set: bool,
    pub(super) created: Option<Moment>,
    /// Has ended, and when.
    pub(super) ended: Option<Moment>,
    pub(super) uses: Box<[KeptUse]>,
    pub(super) unreadable: Box<[(Box<str>, Box<str>)]>,
    pub(super) listing: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptUse {
    pub(super) image: Image,
    pub(super) policy: PullPolicy,
    pub(super) digest: Option<Arc<Digest>>,
}

impl Kept {
    /// Whether nothing that counts has changed. When an ended Pod was first seen to have ended is not news.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let Self { node, is_ignored, is_of_daemon_set, created, ended, uses, unreadable, listing: _ } = self;
        *node == other.node
            && *is_ignored == other.is_ignored
            && *is_of_daemon_set == other.is_of_daemon_set
            && *created == other.created
            && ended.is_some() == other.ended.is_some()
            && *uses == other.uses
            && *unreadable == other.unreadable
    }
}

impl Index {
    /// What is kept of a Pod, with pointers to what is known already.
    pub(super) fn kept(&mut self, pod: &Pod, now: Moment) -> Kept {
        let mut uses: Vec<KeptUse> = Vec::with_capacity(pod.uses.len());
        let mut unreadable = Vec::new();
        for used in &pod.uses {
            match used.image() {
                Err(error) => unreadable.push((used.written.as_str().into(), error.to_string().into())),
                Ok(image) => {
                    let known = self.images.get_key_value(&image);
                    let digest = used.running(&image).digest().map(|digest| {
                        known.and_then(|(_, entry)| entry.digest(&digest)).unwrap_or_else(|| Arc::new(digest))
                    });
                    let policy = used.policy_of(&image);
                    let image = known.map_or(image, |(image, _)| image.clone());
                    let one = KeptUse { image, policy, digest };
                    if !uses.contains(&one) {
                        uses.push(one);
                    }
                }
            }
        }
        let node = pod.node.as_deref().map(|node| self.node(node));
        Kept {
            node,
            is_ignored: pod.ignored,
            is_of_daemon_set: pod.of_daemon_set,
            created: pod.created.map(|created| created.min(now)),
            // A node's clock that is ahead is not believed: nothing ended in the future.
            ended: pod.ended.map(|ended| ended.at.map_or(now, |at| at.min(now))),
            uses: uses.into(),
            unreadable: unreadable.into(),
            listing: self.listing,
        }
    }

    /// One pointer for all Pods of a node. Names of nodes that are no more are dropped now and then.
    fn node(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.nodes.get(name) {
            return Arc::clone(known);
        }
        if self.nodes.len() >= self.most_nodes {
            self.nodes.retain(|node| Arc::strong_count(node) > 1);
            self.most_nodes = MINIMUM_NODES.max(self.nodes.len() * 2);
        }
        let node: Arc<str> = name.into();
        self.nodes.insert(Arc::clone(&node));
        node
    }

    /// What a Pod says of each of its images: a use that counts makes good for one that does not.
    pub(super) fn shares(&self, kept: &Kept, verdict: NamespaceVerdict) -> Vec<(Image, Share)> {
        let mut shares: Vec<(Image, Share)> = Vec::with_capacity(kept.uses.len());
        for used in &kept.uses {
            let of_image = match self.images.get(&used.image) {
                Some(entry) => entry.left_out.clone(),
                None => self.filters.image(&used.image),
            };
            let left_out = self.filters.left_out(verdict, kept.is_ignored, of_image.as_ref(), used.policy);
            let share = Share::of(used, left_out);
            match shares.iter_mut().find(|(image, _)| *image == used.image) {
                Some((_, before)) => before.join(share),
                None => shares.push((used.image.clone(), share)),
            }
        }
        shares
    }
}
