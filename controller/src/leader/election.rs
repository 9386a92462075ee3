//! Who leads, decided. Pure: observations and times go in, what to do next comes out.
//!
//! **Never two at once** rests on three rules, each of which needs only that both clocks run about equally fast, not that they show the same time:
//!
//! 1. A lease is somebody else's until it was seen unchanged for its whole length, on our own clock, from the moment that we saw it change.
//!    What its `renewTime` says is for people.
//! 2. Whoever leads does so for `renew` after the *beginning* of its last write that succeeded. The lease of that write runs for `lease`, later than that,
//!    at whoever else looks: the difference is what work has to stop in, and what clocks may drift apart.
//! 3. Every write names the version that it replaces, so of two that take a lease one fails.
//!
//! 4. Where there is none, somebody may have deleted that of a leader, who works on until he cannot renew it. So whoever makes one holds it for its whole
//!    length before it leads. Who does not want the first controller of all to wait so long makes a lease that is nobody's, as the chart does.

use std::time::{Duration, Instant};

/// How long things take, as client-go has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a lease is somebody's that is not renewed.
    pub lease: Duration,
    /// How long after its last renewal its holder works on.
    pub renew: Duration,
    /// Between two looks or renewals.
    pub retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// The longest that somebody else's lease is believed to run: a lease of a year would be one for ever.
const LONGEST: Duration = Duration::from_mins(2);

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `resourceVersion`: another one is another state.
    pub version: String,
    /// Whose it is; empty: nobody's, it was handed over.
    pub holder: String,
    /// How long it runs.
    pub lease: Duration,
    /// How often it went from one to another.
    pub transitions: i32,
}

/// What to do, once it is time to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look at the lease, and say what was [seen](Election::saw).
    Look,
    /// Write that it is still ours.
    Renew(Claim),
}

/// A write that makes it ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which state it replaces; `None`: there is none.
    pub replaces: Option<Record>,
    /// It is ours, beyond doubt.
    pub renews: bool,
    /// It is held for its whole length before it is used (rule 4).
    pub waits: bool,
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Election {
    identity: String,
    times: Times,
    /// What was seen last, and since when it is so.
    seen: Option<(Record, Instant)>,
    /// There is none.
    gone: bool,
    /// What was seen is not what there is any more.
    is_old: bool,
    /// We may have made one, and were never told so.
    is_unsure: bool,
    /// Until when we hold it.
    until: Option<Instant>,
    /// Since when that means that we lead.
    from: Instant,
    next: Instant,
}

impl Election {
    /// Has seen nothing yet. `identity` is no other candidate's, nor that of an earlier life of this one.
    pub fn new(identity: String, times: Times, now: Instant) -> Self {
        Self {
            identity,
            times,
            seen: None,
            gone: false,
            is_old: false,
            is_unsure: false,
            until: None,
            from: now,
            next: now,
        }
    }

    /// When there is something to do again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// What that is.
    pub fn step(&self, now: Instant) -> Step {
        match self.to_release() {
            Some(record) if self.holds(now) => {
                Step::Renew(Claim { replaces: Some(record.clone()), renews: true, waits: false })
            }
            _ => Step::Look,
        }
    }

    /// The lease was read; `now` is after that. What to write at once, if anything.
    pub fn saw(&mut self, record: Option<Record>, now: Instant) -> Option<Claim> {
        self.next = now + self.times.retry;
        self.is_old = false;
        let Some(record) = record else {
            self.gone = true;
            let renews = self.holds(now);
            self.is_unsure = true;
            return Some(Claim { replaces: None, renews, waits: !renews });
        };
        self.gone = false;
        if record.holder != self.identity {
            self.until = None;
        }
        let since = match &self.seen {
            Some((known, since)) if *known == record => *since,
            _ => now,
        };
        let is_ours = record.holder == self.identity;
        let runs_for = record.lease.clamp(self.times.lease, LONGEST.max(self.times.lease));
        let is_free = record.holder.is_empty() || is_ours || now >= since + runs_for;
        let renews = is_ours && self.holds(now);
        let waits = is_ours && !renews && self.is_unsure;
        let claim = is_free.then(|| Claim { replaces: Some(record.clone()), renews, waits });
        self.seen = Some((record, since));
        claim
    }

    /// Our write succeeded, which began at `began`. `now` is after that.
    pub fn wrote(&mut self, claim: &Claim, record: Record, began: Instant, now: Instant) {
        (self.gone, self.is_old) = (false, false);
        // It may have been on its way for longer than we held what it renews.
        let renews = claim.renews && self.holds(now);
        let waits = claim.waits || (claim.renews && !renews && claim.replaces.is_none());
        if !renews {
            let was_ours = claim.replaces.as_ref().is_some_and(|replaced| replaced.holder == self.identity);
            self.from = match (waits, was_ours) {
                (true, _) => now + self.times.lease,
                // It may still be waited for.
                (false, true) => self.from.max(now),
                (false, false) => now,
            };
        }
        self.is_unsure = false;
        self.seen = Some((record, now));
        self.until = Some(began + self.times.renew);
        self.next = began + self.times.retry;
    }

    /// Somebody else was faster, or nobody knows what became of our write: a look says what is.
    pub fn must_look(&mut self, now: Instant) {
        self.next = now;
        self.is_old = true;
    }

    /// It could not be read.
    pub fn failed(&mut self, now: Instant) {
        self.next = now + self.times.retry;
    }

    /// Until when we lead, if we do.
    pub fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|_| self.holds(now) && now >= self.from)
    }

    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Who leads, as far as is known.
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().filter(|_| !self.gone).map(|(record, _)| record.holder.as_str())
    }

    /// Whether it is ours as it was seen last, whatever became of a write since.
    pub fn may_be_ours(&self) -> bool {
        self.holder() == Some(self.identity.as_str())
    }

    /// The state that a graceful end gives back, if it is ours.
    pub fn to_release(&self) -> Option<&Record> {
        let (record, _) = self.seen.as_ref().filter(|_| !self.gone)?;
        (record.holder == self.identity && !self.is_old).then_some(record)
    }
}

#[cfg(test)]
mod tests;
