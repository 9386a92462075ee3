//! The course of an assembly, from the first request at the origin to the stored blob: the task that owns it.
//!
//! Whatever happens, it ends by saying so to the readers and by leaving the list of assemblies, in this order, so that
//! nobody waits for something that nobody works on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_oci::Hasher;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::assembly::Assembly;
use super::download::{Download, Origin};
use super::hashing::Hashing;
use super::progress::{Handover, Phase};
use super::writing::{self, QUEUE};
use super::{FetchError, Shared};
use crate::source::SourceError;
use crate::store::{Link, PartialBlob, PartialOrigin, StoreError, StoredBlob};

/// An assembly and what its course needs; dropping it, also when the task is ended from outside, is the end of the assembly.
pub(super) struct Course {
    shared: Arc<Shared>,
    assembly: Arc<Assembly>,
    origin: Origin,
}

/// How the bytes ended.
enum Pumped {
    /// All of them are in the queue.
    All,
    /// The queue does not take any more.
    StoreGaveWay,
    /// The origin's fault, or nobody wants them.
    Failed(FetchError),
}

/// The store failed in the middle.
struct Trouble {
    /// What it said, if it said anything.
    error: Option<StoreError>,
    /// Not there when the thread that writes does not come back.
    partial: Option<PartialBlob>,
}

type Writing = JoinHandle<(PartialBlob, Result<(), StoreError>)>;

impl Drop for Course {
    fn drop(&mut self) {
        let digest = &self.origin.digest;
        self.assembly.progress.send_modify(|progress| {
            progress.ended = true;
            if matches!(progress.phase, Phase::Starting | Phase::Arriving) {
                progress.phase = Phase::Failed(FetchError::GivenUp { digest: digest.clone() });
            }
        });
        self.shared.remove(digest, &self.assembly);
        self.shared.metrics.fetches_running.dec();
    }
}

impl Course {
    pub(super) fn new(shared: Arc<Shared>, assembly: Arc<Assembly>, origin: Origin) -> Self {
        shared.metrics.fetches_running.inc();
        Self { shared, assembly, origin }
    }

    /// Runs to the end.
    pub(super) async fn run(self) {
        if let Some(blob) = self.stored().await {
            return self.publish(Phase::Stored(blob));
        }
        let partial = match self.shared.store.create(&self.origin.digest, None).await {
            Ok(partial) => partial,
            Err(error) => {
                tracing::warn!(digest = %self.origin.digest, %error, "the store takes no blob; passing through");
                return self.publish(Phase::NoStore);
            }
        };
        let (partial, download) = match self.begin(partial).await {
            Ok(begun) => begun,
            Err(error) => return self.publish(Phase::Failed(error)),
        };
        self.assemble(partial, download).await;
    }

    /// An assembly may have ended between the look into the store and this one's start: then there is nothing to fetch.
    async fn stored(&self) -> Option<StoredBlob> {
        let Origin { name, digest, .. } = &self.origin;
        self.shared.store.link(name, digest).await.ok().flatten()?;
        self.shared.store.blob(digest).await.ok().flatten()
    }

    fn publish(&self, phase: Phase) {
        self.assembly.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Asks the origin for what is missing. What an earlier attempt left is used only if the origin still offers the same
    /// entity; as nobody has been given anything yet, it can still be thrown away.
    async fn begin(&self, partial: PartialBlob) -> Result<(PartialBlob, Download), FetchError> {
        let deadline = Instant::now() + self.shared.limits.headers;
        let existing = partial.existing();
        let note = partial.origin();
        let total = note.as_ref().and_then(|note| note.total);
        if existing > 0 && total.is_none_or(|total| existing <= total) {
            // Another repository of the same registry may well call the same entity by another name.
            let etag = note.filter(|note| note.name == self.origin.name).and_then(|note| note.etag);
            match Download::start(&self.origin, existing, etag, total, deadline).await {
                Ok(download) => return Ok((partial, download)),
                Err(error) if !speaks_against_what_is_left(&error) => {
                    keep(partial).await;
                    return Err(error);
                }
                Err(error) => {
                    tracing::info!(digest = %self.origin.digest, %error, "what is left of an earlier fetch is of no use");
                }
            }
        }
        match Download::start(&self.origin, 0, None, None, deadline).await {
            Ok(download) if existing == 0 => Ok((partial, download)),
            Ok(download) => {
                let restarted = spawn_blocking(move || {
                    let mut partial = partial;
                    partial.restart().map(|()| partial)
                });
                match restarted.await {
                    Ok(Ok(partial)) => Ok((partial, download)),
                    _ => Err(FetchError::GivenUp { digest: self.origin.digest.clone() }),
                }
            }
            Err(error) => {
                self.discard(partial).await;
                Err(error)
            }
        }
    }

    async fn assemble(self, partial: PartialBlob, mut download: Download) {
        let existing = partial.written();
        let file = partial.file();
        let hashing = Arc::new(Hashing::new(self.origin.digest.algorithm()));
        let _ = self.assembly.file.set(Arc::clone(&file));
        self.assembly.progress.send_modify(|progress| {
            progress.total = download.total();
            progress.written = existing;
            progress.phase = Phase::Arriving;
        });

        let (sender, chunks) = mpsc::channel(QUEUE);
        let note = PartialOrigin {
            name: self.origin.name.clone(),
            etag: download.etag().map(ToOwned::to_owned),
            total: download.total(),
        };
        let assembly = Arc::clone(&self.assembly);
        let mut writing = spawn_blocking(move || writing::write(partial, note, chunks, &assembly.progress));
        let follower = Arc::clone(&hashing);
        let progress = self.assembly.progress.subscribe();
        let runtime = Handle::current();
        let mut hashed = spawn_blocking(move || follower.follow(&file, progress, &runtime));

        let pumped = tokio::select! {
            pumped = self.pump(&mut download, sender) => pumped,
            () = self.deserted() => Pumped::Failed(FetchError::GivenUp { digest: self.origin.digest.clone() }),
        };
        let etag = download.etag().map(ToOwned::to_owned);
        drop(download);
        let written = self.finish_writing(&mut writing).await;
        self.assembly.progress.send_modify(|progress| progress.ended = true);
        let is_hashed = self.finish_hashing(&mut hashed, &hashing).await;
        match (pumped, written) {
            (Pumped::Failed(error), written) => self.fail(error, written.ok()).await,
            (Pumped::All, Ok(partial)) if is_hashed => self.conclude(partial, &hashing).await,
            (_, written) => self.hand_over(written, &hashing, etag).await,
        }
    }

    /// Takes what comes from the origin to the queue of the thread that writes.
    async fn pump(&self, download: &mut Download, sender: mpsc::Sender<Bytes>) -> Pumped {
        let labels = self.shared.metrics.registry_labels(&self.origin.name.registry);
        tracing::debug!(digest = %self.origin.digest, registry = %labels.registry, "assembling");
        loop {
            match download.next().await {
                Ok(None) => return Pumped::All,
                Ok(Some(bytes)) => {
                    if sender.send_timeout(bytes, self.shared.limits.store_patience).await.is_err() {
                        return Pumped::StoreGaveWay;
                    }
                }
                Err(error) => return Pumped::Failed(error),
            }
        }
    }

    /// Ends when nobody has been reading for too long, or at once when too many fetches go on without readers.
    async fn deserted(&self) {
        let mut readers = self.assembly.readers();
        loop {
            // The sender lives in the assembly that we hold, so waiting does not fail.
            let _ = readers.wait_for(|readers| *readers == 0).await;
            if let Ok(_permit) = self.shared.orphans.try_acquire()
                && timeout(self.shared.limits.orphan_time, readers.wait_for(|readers| *readers > 0)).await.is_ok()
            {
                continue;
            }
            // Readers enter under this lock: from here on they find no assembly.
            let mut assemblies = self.shared.assemblies();
            if *readers.borrow_and_update() == 0 {
                assemblies.remove(&self.origin.digest);
                return;
            }
        }
    }

    /// Waits for the thread that writes, as long as it makes progress.
    async fn finish_writing(&self, writing: &mut Writing) -> Result<PartialBlob, Trouble> {
        let written = || self.assembly.progress.borrow().written;
        match while_it_moves(writing, self.shared.limits.store_patience, written).await {
            Some(Ok((partial, Ok(())))) => Ok(partial),
            Some(Ok((partial, Err(error)))) => Err(Trouble { error: Some(error), partial: Some(partial) }),
            // It comes back some day, or panicked; the partial blob is kept by being dropped.
            Some(Err(_)) | None => Err(Trouble { error: None, partial: None }),
        }
    }

    /// Waits for the thread that hashes, as long as it makes progress. Whether it has hashed all that was written.
    async fn finish_hashing(&self, hashed: &mut JoinHandle<io::Result<()>>, hashing: &Hashing) -> bool {
        let moved = || hashing.bytes_hashed();
        match while_it_moves(hashed, self.shared.limits.store_patience, moved).await {
            Some(Ok(Ok(()))) => true,
            Some(Ok(Err(error))) => {
                tracing::warn!(digest = %self.origin.digest, %error, "what was written cannot be read back");
                false
            }
            Some(Err(_)) | None => false,
        }
    }

    /// All is there: the verdict, then the store.
    async fn conclude(self, partial: PartialBlob, hashing: &Hashing) {
        let got = hashing.snapshot().finish();
        if got != self.origin.digest {
            let error = self.origin.mismatch(got);
            tracing::warn!(registry = %self.origin.name.registry, repository = %self.origin.name.repository, %error,
                "nothing of it was stored");
            if error.is_for_somebody_else() {
                return self.begin_anew(partial).await;
            }
            return self.fail(error, Some(partial)).await;
        }
        let length = hashing.bytes_hashed();
        self.assembly.progress.send_modify(|progress| {
            progress.total = Some(length);
            progress.phase = Phase::Verified;
        });
        let checksums = hashing.checksums();
        match spawn_blocking(move || partial.commit(checksums)).await {
            Ok(Ok(_)) => self.link(length).await,
            Ok(Err(error)) => {
                tracing::warn!(digest = %self.origin.digest, %error, "a verified blob could not be stored");
            }
            Err(error) => tracing::warn!(digest = %self.origin.digest, %error, "a verified blob could not be stored"),
        }
    }

    /// The bytes were delivered by this repository: evidence. For others that joined, a HEAD has already given it.
    async fn link(&self, length: u64) {
        let Origin { name, digest, .. } = &self.origin;
        // A manifest may be asked for as a blob, and is a manifest all the same.
        let media_type = self.shared.store.link(name, digest).await.ok().flatten().and_then(|link| link.media_type);
        let link = Link {
            digest: digest.clone(),
            media_type,
            size: Some(length),
            public: true,
            confirmed_at: SystemTime::now(),
        };
        if let Err(error) = self.shared.store.put_link(name, link).await {
            tracing::debug!(%digest, %error, "a link could not be written");
        }
    }

    /// Cuts the readers short. An engine comes back at once and must then find a refusal, so that is noted first.
    async fn fail(self, error: FetchError, partial: Option<PartialBlob>) {
        let limits = &self.shared.limits;
        let time = if error.taints() { limits.refuse_mismatch } else { limits.refuse_cut };
        if !matches!(error, FetchError::GivenUp { .. }) && !error.is_for_somebody_else() {
            for name in self.assembly.proven() {
                self.shared.refused.note(&name, &self.origin.digest, time);
            }
        }
        let discard = error.taints();
        tracing::debug!(%error, "fetch failed");
        self.publish(Phase::Failed(error));
        match partial {
            Some(partial) if discard => self.discard(partial).await,
            Some(partial) => keep(partial).await,
            None => {}
        }
    }

    /// The store failed: the readers go on by themselves from what is hashed.
    async fn hand_over(self, written: Result<PartialBlob, Trouble>, hashing: &Hashing, etag: Option<String>) {
        let (error, partial) = match written {
            Ok(partial) => (None, Some(partial)),
            Err(Trouble { error, partial }) => (error, partial),
        };
        let shown = error.as_ref().map_or_else(|| "no progress".to_owned(), ToString::to_string);
        tracing::warn!(digest = %self.origin.digest, error = shown, "the store failed during a fetch; readers go on without it");
        self.publish(Phase::Handover(Arc::new(Handover { hasher: hashing.snapshot(), etag, doubted: false })));
        match (error, partial) {
            // What is left of it would keep the disk full.
            (Some(StoreError::Full { .. }), Some(partial)) => self.discard(partial).await,
            (_, Some(partial)) => keep(partial).await,
            (_, None) => {}
        }
    }

    /// It was wrong, and somebody else is asked from now on: whoever comes begins anew, and the readers go on where they can.
    async fn begin_anew(&self, partial: PartialBlob) {
        // Readers hold the file open. Whoever comes from now on must find neither it nor this assembly.
        self.discard(partial).await;
        self.shared.remove(&self.origin.digest, &self.assembly);
        let hasher = Hasher::new(self.origin.digest.algorithm());
        self.publish(Phase::Handover(Arc::new(Handover { hasher, etag: None, doubted: true })));
    }

    async fn discard(&self, partial: PartialBlob) {
        if let Ok(Err(error)) = spawn_blocking(move || partial.discard()).await {
            tracing::debug!(digest = %self.origin.digest, %error, "an unfinished blob could not be removed");
        }
    }
}

async fn keep(partial: PartialBlob) {
    // Its end may touch the disk, so not here. Whether it succeeds changes nothing.
    let _ = spawn_blocking(move || partial.keep()).await;
}

/// The thread's result, or `None` once `position` has not changed for as long as `patience`.
async fn while_it_moves<T>(
    thread: &mut JoinHandle<T>,
    patience: Duration,
    position: impl Fn() -> u64,
) -> Option<Result<T, JoinError>> {
    loop {
        let before = position();
        match timeout(patience, &mut *thread).await {
            Ok(joined) => return Some(joined),
            Err(_) if position() == before => return None,
            Err(_) => {}
        }
    }
}

/// Whether the origin, asked for the rest, made clear that what is left over is not part of what it has.
fn speaks_against_what_is_left(error: &FetchError) -> bool {
    match error {
        FetchError::Changed { .. } => true,
        FetchError::Source { error, .. } => {
            matches!(error, SourceError::Protocol { .. } | SourceError::Mismatch { .. })
        }
        _ => false,
    }
}
