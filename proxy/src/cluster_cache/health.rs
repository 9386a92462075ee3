//! Whether one replica may be asked now, and what a sign of life says of it. Pure: time comes in as a value.

use std::time::Duration;

use tokio::time::Instant;

use crate::origin::breaker::{Breaker, Failure};

/// Questions in a row that a living replica leaves unanswered before it is left alone.
const UNANSWERED: u32 = 3;

/// For how long it is then.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// What a replica says when it is asked whether it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// An answer.
    Answered {
        /// It is about to stop.
        draining: bool,
        /// It accepts our token.
        knows_us: bool,
    },
    /// No answer to the question, but somebody spoke: a cache that is full says so before there is any TLS.
    Busy,
    /// Silence, or a connection that is refused, reset, or closed without a word, as a balancer does that has nobody behind it.
    None,
}

impl Sign {
    pub(super) fn lives(self) -> bool {
        self != Self::None
    }
}

/// One replica's state.
#[derive(Debug, Default)]
pub(super) struct Health {
    breaker: Breaker,
    /// How it failed last, in words for a person.
    reason: Option<String>,
    is_draining: bool,
    rejects_us: bool,
    unanswered: u32,
    left_alone_until: Option<Instant>,
}

impl Health {
    /// Whether it may be asked.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        let left_alone = self.left_alone_until.is_some_and(|until| until > now);
        !self.breaker.is_open() && !self.is_draining && !self.rejects_us && !left_alone
    }

    /// Why it is not asked, where it did not answer.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.breaker.is_open())
    }

    /// Whether it does not know our token.
    pub(super) fn rejects_us(&self) -> bool {
        self.rejects_us
    }

    /// A question was answered. True if that it is about to stop is news.
    pub(super) fn answered(&mut self, draining: bool, now: Instant) -> bool {
        self.breaker.succeeded(now);
        self.unanswered = 0;
        !std::mem::replace(&mut self.is_draining, draining) && draining
    }

    /// It does not know our token. True if that is news.
    pub(super) fn rejected(&mut self) -> bool {
        !std::mem::replace(&mut self.rejects_us, true)
    }

    /// There is another token: what it said of the one before says nothing any more.
    pub(super) fn may_know_us(&mut self) {
        self.rejects_us = false;
    }

    /// A question that began at `began` failed. True if the replica is given up for it.
    pub(super) fn failed(&mut self, failure: Failure, reason: String, began: Instant, now: Instant) -> bool {
        self.reason = Some(reason);
        let was_open = self.breaker.is_open();
        self.breaker.failed(failure, began, now);
        !was_open && self.breaker.is_open()
    }

    /// It lives, and left a question unanswered for which it had time enough. True if it is left alone for it.
    pub(super) fn left_unanswered(&mut self, now: Instant) -> bool {
        self.unanswered += 1;
        if self.unanswered < UNANSWERED {
            return false;
        }
        self.unanswered = 0;
        self.left_alone_until = Some(now + LEFT_ALONE);
        true
    }

    /// It was asked for a sign of life.
    pub(super) fn learn(&mut self, sign: Sign, now: Instant) {
        match sign {
            Sign::Answered { draining, knows_us } => {
                self.breaker.succeeded(now);
                (self.is_draining, self.rejects_us) = (draining, !knows_us);
            }
            Sign::Busy => self.breaker.succeeded(now),
            Sign::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Sign = Sign::Answered { draining: false, knows_us: true };

    #[tokio::test(start_paused = true)]
    async fn each_reason_to_leave_it_ends_with_its_cause() {
        let now = Instant::now();
        let (draining, stranger) =
            (Sign::Answered { draining: true, knows_us: true }, Sign::Answered { draining: false, knows_us: false });
        let silent: fn(&mut Health, Instant) = |health, now| {
            assert!(health.failed(Failure::Silent, "silent".to_owned(), now, now));
            assert_eq!(health.reason(), Some("silent"));
        };
        let stopping: fn(&mut Health, Instant) = |health, now| {
            assert!(health.answered(true, now) && !health.answered(true, now));
        };
        let rejecting: fn(&mut Health, Instant) = |health, _| {
            assert!(health.rejected() && !health.rejected());
        };
        for (cause, not_yet, until) in [
            (silent, vec![Sign::None], Sign::Busy),
            (silent, vec![Sign::None, draining], WELL),
            (stopping, vec![draining, Sign::None, Sign::Busy], WELL),
            (rejecting, vec![stranger, Sign::None, Sign::Busy], WELL),
        ] {
            let mut health = Health::default();
            assert!(health.is_available(now));
            cause(&mut health, now);
            for sign in not_yet {
                health.learn(sign, now);
                assert!(!health.is_available(now), "{sign:?}");
            }
            health.learn(until, now);
            assert!(health.is_available(now), "{until:?}");
        }
        let mut health = Health::default();
        health.rejected();
        health.may_know_us();
        assert!(health.is_available(now));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_lives_and_answers_nothing_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(!health.left_unanswered(now) && !health.left_unanswered(now));
        health.answered(false, now);
        assert!(!health.left_unanswered(now) && !health.left_unanswered(now) && health.left_unanswered(now));
        health.learn(WELL, now);
        assert!(!health.is_available(now) && health.is_available(now + LEFT_ALONE));
    }
}
