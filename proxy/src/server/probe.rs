//! The keyed challenge: whoever knows the key can tell this proxy from a stranger on its port, and a hung one from a busy one.
//!
//! `GET /larder/probe?challenge=<32..128 hex>&seen=<nonce>` is answered with
//! `HMAC-SHA256(key, "larder-probe-v1\n" challenge "\n" stalled_ms "\n" seen)`. `stalled_ms` is for how long the runtime
//! that serves pulls has not turned; the answer itself comes from the front thread (`front`), which does nothing else.
//! `seen` says whether an engine asked for the canary `larder-probe/<nonce>` in the last ten minutes.
//!
//! Here is the side that answers. The side that asks has [`ProbeQuestion`], [`ProbeAnswer`] and [`ProbeKey::verifies`], and
//! needs to know nothing of what is written between the two.

mod exchange;
mod key;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

pub use exchange::{ProbeAnswer, ProbeQuestion};
pub use key::{KeyError, ProbeKey};

/// The path that is probed.
pub const PATH: &str = "/larder/probe";

/// How often the runtime shows that it turns.
const BEAT: Duration = Duration::from_millis(100);

/// How long a canary counts as seen.
const SEEN_FOR: Duration = Duration::from_mins(10);

/// How many canaries are remembered.
const SEEN_AT_MOST: usize = 1024;

/// What a probe is answered with: a status and a JSON text.
#[derive(Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// 200, or 400 for a question that makes no sense.
    pub status: StatusCode,
    /// The body.
    pub json: String,
}

/// Answers probes; shared by the front thread and the runtime.
#[derive(Debug)]
pub struct Probe {
    key: ProbeKey,
    started: Instant,
    last_beat_ms: AtomicU64,
    seen: Mutex<VecDeque<(Instant, String)>>,
}

impl Probe {
    /// A probe that counts the runtime as stalled until [`Probe::beat`] runs.
    pub fn new(key: ProbeKey) -> Self {
        Self { key, started: Instant::now(), last_beat_ms: AtomicU64::new(0), seen: Mutex::default() }
    }

    /// Runs in the runtime that serves pulls, for as long as it does.
    pub async fn beat(&self) {
        let mut interval = tokio::time::interval(BEAT);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.last_beat_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// An engine asked for `larder-probe/<nonce>`.
    pub fn record_canary(&self, nonce: &str) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(at, known)| now.duration_since(*at) < SEEN_FOR && known != nonce);
        if seen.len() >= SEEN_AT_MOST {
            seen.pop_front();
        }
        seen.push_back((now, nonce.to_owned()));
    }

    /// The answer to the query of a probe.
    pub fn answer(&self, query: &str) -> ProbeReply {
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let challenge = parameter("challenge").unwrap_or_default();
        if !(32..=128).contains(&challenge.len()) || !challenge.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let json = r#"{"error":"challenge must be 32 to 128 hexadecimal digits"}"#.to_owned();
            return ProbeReply { status: StatusCode::BAD_REQUEST, json };
        }
        let seen = parameter("seen").is_some_and(|nonce| self.was_seen(nonce));
        let stalled_ms = self.stalled_ms();
        let mac = self.key.mac(challenge, stalled_ms, seen);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        ProbeReply { status: StatusCode::OK, json: ProbeAnswer { mac, stalled_ms, seen, version }.to_json() }
    }

    fn was_seen(&self, nonce: &str) -> bool {
        let now = Instant::now();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|(at, known)| known == nonce && now.duration_since(*at) < SEEN_FOR)
    }

    fn stalled_ms(&self) -> u64 {
        let beat = u64::try_from(BEAT.as_millis()).unwrap_or(u64::MAX);
        self.now_ms().saturating_sub(self.last_beat_ms.load(Ordering::Relaxed)).saturating_sub(beat)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ProbeKey {
        ProbeKey::from_bytes(zeroize::Zeroizing::new([7; 32]))
    }

    fn probe() -> Probe {
        Probe::new(key())
    }

    #[test]
    fn the_answer_proves_the_key_over_everything_that_it_says() {
        let question = ProbeQuestion::fresh("n0nce").unwrap();
        let (path, query) = question.target().split_once('?').unwrap();
        assert_eq!(path, PATH);
        let reply = probe().answer(query);
        assert_eq!(reply.status, StatusCode::OK);
        let answer = ProbeAnswer::parse(reply.json.as_bytes()).unwrap();
        assert!(key().verifies(&question, &answer));
        assert_eq!((answer.seen, answer.version.as_str()), (false, env!("CARGO_PKG_VERSION")));
        assert!(!key().verifies(&question, &ProbeAnswer { seen: true, ..answer.clone() }));
        assert!(!key().verifies(&question, &ProbeAnswer { stalled_ms: answer.stalled_ms + 1, ..answer.clone() }));
        assert!(!key().verifies(&question, &ProbeAnswer { mac: answer.mac.replace(|_| true, "ü"), ..answer.clone() }));
        assert!(!key().verifies(&ProbeQuestion::fresh("n0nce").unwrap(), &answer), "an answer to another question");
        assert!(!ProbeKey::random().unwrap().verifies(&question, &answer));
    }

    #[test]
    fn the_known_answer() {
        let mac = "5eb56f91684db2a4f3ab1f3073c8d83cd643ccb49e91874de90ef9421ad1882d";
        assert_eq!(key().mac(&"00".repeat(16), 5, true), mac);
    }

    #[test]
    fn a_canary_is_seen_once_it_was_recorded_and_the_set_is_bounded() {
        let probe = probe();
        let ask = |nonce: &str| probe.answer(&format!("challenge={}&seen={nonce}", "0".repeat(32))).json;
        assert!(ask("one").contains(r#""seen":false"#));
        probe.record_canary("one");
        assert!(ask("one").contains(r#""seen":true"#));
        for number in 0..SEEN_AT_MOST {
            probe.record_canary(&format!("other{number}"));
        }
        assert!(ask("one").contains(r#""seen":false"#));
        assert_eq!(probe.seen.lock().unwrap().len(), SEEN_AT_MOST);
    }

    #[test]
    fn a_challenge_that_is_none_is_refused() {
        for query in [
            "",
            "challenge=",
            "challenge=abc",
            &format!("challenge={}", "0".repeat(129)),
            &format!("challenge={}", "g".repeat(32)),
        ] {
            assert_eq!(probe().answer(query).status, StatusCode::BAD_REQUEST, "{query}");
        }
    }
}
