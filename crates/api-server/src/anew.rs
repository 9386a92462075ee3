//! When a watch is not believed any more, and lists again.
//!
//! The library goes on at the version that it saw last, however long that takes. Where an etcd was put back to what it was before, that version is yet to come:
//! the API server answers such a watch as any other and says nothing on it, no bookmark either, until the version has passed; and of what happened before
//! that nobody is ever told. It cannot be asked which etcd it has. So whatever could not be taken up again is listed: to put an etcd back, the API server
//! is stopped first, so its watches are refused once, and one that was only started anew has forgotten what it would take to go on, and has most of its watches list in any case. What got by
//! that, or is silent for another reason, is listed when it has been silent for long.

use std::pin::Pin;
use std::time::Duration;

use backon::{BackoffBuilder as _, ConstantBackoff, ConstantBuilder};
use futures_util::{Stream, StreamExt as _, stream};
use kube::runtime::watcher::{Error, Event, Result};
use tokio::time::{Instant, timeout};

use crate::code;

/// A list that is younger is not made anew because the watch on it is refused: an API server that lists and does not let anybody watch (it has just started, or
/// the right to watch is missing) would be asked for everything each time.
const YOUNG: Duration = Duration::from_mins(2);

/// One watch, and how another one is begun.
struct Watch<B, S> {
    begin: B,
    events: Pin<Box<S>>,
    silences: ConstantBackoff,
    /// When it listed; `None`: it has not yet, or something happened since.
    listed: Option<Instant>,
}

impl<B: Fn() -> S, S> Watch<B, S> {
    fn begin_anew(&mut self) {
        self.events.set((self.begin)());
        self.listed = None;
    }

    fn heard<K>(&mut self, event: &Result<Event<K>>) {
        match event {
            Ok(Event::InitDone) => self.listed = Some(Instant::now()),
            Ok(_) => self.listed = None,
            // A kind that is not there cannot be listed either, and when it is there again its objects may be others.
            Err(Error::WatchStartFailed(error))
                if code(error) == Some(404) || self.listed.is_none_or(|listed| listed.elapsed() >= YOUNG) =>
            {
                self.begin_anew();
            }
            Err(_) => {}
        }
    }
}

/// The events of the watches that `begin` begins, each of which lists first: another one after a failure to take one up (unless it has listed only just now), and after a silence of `silence`, and
/// by chance up to twice that. A kind of which nothing changes for so long is silent as well, and costs a list.
pub(crate) fn anew<K, S>(begin: impl Fn() -> S + Send, silence: Duration) -> impl Stream<Item = Result<Event<K>>> + Send
where
    K: Send,
    S: Stream<Item = Result<Event<K>>> + Send,
{
    let silences = ConstantBuilder::default().with_delay(silence).without_max_times().with_jitter().build();
    let watch = Watch { events: Box::pin(begin()), begin, silences, listed: None };
    stream::unfold(watch, move |mut watch| async move {
        let event = loop {
            let within = watch.silences.next().unwrap_or(silence);
            match timeout(within, watch.events.next()).await {
                Ok(event) => break event?,
                Err(_) => watch.begin_anew(),
            }
        };
        watch.heard(&event);
        Some((event, watch))
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream::BoxStream;
    use tokio::time::Instant;

    use super::*;

    const SILENCE: Duration = Duration::from_mins(10);
    const ALMOST: Duration = Duration::from_secs(599);

    /// What each watch says, and after which pause; and then nothing for ever.
    type Says = Vec<(Duration, Result<Event<()>>)>;

    fn watch(says: Says) -> BoxStream<'static, Result<Event<()>>> {
        let said = stream::iter(says).then(|(pause, event)| async move {
            tokio::time::sleep(pause).await;
            event
        });
        said.chain(stream::pending()).boxed()
    }

    /// When lists began, of watches that each list at once and then go on so, within so long.
    async fn lists(goes_on: impl Fn() -> Says + Send + Sync, within: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut lists = Vec::new();
        let begin = || {
            let list = [Event::Init, Event::InitDone].map(|event| (Duration::ZERO, Ok(event)));
            watch(list.into_iter().chain(goes_on()).collect())
        };
        let mut events = pin!(anew(begin, SILENCE));
        while let Ok(Some(event)) = tokio::time::timeout_at(start + within, events.next()).await {
            if matches!(event, Ok(Event::Init)) {
                lists.push(start.elapsed());
            }
        }
        lists
    }

    fn missing() -> Error {
        Error::WatchStartFailed(kube::Error::Service("nobody is there".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_silent_for_long_is_listed_and_not_by_everybody_at_once() {
        let lists = lists(Vec::new, SILENCE * 20).await;
        let pauses: Vec<Duration> = lists.windows(2).map(|two| two[1].saturating_sub(two[0])).collect();
        assert!(pauses.len() >= 9, "{pauses:?}");
        assert!(pauses.iter().all(|pause| (SILENCE..=SILENCE * 2).contains(pause)), "{pauses:?}");
        assert!(pauses.windows(2).any(|two| two[0] != two[1]), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_something_is_believed() {
        let says = || (0..20).map(|_| (ALMOST, Ok(Event::Apply(())))).collect();
        assert_eq!(lists(says, SILENCE * 19).await, [Duration::ZERO]);
        // Also that nothing is heard is something: it goes on by itself.
        let says = || (0..20).map(|_| (ALMOST, Err(Error::NoResourceVersion))).collect();
        assert_eq!(lists(says, SILENCE * 19).await, [Duration::ZERO]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_taken_up_again_is_listed() {
        let number = AtomicUsize::new(0);
        let says = || match number.fetch_add(1, Ordering::SeqCst) {
            0 => vec![(Duration::from_secs(3), Ok(Event::Apply(()))), (Duration::from_secs(4), Err(missing()))],
            _ => Vec::new(),
        };
        assert_eq!(lists(says, SILENCE).await, [Duration::ZERO, Duration::from_secs(7)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_went_is_listed_before_it_is_watched_again() {
        let number = AtomicUsize::new(0);
        let says = || {
            let gone = serde_json::json!({"status": "Failure", "code": 404, "message": "404 page not found"});
            let gone = kube::Error::Api(Box::new(serde_json::from_value(gone).unwrap()));
            let gone = (Duration::from_secs(1), Err(Error::WatchStartFailed(gone)));
            if number.fetch_add(1, Ordering::SeqCst) == 0 { vec![gone] } else { Vec::new() }
        };
        assert_eq!(lists(says, SILENCE).await, [Duration::ZERO, Duration::from_secs(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_may_watch_not_everything_is_listed_each_time() {
        let says = || (0..1000).map(|_| (Duration::from_secs(1), Err(missing()))).collect();
        let lists = lists(says, ALMOST).await;
        assert!(lists.windows(2).all(|two| two[1].saturating_sub(two[0]) >= YOUNG), "{lists:?}");
        assert_eq!(lists.len(), 5, "it is tried anew now and then: {lists:?}");
    }
}
