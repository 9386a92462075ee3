//! Wishes that were tried and could not be had.

use std::collections::BTreeMap;

use super::{Pin, Place, Platforms};

/// Of each place the wish that was tried. What is wished for now in its place may be another one, of which that says nothing: the name is the same, and the
/// platforms are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failed(BTreeMap<Place, Platforms>);

impl Failed {
    /// Whether this very wish was tried.
    pub fn has(&self, pin: &Pin) -> bool {
        self.0.get(&pin.name.place()).is_some_and(|tried| *tried == pin.platforms)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Place, Platforms)> for Failed {
    fn from_iter<T: IntoIterator<Item = (Place, Platforms)>>(failed: T) -> Self {
        Self(failed.into_iter().collect())
    }
}
