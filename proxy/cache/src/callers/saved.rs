//! The keys that tokens are signed with, read while the API server is there and kept for when it is not.
//!
//! Whether the API server is away is for this file to say: it is when the last reading of the keys was not answered. They are read every
//! minute, every two seconds while it is away, and at once when somebody had no answer ([`SavedKeys::check`]). How long it has been away
//! counts from its last answer, which is written down with the keys, so a restart does not begin that time anew.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use larder_process::readiness::Condition;
use larder_proxy::secret::Token;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::claims::{Claims, Whose};
pub(super) use super::keys::Signature;
use super::keys::{KeySet, Wrong};
use crate::kubernetes::api_server::{ApiError, Published, Reviews};
use crate::kubernetes::saved_folder::SavedFolder;

/// Of the folder.
const FILE: &str = "keys.json";

/// This program's way to write it.
const VERSION: u32 = 1;

/// For one reading of the keys that somebody waits for.
pub(super) const READING: Duration = Duration::from_millis(500);

/// For one that nobody waits for: an API server that is slow is not away, or it would be for good after a day.
const READING_SLOWLY: Duration = Duration::from_secs(5);

/// Between readings.
const EVERY: Duration = Duration::from_mins(1);
const EVERY_WHILE_AWAY: Duration = Duration::from_secs(2);

/// How exactly the last answer's time is written down: a restart loses at most this much of the time without the API server.
const WRITTEN_EVERY: Duration = Duration::from_mins(5);

/// The keys.
#[derive(Debug)]
pub(crate) struct SavedKeys {
    api: Arc<dyn Reviews>,
    folder: Option<SavedFolder>,
    /// How long they are good for without the API server.
    without: Duration,
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
    again: Notify,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    reached: Option<Reached>,
    away: Option<Away>,
    /// Why keys could not be read of an API server that answers, or be kept.
    unread: Option<String>,
    unwritten: Option<String>,
    /// Readings so far, the one that runs included.
    begun: u64,
}

/// The API server's last answer, by two clocks: one of them may jump, the other does not outlive the process.
#[derive(Debug, Clone, Copy)]
struct Reached {
    wall: SystemTime,
    at: Instant,
}

#[derive(Debug, Clone)]
struct Away {
    since: SystemTime,
    error: String,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    issuer: String,
    /// Text of a JWK set.
    keys: String,
    /// Seconds since 1970.
    reached: u64,
}

/// What saved keys say of a token.
#[derive(Debug)]
pub(super) enum Verdict {
    Accepted(Claims),
    Refused,
    /// For this reason nothing can be said.
    CannotTell(String),
}

impl SavedKeys {
    /// With what was kept. That is looked at as anything from outside; what is wrong with it is told, and it counts as not there.
    pub(crate) fn open(api: Arc<dyn Reviews>, folder: Option<SavedFolder>, without: Duration) -> Self {
        let mut state = State::default();
        if let Some(folder) = &folder {
            if let Err(error) = folder.check() {
                let text = unwritten(folder, &error.to_string());
                tracing::warn!("{text}");
                state.unwritten = Some(text);
            }
            match read(folder) {
                Ok(Some((keys, wall))) => {
                    state.keys = Some(Arc::new(keys));
                    state.reached = Some(Reached { wall, at: Instant::now() });
                }
                Ok(None) => {}
                Err(reason) => {
                    let path = folder.path(FILE);
                    tracing::error!(path = %path.display(), "saved keys are not used: {reason}; they are read anew");
                    state.unread = Some(format!("{} is not used: {reason}", path.display()));
                }
            }
        }
        let (turn, again) = (tokio::sync::Mutex::new(()), Notify::new());
        Self { api, folder, without, state: Mutex::new(state), turn, again }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API server did not answer when it was asked last.
    pub(super) fn away(&self) -> bool {
        self.state().away.is_some()
    }

    /// Asks the API server now, unless somebody else does, and says whether it is away.
    pub(super) async fn check(&self, within: Duration) -> bool {
        let begun = self.state().begun;
        let _turn = self.turn.lock().await;
        // One that began after we wished for one, and has ended: whoever asked had the turn before us.
        if self.state().begun == begun {
            self.state().begun += 1;
            let read = timeout(within, self.api.keys()).await;
            self.learn(read.unwrap_or_else(|_| Err(ApiError::Away("it is slow".to_owned()))));
        }
        self.away()
    }

    fn learn(&self, read: Result<Published, ApiError>) {
        let now = Reached { wall: SystemTime::now(), at: Instant::now() };
        let mut state = self.state();
        match read {
            Ok(published) => {
                if state.away.take().is_some() {
                    tracing::info!("the API server is back");
                }
                state.reached = Some(now);
                if state.keys.as_ref().is_some_and(|keys| keys.published == published) {
                    state.unread = None;
                    return;
                }
                match KeySet::new(published) {
                    Ok(keys) => {
                        tracing::info!(?keys, "the keys of tokens were read");
                        (state.keys, state.unread) = (Some(Arc::new(keys)), None);
                        drop(state);
                        self.again.notify_one();
                    }
                    Err(reason) => state.unread = Some(format!("the keys of tokens cannot be used: {reason}")),
                }
            }
            Err(ApiError::Away(error)) => {
                if state.away.is_none() {
                    tracing::warn!(error, "the API server is away");
                    // Whoever found out, it has to be told, and looked for more often.
                    self.again.notify_one();
                }
                let since = state.away.as_ref().map_or(now.wall, |away| away.since);
                state.away = Some(Away { since, error });
            }
            // It is there, and still the keys are not to be had.
            Err(error) => {
                state.away = None;
                state.unread = Some(format!("the keys of tokens cannot be read: {error}"));
            }
        }
    }

    /// The API server accepted this token: it is there, and if it signs with a key that we do not have, we want that.
    pub(super) fn accepted(&self, token: &Token) {
        let mut state = self.state();
        state.reached = Some(Reached { wall: SystemTime::now(), at: Instant::now() });
        let known = state.keys.as_ref().is_some_and(|keys| keys.names_key_of(token));
        drop(state);
        if !known {
            self.again.notify_one();
        }
    }

    /// What the keys say of a token's signature alone, whoever may have the last word.
    pub(super) fn signature(&self, token: &Token) -> Signature {
        let keys = self.state().keys.clone();
        keys.map_or(Signature::NoKeys, |keys| keys.signature(token))
    }

    /// What the keys say, while the API server does not. A token whose time is over is good only if that came while it is away.
    pub(super) fn verdict(&self, token: &Token, whose: &Whose) -> Verdict {
        let now = SystemTime::now();
        let (keys, reached, away) = {
            let state = self.state();
            (state.keys.clone(), state.reached, state.away.is_some())
        };
        let Some((keys, reached)) = keys.zip(reached) else {
            return Verdict::CannotTell("the API server does not say, and no keys are saved".to_owned());
        };
        if reached.age(now) >= self.without {
            return Verdict::CannotTell(format!(
                "the API server does not say, and saved keys are good for {} only",
                spoken(self.without)
            ));
        }
        // What was over before the API server was gone could have been renewed.
        let lasting = if away { reached.wall.min(now) } else { now };
        match keys.verify(token, whose, now, lasting) {
            Ok(claims) => Verdict::Accepted(claims),
            Err(Wrong::UnknownKey) => Verdict::CannotTell(
                "the API server does not say, and the token's key is none of the saved ones".to_owned(),
            ),
            Err(Wrong::Expired | Wrong::Bad) => Verdict::Refused,
        }
    }

    /// Reads the keys from time to time, and keeps them, until `shutdown`.
    pub(crate) async fn follow(self: Arc<Self>, condition: Condition, shutdown: CancellationToken) {
        let mut written: Option<(Published, Instant)> = None;
        let ended = shutdown.cancelled();
        let following = async {
            loop {
                let away = self.check(READING_SLOWLY).await;
                self.write(&mut written).await;
                match self.trouble(SystemTime::now()) {
                    Some(trouble) => condition.set(trouble),
                    None => condition.clear(),
                };
                let pause = if away { EVERY_WHILE_AWAY } else { EVERY };
                // Somebody who has news does not make us ask without a pause.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.again.notified() => tokio::time::sleep(READING).await,
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = following => {}
        }
    }

    async fn write(&self, written: &mut Option<(Published, Instant)>) {
        let Some(folder) = self.folder.clone() else { return };
        let (keys, reached) = {
            let state = self.state();
            let (Some(keys), Some(reached)) = (state.keys.clone(), state.reached) else { return };
            (keys, reached)
        };
        let newer = written.as_ref().is_none_or(|(published, at)| {
            *published != keys.published || reached.at.saturating_duration_since(*at) >= WRITTEN_EVERY
        });
        if !newer {
            return;
        }
        let published = keys.published.clone();
        let text = Written {
            version: VERSION,
            issuer: published.issuer.clone(),
            keys: published.keys.clone(),
            reached: reached.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs(),
        };
        let to = folder.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_string(&text).map_err(|error| error.to_string())?;
            to.write(FILE, &text).map_err(|error| error.to_string())
        });
        let unwritten = match writing.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => {
                *written = Some((published, reached.at));
                None
            }
            Err(error) => Some(unwritten(&folder, &error)),
        };
        self.state().unwritten = unwritten;
    }

    fn trouble(&self, now: SystemTime) -> Option<String> {
        let state = self.state();
        let mut text = String::new();
        if let Some(Away { since, error }) = &state.away {
            let since = httpdate::fmt_http_date(*since);
            let _ = write!(text, "the API server is away since {since} ({error}); ");
            let left = state.reached.map_or(Duration::ZERO, |reached| self.without.saturating_sub(reached.age(now)));
            match &state.keys {
                None => text.push_str("no keys are saved, so no token of Kubernetes is accepted"),
                Some(_) if left.is_zero() => {
                    let _ = write!(
                        text,
                        "saved keys are good for {}, which is over: no token of Kubernetes is accepted",
                        spoken(self.without)
                    );
                }
                Some(_) => {
                    let until = httpdate::fmt_http_date(now + left);
                    let _ = write!(text, "saved keys say whose a token is, until {until}");
                }
            }
        } else if state.keys.is_none() {
            text.push_str("no keys yet: without the API server no token of Kubernetes would be accepted");
        }
        for more in [&state.unread, &state.unwritten].into_iter().flatten() {
            let _ = write!(text, "{}{more}", if text.is_empty() { "" } else { "; " });
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Reached {
    /// Whichever clock says more.
    fn age(self, now: SystemTime) -> Duration {
        now.duration_since(self.wall).unwrap_or(Duration::ZERO).max(self.at.elapsed())
    }
}

/// Nothing that has to work now needs it, so it stops nothing.
fn unwritten(folder: &SavedFolder, error: &str) -> String {
    format!(
        "{} is not written: {error}; a restart without the API server will know what is there, if anything",
        folder.path(FILE).display()
    )
}

fn read(folder: &SavedFolder) -> Result<Option<(KeySet, SystemTime)>, String> {
    let Some(text) = folder.read(FILE).map_err(|error| error.to_string())? else { return Ok(None) };
    let Written { version, issuer, keys, reached } = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("it is of version {version}, which this program does not know"));
    }
    let reached = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(reached)).ok_or("its time is none")?;
    Ok(Some((KeySet::new(Published { issuer, keys })?, reached)))
}

fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::callers::testing::Signer;

    #[test]
    fn what_was_kept_is_looked_at_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let saved = SavedFolder::new(&folder.path().join("saved"));
        assert!(read(&saved).unwrap().is_none());
        let Published { issuer, keys } = Signer::new("a").published();
        let good = json!({"version": 1, "issuer": issuer, "keys": keys, "reached": 1000});
        saved.write(FILE, &good.to_string()).unwrap();
        assert_eq!(read(&saved).unwrap().unwrap().1, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        for (name, value, part) in [
            ("version", json!(2), "version 2"),
            ("issuer", json!(""), "issuer"),
            ("keys", json!("{\"keys\":[]}"), "no key"),
            ("reached", json!(-1), "invalid value"),
            ("reached", json!(u64::MAX), "time"),
        ] {
            let mut wrong = good.clone();
            wrong[name] = value;
            saved.write(FILE, &wrong.to_string()).unwrap();
            let error = read(&saved).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
        saved.write(FILE, &good.to_string()[..50]).unwrap();
        assert!(read(&saved).is_err(), "a file that was cut");
    }
}
