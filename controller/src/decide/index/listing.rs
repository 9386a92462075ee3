//! A new list after a watch was lost: whatever it does not name is gone, and nothing is unused in between.

use super::{Changed, Index};
use crate::decide::Moment;

impl Index {
    /// A list of all Pods begins (kube's `watcher::Event::Init`). Until it ends nothing leaves the index.
    pub fn begin_listing(&mut self) {
        self.listing = self.listing.wrapping_add(1);
    }

    /// The list has a Pod of which nothing else can be read.
    pub fn pod_is_there(&mut self, namespace: &str, name: &str) {
        let name = self.name_of(namespace, name);
        let listing = self.listing;
        if let Some(kept) = self.namespaces.get_mut(namespace).and_then(|namespace| namespace.pods.get_mut(&name)) {
            kept.listing = listing;
        }
    }

    /// The list is complete (`InitDone`): Pods that it did not name are gone.
    pub fn end_listing(&mut self, now: Moment) -> Changed {
        let listing = self.listing;
        let gone: Vec<_> = self
            .namespaces
            .values()
            .flat_map(|namespace| &namespace.pods)
            .filter(|(_, kept)| kept.listing != listing)
            .map(|(name, _)| std::sync::Arc::clone(name))
            .collect();
        let mut changed = Changed::new();
        for name in gone {
            changed.append(&mut self.pod_gone(&name.namespace, &name.name, now));
        }
        changed
    }
}
