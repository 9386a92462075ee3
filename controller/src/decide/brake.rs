//! An empty or suddenly small list removes nothing without a person's word.
//!
//! A new etcd, a deleted definition, a filter gone wrong, a clock set far ahead: all of them look like "nobody needs
//! these any more". What would go in one pass is compared with the most that there was within the last hour, so that
//! several small steps do not pass for one small one. What was too much at once stays held, however many more there are later. The word is the name of the very set that was shown, by this brake and
//! since it was last released: another set wants another word, and so does the same set another time.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use larder_oci::{Algorithm, Digest};

use super::{Image, Moment};

/// For how long the most that there was is remembered.
pub const WINDOW: Duration = Duration::from_hours(1);

/// This many may always go, or somebody with five images could delete none by hand.
pub const ALWAYS: usize = 3;

/// Why what is to go would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its object was seen to be deleted: somebody's wish, or our own expiry, verified.
    Deleted,
    /// It is in no list any more, and nobody saw why.
    Missing,
}

/// What a pass sees.
#[derive(Debug, Clone)]
pub struct Pass<'a> {
    /// How many there are in the cache before it.
    pub before: usize,
    /// What would go.
    pub to_go: &'a [(Image, Cause)],
    /// Whether the definition of the objects exists and a full list of them was read and understood. If not, nothing goes:
    /// not even with a word.
    pub is_listed: bool,
    /// The word that a person gave, if any.
    pub word: Option<&'a str>,
}

/// Whether it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Yes.
    Go,
    /// No.
    Hold(Hold),
}

/// What is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of how many, the most within [`WINDOW`].
    pub of: usize,
    /// How many would go.
    pub to_go: usize,
    /// The word that lets exactly them go. None: no word does.
    pub word: Option<String>,
}

/// How many there were, and when.
#[derive(Debug, Clone, Default)]
pub struct Brake {
    /// Times ascend, sizes descend: the first is the most within the window.
    sizes: VecDeque<(Moment, usize)>,
    /// This brake's own, so that nobody's word of another day is taken for one of today.
    seed: String,
    /// How often it was released.
    released: u64,
    /// There are still, and do not count any more.
    forgiven: BTreeSet<Image>,
    /// What would have gone at once, and too much of it. However many others there are later, it is let go by a word, or it is wanted again.
    held: BTreeSet<Image>,
    /// Somebody before this one held something: whatever would go at first is taken for that.
    inherits: bool,
}

impl Brake {
    /// One with words of its own, by a seed that no other process has.
    pub fn new(seed: impl Into<String>) -> Self {
        Self { seed: seed.into(), ..Self::default() }
    }

    /// The one of a process before this one held something, which this one has not seen.
    pub fn inherit(&mut self) {
        self.inherits = true;
    }

    /// Whether something is held until a word is said for it, however many others there are.
    pub fn holds(&self) -> bool {
        self.inherits || !self.held.is_empty()
    }

    /// The word for a set of images, in any order.
    pub fn word<'a>(&self, images: impl IntoIterator<Item = &'a Image>) -> String {
        let mut names: Vec<&str> = images.into_iter().map(Image::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let said = format!("{}/{}\n{}", self.seed, self.released, names.join("\n"));
        let digest = Digest::of(Algorithm::Sha256, said.as_bytes());
        digest.hex().get(..16).unwrap_or_default().to_owned()
    }

    /// Whether what this pass would remove may go.
    pub fn rule(&mut self, pass: &Pass<'_>, now: Moment) -> Ruling {
        if !pass.is_listed {
            let hold = Hold { of: pass.before, to_go: pass.to_go.len(), word: None };
            return if pass.to_go.is_empty() { Ruling::Go } else { Ruling::Hold(hold) };
        }
        let most = self.most(now).max(pass.before);
        let left = pass.before.saturating_sub(pass.to_go.len());
        let is_emptied = left == 0 && pass.to_go.iter().any(|(_, cause)| *cause == Cause::Missing);
        let gone = most.saturating_sub(left);
        let is_many = |gone: usize| gone > ALWAYS && gone.saturating_mul(4) > most;
        let is_sudden = is_many(gone);
        if !self.held.is_empty() {
            let to_go: BTreeSet<&Image> = pass.to_go.iter().map(|(image, _)| image).collect();
            self.held.retain(|image| to_go.contains(image));
        }
        // What only adds up with others within the hour may go when the hour is over.
        if std::mem::take(&mut self.inherits) || is_emptied || is_many(pass.to_go.len()) {
            self.held.extend(pass.to_go.iter().map(|(image, _)| image.clone()));
        }
        if pass.to_go.is_empty() || !(is_emptied || is_sudden || !self.held.is_empty()) {
            self.remember(pass.before, now);
            return Ruling::Go;
        }
        let word = self.word(pass.to_go.iter().map(|(image, _)| image));
        if pass.word == Some(word.as_str()) {
            self.released += 1;
            self.held.clear();
            // From here on what is left is what there is.
            self.sizes = VecDeque::from([(now, left)]);
            return Ruling::Go;
        }
        self.remember(pass.before, now);
        Ruling::Hold(Hold { of: most, to_go: pass.to_go.len(), word: Some(word) })
    }

    /// These were let go before ([`super::expiring`], or a word while the cache was away), and are not gone yet: they count neither as what there was nor as
    /// what goes.
    pub fn forgive(&mut self, images: BTreeSet<Image>) {
        let news = images.difference(&self.forgiven).count();
        for (_, size) in &mut self.sizes {
            *size = size.saturating_sub(news);
        }
        self.forgiven = images;
    }

    /// How often a word was taken.
    pub fn releases(&self) -> u64 {
        self.released
    }

    fn most(&mut self, now: Moment) -> usize {
        // A clock that was set back leaves times in the future: what was then was just now.
        for (at, _) in &mut self.sizes {
            *at = (*at).min(now);
        }
        while self.sizes.front().is_some_and(|(at, _)| at.after(WINDOW) < now) {
            self.sizes.pop_front();
        }
        self.sizes.iter().map(|(_, size)| *size).max().unwrap_or_default()
    }

    fn remember(&mut self, size: usize, now: Moment) {
        while self.sizes.back().is_some_and(|(_, before)| *before <= size) {
            self.sizes.pop_back();
        }
        self.sizes.push_back((now, size));
    }
}

impl Hold {
    /// For a condition or an event: what happened, and what to do. `how` is what is typed before the word.
    pub fn message(&self, how: &str) -> String {
        let Self { of, to_go, word } = self;
        match word {
            Some(word) => format!(
                "{to_go} of {of} would go at once: nothing is removed until somebody says that this is meant ({how}{word}); \
                 if it is not, look at the filters, the Pods and the CachedImages"
            ),
            None => format!(
                "{to_go} of {of} would go, but not all CachedImages could be listed and read: nothing is removed; see whether their \
                 definition is there and of this release (kubectl get crd cachedimages.larder.dev)"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
