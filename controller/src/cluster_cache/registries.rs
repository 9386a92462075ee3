//! What the replicas of the cluster cache have seen of registries (`GET /v1/registries`): each is asked, for each has seen something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use larder_oci::Registry;
use serde::Deserialize;
use serde_json::Value;

use super::ClusterCache;
use super::answer::{shown, strange};
use super::error::CacheError;
use super::transport::Question;
use crate::decide::Moment;
use crate::decide::standing::{Failure, Quota, Report, Row, Why};

/// More than a replica remembers.
const MOST: usize = 1024;

/// The longest window of a quota: longer than a cache believes it.
const LONGEST: Duration = Duration::from_hours(32 * 24);

/// The longest mark of where a replica's report ended.
const MARK: usize = 128;

/// What replicas said.
#[derive(Debug, Default)]
pub struct Heard {
    /// By registry, whose report of it.
    pub reports: BTreeMap<Box<str>, Vec<(String, Report)>>,
    /// Where each replica's report ended: the next one begins there.
    pub marks: BTreeMap<SocketAddr, String>,
}

impl ClusterCache {
    /// Asks all replicas what they have seen since `marks`, of which `now` is the end. Those that do not answer say it another time; none: an error.
    pub async fn registries(
        &self,
        marks: &BTreeMap<SocketAddr, String>,
        now: impl Fn() -> Moment + Send + Sync,
    ) -> Result<Heard, CacheError> {
        let question = |address: SocketAddr| {
            let mut query = String::new();
            if let Some(mark) = marks.get(&address) {
                query.push_str("after=");
                query.extend(url::form_urlencoded::byte_serialize(mark.as_bytes()));
            }
            Question::new(Method::GET, "registries".to_owned()).with_query(query)
        };
        let (mut heard, mut last) = (Heard::default(), None);
        for (address, said) in self.transport.ask_each(question).await? {
            let read = said.and_then(|said| said.of(&[StatusCode::OK])).and_then(|body| page(&body, now()));
            match read {
                Ok((reports, mark)) => {
                    heard.marks.insert(address, mark);
                    for (registry, report) in reports {
                        heard.reports.entry(registry).or_default().push((address.to_string(), report));
                    }
                }
                Err(error) => {
                    tracing::debug!(%address, "a replica does not say how registries are: {error}");
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if heard.marks.is_empty() => Err(error),
            _ => Ok(heard),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    registries: Vec<Value>,
    next: String,
}

#[derive(Deserialize)]
struct Written {
    registry: String,
    #[serde(default)]
    answered: WrittenRow,
    #[serde(default)]
    failed: WrittenRow,
    #[serde(default)]
    failure: Option<WrittenFailure>,
    #[serde(default)]
    latency: Option<u64>,
    #[serde(default)]
    quota: Option<WrittenQuota>,
    #[serde(default)]
    peace: Option<u64>,
}

#[derive(Deserialize, Default)]
struct WrittenRow {
    #[serde(default)]
    times: u64,
    #[serde(default)]
    in_a_row: u64,
    #[serde(default)]
    first_ago: Option<u64>,
    #[serde(default)]
    last_ago: Option<u64>,
}

#[derive(Deserialize)]
struct WrittenFailure {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct WrittenQuota {
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default)]
    remaining: Option<u64>,
    #[serde(default)]
    window: Option<u64>,
    #[serde(default)]
    ago: u64,
    #[serde(default)]
    reset: Option<u64>,
}

/// By registry.
type Reports = Vec<(Box<str>, Report)>;

/// Reports, and where they ended. What cannot be understood is left out.
fn page(body: &[u8], now: Moment) -> Result<(Reports, String), CacheError> {
    let Page { registries, next } = serde_json::from_slice(body).map_err(strange("how registries are"))?;
    if next.len() > MARK {
        return Err(CacheError::Strange { reason: "the end of how registries are".to_owned() });
    }
    let read = registries.into_iter().take(MOST).filter_map(|value| {
        let written: Written = serde_json::from_value(value).ok()?;
        let registry = Registry::parse(&written.registry).ok()?;
        Some((Box::from(registry.as_str()), written.report(now)))
    });
    Ok((read.collect(), next))
}

impl Written {
    fn report(self, now: Moment) -> Report {
        let Self { registry: _, answered, failed, failure, latency, quota, peace } = self;
        Report {
            answered: answered.row(now),
            failed: failed.row(now),
            failure: failure.map(|WrittenFailure { endpoint, why, error }| Failure {
                endpoint: shown(&endpoint),
                why: match why.as_str() {
                    "untrusted" => Why::Untrusted,
                    "failing" => Why::Failing,
                    _ => Why::Unreachable,
                },
                error: shown(&error),
            }),
            latency: latency.map(Duration::from_millis),
            quota: quota.map(|WrittenQuota { limit, remaining, window, ago, reset }| Quota {
                limit,
                remaining,
                window: window.map(Duration::from_secs).filter(|window| *window <= LONGEST),
                reset: reset.map(Duration::from_millis).filter(|left| *left <= LONGEST).map(|left| now.after(left)),
                at: before(now, ago),
            }),
            peace: peace.map(|left| now.after(Duration::from_millis(left))),
        }
    }
}

impl WrittenRow {
    fn row(self, now: Moment) -> Row {
        let Self { times, in_a_row, first_ago, last_ago } = self;
        let since_and_at = first_ago.zip(last_ago).map(|(first, last)| (before(now, first), before(now, last)));
        Row { times, in_a_row, since_and_at }
    }
}

fn before(now: Moment, milliseconds: u64) -> Moment {
    now.before(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_is_read_and_what_is_nonsense_is_left_out() {
        let now = Moment::from_seconds(1_790_000_000);
        let said = json!({"registries": [
            {"registry": "docker.io", "answered": {"times": 9, "in_a_row": 0, "first_ago": 9000, "last_ago": 5000},
             "failed": {"times": 3, "in_a_row": 3, "first_ago": 4000, "last_ago": 1000},
             "failure": {"endpoint": "https://registry-1.docker.io", "why": "untrusted", "error": "a\nb"},
             "latency": 83, "quota": {"limit": 100, "remaining": 76, "window": 21600, "ago": 5000, "reset": 61000}, "peace": 2000, "later": 1},
            {"registry": "ghcr.io"},
            {"registry": "quay.io", "quota": {"remaining": 1, "window": u64::MAX, "reset": u64::MAX}}, {"registry": "UPPER CASE"}, {"failed": {}}, 7], "next": "1-2"});
        let (reports, mark) = page(&said.to_string().into_bytes(), now).unwrap();
        assert_eq!((reports.len(), mark.as_str()), (3, "1-2"));
        let (registry, report) = &reports[0];
        let ago = |seconds| now.before(Duration::from_secs(seconds));
        assert_eq!(&**registry, "docker.io");
        assert_eq!(report.failed, Row { times: 3, in_a_row: 3, since_and_at: Some((ago(4), ago(1))) });
        let failure = report.failure.as_ref().unwrap();
        assert_eq!((failure.why, failure.error.as_str()), (Why::Untrusted, "a b"));
        let quota = report.quota.unwrap();
        assert_eq!((quota.at, quota.resets_at()), (ago(5), Some(now.after(Duration::from_secs(61)))));
        assert_eq!(report.peace, Some(now.after(Duration::from_secs(2))));
        assert_eq!(reports[1].1, Report::default());
        assert_eq!(reports[2].1.quota.unwrap().resets_at(), None, "of a time that no quota takes nothing is known");
        let strange = json!({"registries": [], "next": "x".repeat(4000)});
        assert!(page(&strange.to_string().into_bytes(), now).is_err());
    }
}
