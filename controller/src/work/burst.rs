//! Many objects that go at once are waited for to the end, before anything is made of it: a definition that is deleted takes its objects one by one, for as long
//! as a pass or several, and only when the last is gone the API server says that there is no such kind.

use std::time::Duration;

use tokio::time::Instant;

use crate::decide::brake::ALWAYS;

/// Nothing more has gone for so long.
const QUIET: Duration = Duration::from_secs(5);

/// Nobody waits longer, however many go one after the other.
const LONGEST: Duration = Duration::from_mins(2);

/// How many went, and when.
#[derive(Debug, Default)]
pub(super) struct Burst {
    count: usize,
    began: Option<Instant>,
    grew: Option<Instant>,
}

impl Burst {
    /// Whether what went may be acted on, of which there are `count` now that nobody has acted on yet.
    pub(super) fn is_over(&mut self, count: usize, now: Instant) -> bool {
        if count > self.count {
            self.began.get_or_insert(now);
            self.grew = Some(now);
        }
        self.count = count;
        if count == 0 {
            *self = Self::default();
        }
        let within = |at: Option<Instant>, time| at.is_some_and(|at| now.saturating_duration_since(at) < time);
        let goes_on = count > ALWAYS && within(self.grew, QUIET) && within(self.began, LONGEST);
        !goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_acted_on_at_once_and_many_when_no_more_go() {
        let (mut burst, start) = (Burst::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(burst.is_over(0, start) && burst.is_over(3, start));
        assert!(!burst.is_over(40, after(1)) && !burst.is_over(90, after(2)));
        assert!(!burst.is_over(90, after(6)));
        assert!(burst.is_over(90, after(7)));
        // They were acted on, and others go.
        assert!(burst.is_over(0, after(8)));
        assert!(!burst.is_over(10, after(9)));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut burst, start) = (Burst::default(), Instant::now());
        let waited = (0..200).find(|second| {
            let count = 10 + usize::try_from(*second).unwrap();
            burst.is_over(count, start + Duration::from_secs(*second))
        });
        assert_eq!(waited, Some(120));
    }
}
