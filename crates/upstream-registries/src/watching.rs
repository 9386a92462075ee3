//! The watch of UpstreamRegistry objects: from the API server's events to what is [`Known`].
//!
//! Nothing follows from not seeing any. Where the kind itself is gone (somebody deleted the definitions, a database was lost), the objects of it went one by one, a
//! moment before: so what is less is believed only after a while in which nothing more went, and the loss of all of it after an hour, with a word to a
//! person meanwhile. Until then what was known stays in force.

use crate::objects::{News, Objects};
use crate::{Known, Reading};
use futures_util::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use larder_api::UpstreamRegistry;
use larder_api_server as api_server;
use larder_process::readiness::Condition;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Several changes in a row are one.
const SETTLE: Duration = Duration::from_millis(200);
/// The same, for what is there no more.
const LESS_IS_BELIEVED: Duration = Duration::from_secs(5);
/// The same, where nothing is left of what was known.
const NONE_IS_BELIEVED: Duration = Duration::from_hours(1);
/// At the latest, and by chance up to twice that: 500 nodes that start before their API server do not keep it from starting.
const AGAIN: Duration = Duration::from_secs(20);
/// What says nothing for so long is listed, and by chance not before twice that.
const SILENCE: Duration = Duration::from_mins(20);
/// Without credentials there is nobody to ask.
const NO_CLIENT: Duration = Duration::from_secs(30);

/// What is known, and what is about to follow the objects.
#[derive(Debug)]
pub struct Watching {
    known: watch::Sender<Arc<Known>>,
    reading: Reading,
}

impl Watching {
    /// `known` is what a process before this one knew. Asks nobody.
    pub fn new(known: Option<Known>) -> Self {
        let reading = Reading::new(known.is_some());
        Self { known: watch::Sender::new(Arc::new(known.unwrap_or_default())), reading }
    }

    /// What the objects say, as it is known now and later.
    pub fn known(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// How far the reading is.
    pub fn reading(&self) -> Reading {
        self.reading.clone()
    }

    /// Follows the objects until `shutdown`; what is wrong with that is told by `trouble`. `rights` is the file that says which rights it takes, `connect` how long a
    /// connection to the API server may take, TLS included.
    pub async fn follow(
        self,
        trouble: Condition,
        rights: &'static str,
        connect: Duration,
        shutdown: CancellationToken,
    ) {
        let Self { known, reading } = self;
        shutdown.run_until_cancelled(Watch { known, reading, trouble, rights }.run(connect)).await;
    }
}

/// The task.
struct Watch {
    known: watch::Sender<Arc<Known>>,
    reading: Reading,
    trouble: Condition,
    rights: &'static str,
}

impl Watch {
    async fn run(self, connect: Duration) {
        let client = loop {
            match api_server::client(connect).await {
                Ok(client) => break client,
                Err(error) => {
                    self.trouble(&format!("{error:#}"));
                    tokio::time::sleep(NO_CLIENT).await;
                }
            }
        };
        let events = events(client);
        let mut events = std::pin::pin!(events);
        let (mut objects, mut pending) = (Objects::default(), Pending::default());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = pending.wait() => {
                    self.publish(&objects, &mut pending);
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => {
                    // That a list begins is no word of the API server's.
                    if !matches!(event, Event::Init | Event::InitApply(_)) {
                        self.reading.read();
                        if self.trouble.clear() {
                            tracing::info!("UpstreamRegistry objects are watched again");
                        }
                    }
                    let before = Arc::clone(&self.known.borrow());
                    pending.take(objects.apply(event, &before), Instant::now());
                }
                Some(Err(error)) => self.failed(&error, &mut pending),
                // It never does.
                None => return std::future::pending().await,
            }
        }
    }

    fn publish(&self, objects: &Objects, pending: &mut Pending) {
        let known = objects.known();
        let before = Arc::clone(&self.known.borrow());
        if known.is_nothing() && !before.is_nothing() && !pending.none_is_believed(Instant::now()) {
            let words = "the API server says that there is no UpstreamRegistry any more; for an hour what was known stays in force, for so it looks as well \
                         when a definition or a database is lost";
            let held = Known { left_out: vec![words.to_owned()], objects: 0, ..Known::clone(&before) };
            self.send(held);
            return;
        }
        pending.done();
        self.send(known);
    }

    fn send(&self, known: Known) {
        self.known.send_if_modified(|before| {
            let news = **before != known;
            if news {
                *before = Arc::new(known);
            }
            news
        });
    }

    fn failed(&self, error: &watcher::Error, pending: &mut Pending) {
        let (code, words) = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => (api_server::code(error), api_server::words(error)),
            watcher::Error::WatchError(status) => (Some(status.code), status.message.clone()),
            watcher::Error::NoResourceVersion => (None, error.to_string()),
        };
        match code {
            // A watch that is too old begins anew, and that is all.
            Some(410) => {}
            Some(404) => {
                // What went with it did not go because somebody wanted it to.
                pending.done();
                self.trouble("there is no kind UpstreamRegistry in this cluster (the definitions of larder.dev are not installed)");
            }
            Some(403) => self.trouble(&format!("{words}; the ClusterRole of {} is missing", self.rights)),
            _ => self.trouble(&format!("{words}; it is tried again by itself")),
        }
    }

    fn trouble(&self, words: &str) {
        let words = format!(
            "UpstreamRegistry objects are not watched now: {words}; what was last known, if anything was, stays in force"
        );
        if self.trouble.set(words.clone()) {
            tracing::warn!("{words}");
        }
    }
}

/// One after the other, for ever: after an error anew, later each time and never at the same time as the others.
fn events(
    client: Client,
) -> impl futures_util::Stream<Item = watcher::Result<Event<DeserializeGuard<UpstreamRegistry>>>> {
    // Of what the API server has in memory: with it starts a watch that catches up, and 500 nodes that ask its database cost too much.
    let config = watcher::Config::default().any_semantic();
    let objects = Api::<DeserializeGuard<UpstreamRegistry>>::all(client);
    api_server::try_again(move || watcher(objects.clone(), config.clone()), AGAIN, SILENCE)
}

/// When what changed is believed.
#[derive(Debug, Default)]
struct Pending {
    at: Option<Instant>,
    none_since: Option<Instant>,
}

impl Pending {
    fn take(&mut self, news: News, now: Instant) {
        let after = match news {
            News::Nothing => return,
            News::Something => SETTLE,
            News::Less => LESS_IS_BELIEVED,
        };
        let at = now.checked_add(after);
        // What is not believed yet is looked at again with whatever comes.
        self.at = if self.none_since.is_some() { at } else { self.at.max(at) };
    }

    async fn wait(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Whether nothing has been there for long enough; looked at again when it will be.
    fn none_is_believed(&mut self, now: Instant) -> bool {
        let until = self.none_since.get_or_insert(now).checked_add(NONE_IS_BELIEVED);
        self.at = until;
        until.is_none_or(|until| now >= until)
    }

    fn done(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_process::readiness::Readiness;
    use serde_json::json;

    struct Case {
        watch: Watch,
        known: watch::Receiver<Arc<Known>>,
        objects: Objects,
        pending: Pending,
    }

    fn object(name: &str) -> DeserializeGuard<UpstreamRegistry> {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": { "name": name },
            "spec": { "registry": name, "skip": true },
        });
        serde_json::from_value(object).unwrap()
    }

    impl Case {
        fn new(known: Known) -> Self {
            let Watching { known: sender, reading } = Watching::new(Some(known));
            let (known, trouble) = (sender.subscribe(), Readiness::new().condition("api server"));
            let watch = Watch { known: sender, reading, trouble, rights: "rights.yaml" };
            Self { watch, known, objects: Objects::default(), pending: Pending::default() }
        }

        fn apply(&mut self, events: Vec<Event<DeserializeGuard<UpstreamRegistry>>>) {
            for event in events {
                let before = Arc::clone(&self.known.borrow());
                self.pending.take(self.objects.apply(event, &before), Instant::now());
            }
        }

        /// What happens within so long, when nothing comes.
        async fn within(&mut self, time: Duration) {
            let end = Instant::now() + time;
            while self.pending.at.is_some_and(|at| at <= end) {
                self.pending.wait().await;
                self.watch.publish(&self.objects, &mut self.pending);
            }
            tokio::time::sleep_until(end).await;
        }

        fn said(&self) -> usize {
            self.known.borrow().said.len()
        }
    }

    fn list(names: &[&str]) -> Vec<Event<DeserializeGuard<UpstreamRegistry>>> {
        let listed = names.iter().map(|name| Event::InitApply(object(name)));
        [Event::Init].into_iter().chain(listed).chain([Event::InitDone]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn more_is_believed_at_once_and_less_a_moment_later() {
        let mut case = Case::new(Known::default());
        case.apply(list(&["a.example", "b.example"]));
        case.within(Duration::from_secs(1)).await;
        assert_eq!(case.said(), 2);
        case.apply(vec![Event::Delete(object("a.example"))]);
        case.within(Duration::from_secs(4)).await;
        assert_eq!(case.said(), 2, "perhaps all of them go");
        case.within(Duration::from_secs(2)).await;
        assert_eq!(case.said(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_definition_that_is_deleted_takes_nothing_along() {
        let mut case = Case::new(Known::default());
        case.apply(list(&["a.example", "b.example"]));
        case.within(Duration::from_secs(1)).await;
        // Its objects go first, and what is asked next is that there is no such kind.
        for name in ["a.example", "b.example"] {
            case.apply(vec![Event::Delete(object(name))]);
            case.within(Duration::from_secs(1)).await;
        }
        let gone = kube::core::Status { code: 404, ..kube::core::Status::default() };
        case.watch.failed(&watcher::Error::WatchError(Box::new(gone)), &mut case.pending);
        case.within(Duration::from_hours(24)).await;
        assert_eq!(case.said(), 2);
        // It is made again, and an object of it.
        case.apply(list(&["c.example"]));
        case.within(Duration::from_secs(6)).await;
        assert_eq!(case.said(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_at_all_is_believed_after_an_hour() {
        let mut before = Objects::default();
        for event in list(&["a.example"]) {
            before.apply(event, &Known::default());
        }
        // By the word of a process before this one.
        let mut case = Case::new(before.known());
        case.apply(list(&[]));
        case.within(Duration::from_mins(59)).await;
        assert_eq!(case.said(), 1);
        assert!(case.known.borrow().left_out.first().unwrap().contains("for an hour what was known"));
        // A list of the same says nothing new.
        case.apply(list(&[]));
        case.within(Duration::from_secs(30)).await;
        assert_eq!(case.said(), 1);
        case.within(Duration::from_mins(1)).await;
        assert_eq!((case.said(), case.known.borrow().left_out.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_within_the_hour_was_never_away() {
        let mut case = Case::new(Known::default());
        case.apply(list(&["a.example"]));
        case.within(Duration::from_secs(1)).await;
        case.apply(list(&[]));
        case.within(Duration::from_mins(30)).await;
        case.apply(list(&["a.example"]));
        case.within(Duration::from_mins(40)).await;
        case.apply(list(&[]));
        case.within(Duration::from_mins(30)).await;
        assert_eq!(case.said(), 1, "the hour begins anew");
    }
}
