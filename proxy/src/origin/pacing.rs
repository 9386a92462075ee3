//! What a registry says about how often it wants to be asked. Pure.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

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
