//! The thread that hashes what is written, by reading it back: for the digest, and for the checksums of its chunks, which the
//! store keeps. Both are of the same bytes, also where a fetch goes on with what an earlier one left.
//!
//! It follows the file like any reader: nothing is queued for it, so however slow it is it holds up neither the writer nor
//! the delivery, but for the tail, and what it verifies is what later readers get. Its state can be copied at any moment: it
//! has then taken exactly the bytes before `bytes_hashed()`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_oci::{Algorithm, Hasher};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::progress::Progress;
use crate::store::{Checksums, Summing};

/// Read at a time; small enough to stay in a core's cache between the copy and the hash.
const STEP: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Hashing {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hasher: Hasher,
    summing: Summing,
}

impl Hashing {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { state: Mutex::new(State { hasher: Hasher::new(algorithm), summing: Summing::default() }) }
    }

    /// A copy of the state as it is now.
    pub(super) fn snapshot(&self) -> Hasher {
        self.lock().hasher.clone()
    }

    /// The checksums of what was hashed.
    pub(super) fn checksums(&self) -> Checksums {
        self.lock().summing.clone().finish()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bytes_hashed(&self) -> u64 {
        self.lock().hasher.bytes_hashed()
    }

    /// Hashes until nothing more will be written. For a blocking thread of the runtime that `runtime` names.
    pub(super) fn follow(
        &self,
        file: &File,
        mut progress: watch::Receiver<Progress>,
        runtime: &Handle,
    ) -> io::Result<()> {
        let mut buffer = vec![0; STEP];
        let mut hashed = self.bytes_hashed();
        loop {
            let (written, ended) = {
                let progress = progress.borrow_and_update();
                (progress.written, progress.ended)
            };
            while hashed < written {
                let wanted = usize::try_from(written - hashed).unwrap_or(STEP).min(STEP);
                let Some(space) = buffer.get_mut(..wanted) else { break };
                file.read_exact_at(space, hashed)?;
                let mut state = self.lock();
                state.hasher.update(space);
                state.summing.update(space);
                drop(state);
                hashed += wanted as u64;
            }
            if ended || runtime.block_on(progress.changed()).is_err() {
                return Ok(());
            }
        }
    }
}
