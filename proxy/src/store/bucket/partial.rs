//! A blob that is being written: in the folder here, and with its commit in the bucket as well.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use larder_oci::Digest;
use tokio::runtime::Handle;

use super::shared::Shared;
use crate::store::blob::WritePartial;
use crate::store::{Checksums, PartialBlob, PartialOrigin, StoreError, StoredBlob};

pub(super) struct BucketPartial {
    pub(super) partial: PartialBlob,
    pub(super) shared: Arc<Shared>,
    pub(super) digest: Digest,
    pub(super) runtime: Handle,
}

impl WritePartial for BucketPartial {
    fn existing(&self) -> u64 {
        self.partial.existing()
    }

    fn written(&self) -> u64 {
        self.partial.written()
    }

    fn file(&self) -> Arc<File> {
        self.partial.file()
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.partial.append(bytes)
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        self.partial.restart()
    }

    fn origin(&self) -> Option<PartialOrigin> {
        self.partial.origin()
    }

    fn set_origin(&mut self, origin: PartialOrigin) -> Result<(), StoreError> {
        self.partial.set_origin(origin)
    }

    /// Returns when the bucket has it, or has shown that it does not take it now.
    fn commit(self: Box<Self>, checksums: Checksums) -> Result<StoredBlob, StoreError> {
        let Self { partial, shared, digest, runtime } = *self;
        let stored = partial.commit(checksums.clone())?;
        let (done, wait) = sync_channel(1);
        let blob = stored.clone();
        runtime.spawn(async move {
            shared.keep(&digest, blob, Arc::new(checksums)).await;
            let _ = done.send(());
        });
        // It fails when the runtime is going away: then there is nothing to wait for.
        let _ = wait.recv();
        Ok(stored)
    }

    fn discard(self: Box<Self>) -> Result<(), StoreError> {
        self.partial.discard()
    }
}
