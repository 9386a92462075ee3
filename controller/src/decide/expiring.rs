//! What expires goes through a brake of its own, before any object is gone.
//!
//! A clock that is far ahead, an `--expiry` of minutes where days were meant, a list of Pods that is empty: all of them make everything expire at once, and an
//! object that was deleted comes back with nothing that was known of it. So the images whose last object would go in one look are measured as the
//! [`brake`](super::brake) measures pins. What was let go is not asked about again, neither here nor when its pins go.

use std::collections::BTreeSet;

use super::brake::{Brake, Cause, Hold, Pass, Ruling};
use super::{Image, Moment};

/// What may go, and what was let go.
#[derive(Debug, Clone, Default)]
pub struct Expiring {
    brake: Brake,
    /// The set that the word is for that people were told.
    shown: BTreeSet<Image>,
    /// May go, and has not yet.
    let_go: BTreeSet<Image>,
}

impl Expiring {
    /// One with words of its own, by a seed that no other process has.
    pub fn new(seed: &str) -> Self {
        Self { brake: Brake::new(format!("{seed}/expiry")), ..Self::default() }
    }

    /// One after another process, which held something back.
    pub fn inherit(&mut self) {
        self.brake.inherit();
    }

    /// Whether something is held back until a word is said for it.
    pub fn holds(&self) -> bool {
        self.brake.holds()
    }

    /// Whether somebody was told of a set, or let one go that has not gone: then all that is due has to be looked at, whichever of it is looked at first.
    pub fn is_under_way(&self) -> bool {
        self.holds() || !self.shown.is_empty() || !self.let_go.is_empty()
    }

    /// Which of `due` may go, and what of them is held back. `there` counts all images that have an object.
    pub fn rule(
        &mut self,
        there: usize,
        due: &BTreeSet<Image>,
        word: Option<&str>,
        now: Moment,
    ) -> (&BTreeSet<Image>, Option<Hold>) {
        self.let_go.retain(|image| due.contains(image));
        let mut to_go: BTreeSet<&Image> = due.difference(&self.let_go).collect();
        // More may have become due since the word was told: it still lets go what it was told of, and the rest wants another.
        let is_said = word.is_some() && word == Some(self.brake.word(&self.shown).as_str());
        if is_said {
            to_go.retain(|image| self.shown.contains(*image));
        }
        let word = is_said.then(|| self.brake.word(to_go.iter().copied()));
        let list: Vec<(Image, Cause)> = to_go.into_iter().map(|image| (image.clone(), Cause::Deleted)).collect();
        let before = there.saturating_sub(self.let_go.len());
        let pass = Pass { before, to_go: &list, is_listed: true, word: word.as_deref() };
        match self.brake.rule(&pass, now) {
            Ruling::Go => {
                self.shown.clear();
                self.let_go.extend(list.into_iter().map(|(image, _)| image));
                (&self.let_go, None)
            }
            Ruling::Hold(hold) => {
                self.shown = list.into_iter().map(|(image, _)| image).collect();
                (&self.let_go, Some(hold))
            }
        }
    }
}

/// For a condition: what happened, and what to do. `how` is what is typed before the word.
pub fn message(hold: &Hold, how: &str) -> String {
    let Hold { of, to_go, word } = hold;
    let word = word.as_deref().unwrap_or_default();
    format!(
        "{to_go} of {of} images would expire at once: none of their CachedImages is deleted until somebody says that this is meant \
         ({how}{word}); if it is not, look at the clocks, at --expiry and at the Pods"
    )
}

#[cfg(test)]
mod tests;
