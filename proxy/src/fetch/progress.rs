//! How far an assembly is, and what a reader may have of it: pure.
//!
//! The one rule of the module: [`Progress::released`] is the only place that knows how much of a file may leave.

use std::sync::Arc;

use larder_oci::Hasher;

use super::FetchError;
use crate::store::StoredBlob;

/// The end of a blob that waits for the verdict; of a smaller blob, all of it.
pub const TAIL: u64 = 64 * 1024;

/// Published by the threads of an assembly, followed by its readers.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The blob's length, once known.
    pub(super) total: Option<u64>,
    /// Bytes in the file.
    pub(super) written: u64,
    /// Nothing more will be written.
    pub(super) ended: bool,
    /// Where the assembly is in its life.
    pub(super) phase: Phase,
}

/// The life of an assembly.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The origin has not answered yet.
    Starting,
    /// Bytes come, or could.
    Arriving,
    /// All is there and has its digest.
    Verified,
    /// Nothing was fetched: the store has it.
    Stored(StoredBlob),
    /// The store cannot take the blob at all: each reader passes it through for itself.
    NoStore,
    /// The store failed on the way: each reader goes on by itself from where the hash is.
    Handover(Arc<Handover>),
    /// It ended; readers are cut short.
    Failed(FetchError),
}

/// What a reader needs to go on without the file.
#[derive(Debug)]
pub(super) struct Handover {
    /// Has taken exactly the bytes before its `bytes_hashed()`, all of which are in the file.
    pub(super) hasher: Hasher,
    /// The entity that they are part of.
    pub(super) etag: Option<String>,
    /// What is in the file is wrong somewhere, and whoever is asked now may have it right: a reader goes on only where what it was given
    /// is what comes now.
    pub(super) doubted: bool,
}

/// What a reader does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Read the file up to this offset.
    Read(u64),
    /// Wait for the progress to change.
    Wait,
    /// All was delivered.
    End,
    /// Go on without the file.
    PassOn(Arc<Handover>),
    /// Be cut short.
    Fail(FetchError),
}

impl Progress {
    pub(super) fn starting() -> Self {
        Self { total: None, written: 0, ended: false, phase: Phase::Starting }
    }

    /// Bytes from the start of the file that may leave.
    pub(super) fn released(&self) -> u64 {
        match &self.phase {
            Phase::Starting | Phase::Stored(_) | Phase::NoStore => 0,
            Phase::Verified => self.written,
            // What is not hashed yet will never be: the reader fetches it again.
            Phase::Handover(handover) => self.before_tail(handover.hasher.bytes_hashed()),
            Phase::Failed(error) if error.taints() => 0,
            Phase::Arriving | Phase::Failed(_) => self.before_tail(self.written),
        }
    }

    fn before_tail(&self, arrived: u64) -> u64 {
        match self.total {
            Some(total) => arrived.min(total.saturating_sub(TAIL)),
            None => arrived.saturating_sub(TAIL),
        }
    }

    /// What a reader at `position` that wants to reach `end` (`None`: the blob's end, not known when it started) does.
    pub(super) fn step(&self, position: u64, end: Option<u64>) -> Step {
        // Who was to reach the blob's end has it all only with the verdict: an empty blob ends where it begins.
        let is_whole = matches!(self.phase, Phase::Verified) || end != self.total;
        if is_whole && end.is_some_and(|end| position >= end) {
            return Step::End;
        }
        let released = self.released();
        if released > position {
            return Step::Read(end.map_or(released, |end| released.min(end)));
        }
        match &self.phase {
            Phase::Starting | Phase::Arriving | Phase::Stored(_) | Phase::NoStore => Step::Wait,
            Phase::Verified => Step::End,
            Phase::Handover(handover) => Step::PassOn(Arc::clone(handover)),
            Phase::Failed(error) => Step::Fail(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::{Algorithm, Digest};

    use super::*;

    fn at(total: Option<u64>, written: u64, phase: Phase) -> Progress {
        Progress { total, written, ended: false, phase }
    }

    #[test]
    fn the_tail_waits_for_the_verdict_and_nothing_else_does() {
        assert_eq!(at(Some(200_000), 1_000, Phase::Arriving).released(), 1_000);
        assert_eq!(at(Some(200_000), 200_000, Phase::Arriving).released(), 200_000 - TAIL);
        assert_eq!(at(Some(200_000), 200_000, Phase::Verified).released(), 200_000);
        assert_eq!(at(Some(10), 10, Phase::Arriving).released(), 0);
        assert_eq!(at(None, 100_000, Phase::Arriving).released(), 100_000 - TAIL);
        assert_eq!(at(None, 10, Phase::Arriving).released(), 0);
    }

    #[test]
    fn what_is_known_to_be_wrong_goes_no_further_but_a_break_leaves_what_came() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let wrong = FetchError::Mismatch { digest: digest.clone(), got: digest.clone(), elsewhere: false };
        assert_eq!(at(Some(200_000), 100_000, Phase::Failed(wrong)).released(), 0);
        let broken = at(Some(200_000), 100_000, Phase::Failed(FetchError::GivenUp { digest }));
        assert_eq!(broken.released(), 100_000);
        assert!(matches!(broken.step(100_000, Some(200_000)), Step::Fail(_)));
    }

    #[test]
    fn a_range_before_the_tail_ends_without_the_verdict() {
        let progress = at(Some(200_000), 150_000, Phase::Arriving);
        assert!(matches!(progress.step(10, Some(1_000)), Step::Read(1_000)));
        assert!(matches!(progress.step(1_000, Some(1_000)), Step::End));
        assert!(matches!(progress.step(150_000, Some(200_000)), Step::Wait));
    }

    #[test]
    fn nothing_that_reaches_the_blobs_end_ends_without_the_verdict_not_even_what_is_empty() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        for (total, position) in [(0, 0), (200_000, 200_000)] {
            let step = |phase| at(Some(total), total, phase).step(position, Some(total));
            assert!(matches!(step(Phase::Arriving), Step::Wait), "{total}");
            assert!(matches!(step(Phase::Failed(FetchError::GivenUp { digest: digest.clone() })), Step::Fail(_)));
            let handover = Handover { hasher: Hasher::new(Algorithm::Sha256), etag: None, doubted: false };
            assert!(matches!(step(Phase::Handover(Arc::new(handover))), Step::PassOn(_)));
            assert!(matches!(step(Phase::Verified), Step::End));
        }
    }
}
