//! Who writes which pin: one at a time of a name, and nobody waits for what a store does after a pin is written.
//!
//! Putting a pin on a bucket takes as long as the upload of what it reaches. Whoever changes his wish meanwhile does not wait for that: a
//! newer wish replaces an older one whichever ends first ([`Pins::put`](crate::pins::Pins::put)), and that a pin was deleted is noted
//! here, so that what was under way deletes it once more at its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::timeout;

use crate::pins::Place;

/// How long who deletes a pin waits for what is under way, which is over in less but where a bucket is slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// All names that somebody is at.
#[derive(Debug, Default)]
pub(super) struct Writings {
    names: Mutex<HashMap<Place, Arc<Name>>>,
}

#[derive(Debug, Default)]
struct Name {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Puts under way outside of a turn.
    puts: AtomicUsize,
    ended: Notify,
    /// It was deleted while they were.
    deleted: AtomicBool,
}

/// One's turn at a name.
pub(super) struct Turn {
    at: At,
    _turn: OwnedMutexGuard<()>,
}

/// A put under way outside of a turn.
pub(super) struct UnderWay(At);

/// Somebody who is at a name.
struct At {
    writings: Arc<Writings>,
    place: Place,
    name: Arc<Name>,
}

impl Writings {
    fn names(&self) -> MutexGuard<'_, HashMap<Place, Arc<Name>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(self: &Arc<Self>, place: &Place) -> At {
        let name = Arc::clone(self.names().entry(place.clone()).or_default());
        At { writings: Arc::clone(self), place: place.clone(), name }
    }

    /// Waits for one's turn. What is done in it is short.
    pub(super) async fn turn(self: &Arc<Self>, place: &Place) -> Turn {
        let at = self.at(place);
        let turn = Arc::clone(&at.name.turn).lock_owned().await;
        Turn { at, _turn: turn }
    }

    /// Waits until nothing of a name is under way, but not for long.
    pub(super) async fn settled(self: &Arc<Self>, place: &Place) {
        let at = self.at(place);
        let settled = async {
            loop {
                let ended = at.name.ended.notified();
                if at.name.puts.load(Ordering::Acquire) == 0 {
                    return;
                }
                ended.await;
            }
        };
        let _ = timeout(PATIENCE, settled).await;
    }
}

impl Turn {
    /// A put begins that goes on when this turn is over.
    pub(super) fn begin(self) -> UnderWay {
        self.at.name.puts.fetch_add(1, Ordering::AcqRel);
        let At { writings, place, name } = &self.at;
        UnderWay(At { writings: Arc::clone(writings), place: place.clone(), name: Arc::clone(name) })
    }

    /// The pin was deleted: what is under way is to know.
    pub(super) fn deleted(&self) {
        if self.at.name.puts.load(Ordering::Acquire) > 0 {
            self.at.name.deleted.store(true, Ordering::Release);
        }
    }

    /// There is a new wish.
    pub(super) fn wished(&self) {
        self.at.name.deleted.store(false, Ordering::Release);
    }

    /// Whether it was deleted, and not wished for since.
    pub(super) fn is_deleted(&self) -> bool {
        self.at.name.deleted.load(Ordering::Acquire)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.name.puts.fetch_sub(1, Ordering::AcqRel);
        self.0.name.ended.notify_waiters();
    }
}

impl Drop for At {
    fn drop(&mut self) {
        let mut names = self.writings.names();
        // The map's own and this one: nobody else is at it.
        if Arc::strong_count(&self.name) <= 2 {
            names.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::{Holder, PinName};

    fn place(image: &str) -> Place {
        PinName { holder: Holder::parse("me").unwrap(), image: larder_oci::ImageReference::parse(image).unwrap() }
            .place()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_has_one_turn_at_a_time_and_nothing_is_left_of_it() {
        let writings = Arc::new(Writings::default());
        let turn = writings.turn(&place("a")).await;
        let other = writings.turn(&place("b")).await;
        assert!(timeout(Duration::from_secs(1), writings.turn(&place("a"))).await.is_err());
        let under_way = turn.begin();
        let turn = writings.turn(&place("a")).await;
        writings.settled(&place("a")).await;
        turn.deleted();
        assert!(turn.is_deleted());
        turn.wished();
        assert!(!turn.is_deleted());
        drop(under_way);
        turn.deleted();
        assert!(!turn.is_deleted(), "nothing is under way");
        drop((turn, other));
        assert!(writings.names().is_empty());
    }
}
