//! A point in time that a decision is told. The clock is the shell's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970. Arithmetic stops at both ends, so that no time of somebody's making panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The last one.
    pub const END: Self = Self(u64::MAX);

    /// From milliseconds since 1970.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds since 1970, as Kubernetes' times have them; what is before 1970 is 1970.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        i64::try_from(self.0 / 1000).unwrap_or(i64::MAX)
    }

    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long ago `earlier` was; nothing when it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_beyond_the_ends() {
        assert_eq!(Moment::END.after(Duration::MAX), Moment::END);
        assert_eq!(Moment::from_seconds(-5), Moment::default());
        assert_eq!(Moment::from_seconds(i64::MAX), Moment::END);
        assert_eq!(Moment::from_seconds(3).before(Duration::from_secs(9)), Moment::default());
        assert_eq!(Moment::from_seconds(3).since(Moment::from_seconds(9)), Duration::ZERO);
        assert_eq!(Moment::from_seconds(9).since(Moment::from_seconds(3)), Duration::from_secs(6));
    }

    #[test]
    fn a_clock_before_1970_is_1970() {
        assert_eq!(Moment::from(UNIX_EPOCH - Duration::from_secs(1)), Moment::default());
        assert_eq!(Moment::from(UNIX_EPOCH + Duration::from_millis(1500)).seconds(), 1);
    }
}
