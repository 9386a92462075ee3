//! Makes pins complete: finds out what each image is, fetches what is missing, and tries again until it is there.
//!
//! What there is to do is what [`Pins::incomplete`] says, so nothing is forgotten by a crash, and what only this process knows (progress, the last
//! error, when to try again) is lost with it and does no harm. What callers wish for, and take back, is [`wishes`]; whether what is complete stays so, [`again`]; what an image was before, [`older`]; and what
//! all of that leaves to pulls, [`quota`]. A pin is written here
//! only in its name's turn ([`Writings`]), and only if it still is the wish that the work began with: a deleted pin does not come back.

mod again;
mod older;
mod quota;
mod wishes;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use larder_oci::{Digest, ImageReference, Registry};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::{Plan, Wanted, plan};
use super::writings::Writings;
use crate::origin::Standings;
use crate::pins::{Failed, Holder, KeptPin, Pin, PinName, Pins, PinsError, Place, Platforms, Put};
use crate::pull::{Code, Puller, Reason, Unkept};
use crate::store::Name;

/// Images that are made complete at once, of them those of one registry, and blobs of each. One that is slow, or means to be, leaves room for the rest.
const IMAGES: usize = 12;
const OF_A_REGISTRY: usize = 4;
const BLOBS: usize = 3;

/// How long one is fetched before it gives its place up to those that wait. It goes on later, from where it is.
const TURN: Duration = Duration::from_mins(10);

/// Pins that are known to be waiting; of more the store is asked again later.
const MAXIMUM_ENTRIES: usize = 10_000;

/// How often the store is asked for pins that are not complete.
const LOOK: Duration = Duration::from_secs(30);

/// Until the next try, the first time; it doubles up to the longest.
const AGAIN: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_mins(5);

/// For what is there and not kept yet: a bucket takes its time.
const KEPT_AGAIN: Duration = Duration::from_secs(1);
const KEPT_TRIES: u32 = 60;

/// What is going on with a pin in this process.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) bytes_known: AtomicU64,
    pub(super) bytes_fetched: AtomicU64,
    pub(super) blobs_known: AtomicU64,
    pub(super) blobs_fetched: AtomicU64,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its turn comes.
    Queued,
    /// Under way.
    Fetching,
    /// It failed, for this reason, and is tried again.
    Waiting(Reason),
    /// It is refused, for this reason, until a person changes something; it is looked at again now and then.
    Refused(Reason),
}

struct Entry {
    name: PinName,
    state: State,
    progress: Arc<Progress>,
    not_before: Instant,
    failures: u32,
    running: bool,
    /// The wish that was tried last, where that ended without it and is known to be for want of it: also while it is tried again.
    failed: Option<Platforms>,
    /// It was put again while it was worked at.
    again: bool,
    /// What it is was known before anybody here began with it (it lost something, or a fetch was broken off): it is to be that, not what its tag means by now.
    as_it_was: bool,
    /// Why what is lost of the image that stays until this one is complete could not be had.
    older: Option<String>,
    /// Nobody wants it any more.
    gone: CancellationToken,
}

/// Makes pins complete.
pub(crate) struct Keeper {
    pins: Arc<dyn Pins>,
    puller: Puller,
    entries: StdMutex<HashMap<Place, Entry>>,
    wake: Notify,
    /// Told whenever something of an entry changes.
    pub(super) changed: Notify,
    writings: Arc<Writings>,
    /// How registries are doing.
    standings: Arc<Standings>,
}

impl Keeper {
    pub(crate) fn new(pins: Arc<dyn Pins>, puller: Puller, standings: Arc<Standings>) -> Arc<Self> {
        Arc::new(Self {
            pins,
            puller,
            entries: StdMutex::default(),
            wake: Notify::new(),
            changed: Notify::new(),
            writings: Arc::default(),
            standings,
        })
    }

    pub(super) fn pins(&self) -> &dyn Pins {
        &*self.pins
    }

    pub(super) fn puller(&self) -> &Puller {
        &self.puller
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Entry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Has a pin looked at now, whatever was going to happen to it; `false` where too many wait.
    pub(super) fn enqueue(&self, name: &PinName) -> bool {
        self.enqueue_for(name, false)
    }

    /// The same; `as_it_was`: it is known what it is to be, and its tag is not asked for.
    fn enqueue_for(&self, name: &PinName, as_it_was: bool) -> bool {
        let mut entries = self.entries();
        let place = name.place();
        let is_known = entries.contains_key(&place);
        if !is_known && entries.len() >= MAXIMUM_ENTRIES {
            return false;
        }
        let entry = entries.entry(place).or_insert_with(|| Entry::new(name.clone()));
        entry.not_before = Instant::now();
        entry.failures = 0;
        // Whoever has wished for it anew wants what its tag means.
        entry.as_it_was = as_it_was && (!is_known || entry.as_it_was);
        entry.again = entry.running;
        if !entry.running {
            entry.state = State::Queued;
        }
        drop(entries);
        self.wake.notify_one();
        true
    }

    /// Forgets what is known of a pin that was removed; what is fetched for it gives its place up.
    pub(super) fn forget(&self, place: &Place) {
        if let Some(entry) = self.entries().remove(place) {
            entry.gone.cancel();
        }
        self.changed.notify_waiters();
    }

    /// What is going on with a pin here, if anything is.
    pub(super) fn state(&self, place: &Place) -> Option<(State, Arc<Progress>)> {
        self.entries().get(place).map(|entry| (entry.state.clone(), Arc::clone(&entry.progress)))
    }

    /// The holder's wishes that failed when they were tried here. A declaration need not wait for them: what such a pin is known to reach is in its record, and
    /// protected; where nobody could tell what it is, there is nothing to lose.
    pub(super) fn failed(&self, holder: &Holder) -> Failed {
        let entries = self.entries();
        let its = entries.iter().filter(|(_, entry)| entry.name.holder == *holder);
        its.filter_map(|(place, entry)| Some((place.clone(), entry.failed.clone()?))).collect()
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(IMAGES));
        let looking = tokio::spawn({
            let (keeper, shutdown) = (Arc::clone(&self), shutdown.clone());
            async move { shutdown.run_until_cancelled_owned(keeper.look()).await }
        });
        let looking_again = tokio::spawn({
            let (keeper, shutdown) = (Arc::clone(&self), shutdown.clone());
            async move { shutdown.run_until_cancelled_owned(keeper.look_again()).await }
        });
        let work = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let next = self.next();
                let Some(name) = next else {
                    drop(place);
                    let soonest = self.soonest();
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(soonest) => {}
                    }
                    continue;
                };
                let keeper = Arc::clone(&self);
                tokio::spawn(async move {
                    keeper.work(&name).await;
                    drop(place);
                    keeper.wake.notify_one();
                });
            }
        };
        let _ = shutdown.run_until_cancelled(work).await;
        looking.abort();
        looking_again.abort();
    }

    fn next(&self) -> Option<PinName> {
        let now = Instant::now();
        let mut entries = self.entries();
        let taken = Taken::of(&entries);
        let due = entries.values_mut().filter(|entry| entry.not_before <= now && taken.leaves_room_for(entry));
        let entry = due.min_by_key(|entry| entry.not_before)?;
        entry.running = true;
        entry.state = State::Fetching;
        Some(entry.name.clone())
    }

    fn soonest(&self) -> Instant {
        let entries = self.entries();
        let taken = Taken::of(&entries);
        // Whoever waits for a place of its registry is woken when there is one.
        let waiting = entries.values().filter(|entry| taken.leaves_room_for(entry)).map(|entry| entry.not_before);
        waiting.min().unwrap_or_else(|| Instant::now() + LOOK)
    }

    /// Asks the store again and again for what is not complete.
    async fn look(&self) {
        loop {
            let mut after = None;
            loop {
                match self.pins.incomplete(after.as_ref(), 500).await {
                    Ok(page) => {
                        for kept in page.pins.iter().filter(|kept| !kept.pin.name.holder.is_pull()) {
                            let is_new = !self.entries().contains_key(&kept.pin.name.place());
                            if is_new && !self.enqueue_for(&kept.pin.name, kept.goes_on_as_planned()) {
                                break;
                            }
                        }
                        after = page.next;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "pins that are not complete cannot be listed now");
                        after = None;
                    }
                }
                if after.is_none() {
                    break;
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn work(&self, name: &PinName) {
        let place = name.place();
        let Some(gone) = self.entries().get(&place).map(|entry| entry.gone.clone()) else { return };
        let mut tried = None;
        let result = self.make_complete(name, &place, &gone, &mut tried).await;
        let mut entries = self.entries();
        // It may have been wished for again, which is another entry.
        if let Some(entry) = entries.get_mut(&place).filter(|_| !gone.is_cancelled()) {
            entry.running = false;
            let is_asked_again = std::mem::take(&mut entry.again);
            match result {
                Ok(()) if is_asked_again => entry.state = State::Queued,
                Ok(()) => {
                    entries.remove(&place);
                }
                Err(unkept) => {
                    tracing::info!(image = %name.image, holder = %name.holder, error = %unkept, "a pin is not complete");
                    let doubled = AGAIN.saturating_mul(1 << entry.failures.min(16));
                    let wait = if matches!(unkept, Unkept::Refused(_)) { LONGEST } else { doubled.min(LONGEST) };
                    entry.failures += 1;
                    let (Unkept::Refused(reason) | Unkept::Later(reason)) = &unkept;
                    // Where it was the store that failed nobody knows what there is of it.
                    entry.failed = tried.filter(|_| reason.code != Code::Store);
                    // A blob of what it was is gone at its registry: the next time its tag is asked for.
                    entry.as_it_was &= !reason.code.is_absence();
                    // Whoever asked meanwhile may have wished for something else.
                    if is_asked_again {
                        entry.failures = 0;
                        entry.state = State::Queued;
                    } else {
                        entry.not_before = Instant::now() + wait;
                        entry.state = match unkept {
                            Unkept::Refused(reason) => State::Refused(reason),
                            Unkept::Later(reason) => State::Waiting(reason),
                        };
                    }
                }
            }
        }
        drop(entries);
        self.changed.notify_waiters();
    }

    /// `tried`: which wish.
    async fn make_complete(
        &self,
        name: &PinName,
        place: &Place,
        gone: &CancellationToken,
        tried: &mut Option<Platforms>,
    ) -> Result<(), Unkept> {
        let Some(kept) = self.pins.get(name).await.map_err(|error| unanswered(&error))? else { return Ok(()) };
        *tried = Some(kept.pin.platforms.clone());
        self.mend_older(&kept, place, gone).await;
        let planned = in_turn(gone, self.plan(&kept, place)).await?;
        let Some(plan) = planned else { return Ok(()) };
        let progress = self.begin(place, &plan);
        let content = Some(plan.content.clone());
        // A renewal that finds what it was: nothing to write, but to see that it is there.
        let put_at = match &kept.pin.content {
            Some(old) if kept.complete && *old != plan.content => SystemTime::now(),
            _ => kept.pin.put_at,
        };
        let pin = Pin { put_at, content, ..kept.pin.clone() };
        // Whatever is there of it, it is complete only once its own repository was seen to deliver all of it.
        if !self.protect(&kept, pin.clone(), place).await? {
            return Ok(());
        }
        // Not what is written, which ends as it began.
        if in_turn(gone, self.fetch(&plan, &progress)).await?.is_none() {
            return Ok(());
        }
        let written = KeptPin { pin: pin.clone(), ..kept.clone() };
        for tries in 0.. {
            match self.put(&written, pin.clone(), place).await? {
                None | Some(Put::Complete | Put::Superseded) => return Ok(()),
                Some(Put::Incomplete(missing)) if tries == KEPT_TRIES => return Err(not_kept(&missing)),
                Some(Put::Incomplete(_)) => sleep(KEPT_AGAIN).await,
            }
        }
        Ok(())
    }

    async fn plan(&self, kept: &KeptPin, place: &Place) -> Result<Plan, Unkept> {
        let (image, platforms) = (&kept.pin.name.image, &kept.pin.platforms);
        let as_it_was = self.entries().get(place).is_some_and(|entry| entry.as_it_was);
        let content = kept.pin.content.as_ref().filter(|_| as_it_was);
        if let Some(content) = content {
            self.may_bring(image, content).await?;
        }
        if let Some(content) = content.filter(|_| image.digest.is_none()) {
            let was = ImageReference { digest: Some(content.root.clone()), ..image.clone() };
            match plan(&self.puller, &was, Wanted::For(platforms)).await {
                Err(Unkept::Later(reason) | Unkept::Refused(reason)) if reason.code.is_absence() => {}
                // A registry that does not answer may have it yet.
                planned => return planned,
            }
        }
        plan(&self.puller, image, Wanted::For(platforms)).await
    }

    fn begin(&self, place: &Place, plan: &Plan) -> Arc<Progress> {
        let manifests = plan.content.digests.len() - plan.blobs.len();
        let bytes: u64 = plan.blobs.iter().map(|(_, size)| size).sum();
        let progress = Progress {
            bytes_known: AtomicU64::new(plan.content.bytes),
            bytes_fetched: AtomicU64::new(plan.content.bytes.saturating_sub(bytes)),
            blobs_known: AtomicU64::new(plan.content.digests.len() as u64),
            blobs_fetched: AtomicU64::new(manifests as u64),
        };
        let progress = Arc::new(progress);
        if let Some(entry) = self.entries().get_mut(place) {
            entry.progress = Arc::clone(&progress);
        }
        progress
    }

    /// Puts a pin if it still is the wish that was read; `None`: it is another one's turn, or nobody's.
    async fn put(&self, read: &KeptPin, pin: Pin, place: &Place) -> Result<Option<Put>, Unkept> {
        self.write(read, place, async { self.pins.put(pin).await }).await
    }

    /// The same, before it is seen what of it is there.
    async fn protect(&self, read: &KeptPin, pin: Pin, place: &Place) -> Result<bool, Unkept> {
        Ok(self.write(read, place, async { self.pins.protect(pin).await }).await? == Some(true))
    }

    /// `writing` begins to write when it is polled, and not before.
    async fn write<T>(
        &self,
        read: &KeptPin,
        place: &Place,
        writing: impl Future<Output = Result<T, PinsError>>,
    ) -> Result<Option<T>, Unkept> {
        let (turn, name) = (self.writings.turn(place).await, &read.pin.name);
        let now = self.pins.get(name).await.map_err(|error| unanswered(&error))?;
        let is_same = |now: &KeptPin| now.pin.put_at == read.pin.put_at && now.pin.platforms == read.pin.platforms;
        if !now.as_ref().is_some_and(is_same) {
            return Ok(None);
        }
        let under_way = turn.begin();
        let written = writing.await;
        // Before others may go on: what was written after it was deleted goes now.
        let turn = self.writings.turn(place).await;
        if turn.is_deleted() {
            self.pins.delete(name).await.map_err(|error| unanswered(&error))?;
            drop(under_way);
            return Ok(None);
        }
        drop(under_way);
        written.map(Some).map_err(|error| unanswered(&error))
    }

    async fn fetch(&self, plan: &Plan, progress: &Progress) -> Result<(), Unkept> {
        let blobs = stream::iter(plan.blobs.clone());
        let fetched = blobs.map(|(digest, size)| self.fetch_one(&plan.name, digest, size, progress));
        let mut fetched = fetched.buffer_unordered(BLOBS);
        // One that fails is no reason to leave the rest for the next time.
        let mut first = Ok(());
        while let Some(kept) = fetched.next().await {
            if first.is_ok() {
                first = kept;
            }
        }
        first
    }

    async fn fetch_one(&self, name: &Name, digest: Digest, size: u64, progress: &Progress) -> Result<(), Unkept> {
        let arrived = AtomicU64::new(0);
        let count = |bytes: u64| {
            let before = arrived.fetch_add(bytes, Ordering::Relaxed);
            let counted = (before + bytes).min(size).saturating_sub(before);
            progress.bytes_fetched.fetch_add(counted, Ordering::Relaxed);
        };
        self.puller.keep_blob(name, &digest, count).await?;
        let rest = size.saturating_sub(arrived.load(Ordering::Relaxed));
        progress.bytes_fetched.fetch_add(rest, Ordering::Relaxed);
        progress.blobs_fetched.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
        Ok(())
    }
}

impl Entry {
    fn new(name: PinName) -> Self {
        let now = Instant::now();
        Self {
            name,
            state: State::Queued,
            progress: Arc::default(),
            not_before: now,
            failures: 0,
            running: false,
            failed: None,
            again: false,
            as_it_was: false,
            older: None,
            gone: CancellationToken::new(),
        }
    }
}

/// Places that are taken, by registry.
struct Taken(HashMap<Registry, usize>);

impl Taken {
    fn of(entries: &HashMap<Place, Entry>) -> Self {
        let mut taken = HashMap::new();
        for entry in entries.values().filter(|entry| entry.running) {
            *taken.entry(entry.name.image.registry.clone()).or_default() += 1;
        }
        Self(taken)
    }

    /// Whether it waits, and its registry has not all of its places.
    fn leaves_room_for(&self, entry: &Entry) -> bool {
        !entry.running && self.0.get(&entry.name.image.registry).is_none_or(|taken| *taken < OF_A_REGISTRY)
    }
}

/// As long as it is somebody's wish and its turn lasts; `None`: nobody's any more.
async fn in_turn<T>(
    gone: &CancellationToken,
    work: impl Future<Output = Result<T, Unkept>>,
) -> Result<Option<T>, Unkept> {
    match gone.run_until_cancelled(timeout(TURN, work)).await {
        None => Ok(None),
        Some(Ok(done)) => done.map(Some),
        Some(Err(_)) => {
            let minutes = TURN.as_secs() / 60;
            let words = format!("not there after {minutes} minutes: others go first, and it goes on from where it is");
            Err(Unkept::later(Code::Slow, words))
        }
    }
}

fn not_kept(missing: &BTreeSet<Digest>) -> Unkept {
    let first = missing.first().map_or_else(String::new, Digest::to_string);
    Unkept::later(Code::Store, format!("fetched, and {} of it not kept by the store: {first}", missing.len()))
}

fn unanswered(error: &PinsError) -> Unkept {
    match error {
        PinsError::TooLarge(_) => Unkept::refused(Code::TooLarge, error.to_string()),
        PinsError::Store(_) | PinsError::Unanswered(_) => Unkept::later(Code::Store, error.to_string()),
    }
}

#[cfg(test)]
mod tests;
