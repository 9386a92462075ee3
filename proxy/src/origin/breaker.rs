//! When an endpoint is left alone because it keeps failing. Pure: time comes in as a value.
//!
//! The invariant: while open, nobody waits for the endpoint, and only an answer closes it again, which `probe` gets
//! in the background. How soon it opens goes by what a failure costs those who wait: silence opens it at once,
//! a refused connection, which costs nothing, only after many in a row. A success, however slow, never counts against it.

use std::time::Duration;

use tokio::time::Instant;

/// Points at which the breaker opens.
const LIMIT: u32 = 6;

/// Failures further apart than this are not in a row.
const MEMORY: Duration = Duration::from_mins(1);

/// A way for an endpoint to fail, with what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It let us wait: no connection, or no answer, within the time that it had.
    Silent,
    /// It answered 5xx.
    ServerError,
    /// It refused or cut the connection, or its name does not resolve.
    NotConnected,
}

impl Failure {
    fn points(self) -> u32 {
        match self {
            Self::Silent => LIMIT,
            Self::ServerError => LIMIT / 3,
            Self::NotConnected => 1,
        }
    }
}

/// One endpoint's breaker.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    open: bool,
    points: u32,
    last_failure: Option<Instant>,
    last_success: Option<Instant>,
}

impl Breaker {
    /// Whether requests are to be refused at once.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The endpoint answered, with anything but 5xx.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.open = false;
        self.points = 0;
        self.last_success = Some(now);
    }

    /// A request failed that began at `began`.
    pub(crate) fn failed(&mut self, failure: Failure, began: Instant, now: Instant) {
        // Somebody else got an answer while this one waited: it is the question that is slow, not the endpoint.
        if self.last_success.is_some_and(|success| success >= began) {
            return;
        }
        if self.last_failure.is_some_and(|last| now.duration_since(last) > MEMORY) {
            self.points = 0;
        }
        self.last_failure = Some(now);
        self.points = self.points.saturating_add(failure.points());
        self.open |= self.points >= LIMIT;
    }
}

#[cfg(test)]
mod tests {
    use super::Failure::{NotConnected, ServerError, Silent};
    use super::*;

    /// One event at a second after the start.
    enum Event {
        Answer(u64),
        Failed(Failure, u64),
        /// A failure of a request that began earlier.
        FailedSince(Failure, u64, u64),
    }
    use Event::{Answer, Failed, FailedSince};

    #[tokio::test(start_paused = true)]
    async fn opens_and_closes() {
        let table: [(&str, Vec<Event>, bool); 13] = [
            ("new", vec![], false),
            ("one silence", vec![Failed(Silent, 1)], true),
            ("two server errors", vec![Failed(ServerError, 1), Failed(ServerError, 2)], false),
            ("three server errors", (1..=3).map(|at| Failed(ServerError, at)).collect(), true),
            ("five refusals", (1..=5).map(|at| Failed(NotConnected, at)).collect(), false),
            ("six refusals", (1..=6).map(|at| Failed(NotConnected, at)).collect(), true),
            ("mixed", vec![Failed(ServerError, 1), Failed(NotConnected, 2), Failed(ServerError, 3)], false),
            (
                "not in a row",
                vec![Failed(ServerError, 1), Failed(ServerError, 2), Answer(3), Failed(ServerError, 4)],
                false,
            ),
            ("too far apart", vec![Failed(ServerError, 1), Failed(ServerError, 2), Failed(ServerError, 63)], false),
            ("an answer closes it", vec![Failed(Silent, 1), Answer(2)], false),
            ("open stays open", vec![Failed(Silent, 1), Failed(NotConnected, 200)], true),
            ("others were answered meanwhile", vec![Answer(5), FailedSince(Silent, 1, 11)], false),
            ("nobody was answered meanwhile", vec![Answer(5), FailedSince(Silent, 6, 16)], true),
        ];
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (case, events, open) in table {
            let mut breaker = Breaker::default();
            for event in events {
                match event {
                    Answer(when) => breaker.succeeded(at(when)),
                    Failed(failure, when) => breaker.failed(failure, at(when), at(when)),
                    FailedSince(failure, began, when) => breaker.failed(failure, at(began), at(when)),
                }
            }
            assert_eq!(breaker.is_open(), open, "{case}");
        }
    }
}
