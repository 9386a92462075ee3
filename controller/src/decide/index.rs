//! The wanted set: what the Pods of a cluster want cached, kept up to date Pod by Pod.
//!
//! An event costs what the Pod's own images cost, however many Pods there are; labels of a namespace cost that
//! namespace's Pods. A Pod is kept as its name and a few shared pointers. Invariant: after any sequence of events the
//! index says what one says that was built from the Pods that are left (a property in `index/tests.rs`), but for first
//! and last use, which remember.

mod entry;
mod kept;
mod listing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use larder_oci::Digest;

use self::entry::Entry;
use self::kept::Kept;
use super::filter::{Filters, NamespaceVerdict};
use super::labels::Labels;
use super::pod::Pod;
use super::{Image, Moment};

/// Pods that are named in a status.
pub const NAMED_USERS: usize = 10;

/// Names of nodes that are kept before anybody looks which of them are needed.
const MINIMUM_NODES: usize = 1024;

/// A Pod's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name there.
    pub name: Box<str>,
}

/// The images that changed by an event, of which the shell looks again.
pub type Changed = BTreeSet<Image>;

/// What is said of one image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Pods that use it and count: `status.usedBy.count`.
    pub used_by: usize,
    /// The first of them by namespace and name, at most [`NAMED_USERS`].
    pub users: Vec<PodName>,
    /// Manifests that they run, each by how many.
    pub digests: BTreeMap<Digest, usize>,
    /// Namespaces that they are in; without any, those of Pods that have ended.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Nodes that they are on.
    pub nodes: usize,
    /// Whether a `DaemonSet` brings it to every node.
    pub is_of_daemon_set: bool,
    /// Whether any of them asks the registry at every start: then the tag is followed, unless its object says otherwise.
    pub is_always: bool,
    /// Pods that have ended and would count. They are no users, but the image is known because of them.
    pub ended: usize,
    /// First use that was ever seen or recorded.
    pub first_used: Option<Moment>,
    /// Last use that was ever seen or recorded. While it is used, that is always.
    pub last_used: Option<Moment>,
    /// Why uses were left out, each for how many Pods.
    pub left_out: BTreeMap<super::filter::LeftOut, usize>,
}

impl Wanted {
    /// Whether a Pod uses it now.
    pub fn is_used(&self) -> bool {
        self.used_by > 0
    }
}

/// A reference of a Pod that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// As it is written.
    pub written: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whose.
    pub pod: PodName,
}

/// The wanted set.
#[derive(Debug)]
pub struct Index {
    filters: Filters,
    namespaces: HashMap<Arc<str>, Namespace>,
    images: HashMap<Image, Entry>,
    nodes: BTreeSet<Arc<str>>,
    most_nodes: usize,
    listing: u32,
    pods: usize,
}

#[derive(Debug)]
struct Namespace {
    labels: Option<Labels>,
    verdict: NamespaceVerdict,
    pods: BTreeMap<Arc<PodName>, Kept>,
}

impl Index {
    /// Without Pods.
    pub fn new(filters: Filters) -> Self {
        Self {
            filters,
            namespaces: HashMap::new(),
            images: HashMap::new(),
            nodes: BTreeSet::new(),
            most_nodes: MINIMUM_NODES,
            listing: 0,
            pods: 0,
        }
    }

    /// A Pod was made, or is other than before.
    pub fn pod(&mut self, pod: &Pod, now: Moment) -> Changed {
        let mut changed = Changed::new();
        let name = self.name_of(&pod.namespace, &pod.name);
        let kept = self.kept(pod, now);
        let namespace = self.namespace_entry(&name.namespace);
        let before = namespace.pods.get_key_value(&name).map(|(name, kept)| (Arc::clone(name), kept.clone()));
        let name = before.as_ref().map_or_else(|| Arc::new(name.clone()), |(name, _)| Arc::clone(name));
        if before.as_ref().is_some_and(|(_, before)| before.same_as(&kept)) {
            if let Some(before) = namespace.pods.get_mut(&name) {
                before.listing = kept.listing;
            }
            return changed;
        }
        let verdict = namespace.verdict;
        if namespace.pods.insert(Arc::clone(&name), kept.clone()).is_none() {
            self.pods += 1;
        }
        if let Some((_, before)) = before {
            self.discount(&name, &before, verdict, now, &mut changed);
        }
        self.count(&name, &kept, verdict, now, &mut changed);
        changed
    }

    /// A Pod is gone.
    pub fn pod_gone(&mut self, namespace: &str, name: &str, now: Moment) -> Changed {
        let mut changed = Changed::new();
        let name = self.name_of(namespace, name);
        let Some(of) = self.namespaces.get_mut(namespace) else { return changed };
        let Some((name, kept)) = of.pods.remove_entry(&name) else { return changed };
        self.pods = self.pods.saturating_sub(1);
        let verdict = of.verdict;
        if of.labels.is_none() && of.pods.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.discount(&name, &kept, verdict, now, &mut changed);
        changed
    }

    /// A namespace has these labels.
    pub fn namespace(&mut self, name: &str, labels: Labels, now: Moment) -> Changed {
        let verdict = self.filters.namespace(&labels);
        self.judge(name, Some(labels), verdict, now)
    }

    /// A namespace is gone, its Pods before it.
    pub fn namespace_gone(&mut self, name: &str, now: Moment) -> Changed {
        let verdict = self.filters.namespace(&only_its_name(name));
        let changed = self.judge(name, None, verdict, now);
        if self.namespaces.get(name).is_some_and(|namespace| namespace.pods.is_empty()) {
            self.namespaces.remove(name);
        }
        changed
    }

    /// First and last use as the image's object has them, from before this process began.
    pub fn record(&mut self, image: &Image, first_used: Option<Moment>, last_used: Option<Moment>) {
        if first_used.is_none() && last_used.is_none() {
            return;
        }
        let entry = self.images.entry(image.clone()).or_insert_with(|| Entry::new(self.filters.image(image)));
        entry.seen(first_used);
        entry.seen(last_used);
    }

    /// The image's object is gone, or there never will be one: what is remembered of its past is forgotten. Whoever
    /// never says so of images that no Pod names any more keeps them in memory.
    pub fn forget(&mut self, image: &Image) {
        if let Some(entry) = self.images.get_mut(image) {
            entry.forget();
            if entry.is_idle() {
                self.images.remove(image);
            }
        }
    }

    /// What is said of an image; `now` is its last use while it is used.
    pub fn image(&self, image: &Image, now: Moment) -> Option<Wanted> {
        self.images.get(image).map(|entry| entry.wanted(now))
    }

    /// In which namespaces an image is used, or was by Pods that have ended, and since when. Without the rest, which costs more.
    pub fn owners(&self, image: &Image) -> (BTreeSet<Arc<str>>, Option<Moment>) {
        self.images.get(image).map(|entry| (entry.namespaces(), entry.first_used())).unwrap_or_default()
    }

    /// Images all of whose uses are left out, why, and how many Pods use them.
    pub fn left_out(&self) -> impl Iterator<Item = (&Image, &super::filter::LeftOut, usize)> {
        self.images.iter().filter_map(|(image, entry)| entry.all_left_out().map(|(why, pods)| (image, why, pods)))
    }

    /// Every image that is used, has been, or is left out, in no order.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.keys()
    }

    /// References that are none.
    pub fn unreadable(&self) -> impl Iterator<Item = Unreadable> {
        self.namespaces.values().flat_map(|namespace| &namespace.pods).flat_map(|(name, kept)| {
            kept.unreadable.iter().map(|(written, reason)| Unreadable {
                written: written.to_string(),
                reason: reason.to_string(),
                pod: PodName::clone(name),
            })
        })
    }

    /// How many Pods are known.
    pub fn pods(&self) -> usize {
        self.pods
    }

    fn judge(&mut self, name: &str, labels: Option<Labels>, verdict: NamespaceVerdict, now: Moment) -> Changed {
        let mut changed = Changed::new();
        let key = self.namespace_key(name);
        let namespace = self.namespace_entry(&key);
        let before = std::mem::replace(&mut namespace.verdict, verdict);
        namespace.labels = labels;
        if before == verdict {
            return changed;
        }
        let pods: Vec<_> = namespace.pods.iter().map(|(name, kept)| (Arc::clone(name), kept.clone())).collect();
        for (name, kept) in pods {
            self.discount(&name, &kept, before, now, &mut changed);
            self.count(&name, &kept, verdict, now, &mut changed);
        }
        changed
    }

    fn namespace_entry(&mut self, key: &Arc<str>) -> &mut Namespace {
        let filters = &self.filters;
        self.namespaces.entry(Arc::clone(key)).or_insert_with_key(|name| Namespace {
            labels: None,
            verdict: filters.namespace(&only_its_name(name)),
            pods: BTreeMap::new(),
        })
    }

    fn namespace_key(&self, name: &str) -> Arc<str> {
        self.namespaces.get_key_value(name).map_or_else(|| name.into(), |(key, _)| Arc::clone(key))
    }

    fn name_of(&self, namespace: &str, name: &str) -> PodName {
        PodName { namespace: self.namespace_key(namespace), name: name.into() }
    }

    fn count(
        &mut self,
        name: &Arc<PodName>,
        kept: &Kept,
        verdict: NamespaceVerdict,
        now: Moment,
        changed: &mut Changed,
    ) {
        for (image, share) in self.shares(kept, verdict) {
            let filters = &self.filters;
            let entry = self.images.entry(image.clone()).or_insert_with_key(|image| Entry::new(filters.image(image)));
            entry.add(name, kept, &share, now);
            changed.insert(image);
        }
    }

    fn discount(
        &mut self,
        name: &Arc<PodName>,
        kept: &Kept,
        verdict: NamespaceVerdict,
        now: Moment,
        changed: &mut Changed,
    ) {
        for (image, share) in self.shares(kept, verdict) {
            if let Some(entry) = self.images.get_mut(&image) {
                entry.remove(name, kept, &share, now);
                if entry.is_idle() {
                    self.images.remove(&image);
                }
            }
            changed.insert(image);
        }
    }
}

/// What every namespace bears, whoever forgot to say so.
fn only_its_name(name: &str) -> Labels {
    Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())])
}
