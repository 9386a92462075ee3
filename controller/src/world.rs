//! What the API server has said: what Pods want, which nodes there are, which images have an object.
//!
//! Kept up to date by the watches ([`crate::watches`]) whether or not this controller leads, so that a new leader knows everything at once. Of a Pod only what
//! the [`Index`] needs is kept. Nothing here is written.

mod gone;
mod names;
mod objects;
mod reasons;
mod registries;
mod shared;
mod tallies;
#[cfg(test)]
mod tests;
mod unreadable;
mod whose;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use larder_api::cached_image::{Cached, UpstreamAvailable};
use larder_api::condition::{get, is_true};
use larder_api::{CachedImage, CachedImageSpec, CachedImageStatus, Time};

use crate::decide::expiry::MadeBy;
use crate::decide::filter::Filters;
use crate::decide::index::Index;
use crate::decide::platforms::{Platform, Remembered};
use crate::decide::{Image, Moment};
use crate::registries::Registries;

pub(crate) use gone::{Gone, State};
pub use names::Names;
pub use objects::Objects;
pub use reasons::Reasons;
pub use shared::World;
pub use tallies::{Counted, Tallies, Tally};
pub use unreadable::Unreadable;
pub(crate) use whose::is_ours_alone;

/// A `CachedImage`, as far as it is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub resource_version: String,
    /// `metadata.generation`
    pub generation: Option<i64>,
    /// `metadata.creationTimestamp`
    pub created: Moment,
    /// Who made it, or applies it: who applies objects from a repository does not know who was first.
    pub made_by: MadeBy,
    /// `spec.image`, in full.
    pub image: Image,
    /// `spec`
    pub spec: CachedImageSpec,
    /// `status`
    pub status: CachedImageStatus,
}

impl Object {
    /// `None`: its image is none, which the API server does not let through.
    pub fn of(object: CachedImage) -> Option<Self> {
        let image = Image::parse(&object.spec.image).ok()?;
        let made_by = whose::made_by(&object.metadata);
        Some(Self {
            name: object.metadata.name?,
            uid: object.metadata.uid?,
            resource_version: object.metadata.resource_version?,
            generation: object.metadata.generation,
            created: object.metadata.creation_timestamp.map_or(Moment::END, |time| moment(&time)),
            made_by,
            image,
            spec: object.spec,
            status: object.status.unwrap_or_default(),
        })
    }

    fn state(&self) -> State<'_> {
        State { uid: &self.uid, version: &self.resource_version }
    }
}

/// Whether a version of an object is of later than another one. They are numbers of etcd's.
pub(crate) fn is_newer(this: &str, that: &str) -> bool {
    let number = |version: &str| version.parse::<u64>().ok();
    match (number(this), number(that)) {
        (Some(this), Some(that)) => this > that,
        _ => this != that,
    }
}

/// Who says how an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A list, which says what there is: also after an etcd was put back to what it was before, and versions are lower than those that are known.
    List,
    /// A watch, which is in order and may be behind an answer.
    Watch,
    /// The answer to a write, which may come after what the watch says of later.
    Answer,
}

/// Which lists are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "five lists, each complete or not")]
pub struct Listed {
    /// Pods.
    pub pods: bool,
    /// Namespaces.
    pub namespaces: bool,
    /// Nodes.
    pub nodes: bool,
    /// `CachedImages`; false again while there is no such kind.
    pub images: bool,
    /// `UpstreamRegistries`; true as well where there is no such kind: then nobody says anything of registries.
    pub registries: bool,
}

impl Listed {
    /// All of them.
    pub fn everything(self) -> bool {
        self.missing().next().is_none()
    }

    /// Those that are not, as they are called.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        let Self { pods, namespaces, nodes, images, registries } = self;
        let all = [
            ("Pods", pods),
            ("Namespaces", namespaces),
            ("Nodes", nodes),
            ("CachedImages", images),
            ("UpstreamRegistries", registries),
        ];
        all.into_iter().filter(|(_, is_complete)| !is_complete).map(|(kind, _)| kind)
    }
}

/// Everything that is known.
#[derive(Debug)]
pub struct Known {
    /// What Pods want.
    pub index: Index,
    /// By name; `None`: its platform is not known yet. Changed by [`Self::node`].
    pub nodes: BTreeMap<String, Option<Platform>>,
    /// How many nodes are of each, so that nobody goes through all of them for an image.
    platforms: BTreeMap<Platform, usize>,
    /// Platforms of nodes that are no more.
    pub remembered: Remembered,
    /// By name.
    pub objects: Objects,
    /// Names of objects, by image. Several may be of one image: people may call theirs as they like.
    pub by_image: BTreeMap<Image, Names>,
    /// What people say of registries.
    pub registries: Registries,
    /// Those of which something else is said since somebody looked.
    pub registries_changed: BTreeSet<Box<str>>,
    /// How many images there are of each.
    pub tallies: Tallies,
    /// How many objects give which reason.
    pub reasons: Reasons,
    /// Which lists are complete.
    pub listed: Listed,
    /// Images of which something changed since somebody looked.
    pub changed: BTreeSet<Image>,
    /// Images whose object was seen to be deleted, until somebody has acted on it.
    pub deleted: BTreeSet<Image>,
    /// Whether one was added to these since a pass acted on them.
    pub is_deleted_anew: bool,
    /// What there is and cannot be read.
    pub unreadable: Unreadable,
    gone: Gone,
}

impl Known {
    /// Nothing yet.
    fn nothing(filters: Filters) -> Self {
        Self {
            index: Index::new(filters),
            nodes: BTreeMap::new(),
            platforms: BTreeMap::new(),
            objects: Objects::default(),
            by_image: BTreeMap::new(),
            registries: Registries::default(),
            registries_changed: BTreeSet::new(),
            tallies: Tallies::default(),
            reasons: Reasons::default(),
            listed: Listed::default(),
            changed: BTreeSet::new(),
            deleted: BTreeSet::new(),
            is_deleted_anew: false,
            remembered: Remembered::default(),
            unreadable: Unreadable::default(),
            gone: Gone::default(),
        }
    }

    /// The platforms of all nodes, and those of nodes that went within the last days.
    pub fn platforms(&self, now: Instant) -> BTreeSet<Platform> {
        self.remembered.and(self.platforms.keys().cloned().collect(), now)
    }

    /// A node is there, or is other than before.
    pub fn node(&mut self, name: &str, platform: Option<Platform>) {
        if self.nodes.get(name).is_some_and(|before| *before == platform) {
            return;
        }
        self.node_gone(name);
        if let Some(platform) = &platform {
            *self.platforms.entry(platform.clone()).or_default() += 1;
        }
        self.nodes.insert(name.to_owned(), platform);
    }

    /// A node is gone.
    pub fn node_gone(&mut self, name: &str) {
        if let Some(Some(platform)) = self.nodes.remove(name)
            && let Some(count) = self.platforms.get_mut(&platform)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.platforms.remove(&platform);
                self.remembered.left(platform, Instant::now());
            }
        }
    }

    /// An image's objects.
    pub fn objects_of(&self, image: &Image) -> impl Iterator<Item = Arc<Object>> {
        self.by_image.get(image).into_iter().flat_map(Names::iter).filter_map(|name| self.objects.get(name))
    }

    /// A state of an object.
    pub fn object(&mut self, mut object: Object, source: Source) {
        let known = self.objects.get(&object.name);
        let known = known.as_deref();
        if !self.gone.is_news(object.state(), known.map(Object::state), source, Instant::now())
            || known == Some(&object)
        {
            return;
        }
        self.unreadable.object_gone(&object.name);
        // Its name and its image are in memory once, whoever has them.
        if let Some((image, _)) = self.by_image.get_key_value(&object.image) {
            object.image = image.clone();
        }
        let (first, last) = (&object.status.first_used, &object.status.last_used);
        self.index.record(&object.image, first.as_ref().map(moment), last.as_ref().map(moment));
        let name = self.objects.name(&object.name);
        match self.by_image.get_mut(&object.image) {
            Some(names) => names.insert(&name),
            None => {
                self.by_image.insert(object.image.clone(), Names::One(Arc::clone(&name)));
            }
        }
        self.deleted.remove(&object.image);
        let image = object.image.clone();
        self.changed.insert(image.clone());
        self.reasons.add(&object.status.conditions);
        let before = self.objects.insert(name, object);
        if let Some(before) = &before {
            self.reasons.remove(&before.status.conditions);
        }
        self.tally(&image);
        if let Some(before) = before
            && before.image != image
        {
            self.unlink(&before.name, &before.image);
            self.changed.insert(before.image.clone());
            self.tally(&before.image);
        }
    }

    /// An object is gone; `was_seen`: that was told, and not found out by a list.
    pub fn object_gone(&mut self, name: &str, uid: Option<&str>, was_seen: bool) {
        let known = self.objects.get(name).map(|object| object.uid.clone());
        if let Some(uid) = uid.or(known.as_deref()) {
            self.gone.insert(uid, Instant::now());
        }
        if let Some(image) = self.unreadable.object_gone(name) {
            self.lost(&image, was_seen);
        }
        if known.is_none_or(|known| uid.is_some_and(|uid| *uid != known)) {
            return;
        }
        let Some(object) = self.objects.remove(name) else { return };
        self.reasons.remove(&object.status.conditions);
        self.unlink(name, &object.image);
        self.lost(&object.image, was_seen);
    }

    /// The API server has no such object, as it says to a write.
    pub fn object_missing(&mut self, name: &str, uid: &str, now: Instant) {
        if self.gone.is_missed(uid, now) {
            self.object_gone(name, Some(uid), false);
        }
    }

    /// An object of this image is no more.
    fn lost(&mut self, image: &Image, was_seen: bool) {
        if !self.by_image.contains_key(image) && !self.unreadable.has(image) {
            self.index.forget(image);
            if was_seen {
                self.deleted.insert(image.clone());
                self.is_deleted_anew = true;
            }
        }
        self.tally(image);
        self.changed.insert(image.clone());
    }

    /// An object is there, and cannot be read but for this.
    pub fn unreadable_object(&mut self, name: &str, image: Option<&str>) {
        self.unreadable.object(name, image);
        // What was read of it before is not what it says now; that it is there is no reason to let anything go.
        if let Some(before) = self.objects.remove(name) {
            self.reasons.remove(&before.status.conditions);
            self.unlink(name, &before.image);
            self.tally(&before.image);
            self.changed.insert(before.image.clone());
        }
    }

    /// Counts an image as it is now.
    fn tally(&mut self, image: &Image) {
        let is_wanted = self.by_image.contains_key(image) && self.registries.rules.skipped(image).is_none();
        let counted = is_wanted.then(|| {
            let objects: Vec<Arc<Object>> = self.objects_of(image).collect();
            let mut all = objects.iter().map(|object| &object.status.conditions);
            let is_gone = |conditions| get::<UpstreamAvailable>(conditions) == Some(UpstreamAvailable::Gone);
            Counted {
                is_cached: all.clone().any(|conditions| is_true::<Cached>(conditions)),
                is_gone: all.any(|conditions| is_gone(conditions)),
            }
        });
        self.tallies.count(image, counted);
    }

    fn unlink(&mut self, name: &str, image: &Image) {
        if self.by_image.get_mut(image).is_some_and(|names| names.remove(name)) {
            self.by_image.remove(image);
        }
    }
}

/// A time of the API server's, which is to the second.
pub(crate) fn moment(time: &Time) -> Moment {
    Moment::from_seconds(time.0.as_second())
}

/// The wall clock, which only people and the API server's times are compared with.
pub fn now() -> Moment {
    SystemTime::now().into()
}
