//! How each registry is doing, as the questions of this process saw it: for whoever asks the control API.
//!
//! A registry of several endpoints fails when each of them does, and an endpoint whose token server fails does, however well it answers 401. Times are those of
//! this process's own clock; who reads them is told how long ago they are. Bounded: names of registries are chosen by whoever asks for images.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_oci::Registry;
use tokio::time::Instant;

use super::observe::{Heard, Trouble, Word};
use super::pacing::RateLimit;

/// Registries that are remembered; beyond it those that never answered give way first.
const REGISTRIES: usize = 256;

/// Endpoints of one. One that the settings no longer name is forgotten with time.
const ENDPOINTS: usize = 16;

/// What an endpoint said so long ago does not make good for another that fails now.
const MEMORY: Duration = Duration::from_mins(10);

/// Questions whose median is told.
const LATENCIES: usize = 15;

/// The longest words of a failure, in characters.
const WORDS: usize = 500;

/// All of them.
#[derive(Debug)]
pub(crate) struct Standings {
    /// This process: its versions are not another one's.
    instance: u128,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    version: u64,
    registries: HashMap<Registry, Standing>,
}

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    version: u64,
    endpoints: HashMap<String, Endpoint>,
    /// Answers.
    pub(crate) answered: Row,
    /// Failures.
    pub(crate) failed: Row,
    /// The last of these: where, how, in words.
    pub(crate) failure: Option<(String, Trouble, String)>,
    latencies: VecDeque<Duration>,
    /// What it said of its quota, and when.
    pub(crate) quota: Option<(RateLimit, Instant)>,
    /// Until when it is left in peace.
    pub(crate) peace: Option<Instant>,
}

/// Events of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Row {
    /// How many there were.
    pub(crate) times: u64,
    /// How many since the last one of the other kind.
    pub(crate) unbroken: u64,
    /// When the first of these was, and the last.
    pub(crate) since_and_at: Option<(Instant, Instant)>,
}

#[derive(Debug, Default)]
struct Endpoint {
    registry_fails: bool,
    token_server_fails: bool,
    at: Option<Instant>,
}

impl Row {
    fn count(&mut self, now: Instant) {
        self.times += 1;
        self.unbroken += 1;
        let since = self.since_and_at.filter(|_| self.unbroken > 1).map_or(now, |(since, _)| since);
        self.since_and_at = Some((since, now));
    }
}

impl Default for Standings {
    fn default() -> Self {
        let instance = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self { instance, known: Mutex::default() }
    }
}

impl Standings {
    /// Something was heard of a registry.
    pub(crate) fn heard(&self, registry: &Registry, heard: Heard, now: Instant) {
        self.change(registry, |standing| standing.heard(heard, now));
    }

    /// It told its quota.
    pub(crate) fn quota(&self, registry: &Registry, quota: RateLimit, now: Instant) {
        self.change(registry, |standing| standing.quota = Some((quota, now)));
    }

    /// Those of which something was heard since `after`, which is what this returned before; else all of them.
    pub(crate) fn since<T>(
        &self,
        after: Option<&str>,
        mut show: impl FnMut(&Registry, &Standing) -> T,
    ) -> (Vec<T>, String) {
        let known = self.known();
        let parsed = after.and_then(|after| after.split_once('-'));
        let version = parsed.filter(|(instance, _)| *instance == self.instance.to_string());
        let version: u64 = version.and_then(|(_, version)| version.parse().ok()).unwrap_or_default();
        let news = known.registries.iter().filter(|(_, standing)| standing.version > version);
        let mut news: Vec<_> = news.collect();
        news.sort_unstable_by_key(|(registry, _)| registry.as_str());
        let shown = news.into_iter().map(|(registry, standing)| show(registry, standing)).collect();
        (shown, format!("{}-{}", self.instance, known.version))
    }

    /// Until when less than a tenth of a registry's quota is left, or nothing, as far as it said.
    pub(crate) fn low_until(&self, registry: &Registry, now: Instant) -> Option<Instant> {
        self.known().registries.get(registry)?.low_until(now)
    }

    fn change(&self, registry: &Registry, change: impl FnOnce(&mut Standing)) {
        let mut known = self.known();
        if known.registries.len() >= REGISTRIES && !known.registries.contains_key(registry) {
            let first =
                known.registries.iter().min_by_key(|(_, standing)| (standing.answered.times > 0, standing.version));
            if let Some(first) = first.map(|(registry, _)| registry.clone()) {
                known.registries.remove(&first);
            }
        }
        known.version += 1;
        let version = known.version;
        let standing = known.registries.entry(registry.clone()).or_default();
        change(standing);
        standing.version = version;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds it can panic half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Where it does not say when all of it is there again that is so one window later at the latest.
    fn low_until(&self, now: Instant) -> Option<Instant> {
        let (quota, at) = self.quota?;
        let left = quota.remaining?;
        let is_low = left == 0 || left.saturating_mul(10) < quota.limit.unwrap_or(0);
        let until = at + quota.reset.or(quota.window)?;
        (is_low && until > now).then_some(until)
    }

    fn heard(&mut self, heard: Heard, now: Instant) {
        let Heard { endpoint, is_token_server, word } = heard;
        self.endpoints.retain(|_, known| known.at.is_some_and(|at| now.duration_since(at) < MEMORY));
        if self.endpoints.len() >= ENDPOINTS && !self.endpoints.contains_key(&endpoint) {
            self.endpoints.clear();
        }
        let known = self.endpoints.entry(endpoint.clone()).or_default();
        known.at = Some(now);
        let fails = if is_token_server { &mut known.token_server_fails } else { &mut known.registry_fails };
        *fails = matches!(word, Word::Failed(..));
        // As long as tokens are at hand nobody asks for new ones, and what is asked with them is answered.
        if matches!(word, Word::Answered { with_token: true, .. }) {
            known.token_server_fails = false;
        }
        let endpoint_fails = known.fails();
        match word {
            Word::Failed(trouble, message) => {
                if self.endpoints.values().all(Endpoint::fails) {
                    self.failed.count(now);
                    self.answered.unbroken = 0;
                    self.failure = Some((endpoint, trouble, message.chars().take(WORDS).collect()));
                }
            }
            Word::Answered { took, with_token: _ } => {
                if let Some(took) = took {
                    if self.latencies.len() >= LATENCIES {
                        self.latencies.pop_front();
                    }
                    self.latencies.push_back(took);
                }
                if !endpoint_fails {
                    self.answers(now);
                }
            }
            Word::Limited(wait) => {
                self.peace = Some(now + wait);
                self.answers(now);
            }
        }
    }

    fn answers(&mut self, now: Instant) {
        self.answered.count(now);
        self.failed.unbroken = 0;
    }

    /// How long it took to answer: the median of the last questions.
    pub(crate) fn latency(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

impl Endpoint {
    fn fails(&self) -> bool {
        self.registry_fails || self.token_server_fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str) -> Registry {
        Registry::parse(name).unwrap()
    }

    fn of(endpoint: &str, is_token_server: bool, word: Word) -> Heard {
        Heard { endpoint: endpoint.to_owned(), is_token_server, word }
    }

    fn answered() -> Word {
        Word::Answered { took: Some(Duration::from_millis(20)), with_token: false }
    }

    fn failed() -> Word {
        Word::Failed(Trouble::Unreachable, "nobody there".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_quota_is_low() {
        let (standings, one, now) = (Standings::default(), registry("reg.example.com"), Instant::now());
        let (minute, hour) = (Some(Duration::from_mins(1)), Some(Duration::from_hours(1)));
        for (limit, remaining, window, reset, expected) in [
            (Some(100), Some(10), hour, None, None),
            (Some(100), Some(9), hour, None, hour),
            (Some(100), Some(0), hour, minute, minute),
            (Some(100), Some(0), None, None, None),
            (Some(100), None, hour, None, None),
            (None, Some(1), hour, None, None),
            (None, Some(0), hour, None, hour),
        ] {
            standings.quota(&one, RateLimit { limit, remaining, window, reset }, now);
            let until = standings.low_until(&one, now).map(|until| until - now);
            assert_eq!(until, expected, "{remaining:?} of {limit:?}");
            assert_eq!(standings.low_until(&one, now + Duration::from_hours(1)), None);
        }
        assert_eq!(standings.low_until(&registry("other.example.com"), now), None);
    }

    /// Answers and failures in a row.
    fn rows(heard: &[(&str, bool, Word)]) -> (u64, u64) {
        let (standings, one, now) = (Standings::default(), registry("reg.example.com"), Instant::now());
        for (endpoint, is_token_server, word) in heard {
            standings.heard(&one, of(endpoint, *is_token_server, word.clone()), now);
        }
        let (shown, _) = standings.since(None, |_, standing| (standing.answered.unbroken, standing.failed.unbroken));
        shown[0]
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_fails_when_each_of_its_endpoints_does() {
        for (what, heard, expected) in [
            ("one", vec![("a", false, failed()), ("a", false, failed())], (0, 2)),
            (
                "the other one answers",
                vec![("a", false, failed()), ("b", false, answered()), ("a", false, failed())],
                (1, 0),
            ),
            ("both fail", vec![("b", false, answered()), ("a", false, failed()), ("b", false, failed())], (0, 1)),
            (
                "no tokens",
                vec![("a", false, answered()), ("a", true, failed()), ("a", false, answered()), ("a", true, failed())],
                (0, 2),
            ),
            ("tokens again", vec![("a", true, failed()), ("a", true, answered())], (1, 0)),
            (
                "a token at hand is as good",
                vec![
                    ("a", true, failed()),
                    ("a", false, answered()),
                    ("a", true, failed()),
                    ("a", false, Word::Answered { took: None, with_token: true }),
                    ("a", false, answered()),
                ],
                (2, 0),
            ),
            ("limited", vec![("a", false, failed()), ("a", false, Word::Limited(Duration::from_secs(9)))], (1, 0)),
        ] {
            assert_eq!(rows(&heard), expected, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_new_is_told_and_another_process_tells_all() {
        let (standings, now) = (Standings::default(), Instant::now());
        let told = |after: Option<&str>| standings.since(after, |registry, _| registry.to_string());
        standings.heard(&registry("a.example.com"), of("a", false, answered()), now);
        let (all, next) = told(None);
        assert_eq!(all, ["a.example.com"]);
        assert_eq!(told(Some(&next)).0.len(), 0);
        standings.heard(&registry("b.example.com"), of("b", false, failed()), now);
        assert_eq!(told(Some(&next)).0, ["b.example.com"]);
        assert_eq!(told(Some("1-700")).0.len(), 2, "another process's");
        assert_eq!(told(Some("nonsense")).0.len(), 2);
        // Whoever makes up names takes nobody's place that has answered.
        for number in 0..2 * REGISTRIES {
            standings.heard(&registry(&format!("r{number}.example.com")), of("r", false, failed()), now);
        }
        let (all, _) = told(None);
        assert!(all.len() == REGISTRIES && all.contains(&"a.example.com".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_was_not_asked_for_long_makes_good_for_nobody() {
        let (standings, one, now) = (Standings::default(), registry("reg.example.com"), Instant::now());
        standings.heard(&one, of("was", false, answered()), now);
        standings.heard(&one, of("is", false, failed()), now + MEMORY / 2);
        standings.heard(&one, of("is", false, failed()), now + MEMORY);
        let (shown, _) = standings.since(None, |_, standing| (standing.failed.unbroken, standing.latency()));
        assert_eq!(shown, [(1, Some(Duration::from_millis(20)))]);
    }
}
