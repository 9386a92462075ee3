//! What a leader leaves on the Lease for whoever leads next: a line of its own making, which goes along with the next renewal and costs no write.
//!
//! Whoever takes the Lease over leaves the line there until its own work says another one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The line. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Note(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    found: String,
    left: Option<String>,
}

impl Note {
    /// What is there, as it was read last. Nothing: an empty one.
    pub fn found(&self) -> String {
        self.state().found.clone()
    }

    /// From now on this is to be there; an empty line is none.
    pub fn leave(&self, line: String) {
        self.state().left = Some(line);
    }

    /// Whoever works no longer has nothing to say: what is there stays.
    pub fn say_nothing(&self) {
        self.state().left = None;
    }

    /// It was read.
    pub(super) fn read(&self, line: Option<&str>) {
        line.unwrap_or_default().clone_into(&mut self.state().found);
    }

    /// What is to be there, if anybody says so.
    pub(super) fn left(&self) -> Option<String> {
        self.state().left.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
