//! What the cache is told to keep: from the images that are wanted, and what it has, to what is put and deleted.
//!
//! An image is pinned by its own reference and, beside a tag, by each digest that Pods run of it. All pins are one
//! holder's. Nothing is deleted but what the [`brake`](super::brake) lets go.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;

use super::brake::{Brake, Cause, Hold, Pass, Ruling};
use super::platforms::Platforms;
use super::{Image, Moment};

/// An image that has an object, which is what makes it wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The image.
    pub image: Image,
    /// Digests that are kept beside what its tag means ([`super::digests::keep`]).
    pub digests: BTreeSet<Digest>,
    /// For which machines.
    pub platforms: Platforms,
    /// Whether the pin follows its tag ([`super::registry::follow`]).
    pub follow: bool,
    /// What the tag means at its origin, if that was asked.
    pub upstream: Option<Digest>,
}

impl Wish {
    /// What its pin is to be, if it follows its tag and that is known.
    pub fn followed(&self) -> Option<&Digest> {
        self.upstream.as_ref().filter(|_| self.follow && !self.image.is_digest())
    }
}

/// What the cache has, from the control API's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePin {
    /// Of which reference.
    pub image: Image,
    /// For which machines.
    pub platforms: Platforms,
    /// What the reference means, once that is known.
    pub digest: Option<Digest>,
    /// Whether everything is there.
    pub is_complete: bool,
    /// Whether it was tried and cannot be had, a misspelt or private image, say. A declaration does not wait for it: on a bucket nothing is ever removed
    /// without one.
    pub has_failed: bool,
}

/// What there is to do for a pin that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToDo {
    /// Nothing: it is as it is wanted.
    Nothing,
    /// The cache makes it whole by itself, as what it is known to be and within what its registry allows. To put it again would have its tag asked for: a pin that
    /// does not follow its tag would become something else, and the registry's last pulls would be spent.
    ByItself,
    /// It is put.
    Put,
}

impl CachePin {
    /// What there is to do for it; `followed`: what it is to be, if it follows its tag ([`Wish::followed`]).
    pub fn to_do(&self, platforms: &Platforms, followed: Option<&Digest>) -> ToDo {
        let is_as_followed =
            followed.is_none_or(|followed| self.digest.as_ref().is_none_or(|digest| digest == followed));
        if self.platforms != *platforms || !is_as_followed {
            return ToDo::Put;
        }
        match (self.is_complete, &self.digest) {
            (true, _) => ToDo::Nothing,
            (false, Some(_)) => ToDo::ByItself,
            (false, None) => ToDo::Put,
        }
    }
}

/// A pin to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Of which reference.
    pub image: Image,
    /// For which machines.
    pub platforms: Platforms,
    /// Why.
    pub why: Why,
}

/// Why a pin is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The cache does not have it.
    New,
    /// For other machines than before.
    Platforms,
    /// The tag moved, and the pin follows it.
    TagMoved,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To put, new ones first.
    pub put: Vec<Put>,
    /// To delete; nothing while it is held back.
    pub delete: Vec<Image>,
    /// Of what is pinned, what was let go before and now by a word: it is not asked for again if it does not go at once.
    pub let_go: BTreeSet<Image>,
    /// As it should be.
    pub unchanged: usize,
    /// Whether what would be deleted may be.
    pub ruling: Ruling,
    /// Whether all that is wanted and can be had is pinned and complete, and nothing else is pinned.
    pub is_settled: bool,
}

/// What the API server said of the objects.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// Whether their definition exists and a full list of them was read.
    pub is_complete: bool,
    /// Images whose object was seen to be deleted, one by one.
    pub deleted: &'a BTreeSet<Image>,
    /// A person's word for the brake.
    pub word: Option<&'a str>,
    /// What was let go before: images that expired ([`super::expiring`]), and pins that a word was said for. With a tag go the
    /// digests that are kept beside it.
    pub let_go: &'a BTreeSet<Image>,
    /// Images whose object cannot be read, or that Pods use and that have none yet: what is pinned of them stays as it is.
    pub untouched: &'a BTreeSet<Image>,
}

/// The pins that wishes ask for. Where two want the same reference, for the machines of both.
pub fn wanted(wishes: &[Wish]) -> BTreeMap<Image, Platforms> {
    let mut pins: BTreeMap<Image, Platforms> = BTreeMap::new();
    for wish in wishes {
        let beside = wish.digests.iter().map(|digest| wish.image.at(digest));
        for image in std::iter::once(wish.image.clone()).chain(beside) {
            let platforms = match pins.remove(&image) {
                None => wish.platforms.clone(),
                Some(before) => before.and(&wish.platforms),
            };
            pins.insert(image, platforms);
        }
    }
    pins
}

/// Images, and with a tag the digests that are kept beside it.
struct WithDigests<'a> {
    images: &'a BTreeSet<Image>,
    names: BTreeSet<&'a str>,
}

impl<'a> WithDigests<'a> {
    fn of(images: &'a BTreeSet<Image>) -> Self {
        Self { images, names: images.iter().filter(|image| !image.is_digest()).map(Image::name).collect() }
    }

    fn have(&self, pin: &Image) -> bool {
        self.images.contains(pin) || (pin.is_digest() && self.names.contains(pin.name()))
    }
}

/// What is to be put and deleted.
pub fn plan(wishes: &[Wish], cached: &[CachePin], listing: Listing<'_>, brake: &mut Brake, now: Moment) -> Plan {
    let wanted = wanted(wishes);
    let moved: BTreeMap<&Image, &Digest> =
        wishes.iter().filter_map(|wish| Some((&wish.image, wish.followed()?))).collect();
    let have: BTreeMap<&Image, &CachePin> = cached.iter().map(|pin| (&pin.image, pin)).collect();
    let mut put = Vec::new();
    let mut unchanged = 0;
    let mut is_complete = true;
    for (image, platforms) in &wanted {
        let pin = have.get(image);
        is_complete &= pin.is_some_and(|pin| pin.is_complete || pin.has_failed);
        match why(pin.copied(), platforms, moved.get(image).copied()) {
            Some(why) => put.push(Put { image: image.clone(), platforms: platforms.clone(), why }),
            None => unchanged += 1,
        }
    }
    put.sort_by_key(|put| put.why != Why::New);
    let names: BTreeSet<&str> = wishes.iter().map(|wish| &wish.image).chain(listing.deleted).map(Image::name).collect();
    // A digest that is pinned beside its tag goes with the tag's object, or when no Pod runs it any more while that object
    // is still there: either was seen.
    let cause = |image: &Image| {
        let is_explained = listing.deleted.contains(image) || (image.is_digest() && names.contains(image.name()));
        if is_explained { Cause::Deleted } else { Cause::Missing }
    };
    let (let_go, untouched) = (WithDigests::of(listing.let_go), WithDigests::of(listing.untouched));
    let leaves = |image: &&Image| !wanted.contains_key(*image) && !untouched.have(image);
    let (free, asked): (BTreeSet<Image>, BTreeSet<Image>) =
        have.keys().copied().filter(leaves).cloned().partition(|image| let_go.have(image));
    let to_go: Vec<(Image, Cause)> = asked.iter().map(|image| (image.clone(), cause(image))).collect();
    brake.forgive(free.clone());
    let before = have.len().saturating_sub(free.len());
    let pass = Pass { before, to_go: &to_go, is_listed: listing.is_complete, word: listing.word };
    let releases = brake.releases();
    let ruling = match brake.rule(&pass, now) {
        Ruling::Go if !listing.is_complete && !free.is_empty() => {
            Ruling::Hold(Hold { of: have.len(), to_go: free.len(), word: None })
        }
        ruling => ruling,
    };
    let is_settled = listing.is_complete && is_complete && put.is_empty() && asked.is_empty() && free.is_empty();
    let delete = match &ruling {
        Ruling::Go => free.union(&asked).cloned().collect(),
        Ruling::Hold(_) => Vec::new(),
    };
    let let_go = if brake.releases() > releases { free.union(&asked).cloned().collect() } else { free };
    Plan { put, delete, let_go, unchanged, ruling, is_settled }
}

fn why(pin: Option<&CachePin>, platforms: &Platforms, upstream: Option<&Digest>) -> Option<Why> {
    let Some(pin) = pin else { return Some(Why::New) };
    if pin.platforms != *platforms {
        return Some(Why::Platforms);
    }
    // One that is not complete waits for its turn by that alone, and whether it is put again is said then.
    let has_moved = pin.is_complete && upstream.is_some() && pin.digest.is_some() && pin.digest.as_ref() != upstream;
    has_moved.then_some(Why::TagMoved)
}

/// Why the set cannot be declared complete now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// Not everything was listed that pins come from.
    #[error("not all of Pods, Namespaces, Nodes and CachedImages have been listed")]
    NotListed,
    /// Something would go that may not.
    #[error("what would be removed is held back until somebody says that it is meant")]
    Held,
    /// Something wanted is not there yet.
    #[error("not all that is wanted is pinned and complete")]
    NotSettled,
}

/// Whether the cache may be told that as of the beginning of this pass everything that is wanted is pinned. The
/// declaration must have been begun (`POST …/declarations`) before anything of the pass was listed.
pub fn may_declare(is_everything_listed: bool, plan: &Plan) -> Result<(), NotYet> {
    if !is_everything_listed {
        return Err(NotYet::NotListed);
    }
    if matches!(plan.ruling, Ruling::Hold(_)) {
        return Err(NotYet::Held);
    }
    if plan.is_settled { Ok(()) } else { Err(NotYet::NotSettled) }
}

#[cfg(test)]
mod tests;
