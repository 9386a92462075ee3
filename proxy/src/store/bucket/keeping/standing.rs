//! How removal stands, for readiness and metrics.

use std::sync::Mutex;
use std::time::Instant;

use crate::store::lease::lock;
use crate::store::removal::{Run, Wait};

/// What this process's collector knows.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// When its last run ended.
    pub ended: Option<Instant>,
    /// Pins of all clusters, as that run saw them.
    pub pins: u64,
    /// Uploads that it condemned since the start.
    pub condemned: u64,
    /// Uploads that it removed since the start.
    pub removed: u64,
    /// What it removed since the start of what was left by something that ended: checksums without their blob, notes, uploads.
    pub swept: u64,
    /// Why nothing goes.
    pub waits: Option<Wait>,
}

impl Standing {
    /// Whether a person has to say that so few pins are right.
    pub fn brake_is_on(&self) -> bool {
        matches!(self.waits, Some(Wait::Brake { .. }))
    }
}

#[derive(Default)]
pub(in crate::store::bucket) struct Standings(Mutex<Standing>);

impl Standings {
    pub(in crate::store::bucket) fn get(&self) -> Standing {
        lock(&self.0).clone()
    }

    pub(in crate::store::bucket) fn note_swept(&self, swept: u64) {
        lock(&self.0).swept += swept;
    }

    pub(super) fn note(&self, run: &Run, pins: u64) {
        let mut standing = lock(&self.0);
        // A bucket that does not answer is told of elsewhere, and what was known before is still the best that is.
        if run.verdict == Err(Wait::Unanswered) {
            return;
        }
        standing.ended = Some(Instant::now());
        standing.pins = pins;
        standing.condemned += u64::try_from(run.condemned).unwrap_or(0);
        standing.removed += u64::try_from(run.removed).unwrap_or(0);
        standing.waits = run.verdict.clone().err();
    }
}
