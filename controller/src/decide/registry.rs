//! What people say of registries and of parts of them: what is left alone, how often it is looked at, how long it is kept, whether tags are followed, how much at
//! a time.
//!
//! Of several prefixes the longest counts, whole; what it does not say, its registry says; what that does not say, the controller's settings do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::expiry::Rules;
use super::{Image, Moment};

/// What is said of one registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// It is left to the engines.
    pub skip: bool,
    /// How often each image is looked at.
    pub interval: Option<Duration>,
    /// How long images are kept after their last use.
    pub expiry: Option<Duration>,
    /// Whether their tags are followed.
    pub follow: Option<bool>,
    /// Images that are fetched at a time.
    pub images_at_a_time: Option<usize>,
    /// Percent of its quota that are left to pulls.
    pub keep_quota: Option<u64>,
    /// By the first segments of repositories.
    pub prefixes: BTreeMap<String, Part>,
}

/// What is said of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// It is left to the engines, or is not although the rest is.
    pub skip: Option<bool>,
    /// How often each image is looked at.
    pub interval: Option<Duration>,
    /// How long images are kept after their last use.
    pub expiry: Option<Duration>,
    /// Whether their tags are followed.
    pub follow: Option<bool>,
}

/// What is said of all of them, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registries(pub BTreeMap<Box<str>, Said>);

impl Registries {
    /// What is said of a registry.
    pub fn of(&self, registry: &str) -> Option<&Said> {
        self.0.get(registry)
    }

    /// Why an image is left to the engines, if it is.
    pub fn skipped(&self, image: &Image) -> Option<String> {
        let said = self.of(image.registry())?;
        let (prefix, part) = said.part_of(image).unzip();
        match part.and_then(|part: &Part| part.skip) {
            Some(true) => Some(format!(
                "skip is set for {} of the UpstreamRegistry of {}: it is left to the engines",
                prefix.unwrap_or_default(),
                image.registry()
            )),
            None if said.skip => {
                Some(format!("skip is set in the UpstreamRegistry of {}: it is left to the engines", image.registry()))
            }
            Some(false) | None => None,
        }
    }

    /// How often an image is looked at.
    pub fn interval(&self, image: &Image, usual: Duration) -> Duration {
        let Some(said) = self.of(image.registry()) else { return usual };
        let part = said.part_of(image).and_then(|(_, part)| part.interval);
        part.or(said.interval).unwrap_or(usual)
    }

    /// Whether an image's tag is followed, where neither its object nor its Pods say so ([`follow`]).
    pub fn follow(&self, image: &Image, usual: bool) -> bool {
        let Some(said) = self.of(image.registry()) else { return usual };
        let part = said.part_of(image).and_then(|(_, part)| part.follow);
        part.or(said.follow).unwrap_or(usual)
    }

    /// How long images are kept.
    pub fn rules(&self, usual: Duration) -> Rules {
        let mut prefixes = BTreeMap::new();
        for (registry, said) in &self.0 {
            let of_all = said.expiry.unwrap_or(usual);
            prefixes.insert(registry.to_string(), of_all);
            for (prefix, part) in &said.prefixes {
                // Whole: what it does not say is the registry's, and no shorter prefix's.
                prefixes.insert(format!("{registry}/{prefix}"), part.expiry.unwrap_or(of_all));
            }
        }
        Rules { default: usual, prefixes }
    }
}

impl Said {
    /// The longest prefix that an image of this registry lies in.
    fn part_of(&self, image: &Image) -> Option<(&str, &Part)> {
        let (_, mut rest) = image.name().split_once('/')?;
        loop {
            if let Some((prefix, part)) = self.prefixes.get_key_value(rest) {
                return Some((prefix.as_str(), part));
            }
            rest = rest.rsplit_once('/')?.0;
        }
    }
}

/// Whether the pin of an image follows its tag: what its objects say (`said`; of several that differ the one that lets nothing go), else yes for one that asks
/// its registry at every start (`is_always`), else what holds for its registry.
pub fn follow(said: impl IntoIterator<Item = Option<bool>>, is_always: bool, of_registry: bool) -> bool {
    said.into_iter().flatten().reduce(|one, other| one && other).unwrap_or(is_always || of_registry)
}

/// For how long an object that the controller made, and nobody edited, stays without an image: in one leader's life. Images have been kept for long by then.
pub const UNUSED: Duration = Duration::from_hours(24);

/// Objects, of which beyond this none is made: a Pod's author chooses what registries are named, though not what they serve.
pub const MOST: usize = 256;

/// Which of these registries get an object: of those that have none, the ones with the most images that are cached first, as long as there is room beside
/// the objects that there are and those that are being made.
pub fn to_make<'a>(
    cached: impl IntoIterator<Item = (&'a str, usize)>,
    has_object: impl Fn(&str) -> bool,
    (objects, being_made): (usize, usize),
) -> Vec<&'a str> {
    let mut without: Vec<(&str, usize)> =
        cached.into_iter().filter(|(registry, cached)| *cached > 0 && !has_object(registry)).collect();
    without.sort_by_key(|(registry, cached)| (std::cmp::Reverse(*cached), *registry));
    without.into_iter().map(|(registry, _)| registry).take(MOST.saturating_sub(objects + being_made)).collect()
}

/// A registry of which images are wanted, and whether it is asked by itself.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its name.
    pub registry: &'a str,
    /// Images of it that are cached.
    pub cached: usize,
    /// Somebody, or the controller, made an object of it.
    pub has_object: bool,
    /// When it was asked by itself last.
    pub last: Option<Moment>,
    /// When it is to be.
    pub due: Moment,
}

/// Those of them that are asked now. A name in a Pod is no reason to ask anybody again and again; whoever was asked longest ago goes first, so that where
/// there is not room for all, none is left out.
pub fn to_ask<'a>(all: impl IntoIterator<Item = Asked<'a>>, now: Moment) -> Vec<&'a str> {
    let is_asked = |asked: &Asked<'_>| (asked.cached > 0 || asked.has_object) && asked.due <= now;
    let mut due: Vec<Asked<'a>> = all.into_iter().filter(is_asked).collect();
    due.sort_by_key(|asked| asked.last);
    due.into_iter().map(|asked| asked.registry).collect()
}

#[cfg(test)]
mod tests;
