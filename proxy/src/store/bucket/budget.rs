//! How many requests may be asked again. A bucket that has trouble is not helped by twice the requests.
//!
//! Each answer earns a tenth of a retry, up to [`MOST`]; so in the long run at most a tenth of the requests are repeated, whoever asks.

use std::sync::atomic::{AtomicU32, Ordering};

/// In tenths of a retry.
const MOST: u32 = 200;
const RETRY: u32 = 10;

pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(MOST))
    }

    pub(super) fn earn(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left < MOST).then_some(left + 1));
    }

    /// Whether one more may be asked again.
    pub(super) fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(RETRY)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_only_fails_is_soon_asked_once_only() {
        let budget = RetryBudget::new();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 20);
        for _ in 0..35 {
            budget.earn();
        }
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 3);
    }
}
