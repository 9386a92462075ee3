//! When a watch that failed is tried again: later each time, until it got somewhere.
//!
//! The backoff of the library begins anew with every event, and a watch that can list nothing has one before each try (`Init`): so it would be tried about
//! once a second for ever, by every node of a cluster that starts while its API server does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::{Stream, TryStreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::{Backoff, ResetTimerBackoff, StreamBackoff};
use kube::runtime::watcher::{Event, ExponentialBackoff, Result};

use crate::anew::anew;

/// After the first failure; up to twice that, by chance, as everywhere here.
const FIRST: Duration = Duration::from_millis(800);

/// What went well for so long is tried again at once. Proxies on the way that end whatever is silent do so once a minute.
const WELL: Duration = Duration::from_secs(45);

/// The pauses of one watch.
pub struct Again {
    pauses: ResetTimerBackoff<ExponentialBackoff>,
    got_somewhere: Arc<AtomicBool>,
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.pauses.next()
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        if self.got_somewhere.swap(false, Ordering::Relaxed) {
            self.pauses.reset();
        }
    }
}

/// The events of the watches that `begin` begins, each of which lists first. After a failure it is tried again, at the latest after about `latest` (less than half
/// a minute); what is not believed any more ([`anew`](crate::anew)), after a silence of `silence` and by chance up to twice that, is listed anew.
pub fn try_again<K, S>(
    begin: impl Fn() -> S + Send,
    latest: Duration,
    silence: Duration,
) -> StreamBackoff<impl Stream<Item = Result<Event<K>>> + Send, Again>
where
    K: Send,
    S: Stream<Item = Result<Event<K>>> + Send,
{
    let got_somewhere = Arc::new(AtomicBool::new(false));
    let pauses =
        ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(latest).without_max_times().with_jitter();
    let pauses = ResetTimerBackoff::new(ExponentialBackoff::from(pauses), WELL);
    let again = Again { pauses, got_somewhere: Arc::clone(&got_somewhere) };
    let seen = anew(begin, silence).inspect_ok(move |event| {
        if !matches!(event, Event::Init | Event::InitApply(_)) {
            got_somewhere.store(true, Ordering::Relaxed);
        }
    });
    seen.backoff(again)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;

    use futures_util::{StreamExt as _, stream};
    use kube::runtime::watcher::Error;
    use tokio::time::Instant;

    use super::*;

    /// When it was tried: what fails is one `Init` and one error each time.
    async fn tries(of: Vec<Vec<Result<Event<()>>>>) -> Vec<Duration> {
        let start = Instant::now();
        let mut tried = Vec::new();
        let events = Mutex::new(Some(stream::iter(of.into_iter().flatten())));
        let begin = || events.lock().unwrap().take().unwrap();
        let mut events = pin!(try_again(begin, Duration::from_secs(10), Duration::from_hours(1)));
        while let Some(event) = events.next().await {
            if matches!(event, Ok(Event::Init)) {
                tried.push(start.elapsed());
            }
        }
        tried.windows(2).map(|two| two[1].saturating_sub(two[0])).collect()
    }

    fn fails() -> Vec<Result<Event<()>>> {
        vec![Ok(Event::Init), Err(Error::NoResourceVersion)]
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_listed_is_tried_later_each_time() {
        let pauses = tries((0..8).map(|_| fails()).collect()).await;
        assert!(pauses[0] < Duration::from_secs(3), "{pauses:?}");
        assert!(pauses[4..].iter().all(|pause| *pause >= Duration::from_secs(10)), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause < Duration::from_secs(30)), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_got_somewhere_begins_anew() {
        let mut all: Vec<_> = (0..6).map(|_| fails()).collect();
        all.push(vec![Ok(Event::Init), Ok(Event::InitDone), Err(Error::NoResourceVersion)]);
        all.push(fails());
        let pauses = tries(all).await;
        assert!(pauses.last().is_some_and(|pause| *pause < Duration::from_secs(3)), "{pauses:?}");
    }
}
