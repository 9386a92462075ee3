//! One fetch of a blob for all who ask.
//!
//! Any number of simultaneous requests for a digest share an *assembly*: one GET at the origin, a file that grows, and
//! readers that each read that file at their own pace. What holds, whatever the origin, the disk and the readers do:
//!
//! - The last [`TAIL`] bytes leave only after the whole was verified against its digest, so no engine ever completes
//!   content that is not the origin's. A range that ends before them does not wait.
//! - A reader costs one chunk of memory, delays nobody, and stops nothing when it leaves.
//! - An origin that breaks off is resumed by Range, unseen by the readers.
//! - A disk that fails ends the assembly, not the pull: each reader goes on with a request of its own.
//! - Content that failed is refused for a while: an engine that gets the same truncated answer again gives the pull up
//!   instead of asking the origin.
//!
//! What is stored already is no business of this module: [`Opened::Stored`].
//!
//! The flow: [`Fetcher::open`] joins or starts an assembly (`assembly`), whose course (`course`) takes chunks from a
//! `download`, which the `writing` thread appends to the store's file and the `hashing` thread reads back; both publish to
//! `progress`, which says what a `reader` may have. Where there is no file to share, a `passage` streams to one reader.

mod assembly;
mod course;
mod download;
mod error;
mod file_chunk;
mod hashing;
mod limits;
mod open;
mod passage;
mod progress;
mod reader;
mod refused;
mod writing;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_oci::Digest;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;
use crate::source::Source;
use crate::store::{Name, Store};

use assembly::Assembly;
use progress::Phase;
use refused::Refused;

pub use error::FetchError;
pub use limits::FetchLimits;
pub use open::{Opened, OpenedBody};
pub use progress::TAIL;

/// Starts assemblies, knows those that run, and lets readers join them. A clone is another handle of the same.
#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    source: Arc<dyn Source>,
    metrics: Arc<Metrics>,
    limits: FetchLimits,
    assemblies: Mutex<HashMap<Digest, Arc<Assembly>>>,
    orphans: Arc<Semaphore>,
    refused: Arc<Refused>,
}

impl Fetcher {
    /// A fetcher without any assembly yet.
    pub fn new(store: Arc<dyn Store>, source: Arc<dyn Source>, metrics: Arc<Metrics>, limits: FetchLimits) -> Self {
        let orphans = Arc::new(Semaphore::new(limits.orphans));
        let shared = Shared {
            store,
            source,
            metrics,
            limits,
            assemblies: Mutex::default(),
            orphans,
            refused: Arc::new(Refused::default()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether this content failed a short while ago and is better asked of the origin by the engine itself.
    pub fn refuses(&self, name: &Name, digest: &Digest) -> bool {
        self.shared.refused.contains(name, digest)
    }

    /// The length of a blob that is being assembled for this very repository, once the origin has said it.
    pub fn length_in_flight(&self, name: &Name, digest: &Digest) -> Option<u64> {
        let assembly = self.shared.assemblies().get(digest).cloned()?;
        if assembly.is_proven(name) { assembly.progress.borrow().total } else { None }
    }
}

impl Fetcher {
    /// The length of a blob that is being assembled for whomever, as soon as its origin has answered; `None` where it does not say.
    pub async fn length_when_known(&self, digest: &Digest, deadline: Instant) -> Option<u64> {
        let assembly = self.shared.assemblies().get(digest).cloned()?;
        let mut progress = assembly.progress.subscribe();
        let answered = progress.wait_for(|progress| !matches!(progress.phase, Phase::Starting));
        timeout_at(deadline, answered).await.ok()?.ok().and_then(|progress| match &progress.phase {
            Phase::Stored(blob) => Some(blob.len()),
            _ => progress.total,
        })
    }
}

impl Shared {
    fn assemblies(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Assembly>>> {
        self.assemblies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
