//! How many objects give which reason of each condition. Kept with each change of an object, so that it is known at any time, and nobody goes through all of
//! them to count.

use std::collections::BTreeMap;

use larder_api::Condition;
use larder_api::cached_image::{Cached, UpToDate, UpstreamAvailable};
use larder_api::condition::{Reason, get};

/// A condition and a reason of it.
type Said = (&'static str, &'static str);

/// Of all objects. Reasons that none gives are there as well, so that a series never ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons {
    counts: BTreeMap<Said, usize>,
    /// Whether they are others than when somebody asked last.
    is_news: bool,
}

impl Default for Reasons {
    fn default() -> Self {
        let mut counts = BTreeMap::new();
        none::<Cached>(&mut counts);
        none::<UpstreamAvailable>(&mut counts);
        none::<UpToDate>(&mut counts);
        Self { counts, is_news: true }
    }
}

impl Reasons {
    /// An object says this from now on.
    pub fn add(&mut self, conditions: &[Condition]) {
        for said in said(conditions) {
            *self.counts.entry(said).or_default() += 1;
        }
        self.is_news = true;
    }

    /// An object says this no more.
    pub fn remove(&mut self, conditions: &[Condition]) {
        for said in said(conditions) {
            if let Some(count) = self.counts.get_mut(&said) {
                *count = count.saturating_sub(1);
            }
        }
        self.is_news = true;
    }

    /// How many there are of each.
    pub fn all(&self) -> impl Iterator<Item = (Said, usize)> {
        self.counts.iter().map(|(said, count)| (*said, *count))
    }

    /// Whoever begins to lead has told nobody yet.
    pub fn tell_anew(&mut self) {
        self.is_news = true;
    }

    /// Whether they changed since this was last asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }
}

fn none<R: Reason>(counts: &mut BTreeMap<Said, usize>) {
    counts.extend(R::ALL.iter().map(|reason| ((R::CONDITION, reason.as_str()), 0)));
}

fn said(conditions: &[Condition]) -> impl Iterator<Item = Said> {
    fn one<R: Reason>(conditions: &[Condition]) -> Option<Said> {
        Some((R::CONDITION, get::<R>(conditions)?.as_str()))
    }
    [one::<Cached>(conditions), one::<UpstreamAvailable>(conditions), one::<UpToDate>(conditions)].into_iter().flatten()
}
