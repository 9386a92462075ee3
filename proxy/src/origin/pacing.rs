//! What a registry says about how often it wants to be asked. Pure.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use tokio::time::Instant;

/// How long a registry is left in peace that answered 429 and did not say for how long.
const USUAL: Duration = Duration::from_secs(10);

/// However long it asks for: some send a point in time instead of a number of seconds, and then wait for years.
const LONGEST: Duration = Duration::from_mins(5);

/// Never shorter, or a herd would be back at once.
const SHORTEST: Duration = Duration::from_secs(1);

/// The pull quota as Docker Hub and others tell it: `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Pulls in one window.
    pub limit: Option<u64>,
    /// Pulls that are left in this one.
    pub remaining: Option<u64>,
    /// Its length.
    pub window: Option<Duration>,
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
            RateLimit { limit: Some(limit @ 1..), remaining: Some(remaining), window: Some(window) }
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

/// The quota in an answer, if there is one.
pub(super) fn rate_limit(headers: &HeaderMap) -> Option<RateLimit> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).and_then(quota);
    let (limit, remaining) = (header("ratelimit-limit"), header("ratelimit-remaining"));
    let window = limit.or(remaining)?.1;
    Some(RateLimit { limit: limit.map(|it| it.0), remaining: remaining.map(|it| it.0), window })
}

/// `100;w=21600`, or `100, 100;w=60` as the draft for these headers had it.
fn quota(value: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = value.split([';', ',']).map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok()).map(Duration::from_secs);
    Some((count, window))
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
        pace.heard(RateLimit { limit: Some(100), remaining: Some(0), window: Some(Duration::from_hours(6)) });
        assert_eq!(pace.next(much_later), much_later);
        assert_eq!(pace.next(much_later), much_later + HELD_BACK);
        // Without a window nothing can be spread.
        pace.heard(RateLimit { limit: Some(100), remaining: Some(0), window: None });
        assert_eq!(pace.apart, Duration::ZERO);
    }

    #[test]
    fn quotas() {
        let hub = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
        let window = Some(Duration::from_hours(6));
        assert_eq!(rate_limit(&hub), Some(RateLimit { limit: Some(100), remaining: Some(76), window }));
        let bare = headers(&[("ratelimit-remaining", "5")]);
        assert_eq!(rate_limit(&bare), Some(RateLimit { limit: None, remaining: Some(5), window: None }));
        assert_eq!(rate_limit(&headers(&[("ratelimit-limit", "many")])), None);
        assert_eq!(rate_limit(&HeaderMap::new()), None);
    }
}
