//! When something that failed is tried again.

use std::time::Duration;

use super::spread::fraction;

/// How long one waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; it doubles with each.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Default for Backoff {
    /// The cache itself tries again after two seconds and then up to every five minutes: this is for what it refused.
    fn default() -> Self {
        Self { first: Duration::from_secs(5), longest: Duration::from_mins(10) }
    }
}

impl Backoff {
    /// How long to wait after this many failures in a row: between three quarters and five quarters of the step, by
    /// `seed`, the name and the number, so that images that failed together are not tried together.
    pub fn delay(&self, failures: u32, seed: &str, name: &str) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let step = self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest);
        let jitter = 0.75 + fraction(&format!("{seed}/{failures}"), name) / 2.0;
        step.mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_longest_and_names_differ() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, "s", "a"), Duration::ZERO);
        for (failures, step) in [(1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (9, 600), (u32::MAX, 600)] {
            let step = Duration::from_secs(step);
            for name in ["a", "b", "c"] {
                let delay = backoff.delay(failures, "s", name);
                assert!((step.mul_f64(0.75)..=step.mul_f64(1.25)).contains(&delay), "{failures}: {delay:?}");
                assert_eq!(delay, backoff.delay(failures, "s", name));
            }
            assert_ne!(backoff.delay(failures, "s", "a"), backoff.delay(failures, "s", "b"));
            assert_ne!(backoff.delay(failures, "s", "a"), backoff.delay(failures, "t", "a"));
        }
    }
}
