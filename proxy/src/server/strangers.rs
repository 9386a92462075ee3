//! Connections of a service on which nobody has been let in yet, in the order in which they came.
//!
//! Anybody who reaches the port may open connections and say little on them. They count among the bounded number of those that are
//! served, so when it is reached the oldest of them gives way to the one that comes: whoever has a token says so within milliseconds. A
//! connection on which somebody was let in stays. Those that wait for the place of one that gives way are among them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

const WAITING: u8 = 0;
const LET_IN: u8 = 1;
const AWAY: u8 = 2;

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Stranger {
    state: AtomicU8,
    away: CancellationToken,
}

impl Stranger {
    /// He has shown a token, or needs none.
    pub(crate) fn let_in(&self) {
        self.turn_into(LET_IN);
    }

    /// Ends when he has to go.
    pub(crate) async fn sent_away(&self) {
        self.away.cancelled().await;
    }

    /// Whether he was a stranger until now.
    fn turn_into(&self, state: u8) -> bool {
        self.state.compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    in_order: VecDeque<Weak<Stranger>>,
    /// From how many on those that are none any more are taken out.
    tidied_at: usize,
}

impl Strangers {
    /// One more.
    pub(crate) fn add(&self) -> Arc<Stranger> {
        let stranger = Arc::new(Stranger::default());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.in_order.len() >= known.tidied_at {
            known.in_order.retain(|stranger| stranger.upgrade().is_some_and(|stranger| stranger.is_waiting()));
            known.tidied_at = 2 * known.in_order.len() + 64;
        }
        known.in_order.push_back(Arc::downgrade(&stranger));
        stranger
    }

    /// The oldest has to go; false if there is none.
    pub(crate) fn send_one_away(&self) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(oldest) = known.in_order.pop_front() {
            if let Some(stranger) = oldest.upgrade()
                && stranger.turn_into(AWAY)
            {
                stranger.away.cancel();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_nobody_who_was_let_in() {
        let strangers = Strangers::default();
        assert!(!strangers.send_one_away());
        let (gone, guest, old, new) = (strangers.add(), strangers.add(), strangers.add(), strangers.add());
        drop(gone);
        guest.let_in();
        assert!(strangers.send_one_away() && old.away.is_cancelled());
        // Too late: he is on his way out.
        old.let_in();
        assert!(!old.is_waiting() && !new.away.is_cancelled() && !guest.away.is_cancelled());
        assert!(strangers.send_one_away() && new.away.is_cancelled());
        assert!(!strangers.send_one_away());
        for _ in 0..1000 {
            strangers.add().let_in();
        }
        assert!(strangers.known.lock().unwrap().in_order.len() <= 64);
    }
}
