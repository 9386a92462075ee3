//! How a registry is doing, from what the replicas of the cluster cache report of it.
//!
//! A replica says how many answers and failures there were, and how many of them in a row; what is new since its last report is told to the registry's
//! [`Health`] in the order in which it happened, whichever replica saw it. So a registry is down when no replica gets an answer from it, and not when one of
//! several Pods has a bad network.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Moment;
use super::health::{ANSWERS, FAILURES, Health, Outcome, Reachable};

/// Errors that are remembered.
pub const ERRORS: usize = 5;

/// Replicas that are known at a time: they come and go.
const REPLICAS: usize = 64;

/// What one replica has seen of one registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Answers, whatever they were but 5xx.
    pub answered: Row,
    /// Failures.
    pub failed: Row,
    /// The last failure.
    pub failure: Option<Failure>,
    /// The median of the last questions.
    pub latency: Option<Duration>,
    /// What it said of its quota.
    pub quota: Option<Quota>,
    /// Until when it is left in peace.
    pub peace: Option<Moment>,
}

/// Events of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Row {
    /// How many there were.
    pub times: u64,
    /// How many since the last one of the other kind.
    pub in_a_row: u64,
    /// When the first of these was, and the last.
    pub since_and_at: Option<(Moment, Moment)>,
}

/// Why a registry was of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it was asked.
    pub endpoint: String,
    /// How it fails.
    pub why: Why,
    /// In words.
    pub error: String,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Why {
    /// Nobody answers, or not in time.
    #[default]
    Unreachable,
    /// Its certificate is not trusted.
    Untrusted,
    /// It answers with errors.
    Failing,
}

/// What a registry says of its quota of pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// In a window.
    pub limit: Option<u64>,
    /// Still.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// When all of it is there again, where it says that.
    pub reset: Option<Moment>,
    /// When it said so.
    pub at: Moment,
}

impl Quota {
    /// When all of it is there again, at the latest, as far as the registry says anything of it.
    pub fn resets_at(&self) -> Option<Moment> {
        let window = self.window.map(|window| self.at.after(window));
        // A reset that lies behind the window is of another unit, or of another quota.
        self.reset.into_iter().chain(window).min()
    }
}

/// One of the last errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// When it last happened.
    pub at: Moment,
    /// What.
    pub failure: Failure,
    /// How often in a row.
    pub count: u64,
}

/// One registry's.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    health: Health,
    /// What each replica had counted: answers, failures.
    counted: BTreeMap<String, (u64, u64)>,
    heard: Option<Moment>,
    fails: bool,
    why: Why,
    /// The newest of all replicas.
    pub latency: Option<Duration>,
    /// The newest of all replicas.
    pub quota: Option<Quota>,
    /// Until when it wants to be left in peace.
    pub peace: Option<Moment>,
    /// Newest first.
    pub errors: VecDeque<Remembered>,
}

impl Standing {
    /// Learns what replicas report. Whether [`Self::reachable`] changed by it.
    pub fn learn(&mut self, reports: impl IntoIterator<Item = (String, Report)>, now: Moment) -> bool {
        let mut events: Vec<(Moment, bool, Option<Failure>)> = Vec::new();
        if self.counted.len() > REPLICAS {
            // What is told again is of before, and says nothing new.
            self.counted.clear();
        }
        for (replica, report) in reports {
            let Report { answered, failed, failure, latency, quota, peace } = report;
            let before = self.counted.insert(replica, (answered.times, failed.times)).unwrap_or_default();
            // Fewer than before: it began anew.
            let new = |before: u64, times: u64| if times < before { times } else { times - before };
            let (answers, failures) = (new(before.0, answered.times), new(before.1, failed.times));
            events.extend(moments(answered, answers, ANSWERS).map(|at| (at, true, None)));
            events.extend(moments(failed, failures, FAILURES).map(|at| (at, false, failure.clone())));
            if failures > 0
                && let (Some((_, at)), Some(failure)) = (failed.since_and_at, failure)
            {
                self.remember(failure, at, failures);
            }
            if answers > 0 {
                self.latency = latency.or(self.latency);
            }
            if quota.is_some_and(|quota| self.quota.is_none_or(|known| known.at <= quota.at)) {
                self.quota = quota;
            }
            self.peace = self.peace.max(peace).filter(|until| *until > now);
        }
        events.sort_by_key(|(at, _, _)| *at);
        let mut changed = false;
        for (at, is_answer, failure) in events {
            // What comes late says nothing new, unless it is the clock that was set back.
            if self.heard.is_some_and(|heard| at < heard && heard <= now) {
                continue;
            }
            self.heard = Some(at);
            self.fails = !is_answer;
            if let Some(failure) = &failure {
                self.why = failure.why;
            }
            let words = failure.map(|failure| failure.error).unwrap_or_default();
            changed |= self.health.learn(if is_answer { Outcome::Answered } else { Outcome::Failed(words) }, at);
        }
        changed
    }

    /// Whether it can be reached, and since when.
    pub fn reachable(&self) -> Reachable {
        self.health.reachable()
    }

    /// How it failed last.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The last thing that was heard of it was a failure: it is worth asking whether that is all.
    pub fn is_in_doubt(&self) -> bool {
        self.fails
    }

    /// When anything was heard of it.
    pub fn heard(&self) -> Option<Moment> {
        self.heard
    }

    fn remember(&mut self, failure: Failure, at: Moment, times: u64) {
        if let Some(last) = self.errors.front_mut().filter(|last| last.failure == failure) {
            last.count = last.count.saturating_add(times);
            last.at = last.at.max(at);
        } else {
            self.errors.push_front(Remembered { at, failure, count: times });
            self.errors.truncate(ERRORS);
        }
    }
}

/// When so many new ones of a row happened, as far as anybody wants to know: of `most` in a row the first and the last times are known.
fn moments(row: Row, new: u64, most: u32) -> impl Iterator<Item = Moment> {
    let of_row = if row.in_a_row == 0 { 1 } else { row.in_a_row };
    let count = if new == 0 { 0 } else { new.min(of_row).min(u64::from(most)) };
    let is_whole_row = new >= row.in_a_row;
    row.since_and_at.into_iter().flat_map(move |(since, at)| {
        let first = (count > 1 && is_whole_row).then_some(since);
        let rest = usize::try_from(count).unwrap_or_default().saturating_sub(usize::from(first.is_some()));
        first.into_iter().chain(std::iter::repeat_n(at, rest))
    })
}

/// How often a registry is asked of which nothing was heard: an outage in a quiet cluster.
pub const PULSE: Duration = Duration::from_mins(1);

/// Without a word of a registry for so long nobody knows how it is: neither pulls nor this controller ask it.
pub const SILENT: Duration = Duration::from_mins(5);

/// How often one is asked that has just failed.
pub const DOUBT: Duration = Duration::from_secs(2);

/// How often one is asked that is down.
pub const DOWN: Duration = Duration::from_secs(10);

/// When a registry is asked, although no image's time has come.
pub fn ask_at(standing: Option<&Standing>, asked: Option<Moment>, now: Moment) -> Moment {
    let Some(standing) = standing else { return asked.map_or(now, |asked| asked.after(PULSE)) };
    let heard = standing.heard.max(asked);
    let at = match standing.reachable() {
        Reachable::Not(_) => asked.or(standing.heard).map(|at| at.after(if standing.fails { DOWN } else { DOUBT })),
        _ if standing.is_in_doubt() => asked.map(|at| at.after(DOUBT)),
        _ => heard.map(|at| at.after(PULSE)),
    };
    // A clock that was set back.
    let at = at.unwrap_or(now).min(now.after(PULSE));
    standing.peace.map_or(at, |peace| at.max(peace.min(now.after(PULSE * 10))))
}

#[cfg(test)]
mod tests;
