//! A large blob on its way from the bucket into a file of ours, for all who read it meanwhile.
//!
//! Begun by the first reader, so a HEAD and the question whether an image is whole cost no more than a listing. Each chunk is checked
//! against the checksums that were uploaded beside the blob before anybody gets it, and the last one waits for the digest: so a wrong
//! byte never leaves, and what stops coming ends in a cut, after which a client asks for the rest. By then the blob counts as
//! absent, so the rest comes from the origin, and what has arrived stays in the folder for it to be continued.
//!
//! Without checksums (none were uploaded, or they cannot be used) nothing leaves before the whole was verified; until it is here the blob
//! counts as absent. Then it gets those that were made of it here, so that the next one need not wait.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use larder_oci::{Digest, Hasher};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::client::{Client, Who};
use super::layout::Generation;
use super::shared::{Kept, Shared};
use crate::store::blob::{Arriving, Keeper};
use crate::store::checksums::{Check, MAXIMUM_ENCODED};
use crate::store::lease::lock;
use crate::store::{CHUNK, Checksums, PartialBlob, Store as _, StoreError, StoredBlob, Summing};

/// Breaks that are continued without [`PROGRESS`] bytes in between.
const TRIES: u32 = 3;
const PROGRESS: u64 = 4 << 20;
/// Fills in the list beyond which those that nobody has any more are dropped from it.
const TIDY: usize = 64;

pub(super) struct Fill {
    me: Weak<Self>,
    shared: Arc<Shared>,
    digest: Digest,
    length: u64,
    kept: Vec<Kept>,
    begun: AtomicBool,
    /// Nothing leaves before all of it is here.
    withholds: AtomicBool,
    progress: watch::Sender<Progress>,
    file: OnceLock<Arc<File>>,
    /// By which what was given out is right.
    checksums: Arc<OnceLock<Arc<Checksums>>>,
    /// Uploads of which something was read.
    read_from: Mutex<Vec<Generation>>,
    /// Those of them that have no checksums.
    without: Mutex<Vec<Generation>>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    /// Bytes from the start that may be read.
    released: u64,
    /// Bytes are coming; whoever wants one of them may as well wait.
    coming: bool,
    /// Why no more will come.
    failed: Option<String>,
}

/// Why a fill ended early.
struct Stop(String);

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl Fill {
    /// Known to all who ask for the blob from now on. The caller has the digest's turn.
    pub(super) fn new(shared: &Arc<Shared>, digest: &Digest, kept: Vec<Kept>) -> Arc<Self> {
        let length = kept.first().map_or(0, |first| first.length);
        let fill = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            shared: Arc::clone(shared),
            digest: digest.clone(),
            length,
            kept,
            begun: AtomicBool::new(false),
            withholds: AtomicBool::new(false),
            progress: watch::Sender::default(),
            file: OnceLock::new(),
            checksums: Arc::default(),
            read_from: Mutex::default(),
            without: Mutex::default(),
        });
        let mut fills = lock(&shared.fills);
        if fills.len() >= TIDY {
            fills.retain(|_, fill| fill.strong_count() > 0);
        }
        fills.insert(digest.clone(), Arc::downgrade(&fill));
        fill
    }

    pub(super) fn blob(self: &Arc<Self>) -> StoredBlob {
        let keeper = CopyHere { shared: Arc::clone(&self.shared), digest: self.digest.clone() };
        let check = Check::Later(Arc::clone(&self.checksums));
        StoredBlob::arriving(Arc::clone(self) as Arc<dyn Arriving>, self.length, check, Arc::new(keeper))
    }

    /// Whether its bytes are coming here, or came.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether whoever comes now would wait for all of it.
    pub(super) fn withholds(&self) -> bool {
        self.withholds.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        if !self.begun.swap(true, Ordering::Relaxed)
            && let Some(fill) = self.me.upgrade()
        {
            tokio::spawn(fill.run());
        }
    }

    async fn run(self: Arc<Self>) {
        let filled = self.fill().await;
        if let Err(Stop(reason)) = &filled {
            tracing::warn!(digest = %self.digest, bucket = self.shared.client.place, reason,
                "store: a blob does not come from the bucket; it counts as absent for a while");
            self.shared.keep_away(&self.digest);
        }
        // Nobody may find it in the list and wait for it in vain.
        let mut fills = lock(&self.shared.fills);
        if fills.get(&self.digest).is_some_and(|fill| Weak::ptr_eq(fill, &self.me)) {
            fills.remove(&self.digest);
        }
        drop(fills);
        self.progress.send_modify(|progress| match filled {
            Ok(()) => progress.released = self.length,
            Err(Stop(reason)) => progress.failed = Some(reason),
        });
    }

    async fn fill(self: &Arc<Self>) -> Result<(), Stop> {
        // Whoever waits for the first bytes soon turns to the origin, which wants to write the same file then.
        let first = Instant::now() + self.shared.config.first_bytes_within;
        let mut copy = Copy::begin(&self.shared, &self.digest, self.length).await?;
        let _ = self.file.set(copy.file());
        let filled = self.copy(&mut copy, first).await;
        if let Err(stop) = filled {
            copy.keep().await;
            return Err(stop);
        }
        let (partial, hasher, checksums) = copy.finish().await?;
        let got = hasher.finish();
        if got != self.digest {
            for generation in lock(&self.read_from).iter() {
                self.shared.distrust(&self.digest, generation);
            }
            let _ = spawn_blocking(move || partial.discard()).await;
            return Err(Stop(format!("its bytes are those of {got}")));
        }
        let made = checksums.clone();
        let placed = spawn_blocking(move || partial.commit(checksums)).await;
        placed.map_err(|ended| Stop(ended.to_string()))??;
        self.shared.confirmed.note(self.digest.clone(), ());
        self.give_checksums(made);
        Ok(())
    }

    /// Beside the uploads that had none: their writer was so slow that they were swept, or they are damaged. Right ones are right beside
    /// wrong bytes, too.
    fn give_checksums(&self, checksums: Checksums) {
        let without = std::mem::take(&mut *lock(&self.without));
        if without.is_empty() {
            return;
        }
        let (shared, digest) = (Arc::clone(&self.shared), self.digest.clone());
        tokio::spawn(async move {
            for generation in without {
                if let Err(error) = shared.put_checksums(&digest, &generation, &checksums).await {
                    tracing::debug!(%digest, %error, "store: a blob in the bucket stays without checksums");
                }
            }
        });
    }

    /// Brings all bytes, from one generation after the other; those that are gone may have made room for new ones.
    async fn copy(self: &Arc<Self>, copy: &mut Copy, first: Instant) -> Result<(), Stop> {
        let mut why = Cow::Borrowed("the bucket has it no more");
        let mut seen = HashSet::new();
        let mut generations = self.kept.clone();
        while let Some(kept) = generations.iter().find(|kept| !seen.contains(&kept.generation)).cloned() {
            seen.insert(kept.generation.clone());
            if kept.length != self.length {
                continue;
            }
            let checksums = self.find_checksums(&kept).await;
            // Whoever comes meanwhile is not to wait, and the origin answers in its place.
            let withholds = checksums.is_none() && self.checksums.get().is_none();
            self.withholds.store(withholds, Ordering::Relaxed);
            if let (Some(given), Some(own)) = (self.checksums.get(), &checksums)
                && given != own
            {
                // What was given out was right by those of another upload. One of the two is wrong: nothing is added to it.
                why = Cow::Borrowed("two uploads of it have different checksums");
                continue;
            }
            lock(&self.read_from).push(kept.generation.clone());
            let mut tries = TRIES;
            let mut counted_from = copy.taken;
            while tries > 0 {
                match self.read_on(&kept, checksums.as_ref(), copy, first).await? {
                    Read::All => return Ok(()),
                    Read::Gone => {
                        self.shared.forget(&self.digest);
                        generations = self.shared.kept(&self.digest, Duration::ZERO).await?;
                        break;
                    }
                    Read::Wrong => {
                        self.shared.distrust(&self.digest, &kept.generation);
                        why = Cow::Borrowed("its bytes are not those that were uploaded");
                        break;
                    }
                    Read::Broken(reason) => {
                        why = Cow::Owned(reason);
                        if copy.taken - counted_from >= PROGRESS {
                            (tries, counted_from) = (TRIES, copy.taken);
                        }
                        tries -= 1;
                        if copy.taken == 0 && Instant::now() >= first {
                            return Err(Stop(why.into_owned()));
                        }
                    }
                }
            }
        }
        Err(Stop(why.into_owned()))
    }

    /// Those that were uploaded with this generation: each is judged by its own.
    async fn find_checksums(&self, kept: &Kept) -> Option<Arc<Checksums>> {
        let key = self.shared.layout.checksums(&self.digest, &kept.generation);
        let found = self.shared.client.get(Who::Anybody, &key, MAXIMUM_ENCODED as u64).await;
        let answered = found.is_ok();
        let decoded = match found {
            Ok(Some(bytes)) => Checksums::decode(&self.digest, &bytes).map_err(str::to_owned),
            Ok(None) => Err("there are none".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match decoded {
            Ok(checksums) if checksums.length() == self.length => return Some(Arc::new(checksums)),
            Ok(_) => tracing::debug!(digest = %self.digest, "store: checksums of another length"),
            Err(reason) => tracing::debug!(digest = %self.digest, reason, "store: no checksums in the bucket"),
        }
        if answered {
            lock(&self.without).push(kept.generation.clone());
        }
        None
    }

    /// One request for what is missing.
    async fn read_on(
        &self,
        kept: &Kept,
        checksums: Option<&Arc<Checksums>>,
        copy: &mut Copy,
        first: Instant,
    ) -> Result<Read, Stop> {
        let key = self.shared.layout.blob(&self.digest, &kept.generation);
        let mut stream = match self.shared.client.stream(&key, copy.taken).await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Ok(Read::Gone),
            Err(error) => return Ok(Read::Broken(error.to_string())),
        };
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while copy.taken < self.length {
            // For a whole chunk, so that a trickle is no progress.
            let chunk_until = if copy.taken == 0 { first } else { Instant::now() + self.shared.config.silence };
            let wanted = usize::try_from(self.length - copy.taken).unwrap_or(CHUNK).min(CHUNK);
            while buffer.len() < wanted {
                let patience = chunk_until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                match Client::next_piece(&mut stream, patience).await {
                    Ok(Some(bytes)) => buffer.extend_from_slice(&bytes),
                    Ok(None) => return Ok(Read::Broken(format!("it ended at byte {}", copy.taken))),
                    Err(reason) => return Ok(Read::Broken(reason)),
                }
            }
            let chunk = buffer.split_to(wanted).freeze();
            if let Some(checksums) = checksums {
                if !checksums.fit(copy.taken, &chunk) {
                    return Ok(Read::Wrong);
                }
                // Readers get bytes from now on, and check them by the same.
                let _ = self.checksums.set(Arc::clone(checksums));
            }
            let written = copy.append(chunk).await?;
            // The last chunk waits for the digest; without checksums all do.
            let last = self.length - 1 - (self.length - 1) % CHUNK as u64;
            let released = if checksums.is_some() { written.min(last) } else { 0 };
            self.progress.send_modify(|progress| {
                progress.released = progress.released.max(released);
                progress.coming = self.checksums.get().is_some();
            });
        }
        Ok(Read::All)
    }
}

/// How one request ended.
enum Read {
    All,
    Gone,
    Wrong,
    Broken(String),
}

impl Arriving for Fill {
    fn begun(&self) -> BoxFuture<'static, io::Result<()>> {
        self.begin();
        let (length, mut progress) = (self.length, self.progress.subscribe());
        Box::pin(async move {
            let enough =
                |progress: &Progress| progress.coming || progress.released >= length || progress.failed.is_some();
            outcome(progress.wait_for(enough).await.ok().and_then(|progress| progress.failed.clone()))
        })
    }

    fn until(&self, end: u64) -> BoxFuture<'static, io::Result<Arc<File>>> {
        self.begin();
        let (fill, mut progress) = (self.me.upgrade(), self.progress.subscribe());
        Box::pin(async move {
            let enough = |progress: &Progress| progress.released >= end || progress.failed.is_some();
            let failed = match progress.wait_for(enough).await {
                Ok(progress) if progress.released >= end => None,
                Ok(progress) => progress.failed.clone(),
                Err(_) => Some("nobody brings it any more".to_owned()),
            };
            outcome(failed)?;
            fill.and_then(|fill| fill.file.get().cloned()).ok_or_else(|| io::Error::other("no file was begun"))
        })
    }
}

fn outcome(failed: Option<String>) -> io::Result<()> {
    match failed {
        None => Ok(()),
        Some(reason) => Err(io::Error::other(reason)),
    }
}

/// Damage that a reader finds is in the copy here.
struct CopyHere {
    shared: Arc<Shared>,
    digest: Digest,
}

impl Keeper for CopyHere {
    fn condemn(&self) {
        let (shared, digest) = (Arc::clone(&self.shared), self.digest.clone());
        shared.keep_away(&digest);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = shared.local.remove_damaged(&digest).await {
                    tracing::warn!(%digest, %error, "store: a damaged copy could not be removed");
                }
            });
        }
    }
}

/// The file that grows. The disk works on one chunk while the next one arrives.
struct Copy {
    at_rest: Option<Grown>,
    working: Option<JoinHandle<Result<Grown, StoreError>>>,
    file: Arc<File>,
    /// Bytes that were handed over, written or not.
    taken: u64,
}

struct Grown {
    partial: PartialBlob,
    hasher: Hasher,
    summing: Summing,
}

impl Copy {
    async fn begin(shared: &Arc<Shared>, digest: &Digest, length: u64) -> Result<Self, Stop> {
        let partial = shared.local.create(digest, Some(length)).await?;
        // What is left of an earlier attempt was verified by nobody.
        let restarted = spawn_blocking(move || {
            let mut partial = partial;
            if partial.existing() > 0 { partial.restart().map(|()| partial) } else { Ok(partial) }
        });
        let partial = restarted.await.map_err(|ended| Stop(ended.to_string()))??;
        let file = partial.file();
        let grown = Grown { partial, hasher: Hasher::new(digest.algorithm()), summing: Summing::default() };
        Ok(Self { at_rest: Some(grown), working: None, file, taken: 0 })
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    async fn rest(&mut self) -> Result<Grown, Stop> {
        if let Some(working) = self.working.take() {
            return Ok(working.await.map_err(|ended| Stop(ended.to_string()))??);
        }
        self.at_rest.take().ok_or_else(|| Stop("the copy ended before".to_owned()))
    }

    /// Takes the next bytes; how many are in the file, which is those before.
    async fn append(&mut self, bytes: Bytes) -> Result<u64, Stop> {
        let mut grown = self.rest().await?;
        let written = self.taken;
        self.taken += bytes.len() as u64;
        self.working = Some(spawn_blocking(move || {
            grown.partial.append(&bytes)?;
            grown.hasher.update(&bytes);
            grown.summing.update(&bytes);
            Ok(grown)
        }));
        Ok(written)
    }

    async fn finish(mut self) -> Result<(PartialBlob, Hasher, Checksums), Stop> {
        let Grown { partial, hasher, summing } = self.rest().await?;
        Ok((partial, hasher, summing.finish()))
    }

    /// Leaves what has arrived for whoever goes on.
    async fn keep(mut self) {
        if let Ok(grown) = self.rest().await {
            let _ = spawn_blocking(move || grown.partial.keep()).await;
        }
    }
}
