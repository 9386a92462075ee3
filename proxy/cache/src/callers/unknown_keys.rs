//! Turns for tokens that name a key which nobody here knows.
//!
//! It may be a new one: then the API server accepts the first of them, the keys are read again within a second, and all others need no
//! turn. Or somebody made it up: such tokens cost nothing to make, and must not cost the API server a review each. So there are few turns.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Turns at once, when there was none for a while.
pub(super) const TOGETHER: u32 = 16;

/// Between two of them, in the long run.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// The turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// When all that were taken are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Turns {
    /// Whether there is one.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid.map_or(now, |paid| paid.max(now));
        let is_free = from.duration_since(now) <= EVERY * (TOGETHER - 1);
        if is_free {
            *paid = Some(from + EVERY);
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_some_at_once_and_then_one_in_a_while() {
        let turns = Turns::default();
        let taken = || (0..1000).filter(|_| turns.take()).count();
        assert_eq!(taken(), TOGETHER as usize);
        tokio::time::advance(EVERY).await;
        assert_eq!(taken(), 1);
        tokio::time::advance(EVERY * 1000).await;
        assert_eq!(taken(), TOGETHER as usize, "they are not saved up");
    }
}
