//! How long an image is kept that no Pod uses, and what is deleted now.
//!
//! Never early, whatever the clocks do: a last use in the future counts from then, and a clock that was set back makes
//! everything expire later. A clock that was set far ahead would make everything expire at once; that is a matter for
//! the [`brake`](super::brake).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Image, Moment};

/// Unless somebody says otherwise.
pub const DEFAULT: Duration = Duration::from_hours(30 * 24);

/// For how long an object stays after its last use of which the cache has nothing, because nobody gives it: a misspelt name protects nothing.
pub const NEVER_HAD: Duration = Duration::from_hours(1);

/// How long images are kept without a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where nothing else is said.
    pub default: Duration,
    /// By registry, or a part of its repositories: `ghcr.io`, `ghcr.io/team`. The longest that an image lies in counts.
    pub prefixes: BTreeMap<String, Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { default: DEFAULT, prefixes: BTreeMap::new() }
    }
}

impl Rules {
    /// For this image, unless its own object says otherwise.
    pub fn of(&self, image: &Image) -> Duration {
        let mut rest = image.name();
        loop {
            if let Some(expiry) = self.prefixes.get(rest) {
                return *expiry;
            }
            match rest.rsplit_once('/') {
                Some((shorter, _)) => rest = shorter,
                None => return self.default,
            }
        }
    }
}

/// Who made an image's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeBy {
    /// The controller, because of a Pod.
    Controller,
    /// A person, or something of a person's that applies it, to have it whatever Pods do. It is kept until it is deleted, unless it has an expiry of its own.
    Person,
}

/// An image's object, as far as its end is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `metadata.uid`: the very object that was looked at is deleted, or none.
    pub uid: String,
    /// `metadata.resourceVersion`: as it was looked at.
    pub resource_version: String,
    /// By who means its image.
    pub made_by: MadeBy,
    /// `metadata.creationTimestamp`
    pub created: Moment,
    /// `spec.retain`
    pub retain: bool,
    /// `spec.expiry`
    pub expiry: Option<Duration>,
    /// `status.lastUsed`
    pub last_used: Option<Moment>,
    /// Whether the status still says that a Pod uses it. If none does now, its last use was since that was written, and
    /// nobody saw when.
    pub was_used: bool,
    /// The cache has nothing of it, and was told that it will not get it.
    pub is_never_had: bool,
}

/// What Pods say of the image now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Use {
    /// Whether a Pod uses it.
    pub is_used: bool,
    /// The last use that this process knows of.
    pub last_used: Option<Moment>,
    /// Whether Pods of it that have ended are still there: because of them its object would be made again.
    pub has_ended: bool,
}

/// Until when an image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// As long as a Pod uses it.
    Used,
    /// `spec.retain`
    Retained,
    /// A person wants it, and names no end.
    Deleted,
    /// Then; the status shows it.
    Expires(Moment),
}

/// What a deletion must find, or do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preconditions {
    /// `preconditions.uid`
    pub uid: String,
    /// `preconditions.resourceVersion`
    pub resource_version: String,
}

/// When the image was last used, for its status: while it is used, `now`.
pub fn last_used(object: Option<&Object>, by: Use, now: Moment) -> Option<Moment> {
    let recorded = object.and_then(|object| object.last_used);
    // Used when that was written and not any more: until when, nobody saw, so it was until now.
    let is_used = by.is_used || object.is_some_and(|object| object.was_used);
    let seen = is_used.then_some(now);
    recorded.max(by.last_used).max(seen)
}

/// Until when it is kept.
pub fn until(image: &Image, object: &Object, by: Use, rules: &Rules, now: Moment) -> Until {
    if by.is_used {
        return Until::Used;
    }
    if object.retain {
        return Until::Retained;
    }
    let expiry = match (object.expiry, object.made_by) {
        (Some(own), _) => own,
        (None, MadeBy::Controller) if object.is_never_had && !by.has_ended => rules.of(image).min(NEVER_HAD),
        (None, MadeBy::Controller) => rules.of(image),
        (None, MadeBy::Person) => return Until::Deleted,
    };
    let from = last_used(Some(object), by, now).map_or(object.created, |used| used.max(object.created));
    Until::Expires(from.after(expiry))
}

/// What to delete the object with, if it is time. The caller looks at the API server once more before it does: a Pod
/// may have come that nobody has told of yet.
pub fn due(image: &Image, object: &Object, by: Use, rules: &Rules, now: Moment) -> Option<Preconditions> {
    match until(image, object, by, rules, now) {
        Until::Expires(at) if at <= now => {
            let Object { uid, resource_version, .. } = object;
            Some(Preconditions { uid: uid.clone(), resource_version: resource_version.clone() })
        }
        Until::Expires(_) | Until::Used | Until::Retained | Until::Deleted => None,
    }
}

/// Whether an image without an object should get one: a Pod uses it, or did so recently enough that its object would
/// not be deleted again at once (Pods of a Job that have ended stay for long).
pub fn wants_object(image: &Image, by: Use, rules: &Rules, now: Moment) -> bool {
    by.is_used || by.last_used.is_some_and(|used| used.after(rules.of(image)) > now)
}

#[cfg(test)]
mod tests;
