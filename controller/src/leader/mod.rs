//! One of several controllers works, the others wait: a Lease of the API server (`coordination.k8s.io`), taken and renewed.
//!
//! [`election`] decides (pure), `lease` reads and writes the object, [`lead`] runs the work while it may run: it is cancelled before anybody else can
//! lead, and the lease is given back after it has ended. Both libraries for this judge by wall clocks, which makes two leaders of two clocks that differ
//! (decision 30).

pub mod election;
mod lease;
mod note;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use election::Times;
pub use lease::{Candidate, HELD, LeaseName, WORD};
pub use note::{Note, Pen};

/// Who works no longer because nobody leads for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("another controller may lead by now")]
pub struct NotLeading;

/// The right to work, until further notice. Asked again before each thing that must not be done twice.
#[derive(Clone)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Leadership").field("left", &self.left()).finish()
    }
}

impl Leadership {
    /// How long it holds if it is not renewed.
    pub fn left(&self) -> Result<Duration, NotLeading> {
        let until = *self.until.borrow();
        until
            .and_then(|until| until.checked_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
            .ok_or(NotLeading)
    }

    /// For something that is written: not begun without the right to, and given up with it.
    pub async fn writing<T>(&self, write: impl Future<Output = T>) -> Result<T, NotLeading> {
        self.left()?;
        tokio::select! {
            biased;
            () = self.over() => Err(NotLeading),
            done = write => Ok(done),
        }
    }

    /// Ends when it does.
    pub async fn over(&self) {
        let mut until = self.until.clone();
        loop {
            let Some(end) = *until.borrow_and_update() else { return };
            tokio::select! {
                biased;
                () = sleep_until(end) => {
                    // Renewed in the same moment, perhaps.
                    if until.borrow().is_none_or(|end| end <= Instant::now()) {
                        return;
                    }
                }
                changed = until.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// A leadership that nobody takes away: for work without a lease, and for tests.
pub fn unquestioned() -> (watch::Sender<Option<Instant>>, Leadership) {
    let (sender, until) = watch::channel(Instant::now().checked_add(Duration::from_hours(24 * 365)));
    (sender, Leadership { until })
}

/// What is told of it, for metrics and logs.
pub trait Witness: Send + Sync + 'static {
    /// We lead, or do no longer.
    fn leads(&self, leads: bool);
    /// Who leads, as far as is known.
    fn leader(&self, holder: &str);
    /// What a person has written on the lease ([`WORD`]).
    fn word(&self, word: Option<&str>);
}

/// Runs `work` whenever this candidate leads, until `shutdown`; then gives the lease back, after the work has ended and has said on its [`Note`] what it had
/// to say.
///
/// The work is dropped when the lead is lost: what it does must be in that future, and not in tasks of its own.
pub async fn lead<W, F, E>(candidate: Candidate, shutdown: CancellationToken, mut work: W) -> Result<(), E>
where
    W: FnMut(Leadership) -> F,
    F: Future<Output = Result<(), E>>,
{
    let (sender, until) = watch::channel(None);
    let stop = CancellationToken::new();
    let witness = candidate.witness();
    // A task of its own: renewing waits for no work.
    let mut renewing = Guarded(tokio::spawn(candidate.run(sender, stop.clone())));
    let mut leads = until.clone();
    let result = loop {
        let leads_now = async { leads.wait_for(|until| until.is_some_and(|end| end > Instant::now())).await.is_ok() };
        let goes_on = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            goes_on = leads_now => goes_on,
        };
        if !goes_on {
            // Its task has panicked, which the log has; nobody renews any more.
            break Ok(());
        }
        let leadership = Leadership { until: until.clone() };
        witness.leads(true);
        tracing::info!("this controller leads");
        let outcome = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            () = leadership.over() => {
                tracing::warn!("this controller leads no longer: the lease could not be renewed in time; it waits for it");
                None
            }
            outcome = work(leadership.clone()) => Some(outcome),
        };
        witness.leads(false);
        if let Some(outcome) = outcome {
            break outcome;
        }
    };
    // Only now: nothing of the work is left.
    stop.cancel();
    let _ = (&mut renewing.0).await;
    result
}

/// A task that does not outlive whoever waits for it.
struct Guarded(tokio::task::JoinHandle<()>);

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
