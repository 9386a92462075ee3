//! The parts of a process, by name: they live together and end together.
//!
//! A part that ends while nobody asked for a stop, however it ends, stops the whole process, and the process says which part
//! it was: half a process that looks alive is worse than none. After a stop, all parts get a bounded time to end.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a process ended that nobody asked to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TaskError {
    /// A part ended although it never should.
    #[error("task {name} ended")]
    Ended {
        /// The part.
        name: &'static str,
    },
    /// A part failed.
    #[error("task {name} failed: {reason}")]
    Failed {
        /// The part.
        name: &'static str,
        /// What it said.
        reason: String,
    },
    /// A part panicked; the log has where.
    #[error("task {name} panicked")]
    Panicked {
        /// The part.
        name: &'static str,
    },
    /// After a stop, some parts did not end in time and were left.
    #[error("not ended {} s after the stop: {}", limit.as_secs(), names.join(", "))]
    Late {
        /// The time they had.
        limit: Duration,
        /// The parts.
        names: Vec<&'static str>,
    },
}

#[derive(Debug, Default)]
struct Record {
    first: Option<TaskError>,
    running: Vec<&'static str>,
}

/// The running parts of a process. Clones are the same set.
#[derive(Debug, Clone)]
pub struct Tasks {
    shutdown: CancellationToken,
    tracker: TaskTracker,
    record: Arc<Mutex<Record>>,
}

impl Tasks {
    /// No parts yet; `shutdown` is what asks them to stop, and what the end of any of them cancels.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, tracker: TaskTracker::new(), record: Arc::default() }
    }

    /// The token that asks the parts to stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs a part that ends only when asked to.
    pub fn spawn<F>(&self, name: &'static str, part: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_fallible(name, async move {
            part.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Runs a part that ends only when asked to, or with an error.
    pub fn spawn_fallible<F, E>(&self, name: &'static str, part: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        lock(&self.record).running.push(name);
        // Made before the part runs and moved into it: dropped in every way that it can end, by unwinding too.
        let mut end = End { name, how: None, shutdown: self.shutdown.clone(), record: Arc::clone(&self.record) };
        self.tracker.spawn(async move {
            let how = match part.await {
                Ok(()) => TaskError::Ended { name },
                Err(error) => TaskError::Failed { name, reason: format!("{error:#}") },
            };
            end.ended(how);
        });
    }

    /// Waits for the stop, then for all parts to end, at most `limit`. An error names the part to look at.
    pub async fn finish(self, limit: Duration) -> Result<(), TaskError> {
        self.shutdown.cancelled().await;
        self.tracker.close();
        let in_time = tokio::time::timeout(limit, self.tracker.wait()).await.is_ok();
        let mut record = lock(&self.record);
        match record.first.take() {
            Some(error) => Err(error),
            None if in_time => Ok(()),
            None => Err(TaskError::Late { limit, names: record.running.clone() }),
        }
    }
}

struct End {
    name: &'static str,
    how: Option<TaskError>,
    shutdown: CancellationToken,
    record: Arc<Mutex<Record>>,
}

impl End {
    fn ended(&mut self, how: TaskError) {
        self.how = Some(how);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let name = self.name;
        let how = self.how.take().or_else(|| std::thread::panicking().then_some(TaskError::Panicked { name }));
        let mut record = lock(&self.record);
        if let Some(position) = record.running.iter().position(|running| *running == name) {
            record.running.swap_remove(position);
        }
        let asked_to = self.shutdown.is_cancelled() && matches!(how, Some(TaskError::Ended { .. }));
        // Neither ended nor panicked: it is dropped with its runtime, by a process that ends for another reason, which it says itself.
        if let Some(how) = how.filter(|_| !asked_to && record.first.is_none()) {
            tracing::error!("{how}");
            record.first = Some(how);
        }
        drop(record);
        self.shutdown.cancel();
    }
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn tasks() -> Tasks {
        let tasks = Tasks::new(CancellationToken::new());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("steady", async move { shutdown.cancelled().await });
        tasks
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_all_parts_without_an_error() {
        let tasks = tasks();
        tasks.shutdown().cancel();
        assert_eq!(tasks.finish(LIMIT).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_any_part_ends_the_process_with_its_name() {
        let ended = tasks();
        ended.spawn("listener", async {});
        assert_eq!(ended.finish(LIMIT).await, Err(TaskError::Ended { name: "listener" }));

        let failed = tasks();
        failed.spawn_fallible("listener", async { Err("no socket") });
        assert_eq!(
            failed.finish(LIMIT).await,
            Err(TaskError::Failed { name: "listener", reason: "no socket".to_owned() })
        );

        let panicked = tasks();
        panicked.spawn("listener", async { panic!("of course") });
        assert_eq!(panicked.finish(LIMIT).await, Err(TaskError::Panicked { name: "listener" }));
    }

    #[test]
    fn what_is_dropped_with_its_runtime_has_not_panicked() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        runtime.block_on(async { tasks.spawn("steady", std::future::pending()) });
        drop(runtime);
        let record = lock(&tasks.record);
        assert_eq!((record.first.clone(), record.running.len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_end_is_left_and_named() {
        let tasks = tasks();
        tasks.spawn("stuck", std::future::pending());
        tasks.shutdown().cancel();
        assert_eq!(tasks.finish(LIMIT).await, Err(TaskError::Late { limit: LIMIT, names: vec!["stuck"] }));
    }
}
