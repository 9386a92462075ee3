//! A verified blob on its way into the bucket.
//!
//! Every upload has a generation of its own, so no two writers ever meet in a key; that two replicas may upload the same blob at
//! once costs the bytes twice and nothing else. The object appears whole or not at all: at once where it is small, else in parts,
//! which are nothing before the last request. Checksums lie there before the blob does; those whose blob never comes are swept
//! (`keeping::sweep`), and whoever was so slow that his may be gone writes them again.
//!
//! Parts that are left by a crash cost money and are shown by no listing that every server has. So a note is written before the
//! first part; whoever finds one that is old gives the upload up.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use larder_oci::Digest;
use object_store::MultipartId;
use object_store::multipart::PartId;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::client::{Created, Who};
use super::layout::Generation;
use super::shared::{Kept, Shared};
use crate::store::document::{self, MAXIMUM_LENGTH};
use crate::store::{CHUNK, Checksums, StoreError, StoredBlob};

/// What S3 allows, less a little.
const MOST_PARTS: u64 = 9_000;
/// Parts of one upload that are under way at a time.
const PARTS_AT_ONCE: usize = 4;
/// How long it is believed that nobody else has uploaded a blob since it was looked for.
const UNSEEN: Duration = Duration::from_secs(30);
/// Notes that are looked at in one go.
const NOTES: usize = 10_000;

#[derive(Serialize, Deserialize)]
struct UploadNote {
    version: u64,
    key: String,
    upload: String,
    began_at: SystemTime,
}

impl Shared {
    /// Returns once the bucket has it, whoever brought it.
    pub(super) async fn upload(
        &self,
        digest: &Digest,
        blob: &StoredBlob,
        checksums: &Checksums,
    ) -> Result<(), StoreError> {
        if self.usable(digest, UNSEEN).await?.iter().any(|kept| kept.length == blob.len()) {
            self.confirmed.note(digest.clone(), ());
            return Ok(());
        }
        self.upload_as(digest, self.new_generation()?, blob, checksums).await
    }

    /// Under a generation that nobody has used yet.
    pub(super) async fn upload_as(
        &self,
        digest: &Digest,
        generation: Generation,
        blob: &StoredBlob,
        checksums: &Checksums,
    ) -> Result<(), StoreError> {
        let key = self.layout.blob(digest, &generation);
        let began = (Instant::now(), SystemTime::now());
        if blob.len() > self.config.small {
            self.put_checksums(digest, &generation, checksums).await?;
        }
        if blob.len() <= self.config.part {
            let _memory = self.parts.acquire().await;
            let bytes = self.read(blob, 0..blob.len()).await?;
            let created = self.client.create(Who::Anybody, &key, bytes).await?;
            // Nobody else has this generation: that it exists already means that an answer to us was lost, if it does.
            if created == Created::ExistsAlready && !self.shows(digest, &generation).await? {
                return Err(StoreError::Bucket {
                    operation: "write",
                    place: format!("{} {key}", self.client.place),
                    reason: "it is said to exist already, and is not there".to_owned(),
                });
            }
        } else {
            self.upload_parts(&key, &generation, blob).await?;
        }
        // A machine that was asleep counts, too. Without them it is there all the same.
        let took = began.0.elapsed().max(began.1.elapsed().unwrap_or_default());
        if blob.len() > self.config.small && took >= self.config.removal.alone / 2 {
            let written = self.put_checksums(digest, &generation, checksums).await;
            tracing::debug!(%digest, ?took, ?written, "store: checksums are written again after a slow upload");
        }
        tracing::debug!(%digest, bytes = blob.len(), generation = generation.as_str(), "store: uploaded");
        self.note_kept(digest, Kept { generation, length: blob.len() });
        Ok(())
    }

    async fn shows(&self, digest: &Digest, generation: &Generation) -> Result<bool, StoreError> {
        Ok(self.listed(digest).await?.iter().any(|kept| kept.generation == *generation))
    }

    pub(super) async fn put_checksums(
        &self,
        digest: &Digest,
        generation: &Generation,
        checksums: &Checksums,
    ) -> Result<(), StoreError> {
        let encoded = Bytes::from(checksums.encode(digest));
        self.client.put(&self.layout.checksums(digest, generation), encoded).await
    }

    async fn upload_parts(&self, key: &str, generation: &Generation, blob: &StoredBlob) -> Result<(), StoreError> {
        let id = self.client.begin(key).await?;
        let note = UploadNote {
            version: document::VERSION,
            key: key.to_owned(),
            upload: id.clone(),
            began_at: SystemTime::now(),
        };
        let note_key = self.layout.upload(generation);
        let noted = self.client.put(&note_key, Bytes::from(serde_json::to_vec(&note).unwrap_or_default())).await;
        let uploaded = match noted {
            Ok(()) => self.send_parts(key, &id, blob).await,
            Err(error) => Err(error),
        };
        if let Err(error) = uploaded {
            if self.client.abort(key, &id).await.is_ok() {
                self.forget_note(&note_key).await;
            }
            return Err(error);
        }
        self.forget_note(&note_key).await;
        Ok(())
    }

    async fn send_parts(&self, key: &str, id: &MultipartId, blob: &StoredBlob) -> Result<(), StoreError> {
        let part = part_length(blob.len(), self.config.part);
        let numbers = 0..blob.len().div_ceil(part);
        let parts: Vec<PartId> = stream::iter(numbers)
            .map(|number| async move {
                let _memory = self.parts.acquire().await;
                let range = number * part..blob.len().min((number + 1) * part);
                let bytes = self.read(blob, range).await?;
                self.client.part(key, id, usize::try_from(number).unwrap_or(usize::MAX), bytes).await
            })
            .buffered(PARTS_AT_ONCE)
            .try_collect()
            .await?;
        let Err(error) = self.client.complete(key, id, parts).await else { return Ok(()) };
        // The answer may have been lost on its way, and the object is there.
        match self.client.list(key.rsplit_once('/').map_or(key, |(folder, _)| folder), None, NOTES).await {
            Ok(found) if found.iter().any(|one| one.location.as_ref() == key && one.size == blob.len()) => Ok(()),
            _ => Err(error),
        }
    }

    async fn forget_note(&self, key: &str) {
        if let Err(error) = self.client.delete(key).await {
            tracing::debug!(key, %error, "store: the note of an upload stays for a while");
        }
    }

    /// Bytes of the copy here, checked as for any reader. Whole chunks, as parts begin with one.
    async fn read(&self, blob: &StoredBlob, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Some(file) = blob.file().map(Arc::clone) else {
            return Err(self.unreadable(&io::Error::other("it is still arriving")));
        };
        let check = blob.check().clone();
        let read = spawn_blocking(move || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            file.read_exact_at(&mut bytes, range.start)?;
            let sound = if bytes.is_empty() {
                check.passes(0, b"")
            } else {
                let offsets = (range.start..range.end).step_by(CHUNK);
                offsets.zip(bytes.chunks(CHUNK)).all(|(offset, chunk)| check.passes(offset, chunk))
            };
            if sound { Ok(bytes) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "they are damaged")) }
        });
        match read.await {
            Ok(Ok(bytes)) => Ok(Bytes::from(bytes)),
            Ok(Err(error)) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    blob.condemn(&error);
                }
                Err(self.unreadable(&error))
            }
            Err(ended) => Err(self.unreadable(&io::Error::other(ended))),
        }
    }

    fn unreadable(&self, error: &io::Error) -> StoreError {
        let reason = format!("the bytes here cannot be read: {error}");
        StoreError::Bucket { operation: "upload to", place: self.client.place.clone(), reason }
    }

    /// Whether the upload of that note was left.
    async fn expire_upload(&self, key: &str) -> Result<bool, StoreError> {
        let bytes = self.client.get(Who::Anybody, key, MAXIMUM_LENGTH as u64).await?;
        let Some(note) = bytes.and_then(|bytes| document::parse::<UploadNote>(&bytes).ok()) else { return Ok(false) };
        let age = SystemTime::now().duration_since(note.began_at).unwrap_or_default();
        if age < self.config.upload_age {
            return Ok(false);
        }
        self.client.abort(&note.key, &note.upload).await?;
        self.client.delete(key).await?;
        self.standings.note_swept(1);
        tracing::info!(key = note.key, "store: an upload that was left unfinished is given up");
        Ok(true)
    }

    /// Gives up the uploads that nobody is working on any more: those that began longer ago than any upload takes.
    pub(super) async fn expire_uploads(&self) -> Result<usize, StoreError> {
        let (mut after, mut expired): (Option<String>, usize) = (None, 0);
        loop {
            let notes = self.client.list(&self.layout.uploads(), after.as_deref(), NOTES).await?;
            for note in &notes {
                let key = note.location.as_ref();
                match self.expire_upload(key).await {
                    Ok(was_left) => expired += usize::from(was_left),
                    Err(error) if !self.client.gate.is_open() => return Err(error),
                    // One that the bucket refuses to give up keeps nobody from the next.
                    Err(error) => tracing::warn!(key, %error, "store: an upload that was left unfinished stays"),
                }
            }
            match notes.last() {
                Some(last) if notes.len() == NOTES => after = Some(last.location.to_string()),
                _ => return Ok(expired),
            }
        }
    }
}

/// A whole number of chunks, so that there are not too many parts.
fn part_length(length: u64, least: u64) -> u64 {
    let needed = length.div_ceil(MOST_PARTS);
    least.max(needed.div_ceil(CHUNK as u64) * CHUNK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_parts() {
        assert_eq!(part_length(100 << 20, 8 << 20), 8 << 20);
        for length in [1 << 37, 1 << 40, (1 << 40) + 1] {
            let part = part_length(length, 8 << 20);
            assert!(length.div_ceil(part) <= MOST_PARTS && part.is_multiple_of(CHUNK as u64), "{length}");
        }
    }
}
