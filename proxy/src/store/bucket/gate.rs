//! Whether the bucket is asked at all.
//!
//! Invariant: after a few failures in a row nobody waits for the bucket any more; only the probe in the background asks, and the
//! first answer that it gets lets everybody in again. Until the bucket's version was seen nobody but the probe is let in either.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::store::StoreError;
use crate::store::lease::lock;

/// Failures without an answer in between.
const FAILURES: u32 = 3;

pub(super) struct Gate {
    state: Mutex<State>,
    /// Told when it closes.
    pub(super) closed: Notify,
}

struct State {
    failures: u32,
    /// Whether it was seen to answer, or said why it does not.
    looked_at: bool,
    /// Why nobody is let in.
    closed: Option<String>,
}

impl Gate {
    pub(super) fn new() -> Self {
        let state = State { failures: 0, looked_at: false, closed: Some("it was not looked at yet".to_owned()) };
        Self { state: Mutex::new(state), closed: Notify::new() }
    }

    pub(super) fn check(&self, operation: &'static str, place: &str) -> Result<(), StoreError> {
        match &lock(&self.state).closed {
            None => Ok(()),
            Some(reason) => Err(StoreError::Bucket {
                operation,
                place: place.to_owned(),
                reason: format!("the bucket is left alone for a while ({reason})"),
            }),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).closed.is_none()
    }

    /// The bucket answered, whatever it said.
    pub(super) fn answered(&self) {
        lock(&self.state).failures = 0;
    }

    /// It did not, or not as a bucket does.
    pub(super) fn failed(&self, place: &str, reason: &str) {
        let mut state = lock(&self.state);
        state.failures += 1;
        if state.failures < FAILURES || state.closed.is_some() {
            return;
        }
        state.closed = Some(reason.to_owned());
        drop(state);
        tracing::warn!(bucket = place, reason, "store: the bucket does not answer; going on without it");
        self.closed.notify_one();
    }

    /// The probe got an answer.
    pub(super) fn open(&self, place: &str) {
        let mut state = lock(&self.state);
        (state.failures, state.looked_at) = (0, true);
        if state.closed.take().is_some() {
            tracing::info!(bucket = place, "store: the bucket answers");
        }
    }

    /// The probe did not. At the start it is said why: most often it is something that was typed.
    pub(super) fn stays_closed(&self, place: &str, reason: &str) {
        let mut state = lock(&self.state);
        if state.closed.is_none() {
            return;
        }
        state.closed = Some(reason.to_owned());
        let first = !std::mem::replace(&mut state.looked_at, true);
        drop(state);
        if first {
            tracing::warn!(bucket = place, reason, "store: the bucket cannot be used yet; it is looked at again");
        }
    }
}
