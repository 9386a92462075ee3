//! Whether a registry can be reached, from what pulls and checks saw of it.
//!
//! Down after a few failures in a row, which takes seconds where there is traffic; up after a few answers in a row, and
//! the more often it changed lately, the longer it must have answered. Any answer is one: 404 and 401 are a registry's
//! own words, and 429 says that it is limited, not that it is gone.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// Failures in a row after which it is down.
pub const FAILURES: u32 = 3;

/// Answers in a row after which it is up.
pub const ANSWERS: u32 = 2;

/// For how long changes are remembered.
pub const MEMORY: Duration = Duration::from_mins(10);

/// How late a report may be.
const LATE: Duration = Duration::from_mins(1);

/// For how long it must have answered, for each time that it went down within [`MEMORY`] but the first.
const STEP: Duration = Duration::from_secs(30);

/// What one request met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, whatever it was, but 429 and 5xx.
    Answered,
    /// 429
    Limited,
    /// 5xx, no answer in time, no connection; in words for a person.
    Failed(String),
}

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reachable {
    /// Nobody asked it yet.
    #[default]
    Unknown,
    /// It answers, since then.
    Since(Moment),
    /// It does not, since then.
    Not(Moment),
}

/// One registry's.
#[derive(Debug, Clone, Default)]
pub struct Health {
    reachable: Reachable,
    failures: u32,
    answers: u32,
    /// When the present row of failures, or of answers, began.
    row: Option<Moment>,
    latest: Option<Moment>,
    went_down: VecDeque<Moment>,
    last_error: Option<(Moment, String)>,
    limited_at: Option<Moment>,
}

impl Health {
    /// Learns of an outcome. Whether [`Self::reachable`] changed by it.
    pub fn learn(&mut self, outcome: Outcome, at: Moment) -> bool {
        // Several caches report, each when it comes to it: what is older than what is known says nothing new. Much older
        // is a clock that was set back.
        if self.latest.is_some_and(|latest| at < latest && latest.since(at) <= LATE) {
            return false;
        }
        self.latest = Some(at);
        match outcome {
            Outcome::Failed(error) => {
                self.last_error = Some((at, error));
                if self.failures == 0 {
                    self.row = Some(at);
                }
                self.failures = self.failures.saturating_add(1);
                self.answers = 0;
                self.fell(at)
            }
            Outcome::Answered | Outcome::Limited => {
                if outcome == Outcome::Limited {
                    self.limited_at = Some(at);
                }
                if self.answers == 0 {
                    self.row = Some(at);
                }
                self.answers = self.answers.saturating_add(1);
                self.failures = 0;
                self.rose(at)
            }
        }
    }

    /// Whether it can be reached, and since when.
    pub fn reachable(&self) -> Reachable {
        self.reachable
    }

    /// The last failure.
    pub fn last_error(&self) -> Option<(Moment, &str)> {
        self.last_error.as_ref().map(|(at, error)| (*at, error.as_str()))
    }

    /// The last time that it said that it was asked too much.
    pub fn limited_at(&self) -> Option<Moment> {
        self.limited_at
    }

    fn fell(&mut self, at: Moment) -> bool {
        if self.failures < FAILURES || matches!(self.reachable, Reachable::Not(_)) {
            return false;
        }
        self.reachable = Reachable::Not(self.row.unwrap_or(at));
        self.went_down.push_back(at);
        true
    }

    fn rose(&mut self, at: Moment) -> bool {
        let began = self.row.unwrap_or(at);
        match self.reachable {
            Reachable::Since(_) => false,
            Reachable::Unknown => {
                self.reachable = Reachable::Since(began);
                true
            }
            Reachable::Not(_) => {
                while self.went_down.front().is_some_and(|down| down.after(MEMORY) < at) {
                    self.went_down.pop_front();
                }
                let times = u32::try_from(self.went_down.len()).unwrap_or(u32::MAX).saturating_sub(1);
                let long_enough = STEP.saturating_mul(times).min(MEMORY / 2);
                if self.answers < ANSWERS || at.since(began) < long_enough {
                    return false;
                }
                self.reachable = Reachable::Since(began);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
