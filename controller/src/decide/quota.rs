//! What is said of a registry's images while what is left of its quota is kept for pulls (`pacing.keepQuotaPercent`), and none of them is fetched.
//!
//! A registry says something else of its quota with each answer. What is said of its images does not follow, since a word is a write for each of them: a time
//! that was said stays until it is over or an earlier one is known, and a registry that lets one go now and then is held back all the while.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::Moment;

/// For how long nothing must have been held back before that is said.
const SETTLED: Duration = Duration::from_mins(5);

/// Times are said in whole ones of these.
const MINUTE: u64 = 60_000;

/// What is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptQuota {
    /// So many percent of the quota.
    pub percent: u64,
    /// When all of the quota is there again, if nobody takes of it.
    pub until: Moment,
}

impl KeptQuota {
    /// To a person, who can do something about it.
    pub fn words(self, registry: &str) -> String {
        let Self { percent, until } = self;
        let until = Timestamp::from_second(until.seconds()).unwrap_or_default();
        format!(
            "{percent} % of the quota of {registry} are kept for the pulls of nodes, and no more is left of it: it is fetched when there is more, by {until} if nobody \
             pulls until then. To have it before that, lower pacing.keepQuotaPercent in the UpstreamRegistry of {registry}"
        )
    }
}

/// What is said of one registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuotaHold {
    said: Option<KeptQuota>,
    /// When it was held back last.
    last: Moment,
}

impl QuotaHold {
    /// Takes in whether it is held back now; returns whether that is news (a new time is none).
    pub fn learn(&mut self, kept: Option<KeptQuota>, now: Moment) -> bool {
        let before = self.said(now);
        match kept {
            Some(KeptQuota { percent, until }) => {
                let until = Moment::from_millis(until.millis().div_ceil(MINUTE).saturating_mul(MINUTE));
                let until = before.map_or(until, |before| before.until.min(until));
                self.said = Some(KeptQuota { percent, until });
                self.last = now;
            }
            // Also where the clock was set back.
            None if now.since(self.last) >= SETTLED || now < self.last => self.said = None,
            None => {}
        }
        before.is_some() != self.said(now).is_some()
    }

    /// What is said, if anything is.
    pub fn said(&self, now: Moment) -> Option<KeptQuota> {
        self.said.filter(|kept| kept.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        // A whole minute.
        Moment::from_seconds(1_790_000_040 + seconds)
    }

    fn kept(until: i64) -> KeptQuota {
        KeptQuota { percent: 50, until: at(until) }
    }

    #[test]
    fn what_is_said_stays_while_the_quota_wiggles() {
        let mut hold = QuotaHold::default();
        assert!(!hold.learn(None, at(0)) && hold.said(at(0)).is_none());
        assert!(hold.learn(Some(kept(3_590)), at(1)));
        assert_eq!(hold.said(at(1)), Some(kept(3_600)));
        // A window that slides, one more pull that comes back, the next one that takes it.
        for second in 2..200 {
            let now = if second % 3 == 0 { None } else { Some(kept(3_590 + second)) };
            assert!(!hold.learn(now, at(second)));
            assert_eq!(hold.said(at(second)), Some(kept(3_600)), "{second}");
        }
        assert!(!hold.learn(Some(kept(1_790)), at(201)));
        assert_eq!(hold.said(at(201)), Some(kept(1_800)), "what is earlier is better");
        assert!(!hold.learn(None, at(500)), "not long enough");
        assert!(hold.learn(None, at(501)), "nothing was held back for so long");
        assert_eq!(hold.said(at(501)), None);
    }

    #[test]
    fn a_time_that_is_over_is_said_no_more_and_another_one_is() {
        let mut hold = QuotaHold::default();
        hold.learn(Some(kept(60)), at(0));
        assert_eq!(hold.said(at(60)), None);
        assert!(hold.learn(Some(kept(120)), at(61)));
        assert_eq!(hold.said(at(61)), Some(kept(120)));
        // A clock that was ahead.
        assert!(hold.learn(None, at(-9_000)));
    }

    #[test]
    fn no_time_is_beyond_what_can_be_said() {
        let mut hold = QuotaHold::default();
        hold.learn(Some(KeptQuota { percent: 1, until: Moment::END }), at(0));
        assert!(hold.said(at(0)).unwrap().words("ghcr.io").contains("keepQuotaPercent"));
    }
}
