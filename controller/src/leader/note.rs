//! What a leader leaves on the Lease for whoever leads next: a line of its own making, which goes along with the next renewal and costs no write, and with
//! the release of a Lease that is given back.
//!
//! What was said and is not written yet is not lost with the lead: as long as nobody else has led meanwhile it is what there is to know, for this process as
//! for the next one. Once somebody else has, only what the work says that began after it counts; until it says something, what is there stays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The line. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Note(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    found: String,
    left: Option<String>,
    /// How often the Lease was seen to be somebody else's.
    others: u64,
}

/// What one who works says it with. Nobody hears it any more once another one has led.
#[derive(Debug)]
pub struct Pen {
    note: Note,
    others: u64,
}

impl Note {
    /// For one who begins to work: what the one before left, and what to leave something with.
    pub fn begin(&self) -> (String, Pen) {
        let state = self.state();
        let found = state.left.as_ref().unwrap_or(&state.found).clone();
        (found, Pen { note: self.clone(), others: state.others })
    }

    /// It was read, on a Lease that is `ours` or somebody else's.
    pub(super) fn read(&self, line: Option<&str>, ours: bool) {
        let mut state = self.state();
        line.unwrap_or_default().clone_into(&mut state.found);
        if !ours {
            state.left = None;
            state.others = state.others.saturating_add(1);
        }
    }

    /// What is to be there, if anybody says so.
    pub(super) fn left(&self) -> Option<String> {
        self.state().left.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pen {
    /// From now on this is to be there; an empty line is none.
    pub fn leave(&self, line: String) {
        let mut state = self.note.state();
        if state.others == self.others {
            state.left = Some(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_counts_until_another_one_has_led() {
        let note = Note::default();
        note.read(Some("theirs"), false);
        let (found, pen) = note.begin();
        assert_eq!((found.as_str(), note.left()), ("theirs", None), "what is there stays");
        note.read(Some("theirs"), true);
        pen.leave("ours".to_owned());
        drop(pen);
        // It could not be written, and the lead was lost; nobody else took it.
        note.read(Some("theirs"), true);
        let (found, pen) = note.begin();
        assert_eq!((found.as_str(), note.left().as_deref()), ("ours", Some("ours")));
        // Another one did, and this work has not heard of it.
        note.read(Some("another's"), false);
        pen.leave("old".to_owned());
        assert_eq!(note.left(), None);
        let (found, pen) = note.begin();
        assert_eq!(found, "another's");
        pen.leave(String::new());
        assert_eq!(note.left().as_deref(), Some(""));
    }
}
