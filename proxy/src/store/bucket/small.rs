//! Small blobs from the bucket, which are manifests mostly: read whole and verified before anybody gets a byte.

use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_oci::Digest;

use super::client::Who;
use super::shared::{Kept, Shared};
use crate::store::blob::Keeper;
use crate::store::checksums::Check;
use crate::store::memory::memory_file;
use crate::store::{Checksums, Store as _, StoreError, StoredBlob};

impl Shared {
    pub(super) async fn take_small(
        self: &Arc<Self>,
        digest: &Digest,
        kept: Vec<Kept>,
    ) -> Result<Option<StoredBlob>, StoreError> {
        let (mut kept, mut tried) = (kept, HashSet::new());
        while let Some(Kept { generation, .. }) = kept.iter().find(|kept| !tried.contains(&kept.generation)).cloned() {
            tried.insert(generation.clone());
            let key = self.layout.blob(digest, &generation);
            let bytes = match self.client.get(Who::Anybody, &key, self.config.small).await {
                Ok(Some(bytes)) => bytes,
                // Removed since it was listed: there may be another one since.
                Ok(None) => {
                    self.forget(digest);
                    kept = self.kept(digest, Duration::ZERO).await?;
                    continue;
                }
                Err(error) => {
                    self.keep_away(digest);
                    return Err(error);
                }
            };
            if Digest::of(digest.algorithm(), &bytes) != *digest {
                self.distrust(digest, &generation);
                continue;
            }
            self.confirmed.note(digest.clone(), ());
            return self.place_small(digest, bytes).await.map(Some);
        }
        Ok(None)
    }

    /// A disk that does not take it costs a request the next time, and no pull now.
    async fn place_small(&self, digest: &Digest, bytes: Bytes) -> Result<StoredBlob, StoreError> {
        match self.local.put_bytes(digest, bytes.clone()).await {
            Ok(()) => {
                if let Ok(Some(blob)) = self.local.blob(digest).await {
                    return Ok(blob);
                }
            }
            Err(error) => tracing::debug!(%digest, %error, "store: no copy of a small blob is kept here"),
        }
        in_memory(digest, &bytes)
    }
}

/// For as long as somebody reads it.
fn in_memory(digest: &Digest, bytes: &[u8]) -> Result<StoredBlob, StoreError> {
    struct Nobody;
    impl Keeper for Nobody {
        fn condemn(&self) {}
    }
    let file = memory_file()?;
    file.write_all_at(bytes, 0).map_err(|error| StoreError::from_io("memory file", error))?;
    let length = bytes.len() as u64;
    let check = Check::new(digest, length, Some(Arc::new(Checksums::of(bytes))));
    Ok(StoredBlob::new(Arc::new(file), length, check, Arc::new(Nobody)))
}
