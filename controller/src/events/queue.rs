//! Which event is written next, and which ones are not. Pure.
//!
//! Whatever happens to a thousand images at once makes no thousand events: so many wait at most, and they go at a pace that etcd does not notice. Warnings go
//! first, and good news leave room for them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Events that go at once, after a time without any.
const BURST: u32 = 50;

/// Of these, what only warnings take.
const FOR_WARNINGS: u32 = 20;

/// Afterwards, one in this time: in an hour, for which the API server keeps them, that is a few thousand.
const EVERY: Duration = Duration::from_secs(1);

/// Warnings that wait at most.
const WARNINGS: usize = 512;

/// Good news that wait at most: old ones are none.
const NEWS: usize = 64;

/// How urgent something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `Normal`
    News,
    /// `Warning`
    Warning,
}

/// What waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    warnings: VecDeque<T>,
    news: VecDeque<T>,
    /// How many may go now, counted at that time.
    allowed: u32,
    counted: Instant,
}

impl<T> Queue<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self { warnings: VecDeque::new(), news: VecDeque::new(), allowed: BURST, counted: now }
    }

    /// It waits from now on. Gives it back where too many do.
    pub(super) fn push(&mut self, kind: Kind, event: T) -> Result<(), T> {
        let (queue, most) = match kind {
            Kind::Warning => (&mut self.warnings, WARNINGS),
            Kind::News => (&mut self.news, NEWS),
        };
        if queue.len() >= most {
            return Err(event);
        }
        queue.push_back(event);
        Ok(())
    }

    /// The one that goes now.
    pub(super) fn next(&mut self, now: Instant) -> Option<T> {
        self.count(now);
        let may_go = self.least().is_some_and(|least| self.allowed >= least);
        let event = may_go.then(|| self.warnings.pop_front().or_else(|| self.news.pop_front())).flatten()?;
        self.allowed = self.allowed.saturating_sub(1);
        Some(event)
    }

    /// When the next one goes, if any waits.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let missing = self.least()?.saturating_sub(self.allowed);
        Some(self.counted + EVERY * missing)
    }

    /// How many must be allowed for the one that is first.
    fn least(&self) -> Option<u32> {
        match (self.warnings.is_empty(), self.news.is_empty()) {
            (false, _) => Some(1),
            (true, false) => Some(FOR_WARNINGS + 1),
            (true, true) => None,
        }
    }

    fn count(&mut self, now: Instant) {
        let whole = now.saturating_duration_since(self.counted).as_secs() / EVERY.as_secs().max(1);
        let more = u32::try_from(whole).unwrap_or(u32::MAX);
        self.allowed = self.allowed.saturating_add(more).min(BURST);
        self.counted = if self.allowed == BURST { now } else { self.counted + EVERY * more };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut Queue<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    #[test]
    fn what_a_person_must_hear_of_is_written_also_if_it_is_much() {
        let begin = Instant::now();
        let mut queue = Queue::new(begin);
        for number in 0..29 {
            assert_eq!(queue.push(Kind::Warning, number), Ok(()));
        }
        assert_eq!(all(&mut queue, begin), (0..29).collect::<Vec<_>>());
        assert_eq!(queue.wakes_at(), None);
    }

    #[test]
    fn a_thousand_at_once_are_no_thousand_events() {
        let begin = Instant::now();
        let mut queue = Queue::new(begin);
        let dropped = (0..800).filter(|number| queue.push(Kind::News, *number).is_err()).count();
        assert_eq!(dropped, 800 - NEWS);
        let first = all(&mut queue, begin);
        assert_eq!(first.len(), usize::try_from(BURST - FOR_WARNINGS).unwrap());
        let at = queue.wakes_at().unwrap();
        assert_eq!(at, begin + EVERY);
        assert_eq!(all(&mut queue, at - Duration::from_millis(1)), [0; 0]);
        assert_eq!(all(&mut queue, at).len(), 1, "one a second");
        // Warnings do not wait behind them, nor for them.
        assert_eq!(queue.push(Kind::Warning, 1_000), Ok(()));
        assert_eq!(queue.wakes_at(), Some(at));
        assert_eq!(all(&mut queue, at), [1_000]);
        let mut went = first.len() + 1;
        for second in 2..=120 {
            let now = begin + EVERY * second;
            let some = all(&mut queue, now);
            assert!(some.len() <= 1, "{some:?}");
            went += some.len();
        }
        assert_eq!((went, queue.wakes_at()), (NEWS, None));
    }

    #[test]
    fn there_is_an_end_to_warnings_too() {
        let begin = Instant::now();
        let mut queue = Queue::new(begin);
        let taken = (0..100_000).take_while(|number| queue.push(Kind::Warning, *number).is_ok()).count();
        assert_eq!(taken, WARNINGS);
        assert_eq!(all(&mut queue, begin).len(), usize::try_from(BURST).unwrap());
        assert_eq!(queue.wakes_at(), Some(begin + EVERY));
        assert_eq!(all(&mut queue, begin + EVERY * 10).len(), 10);
        // However long nothing happened.
        let mut queue = Queue::new(begin);
        let later = begin + Duration::from_hours(9);
        for number in 0..400 {
            queue.push(Kind::Warning, number).unwrap();
        }
        assert_eq!(all(&mut queue, later).len(), usize::try_from(BURST).unwrap());
        assert_eq!(queue.wakes_at(), Some(later + EVERY));
    }
}
