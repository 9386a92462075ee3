//! The background task that asks an endpoint that was given up whether it answers again.
//!
//! One at a time for each endpoint: it begins when `health` opens and ends when it closes, or with the endpoint itself.

use std::sync::{Arc, Weak};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::endpoint::Endpoint;

/// Never closer together, even when somebody wants the endpoint: freshness waits for no more than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// While somebody wanted it not long ago.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// When nobody has wanted it for so long, it is not bothered until somebody does.
const INTEREST: Duration = Duration::from_mins(10);

/// Between two looks at somebody who does not answer.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// `wanted` is told by everyone who would have asked, which makes the next probe come soon, and when the endpoint ends.
pub(super) async fn until_it_answers(endpoint: Weak<Endpoint>, wanted: Arc<Notify>) {
    let mut pauses = pauses();
    let mut last_wanted = Instant::now();
    loop {
        let now = Instant::now();
        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
        if now.duration_since(last_wanted) > INTEREST {
            wanted.notified().await;
            last_wanted = Instant::now();
        } else if tokio::time::timeout(pause, wanted.notified()).await.is_ok() {
            last_wanted = Instant::now();
        }
        tokio::time::sleep_until(now + SHORTEST_PAUSE).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        if endpoint.probe().await {
            return;
        }
    }
}
