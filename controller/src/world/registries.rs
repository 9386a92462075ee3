//! What becomes known of what people say of registries.

use std::time::Instant;

use super::{Known, Source};
use crate::decide::Image;
use crate::registries::{Changed, Upstream};

impl Known {
    /// A state of what people say of a registry.
    pub fn registry(&mut self, object: Upstream, source: Source) {
        let changed = self.registries.object(object, source, Instant::now());
        self.registries_say_otherwise(changed);
    }

    /// Nobody says anything of a registry any more.
    pub fn registry_gone(&mut self, name: &str, uid: Option<&str>) {
        let changed = self.registries.gone(name, uid, Instant::now());
        self.registries_say_otherwise(changed);
    }

    /// The API server has no such object of a registry, as it says to a write.
    pub fn registry_missing(&mut self, name: &str, uid: &str, now: Instant) {
        let changed = self.registries.missing(name, uid, now);
        self.registries_say_otherwise(changed);
    }

    /// All of them were listed, or there is no such kind (any more).
    pub fn registries_listed(&mut self, is_known: bool) {
        self.registries.listed(is_known, Instant::now());
        self.listed.registries = true;
    }

    /// What went some time ago is believed to be gone.
    pub fn believe_registries(&mut self, now: Instant) {
        let changed = self.registries.believe(now);
        self.registries_say_otherwise(changed);
    }

    /// Which of their images are skipped may be others now. Nobody goes through all images for that.
    fn registries_say_otherwise(&mut self, changed: Changed) {
        if changed.is_empty() {
            return;
        }
        let is_of = |image: &&Image| changed.contains(image.registry());
        let images: Vec<Image> = self.by_image.keys().filter(is_of).cloned().collect();
        for image in images {
            self.tally(&image);
        }
        self.registries_changed.extend(changed);
    }
}
