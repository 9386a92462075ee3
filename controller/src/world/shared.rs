//! [`Known`] among tasks: a lock, and a bell.
//!
//! The one who leads may have the lock for seconds (a pass over many images). Whoever waits for it then hands on the thread that it runs on, so that tasks
//! which want nothing of it, the one that renews the lease before all, go on meanwhile, however many wait and however few threads there are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::block_in_place;

use super::Known;
use crate::decide::filter::Filters;

/// [`Known`], shared.
#[derive(Debug)]
pub struct World {
    known: Mutex<Known>,
    changed: Notify,
    is_worked_on: AtomicBool,
}

impl World {
    /// Nothing is known yet.
    pub fn new(filters: Filters) -> Self {
        Self {
            known: Mutex::new(Known::nothing(filters)),
            changed: Notify::new(),
            is_worked_on: AtomicBool::new(false),
        }
    }

    /// Whether somebody acts on changes. Whoever begins to looks at everything, so nothing is gathered for nobody, for months.
    pub fn is_worked_on(&self, is: bool) {
        self.is_worked_on.store(is, Ordering::SeqCst);
    }

    /// To look at it.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        let wait = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match self.known.try_lock() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Where there is one thread for everything there is none to hand it to.
            Err(TryLockError::WouldBlock) => match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
                Ok(RuntimeFlavor::CurrentThread) => wait(),
                _ => block_in_place(wait),
            },
        }
    }

    /// To change it; whoever waits is told.
    pub fn change(&self, change: impl FnOnce(&mut Known)) {
        {
            let mut known = self.known();
            change(&mut known);
            if !self.is_worked_on.load(Ordering::SeqCst) {
                known.changed.clear();
                known.deleted.clear();
                known.is_deleted_anew = false;
                known.registries_changed.clear();
            }
        }
        self.wake();
    }

    /// Whoever waits looks, though nothing of this changed. Waits for nobody.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Until something changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
