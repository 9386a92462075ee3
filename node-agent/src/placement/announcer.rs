//! Brings together who makes placements (the watch loop, when the engine is found or found anew) and who decides when they
//! are in place (`liveness`), on different threads.
//!
//! Invariant: the placement that is held is announced exactly if that is the last decision, whichever came first.
//! One that is replaced is withdrawn and removed.

use super::{Placement, PlacementError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The node's current placement, if there is one, and whether it should be announced. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Announcer {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    placement: Option<Arc<Placement>>,
    announced: bool,
}

impl Announcer {
    /// Takes over a placement whose targets are written.
    pub fn hold(&self, placement: &Arc<Placement>) -> Result<(), PlacementError> {
        let mut held = self.held();
        if held.announced {
            placement.announce()?;
        }
        match held.placement.replace(Arc::clone(placement)) {
            Some(old) if !Arc::ptr_eq(&old, placement) => old.remove(),
            _ => Ok(()),
        }
    }

    /// Withdraws and removes what is held.
    pub fn release(&self) -> Result<(), PlacementError> {
        self.held().placement.take().map_or(Ok(()), |placement| placement.remove())
    }

    /// Decides. Milliseconds: a rename.
    pub fn turn(&self, announced: bool) -> Result<(), PlacementError> {
        let mut held = self.held();
        held.announced = announced;
        match &held.placement {
            Some(placement) if announced => placement.announce(),
            Some(placement) => placement.withdraw(),
            None => Ok(()),
        }
    }

    /// Whether the engine's links lead somewhere now.
    pub fn is_announced(&self) -> bool {
        self.held().placement.as_ref().is_some_and(|placement| placement.is_announced())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
