//! Every operation on the disk passes here: a time limit for each, a bound on how many may hang, and what the disk's state is.
//!
//! Invariant: a disk that hangs costs at most [`GateLimits::hanging`] threads, and after the first operation that
//! overran its time everybody is refused at once. The way back is the probe (`upkeep`), which has one thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::store::lease::lock;
use crate::store::{StoreError, StoreHealth};

#[derive(Debug, Clone, Copy)]
pub(super) struct GateLimits {
    /// For an operation that makes nothing durable.
    pub(super) answer: Duration,
    /// For one that does, or that goes through many files.
    pub(super) durable: Duration,
    /// Operations at a time.
    pub(super) hanging: usize,
}

pub(super) struct Gate {
    limits: GateLimits,
    permits: Arc<Semaphore>,
    not_answering: AtomicBool,
    full: AtomicBool,
    read_only: AtomicBool,
    unusable: AtomicBool,
    gone: AtomicBool,
    /// Operations on other people's threads, which cannot be given up from here, with the moment when they are overdue.
    watched: Mutex<BTreeMap<u64, Instant>>,
    next_watched: AtomicU64,
    #[cfg(test)]
    pub(super) frozen: (Mutex<bool>, std::sync::Condvar),
}

impl Gate {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.hanging)),
            limits,
            not_answering: AtomicBool::new(false),
            full: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            unusable: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            watched: Mutex::default(),
            next_watched: AtomicU64::new(0),
            #[cfg(test)]
            frozen: Default::default(),
        }
    }

    pub(super) fn health(&self) -> StoreHealth {
        if self.not_answering.load(Ordering::Relaxed) {
            StoreHealth::NotAnswering
        } else if self.gone.load(Ordering::Relaxed) {
            StoreHealth::Gone
        } else if self.unusable.load(Ordering::Relaxed) {
            StoreHealth::Unusable
        } else if self.read_only.load(Ordering::Relaxed) {
            StoreHealth::ReadOnly
        } else if self.full.load(Ordering::Relaxed) {
            StoreHealth::Full
        } else {
            StoreHealth::Ok
        }
    }

    pub(super) fn limits(&self) -> GateLimits {
        self.limits
    }

    fn not_answering(&self, operation: &'static str, limit: Duration) -> StoreError {
        if !self.not_answering.swap(true, Ordering::Relaxed) {
            tracing::warn!(operation, ?limit, "store: the disk does not answer; going on without it");
        }
        StoreError::NotAnswering { operation, limit }
    }

    /// Takes down what an error says about the disk.
    pub(super) fn observe<T>(&self, result: &Result<T, StoreError>) {
        match result {
            Err(StoreError::Full { reason }) if !self.full.swap(true, Ordering::Relaxed) => {
                tracing::warn!(reason, "store: no room; serving goes on, caching is off");
            }
            Err(StoreError::ReadOnly { path }) if !self.read_only.swap(true, Ordering::Relaxed) => {
                tracing::warn!(path = %path.display(), "store: the disk is read-only; serving goes on, caching is off");
            }
            Err(StoreError::Gone { path, reason }) if !self.gone.swap(true, Ordering::Relaxed) => {
                tracing::warn!(path = %path.display(), reason, "store: its folder was removed; serving goes on, caching is off");
            }
            _ => {}
        }
    }

    /// The same for what was to be written: there any other error of the disk counts too. One file that cannot be read says
    /// nothing about the rest.
    pub(super) fn observe_write<T>(&self, result: &Result<T, StoreError>) {
        self.observe(result);
        if let Err(error @ StoreError::Io { error: cause, .. }) = result
            && !is_of_the_name(cause)
            && !self.unusable.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "store: it cannot be written; serving goes on, caching is off");
        }
    }

    /// What a probe found: the only way back to health.
    pub(super) fn probed(&self, result: &Result<(), StoreError>) {
        match result {
            Ok(()) => {
                let was = self.health();
                self.read_only.store(false, Ordering::Relaxed);
                self.full.store(false, Ordering::Relaxed);
                self.unusable.store(false, Ordering::Relaxed);
                self.gone.store(false, Ordering::Relaxed);
                self.not_answering.store(false, Ordering::Relaxed);
                if was != StoreHealth::Ok {
                    tracing::info!(was = was.as_str(), "store: well again");
                }
            }
            Err(StoreError::NotAnswering { .. }) => {}
            // It answered, if not as one would wish.
            error @ Err(_) => {
                self.observe_write(error);
                self.not_answering.store(false, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn check(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.not_answering.load(Ordering::Relaxed) {
            return Err(StoreError::NotAnswering { operation, limit: self.limits.answer });
        }
        Ok(())
    }

    /// Runs `work` on a blocking thread, for at most `limit` as far as the caller is concerned.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        limit: Duration,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.check(operation)?;
        // That all permits are taken says nothing about the disk by itself: those who hold them have a limit of their own.
        let Ok(Ok(permit)) = tokio::time::timeout(limit, Arc::clone(&self.permits).acquire_owned()).await else {
            return Err(StoreError::NotAnswering { operation, limit });
        };
        self.check(operation)?;
        let gate = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            gate.pass();
            work()
        });
        match tokio::time::timeout(limit, working).await {
            Ok(Ok(result)) => {
                self.observe(&result);
                result
            }
            // The runtime is going away, or the work panicked, which the panic hook has told.
            Ok(Err(_)) => Err(StoreError::NotAnswering { operation, limit }),
            Err(_) => Err(self.not_answering(operation, limit)),
        }
    }

    /// Announces an operation on the caller's own thread.
    pub(super) fn watch(&self, operation: &'static str, limit: Duration) -> Result<Watched<'_>, StoreError> {
        self.check(operation)?;
        let number = self.next_watched.fetch_add(1, Ordering::Relaxed);
        // A limit beyond what the clock can say is none.
        if let Some(overdue) = Instant::now().checked_add(limit) {
            lock(&self.watched).insert(number, overdue);
        }
        let watched = Watched { gate: self, number };
        self.pass();
        Ok(watched)
    }

    /// Looks for watched operations that are overdue. Each counts once: if a probe succeeds while one still hangs, then the
    /// disk is well and that one file is not.
    pub(super) fn look_for_overdue(&self) {
        let now = Instant::now();
        let mut watched = lock(&self.watched);
        let before = watched.len();
        watched.retain(|_, overdue| *overdue > now);
        if watched.len() < before {
            drop(watched);
            let _ = self.not_answering("write", self.limits.answer);
        }
    }

    /// Where a test makes the disk hang.
    #[cfg(test)]
    pub(super) fn pass(&self) {
        let mut frozen = lock(&self.frozen.0);
        while *frozen {
            frozen = self.frozen.1.wait(frozen).unwrap();
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests this is where the disk hangs")]
    pub(super) fn pass(&self) {}

    #[cfg(test)]
    pub(super) fn freeze(&self, frozen: bool) {
        *lock(&self.frozen.0) = frozen;
        self.frozen.1.notify_all();
    }
}

/// What the system says of a name, whatever state the disk is in.
fn is_of_the_name(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let names = [Errno::NAMETOOLONG, Errno::INVAL, Errno::LOOP];
    names.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// An operation under way; ends when dropped.
pub(super) struct Watched<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        lock(&self.gate.watched).remove(&self.number);
    }
}
