//! When a NodeMirror is written: soon after something that matters changed, and seldom all the same. Pure, but for the jitter, which comes in as a value.
//!
//! Bounds: four writes at once, then one every seven and a half minutes: twelve in any hour, whatever flaps. An attempt counts, so errors are bounded too. Beside
//! that one at a stop, whose time is not ours to choose.

use larder_api::{NodeMirrorStatus, Time};
use std::time::Duration;
use tokio::time::Instant;

/// Attempts at once.
const AT_ONCE: u32 = 4;
/// Until another one may be made.
const ANOTHER: Duration = Duration::from_secs(450);

/// What changed may change again in this time, and is said once.
const SETTLE: Duration = Duration::from_secs(2);
/// And so much more, another part of it on each node: 500 that start together are spread over it.
const SPREAD: Duration = Duration::from_secs(10);
/// Where only sentences changed.
const SENTENCES: Duration = Duration::from_mins(10);
/// However little changed: a row that is older than this and a sixth of it (each node has another part of that), and some minutes for a write that failed, is of an agent
/// that is no more. Times alone, as those of proofs, are no reason of their own.
const ANYHOW: Duration = Duration::from_hours(1);
/// The most that a node's part of it is.
const ANYHOW_SPREAD: Duration = Duration::from_mins(10);

/// After an error, twice as long each time.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_LATEST: Duration = Duration::from_mins(5);

/// How much a status differs from the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    Sentences,
    Facts,
}

impl Difference {
    fn between(one: &NodeMirrorStatus, other: &NodeMirrorStatus) -> Option<Self> {
        let (mut one, mut other) = (one.clone(), other.clone());
        without_times(&mut one);
        without_times(&mut other);
        if one == other {
            return None;
        }
        without_sentences(&mut one);
        without_sentences(&mut other);
        Some(if one == other { Self::Sentences } else { Self::Facts })
    }

    /// How long it may wait.
    fn patience(self) -> Duration {
        match self {
            Self::Sentences => SENTENCES,
            Self::Facts => SETTLE,
        }
    }
}

fn without_times(status: &mut NodeMirrorStatus) {
    (status.seen_at, status.proved_at) = (None, None);
    for placed in &mut status.placed {
        placed.proved_at = None;
    }
    let never: Time = larder_api::at(std::time::SystemTime::UNIX_EPOCH);
    for condition in &mut status.conditions {
        condition.last_transition_time = never.clone();
    }
}

fn without_sentences(status: &mut NodeMirrorStatus) {
    for placed in &mut status.placed {
        // That it was not seen is a fact.
        placed.not_seen = placed.not_seen.as_ref().map(|_| String::new());
    }
    for left in &mut status.left_alone {
        left.reason.clear();
    }
    if let Some(proxy) = &mut status.proxy {
        proxy.detail = proxy.detail.as_ref().map(|_| String::new());
    }
    // One more is a fact.
    status.to_do.iter_mut().for_each(String::clear);
    for condition in &mut status.conditions {
        condition.message.clear();
    }
}

/// What decides it.
#[derive(Debug)]
pub(super) struct Often {
    /// What is there, and since when; nothing is known of it before the first write.
    written: Option<(NodeMirrorStatus, Instant)>,
    /// Since when it differs, and how much.
    differs: Option<(Difference, Instant)>,
    /// Attempts that may be made at once, in time: one for every [`ANOTHER`] since then.
    full_at: Instant,
    not_before: Instant,
    failures: u32,
}

impl Often {
    pub(super) fn new(now: Instant) -> Self {
        Self { written: None, differs: None, full_at: now, not_before: now, failures: 0 }
    }

    /// What is there by the last word of the API server.
    pub(super) fn written(&self) -> Option<&NodeMirrorStatus> {
        self.written.as_ref().map(|(written, _)| written)
    }

    /// Whether `wanted` is to be written now. `part` is this node's part of a whole, from 0 to 1.
    pub(super) fn is_due(&mut self, wanted: &NodeMirrorStatus, now: Instant, part: f64) -> bool {
        let part = part.clamp(0.0, 1.0);
        let differs = match &self.written {
            None => Some(Difference::Facts),
            Some((written, _)) => Difference::between(written, wanted),
        };
        let is_over = differs.is_some_and(|difference| {
            let since = match self.differs {
                // It began as less, and is more now.
                Some((before, since)) if before >= difference => since,
                _ => now,
            };
            self.differs = Some((difference, since));
            let spread = SPREAD.max(difference.patience() / 6).mul_f64(part);
            now.saturating_duration_since(since) >= difference.patience() + spread
        });
        if differs.is_none() {
            self.differs = None;
        }
        (is_over || self.is_old(now, part)) && now >= self.not_before && self.may_try(now)
    }

    /// Nobody would believe it much longer. It goes by the last write alone: what comes and goes meanwhile puts nothing off.
    fn is_old(&self, now: Instant, part: f64) -> bool {
        let at = self.written.as_ref().map(|(_, at)| *at);
        at.is_some_and(|at| now.saturating_duration_since(at) >= ANYHOW + ANYHOW_SPREAD.mul_f64(part))
    }

    fn may_try(&self, now: Instant) -> bool {
        self.full_at.saturating_duration_since(now) <= ANOTHER * (AT_ONCE - 1)
    }

    /// An attempt is made.
    pub(super) fn tries(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + ANOTHER;
    }

    /// It was written.
    pub(super) fn wrote(&mut self, status: NodeMirrorStatus, now: Instant) {
        (self.written, self.differs, self.failures) = (Some((status, now)), None, 0);
    }

    /// It was not.
    pub(super) fn failed(&mut self, now: Instant, part: f64) {
        let wait = RETRY.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(RETRY_LATEST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + wait.mul_f64(0.5 + part.clamp(0.0, 1.0) / 2.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_api::condition;
    use larder_api::node_mirror::{Configured, Placed, Withdrawn};
    use std::time::SystemTime;

    fn status(configured: Configured, message: &str, proved: u64) -> NodeMirrorStatus {
        let at = larder_api::at(SystemTime::UNIX_EPOCH + Duration::from_secs(proved));
        let mut status = NodeMirrorStatus { proved_at: Some(at.clone()), ..NodeMirrorStatus::default() };
        condition::set(&mut status.conditions, configured, message, None, &at);
        status
    }

    /// Everything that is written within `time` when what is wanted changes as `wanted` says, looked at once a second.
    fn writes(time: Duration, wanted: impl Fn(u64) -> NodeMirrorStatus, answers: bool) -> Vec<u64> {
        let begun = Instant::now();
        let mut often = Often::new(begun);
        let mut writes = Vec::new();
        for second in 0..time.as_secs() {
            let (now, wanted) = (begun + Duration::from_secs(second), wanted(second));
            if often.is_due(&wanted, now, 0.5) {
                often.tries(now);
                writes.push(second);
                if answers { often.wrote(wanted, now) } else { often.failed(now, 0.5) }
            }
        }
        writes
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn what_matters_is_said_soon_and_once() {
        let wanted = |second| {
            let reason = if second < 100 { Configured::NotProved } else { Configured::Proved };
            status(reason, "", 0)
        };
        assert_eq!(writes(HOUR, wanted, true), [7, 107]);
    }

    #[tokio::test]
    async fn what_is_over_before_it_is_said_is_not() {
        let wanted = |second| {
            let reason = if (100..104).contains(&second) { Configured::Withdrawn } else { Configured::Proved };
            status(reason, "", 0)
        };
        assert_eq!(writes(HOUR, wanted, true), [7]);
    }

    #[tokio::test]
    async fn sentences_wait_and_times_wait_longer() {
        let sentences = |second: u64| status(Configured::NoEngine, &format!("in {second} s"), 0);
        let all = writes(HOUR, sentences, true);
        assert!((4..=6).contains(&all.len()), "{all:?}");
        let times = |second: u64| status(Configured::Proved, "", second / 1800);
        let all = writes(Duration::from_hours(24), times, true);
        assert!((22..=24).contains(&all.len()), "{all:?}");
    }

    /// What the documentation calls stale is so: a living agent wrote within 70 minutes, and has 20 more for a write that fails.
    #[tokio::test]
    async fn whoever_lives_says_so_whatever_else_changes_or_does_not() {
        let still = |_| status(Configured::Proved, "", 0);
        // Gone again each time before it would be said.
        let twitches = |second: u64| {
            let reason = if second % 300 < 1 { Configured::Withdrawn } else { Configured::Proved };
            status(reason, "", 0)
        };
        let mumbles = |second: u64| status(Configured::Proved, if second % 500 < 250 { "a" } else { "b" }, 0);
        for wanted in [&still as &dyn Fn(u64) -> NodeMirrorStatus, &twitches, &mumbles] {
            let day = Duration::from_hours(24);
            let all = writes(day, wanted, true);
            let ends = all.iter().skip(1).copied().chain([day.as_secs()]);
            let longest = all.iter().zip(ends).map(|(from, to)| to - from).max();
            assert!(longest.is_some_and(|longest| longest <= 70 * 60), "{longest:?} of {all:?}");
            assert!(all.len() <= 25, "{all:?}");
        }
    }

    #[tokio::test]
    async fn whatever_flaps_there_are_twelve_in_any_hour() {
        let flaps = |second: u64| {
            let reason = if (second / 30).is_multiple_of(2) { Configured::Withdrawn } else { Configured::Proved };
            status(reason, "", 0)
        };
        for answers in [true, false] {
            let all = writes(HOUR * 5, flaps, answers);
            let most = all.iter().map(|from| all.iter().filter(|at| (*from..from + 3600).contains(at)).count()).max();
            assert!(most.is_some_and(|most| most <= 12), "{answers}: {most:?} of {all:?}");
            assert!(all.len() > 40, "and no fewer than may be: {}", all.len());
        }
    }

    #[test]
    fn what_differs() {
        let base = status(Configured::Proved, "a", 1);
        let mut moved = base.clone();
        moved.placed.push(Placed {
            registry: None,
            kind: "default-link".to_owned(),
            path: "/x".to_owned(),
            ..Placed::default()
        });
        let mut withdrawn = base.clone();
        condition::set(
            &mut withdrawn.conditions,
            Withdrawn::ProxyDead,
            "",
            None,
            &larder_api::at(SystemTime::UNIX_EPOCH),
        );
        let seen = NodeMirrorStatus { seen_at: base.proved_at.clone(), ..base.clone() };
        let mut to_do = base.clone();
        to_do.to_do.push("a".to_owned());
        let mut more_to_do = to_do.clone();
        more_to_do.to_do.push("b".to_owned());
        let mut other_to_do = base.clone();
        other_to_do.to_do.push("b".to_owned());
        for (one, other, expected) in [
            (&base, &base, None),
            (&base, &status(Configured::Proved, "a", 2), None),
            (&base, &seen, None),
            (&base, &status(Configured::Proved, "b", 1), Some(Difference::Sentences)),
            (&base, &status(Configured::ProvedButSome, "a", 1), Some(Difference::Facts)),
            (&base, &moved, Some(Difference::Facts)),
            (&base, &withdrawn, Some(Difference::Facts)),
            (&base, &to_do, Some(Difference::Facts)),
            (&to_do, &other_to_do, Some(Difference::Sentences)),
            (&to_do, &more_to_do, Some(Difference::Facts)),
        ] {
            assert_eq!(Difference::between(one, other), expected);
        }
    }
}
