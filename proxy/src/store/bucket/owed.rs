//! Blobs that are here and should be in the bucket.
//!
//! A blob whose upload failed waits until the bucket answers again; a reader's handle keeps its copy from being evicted. A copy
//! that a process before this one left is looked up in the bucket when it is used for the first time, and uploaded if it is not there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use larder_oci::Digest;

use super::shared::Shared;
use crate::store::lease::lock;
use crate::store::{Checksums, StoredBlob, Summing};

/// Blobs that wait for the bucket; their bytes are bounded as well.
const MOST: usize = 512;

#[derive(Default)]
pub(super) struct Owed {
    blobs: Mutex<BTreeMap<Digest, (StoredBlob, Arc<Checksums>)>>,
}

impl Owed {
    fn add(&self, digest: &Digest, blob: StoredBlob, checksums: Arc<Checksums>, most_bytes: u64) -> bool {
        let mut blobs = lock(&self.blobs);
        let bytes: u64 = blobs.values().map(|(blob, _)| blob.len()).sum();
        let fits = blobs.len() < MOST && bytes.saturating_add(blob.len()) <= most_bytes;
        if fits {
            blobs.insert(digest.clone(), (blob, checksums));
        }
        fits
    }

    fn remove(&self, digest: &Digest) {
        lock(&self.blobs).remove(digest);
    }

    fn first(&self) -> Option<(Digest, StoredBlob, Arc<Checksums>)> {
        let blobs = lock(&self.blobs);
        blobs.first_key_value().map(|(digest, (blob, sums))| (digest.clone(), blob.clone(), Arc::clone(sums)))
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.blobs).len()
    }
}

impl Shared {
    /// Uploads a blob that is here, or leaves it for when the bucket answers again. It is served from here either way.
    pub(super) async fn keep(&self, digest: &Digest, blob: StoredBlob, checksums: Arc<Checksums>) {
        self.confirmed.note(digest.clone(), ());
        let Err(error) = self.upload(digest, &blob, &checksums).await else {
            self.owed.remove(digest);
            return;
        };
        if self.owed.add(digest, blob, checksums, self.config.owed_bytes) {
            tracing::warn!(%digest, %error, "store: a blob could not be uploaded; it is tried again later");
        } else {
            self.confirmed.forget(digest);
            tracing::warn!(%digest, %error, "store: a blob could not be uploaded, and too many wait for it already");
        }
    }

    /// Uploads what is owed, until something fails.
    pub(super) async fn settle_blobs(&self) {
        while let Some((digest, blob, checksums)) = self.owed.first() {
            match self.upload(&digest, &blob, &checksums).await {
                Ok(()) => self.owed.remove(&digest),
                // Damaged here by now: then there is nothing to upload.
                Err(error) if self.client.gate.is_open() => {
                    tracing::warn!(%digest, %error, "store: a blob that was owed is given up");
                    self.owed.remove(&digest);
                }
                Err(_) => return,
            }
        }
    }

    /// Looks once whether the bucket has what is used from here.
    pub(super) fn confirm_later(self: &Arc<Self>, digest: &Digest, blob: &StoredBlob) {
        if self.confirmed.get(digest, |(), _| true).is_some() || !self.client.gate.is_open() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.confirming).try_acquire_owned() else { return };
        self.confirmed.note(digest.clone(), ());
        let (shared, digest, blob) = (Arc::clone(self), digest.clone(), blob.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match shared.kept(&digest, shared.config.absent_for).await {
                Ok(kept) if kept.is_empty() => {
                    tracing::info!(%digest, "store: a copy here is not in the bucket; uploading it");
                    if let Some(checksums) = checksums_of(&blob).await {
                        shared.keep(&digest, blob, Arc::new(checksums)).await;
                    }
                }
                Ok(_) => {}
                Err(_) => shared.confirmed.forget(&digest),
            }
        });
    }
}

/// Those of the bytes as they are read and checked.
pub(super) async fn checksums_of(blob: &StoredBlob) -> Option<Checksums> {
    let mut range = crate::store::CheckedRange::new(blob.clone(), 0..blob.len());
    let mut summing = Summing::default();
    while let Some(bytes) = std::future::poll_fn(|context| range.poll_next(context)).await {
        summing.update(&bytes.ok()?);
    }
    Some(summing.finish())
}
