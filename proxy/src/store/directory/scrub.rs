//! Reads every blob again, slowly, and drops those whose bytes have changed, also those that nobody asks for: their digest
//! is the word on them. A large one without checksums that can be used gets new ones, from the bytes that had the digest.
//!
//! How far it is survives a restart, so that a process that is often restarted still gets round.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use larder_oci::{Digest, Hasher};
use rustix::fs::Advice;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::blobs::Removal;
use super::shared::Shared;
use super::{layout, record, sidecar};
use crate::store::checksums::is_chunked;
use crate::store::{Checksums, StoreError, Summing, document};

/// Read at a time. With the longer of the time limits: a disk that tries hard to read one bad sector is not a disk that hangs.
const CHUNK: usize = 256 << 10;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Round {
    version: u64,
    next_shard: usize,
    began_at: SystemTime,
}

/// Goes round, for ever; returns only if it is turned off.
pub(super) async fn scrub(shared: Arc<Shared>) {
    if shared.config.scrub_rate == 0 {
        return std::future::pending().await;
    }
    let at = Arc::clone(&shared);
    let saved = shared.gate.run("read the scrub's place", shared.config.answer_within, move || {
        record::read::<Round>(&at.folder, layout::SCRUB)
    });
    let fresh = || Round { version: document::VERSION, next_shard: 0, began_at: shared.now() };
    let mut round = saved.await.ok().flatten().unwrap_or_else(fresh);
    loop {
        while round.next_shard < layout::SHARDS {
            match shard(&shared, round.next_shard).await {
                Ok(any) => {
                    round.next_shard += 1;
                    // Most shards of a small store are empty: nothing worth writing down.
                    if any || round.next_shard == layout::SHARDS {
                        save(&shared, round.clone()).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "store: the scrub waits");
                    sleep(shared.config.recheck_every).await;
                }
            }
        }
        let since = shared.now().duration_since(round.began_at).unwrap_or_default();
        sleep(shared.config.scrub_every.saturating_sub(since)).await;
        round = fresh();
    }
}

async fn save(shared: &Arc<Shared>, round: Round) {
    let at = Arc::clone(shared);
    let saved = shared.gate.run("write the scrub's place", shared.config.durable_within, move || {
        record::write(&at, layout::SCRUB, &round)
    });
    if let Err(error) = saved.await {
        tracing::debug!(%error, "store: the scrub's place could not be written");
    }
}

/// Reads all blobs of a shard; whether there were any.
async fn shard(shared: &Arc<Shared>, number: usize) -> Result<bool, StoreError> {
    let at = Arc::clone(shared);
    let entries =
        shared.gate.run("list blobs", shared.config.durable_within, move || at.blobs.list(&at.folder, number)).await?;
    let any = !entries.is_empty();
    for entry in entries {
        let digest = entry.digest;
        if let Err(error) = blob(shared, digest.clone()).await {
            // One file that hangs must not be tried again and again.
            tracing::warn!(%digest, %error, "store: the scrub passes over a blob");
            sleep(shared.config.recheck_every).await;
        }
    }
    Ok(any)
}

struct Reading {
    file: File,
    inode: u64,
    hasher: Hasher,
    summing: Summing,
    buffer: Vec<u8>,
    offset: u64,
    /// Whether somebody may still want its pages.
    in_use: bool,
}

async fn blob(shared: &Arc<Shared>, digest: Digest) -> Result<(), StoreError> {
    let at = Arc::clone(shared);
    let (path, algorithm) = (layout::blob(&digest), digest.algorithm());
    let opened = shared.gate.run("open a blob", shared.config.durable_within, move || {
        let Some(file) = at.folder.open_file(&path)? else { return Ok(None) };
        let facts = at.folder.facts_of(&path, &file)?;
        let in_use = at.now().duration_since(facts.modified).is_ok_and(|age| age < 2 * at.config.touch_every);
        let (inode, hasher, buffer) = (facts.inode, Hasher::new(algorithm), vec![0; CHUNK]);
        Ok(Some(Reading { file, inode, hasher, summing: Summing::default(), buffer, offset: 0, in_use }))
    });
    // Evicted since it was listed: nothing to do.
    let Some(mut reading) = opened.await? else { return Ok(()) };
    let inode = reading.inode;
    let found = loop {
        let at = Arc::clone(shared);
        let shown = layout::blob(&digest);
        let read = shared.gate.run("read a blob again", shared.config.durable_within, move || {
            let read = reading.next().map_err(|error| at.folder.failed_io(&shown, error));
            Ok((reading, read))
        });
        match read.await? {
            (back, Ok(0)) => break (back.hasher.finish() == digest).then(|| back.summing.finish()),
            (back, Ok(length)) => {
                reading = back;
                shared.stats.scrubbed_bytes.fetch_add(length as u64, Ordering::Relaxed);
                sleep(pause(length, shared.config.scrub_rate)).await;
            }
            // The disk has lost these bytes.
            (_, Err(error)) => {
                tracing::warn!(%digest, %error, "store: a blob cannot be read");
                break None;
            }
        }
    };
    shared.stats.scrubbed_blobs.fetch_add(1, Ordering::Relaxed);
    let at = Arc::clone(shared);
    let Some(checksums) = found else {
        let remove = move || at.remove_damaged(&digest, Removal::DamagedInode(inode));
        return shared.gate.run("remove a damaged blob", shared.config.durable_within, remove).await;
    };
    if !is_chunked(checksums.length()) {
        return Ok(());
    }
    let mend = move || mend(&at, &digest, &checksums);
    shared.gate.run("write checksums", shared.config.durable_within, mend).await
}

/// Writes the checksums of a sound blob down, unless they are there.
fn mend(shared: &Shared, digest: &Digest, checksums: &Checksums) -> Result<(), StoreError> {
    if sidecar::read(&shared.folder, digest).is_some_and(|written| *written == *checksums) {
        return Ok(());
    }
    tracing::info!(%digest, "store: checksums of a blob are written anew");
    sidecar::write(&shared.folder, digest, checksums)
}

impl Reading {
    fn next(&mut self) -> Result<usize, std::io::Error> {
        let length = self.file.read_at(&mut self.buffer, self.offset)?;
        let bytes = self.buffer.get(..length).unwrap_or_default();
        self.hasher.update(bytes);
        self.summing.update(bytes);
        if !self.in_use {
            // Reading everything once must not push out what others read all the time.
            let read = std::num::NonZeroU64::new(length as u64);
            let _ = rustix::fs::fadvise(&self.file, self.offset, read, Advice::DontNeed);
        }
        self.offset += length as u64;
        Ok(length)
    }
}

fn pause(bytes: usize, rate: u64) -> Duration {
    Duration::from_millis((bytes as u64).saturating_mul(1000) / rate.max(1))
}
