//! What a registry says about how often it wants to be asked. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use tokio::time::Instant;

/// How long a registry is left in peace that answered 429 and did not say for how long.
const USUAL: Duration = Duration::from_secs(10);

/// However long it asks for: some send a point in time instead of a number of seconds, and then wait for years.
const LONGEST: Duration = Duration::from_mins(5);

/// Never shorter, or a herd would be back at once.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest window of a quota, and until it is whole again, that is believed: no registry counts by more than months.
const LONGEST_WINDOW: Duration = Duration::from_hours(31 * 24);

/// From this number on a reset is a point in time, in seconds since 1970 (which it has been since 2001), and not a number of seconds (thirty years).
const POINTS_IN_TIME: u64 = 1_000_000_000;

/// The pull quota as Docker Hub and others tell it: `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Pulls in one window.
    pub limit: Option<u64>,
    /// Pulls that are left in this one.
    pub remaining: Option<u64>,
    /// Its length.
    pub window: Option<Duration>,
    /// Until all of it is there again, where that is said.
    pub reset: Option<Duration>,
}

/// Nobody is held back for longer for the sake of a quota: who waits for a pull would else ask the registry himself.
const HELD_BACK: Duration = Duration::from_secs(2);

/// When what counts against a quota may be asked next: at once while more than a quarter of it is left, then no faster than it
/// comes back. Never refuses: only the registry knows whether it would, and its 429 is heeded when it comes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    apart: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// An answer said this.
    pub(super) fn heard(&mut self, quota: RateLimit) {
        self.apart = match quota {
            RateLimit { limit: Some(limit @ 1..), remaining: Some(remaining), window: Some(window), reset: _ }
                if remaining < limit.div_ceil(4) =>
            {
                window / u32::try_from(limit).unwrap_or(u32::MAX)
            }
            _ => Duration::ZERO,
        };
    }

    /// When one more may be asked, which is then taken for asked.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now).min(now + HELD_BACK));
        self.next = Some(at + self.apart);
        at
    }
}

/// The quota in an answer, if there is one. `now` is ours; an answer's own `Date` is by the clock that its points in time are by.
pub(super) fn rate_limit(headers: &HeaderMap, now: SystemTime) -> Option<RateLimit> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let header = |name| text(name).and_then(quota);
    let (limit, remaining) = (header("ratelimit-limit"), header("ratelimit-remaining"));
    limit.or(remaining)?;
    let window = [limit, remaining].into_iter().flatten().find_map(|(_, window)| window);
    let now = text("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    let reset = text("ratelimit-reset").or_else(|| text("x-ratelimit-reset")).and_then(|value| reset(value, now));
    Some(RateLimit { limit: limit.map(|it| it.0), remaining: remaining.map(|it| it.0), window, reset })
}

/// Until a quota is whole again. The drafts of the IETF count seconds from now on, GitLab, GitHub and others since 1970. What is over, and what no quota
/// takes, says nothing.
fn reset(value: &str, now: SystemTime) -> Option<Duration> {
    let number: u64 = value.split([';', ',']).next()?.trim().parse().ok()?;
    let left = if number < POINTS_IN_TIME {
        Duration::from_secs(number)
    } else {
        UNIX_EPOCH.checked_add(Duration::from_secs(number))?.duration_since(now).ok()?
    };
    is_believed(left).then_some(left)
}

fn is_believed(time: Duration) -> bool {
    !time.is_zero() && time <= LONGEST_WINDOW
}

/// `100;w=21600`, or `100, 100;w=60` as the draft for these headers had it.
fn quota(value: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = value.split([';', ',']).map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok()).map(Duration::from_secs);
    Some((count, window.filter(|window| is_believed(*window))))
}

/// For how long to leave a registry in peace after a 429 (RFC 9110 §10.2.3), within our own bounds.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let value = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = value.and_then(|value| match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    });
    asked.unwrap_or(USUAL).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn how_long_to_wait() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let table = [
            ("30", 30),
            (" 7 ", 7),
            ("0", 1),
            ("1782900000", 300),
            ("Sun, 06 Nov 1994 08:50:07 GMT", 30),
            ("Sun, 06 Nov 1994 08:00:00 GMT", 1),
            ("soon", 10),
            ("-3", 10),
        ];
        for (value, seconds) in table {
            let wait = retry_after(&headers(&[("retry-after", value)]), now);
            assert_eq!(wait, Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), USUAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_that_runs_low_is_spread() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let after = |pace: &mut Pace| pace.next(start).duration_since(start).as_millis();
        let said = |remaining| RateLimit {
            limit: Some(100),
            remaining: Some(remaining),
            window: Some(Duration::from_mins(1)),
            reset: None,
        };
        pace.heard(said(25));
        assert_eq!([after(&mut pace), after(&mut pace)], [0, 0]);
        pace.heard(said(24));
        assert_eq!([0; 6].map(|_| after(&mut pace)), [0, 600, 1200, 1800, 2000, 2000]);
        // Time that nobody used is not saved up, and what was held back is no debt.
        let later = start + Duration::from_mins(1);
        assert_eq!([pace.next(later), pace.next(later)], [later, later + Duration::from_millis(600)]);
        pace.heard(said(80));
        let much_later = start + Duration::from_mins(2);
        assert_eq!([pace.next(much_later), pace.next(much_later)], [much_later; 2]);
        // Docker Hub's: 216 s for one, and nobody waits for that.
        pace.heard(RateLimit { window: Some(Duration::from_hours(6)), ..said(0) });
        assert_eq!(pace.next(much_later), much_later);
        assert_eq!(pace.next(much_later), much_later + HELD_BACK);
        // Without a window nothing can be spread.
        pace.heard(RateLimit { window: None, ..said(0) });
        assert_eq!(pace.apart, Duration::ZERO);
    }

    #[test]
    fn quotas() {
        let rate_limit = |headers: &HeaderMap| rate_limit(headers, UNIX_EPOCH);
        let hub = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
        let window = Some(Duration::from_hours(6));
        assert_eq!(rate_limit(&hub), Some(RateLimit { limit: Some(100), remaining: Some(76), window, reset: None }));
        let bare = headers(&[("ratelimit-remaining", "5")]);
        assert_eq!(rate_limit(&bare), Some(RateLimit { limit: None, remaining: Some(5), window: None, reset: None }));
        let only_there = headers(&[("ratelimit-limit", "100"), ("ratelimit-remaining", "76;w=21600")]);
        assert_eq!(rate_limit(&only_there).unwrap().window, window);
        for odd in ["100;w=0", "100;w=99999999999999", "100;w=-1", "100;w=18446744073709551616"] {
            assert_eq!(rate_limit(&headers(&[("ratelimit-limit", odd)])).unwrap().window, None, "{odd}");
        }
        assert_eq!(rate_limit(&headers(&[("ratelimit-limit", "many")])), None);
        assert_eq!(rate_limit(&headers(&[("ratelimit-reset", "60")])), None, "of nothing");
        assert_eq!(rate_limit(&HeaderMap::new()), None);
    }

    #[test]
    fn when_a_quota_is_whole_again() {
        // Our clock is a day behind theirs.
        let date = "Thu, 30 Jan 2020 14:14:16 GMT";
        let theirs = httpdate::parse_http_date(date).unwrap();
        let ours = theirs - Duration::from_hours(24);
        let said = |pairs: &[(&'static str, &str)]| {
            let all = [&[("ratelimit-limit", "600"), ("ratelimit-remaining", "595")], pairs].concat();
            rate_limit(&headers(&all), ours).unwrap().reset.map(|left| left.as_secs())
        };
        // GitLab, as it answered in that second.
        assert_eq!(said(&[("ratelimit-reset", "1580393717"), ("date", date)]), Some(61));
        assert_eq!(said(&[("x-ratelimit-reset", "1580393717"), ("date", date)]), Some(61));
        assert_eq!(said(&[("ratelimit-reset", "1580393717")]), Some(24 * 3600 + 61), "without a date our clock counts");
        for (value, seconds) in [
            ("50", Some(50)),
            (" 50 ", Some(50)),
            ("50;w=60", Some(50)),
            ("2678400", Some(2_678_400)),
            ("2678401", None),
            ("0", None),
            ("-5", None),
            ("soon", None),
            ("1580393656", None),
            ("1583072057", None),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("", None),
        ] {
            assert_eq!(said(&[("ratelimit-reset", value), ("date", date)]), seconds, "{value:?}");
        }
        let both = [("x-ratelimit-reset", "7"), ("ratelimit-reset", "5")];
        assert_eq!(said(&both), Some(5));
        assert_eq!(said(&[("retry-after", "30")]), None, "when to ask again is another question");
    }
}
