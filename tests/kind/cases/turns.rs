//! Who runs beside whom: cases that take away what others need run alone, all others side by side, in the order in which they came.
//!
//! Invariant: nobody overtakes a case that wants to be alone, so the order of the list is that of the runs.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The cases that came and have not ended, by their numbers; whether each wants to be alone.
#[derive(Default)]
struct Queue {
    next: u64,
    present: BTreeMap<u64, bool>,
}

/// Hands out turns.
#[derive(Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A case's turn, until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Turns {
    /// Waits for a turn beside others, or alone.
    pub(crate) fn take(&self, alone: bool) -> Turn<'_> {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        queue.present.insert(number, alone);
        drop(queue);
        let turn = Turn { turns: self, number };
        turn.wait(alone);
        turn
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Goes on alone, or lets those who wait run beside it.
    pub(crate) fn alone(&self, alone: bool) {
        self.turns.lock().present.insert(self.number, alone);
        self.turns.changed.notify_all();
        self.wait(alone);
    }

    /// Earlier ones go first: all of them for whoever wants to be alone, those that want to be alone for everybody else.
    fn wait(&self, alone: bool) {
        let mut queue = self.turns.lock();
        while queue.present.range(..self.number).any(|(_, other)| alone || *other) {
            queue = self.turns.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().present.remove(&self.number);
        self.turns.changed.notify_all();
    }
}
