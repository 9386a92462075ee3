//! The thread that appends what arrives to the store's file and says how far it is.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::progress::Progress;
use crate::store::{PartialBlob, PartialOrigin, StoreError};

/// Chunks that wait for the disk; with the batch below, the only bytes of a fetch that are in memory.
pub(super) const QUEUE: usize = 8;

/// Chunks that are taken from the queue at a time, so that readers are woken once for all of them.
const BATCH: usize = 8;

/// Appends until the queue is closed and empty, or the store fails. For a blocking thread.
pub(super) fn write(
    mut partial: PartialBlob,
    origin: PartialOrigin,
    mut chunks: mpsc::Receiver<Bytes>,
    progress: &watch::Sender<Progress>,
) -> (PartialBlob, Result<(), StoreError>) {
    // Without it the partial file cannot be continued after a restart, which is no reason to stop.
    if let Err(error) = partial.set_origin(origin) {
        tracing::debug!(%error, "where an unfinished blob comes from could not be noted");
    }
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if chunks.blocking_recv_many(&mut batch, BATCH) == 0 {
            return (partial, Ok(()));
        }
        let mut appended = 0;
        let mut result = Ok(());
        for chunk in batch.drain(..) {
            result = partial.append(&chunk);
            if result.is_err() {
                break;
            }
            appended += chunk.len() as u64;
        }
        progress.send_modify(|progress| progress.written += appended);
        if result.is_err() {
            return (partial, result);
        }
    }
}
