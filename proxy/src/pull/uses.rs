//! What was pulled keeps itself for a while (holder `pull`), so that nothing depends on anybody else's wishes.
//!
//! Whoever is given a manifest, or told by a HEAD what a tag means, uses an image; a moment later, when its blobs have come, what of it is
//! here is pinned: of an index the platforms that are whole. Another use renews the pin once a while; how long it lasts after the last use
//! is the store's matter. An image that is not whole after [`LOOKS`] looks was not pulled, and is not pinned.
//!
//! Invariant: a use is forgotten when it is pinned, or after that many looks in vain, and for no other reason. A store that does not answer
//! costs no look; a stop looks once more, whatever was settled; what is left is in a [`journal`], where the next start finds it.

mod journal;
mod pulls;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use larder_oci::{ChildDescriptor, Children, Digest};
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::journal::Journal;
use self::pulls::Pulls;
use super::{Puller, Shared};
use crate::pins::{Content, Pin, PinName, Pins, PinsError, Platform, Platforms, Put};
use crate::store::{Name, StoreError, StoreHealth};

/// Images that are looked after at a time; one that is not among them is pinned when it is used the next time.
const MOST: usize = 10_000;

/// How often it is looked whether an image has come, and how long. Layers may take that.
const LOOKS: u32 = 20;

/// From a use until it is in the journal: what a crash may lose.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// When pulls are pinned.
#[derive(Debug, Clone, Copy)]
pub struct KeepPulled {
    /// After a use, and between two looks whether all has come.
    pub settle: Duration,
    /// A pin that is younger than this is not renewed.
    pub renew: Duration,
}

type Image = (Name, Digest);

/// Who begins to use what.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Whether anybody pins them.
    watched: AtomicBool,
    /// How often each was looked at.
    noted: Mutex<HashMap<Image, u32>>,
    /// There is one that was not.
    news: Notify,
    /// When each was used last, for people.
    pulls: Pulls,
}

impl Uses {
    /// A client was given this manifest of this repository.
    pub(super) fn note(&self, name: &Name, digest: &Digest) {
        self.look_for(name, digest, 0);
        self.note_time(name, digest);
    }

    /// A client was told that this is what a tag means. Many ask so who have the image already, and some who never want it: if it is not
    /// here, it is not waited for.
    pub(super) fn note_head(&self, name: &Name, digest: &Digest) {
        self.look_for(name, digest, LOOKS);
        self.note_time(name, digest);
    }

    fn note_time(&self, name: &Name, digest: &Digest) {
        if self.watched.load(Ordering::Relaxed) {
            self.pulls.note(name, digest, SystemTime::now());
        }
    }

    fn look_for(&self, name: &Name, digest: &Digest, looks: u32) {
        if !self.watched.load(Ordering::Relaxed) {
            return;
        }
        let mut noted = self.noted();
        let image = (name.clone(), digest.clone());
        if let Some(known) = noted.get_mut(&image) {
            *known = looks.min(*known);
        } else if noted.len() < MOST {
            noted.insert(image, looks);
            self.news.notify_one();
        }
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<Image, u32>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, image: &Image) {
        self.noted().remove(image);
    }

    /// It was looked in vain.
    fn looked(&self, image: &Image) {
        let mut noted = self.noted();
        match noted.get_mut(image) {
            Some(looks) if *looks < LOOKS => *looks += 1,
            _ => _ = noted.remove(image),
        }
    }
}

/// An image of which something is whole.
struct Whole {
    content: Content,
    platforms: Platforms,
    /// Every manifest in it, which need no pin of their own.
    manifests: BTreeSet<Digest>,
}

/// What came of looking at an image.
#[derive(Clone, Copy)]
enum Look {
    Pinned,
    NotYet,
    /// Nobody could say.
    Unanswered,
}

/// Pins what is pulled.
pub struct Keeping {
    shared: Arc<Shared>,
    pins: Arc<dyn Pins>,
    times: KeepPulled,
    journal: Option<Journal>,
    /// Whether what an earlier process left was read.
    resumed: OnceCell<()>,
    known: tokio::sync::Mutex<Known>,
}

/// What needs no pin for a while.
#[derive(Default)]
struct Known {
    /// What was pinned, when and with what,
    pinned: HashMap<Image, (Instant, BTreeSet<Digest>)>,
    /// and which manifests are covered by that.
    covered: HashMap<Image, Instant>,
}

impl Puller {
    /// When a client last used an image, as far as this process knows: a manifest that was given, or what a tag means. What the cache itself fetches and asks
    /// for is no use.
    pub(crate) fn last_pull(&self, name: &Name, digest: &Digest) -> Option<SystemTime> {
        self.shared.uses.pulls.last(name, digest)
    }

    /// Begins to note what is pulled. In `journal` is what is to be pinned yet; without it that is lost with the process.
    pub fn keep_pulled(&self, pins: Arc<dyn Pins>, times: KeepPulled, journal: Option<PathBuf>) -> Arc<Keeping> {
        self.shared.uses.watched.store(true, Ordering::Relaxed);
        let (shared, known) = (Arc::clone(&self.shared), tokio::sync::Mutex::default());
        Arc::new(Keeping { shared, pins, times, journal: journal.map(Journal::new), resumed: OnceCell::new(), known })
    }
}

impl Keeping {
    /// For as long as the program runs.
    pub async fn run(&self) {
        self.resume().await;
        let mut look = Instant::now() + self.times.settle;
        loop {
            tokio::select! {
                () = sleep_until(look) => {
                    self.look().await;
                    look = Instant::now() + self.times.settle;
                }
                () = self.shared.uses.news.notified() => sleep(WRITTEN_WITHIN.min(self.times.settle)).await,
            }
            self.write_down().await;
        }
    }

    /// Goes on with what an earlier process left.
    async fn resume(&self) {
        let reading = self.resumed.get_or_init(async || {
            let Some(journal) = &self.journal else { return };
            for ((name, digest), looks) in journal.read().await {
                self.shared.uses.look_for(&name, &digest, looks);
            }
        });
        reading.await;
    }

    /// The last look, when nobody uses anything any more.
    pub async fn end(&self, until: Instant) {
        // A stop may come before the start is over.
        let looking = async {
            self.resume().await;
            self.look().await;
        };
        let looked = timeout_at(until, looking).await;
        let left = self.shared.uses.noted().len();
        if left > 0 {
            let then = if self.journal.is_some() { "the next start goes on" } else { "it is once it is used again" };
            tracing::info!(left, in_time = looked.is_ok(), "not all that was pulled is pinned yet; {then}");
        }
        self.write_down().await;
    }

    async fn write_down(&self) {
        if let Some(journal) = &self.journal {
            let noted = self.shared.uses.noted().clone();
            journal.write(&noted).await;
        }
    }

    /// Looks at all that was used. May be left at any moment: what was not seen to is noted yet.
    async fn look(&self) {
        let (shared, times) = (&self.shared, self.times);
        let known = &mut *self.known.lock().await;
        let now = Instant::now();
        known.pinned.retain(|_, (at, _)| now.duration_since(*at) < times.renew);
        known.covered.retain(|_, at| now.duration_since(*at) < times.renew);
        let noted: Vec<Image> = shared.uses.noted().keys().cloned().collect();
        let mut used = Vec::new();
        for image in noted {
            match shared.stored_children(&image.1).await {
                Some(children) => used.push((children, image)),
                None => shared.seen_to(&image, Look::NotYet),
            }
        }
        // Indexes first: their manifests need no pins of their own then.
        used.sort_by_key(|(children, ..)| children.manifests.is_empty());
        for (children, image) in used {
            let look = if known.covered.contains_key(&image) {
                Look::Pinned
            } else {
                self.look_at(&image, &children, known, now).await
            };
            shared.seen_to(&image, look);
        }
    }

    async fn look_at(&self, image: &Image, children: &Children, known: &mut Known, now: Instant) -> Look {
        let (name, digest) = image;
        let whole = match self.shared.whole(name, digest, children).await {
            Ok(Some(whole)) => whole,
            Ok(None) => return Look::NotYet,
            Err(error) => {
                tracing::debug!(%name, %digest, %error, "what was pulled could not be looked for; it is tried again");
                return Look::Unanswered;
            }
        };
        if known.pinned.get(image).is_some_and(|(_, digests)| *digests == whole.content.digests) {
            return Look::Pinned;
        }
        let digests = whole.content.digests.clone();
        match pin(&*self.pins, name, digest, whole.content, whole.platforms).await {
            Ok(true) => {
                let covered = whole.manifests.into_iter().map(|manifest| ((name.clone(), manifest), now));
                known.covered.extend(covered);
                known.pinned.insert(image.clone(), (now, digests));
                Look::Pinned
            }
            Ok(false) => Look::NotYet,
            Err(error) => {
                tracing::debug!(%name, %digest, %error, "what was pulled could not be pinned; it is tried again");
                Look::Unanswered
            }
        }
    }
}

/// Whether it is pinned now.
async fn pin(
    pins: &dyn Pins,
    name: &Name,
    digest: &Digest,
    content: Content,
    platforms: Platforms,
) -> Result<bool, PinsError> {
    let Some(name) = PinName::of_pull(name, digest) else { return Ok(true) };
    let pin = Pin { name: name.clone(), platforms, put_at: SystemTime::now(), content: Some(content) };
    match pins.put(pin).await? {
        Put::Complete | Put::Superseded => Ok(true),
        // Something of it is not where a pin can rest on it: what has not come in full holds nothing.
        Put::Incomplete(_) => {
            pins.delete(&name).await?;
            Ok(false)
        }
    }
}

impl Shared {
    fn seen_to(&self, image: &Image, look: Look) {
        match look {
            Look::Pinned => self.uses.done(image),
            // Where a store does not answer, nothing is known of what it holds.
            Look::NotYet if !matches!(self.store.health(), StoreHealth::Detached | StoreHealth::NotAnswering) => {
                self.uses.looked(image);
            }
            Look::NotYet | Look::Unanswered => {}
        }
    }

    /// What of an image this repository may deliver from the store in full.
    async fn whole(&self, name: &Name, digest: &Digest, children: &Children) -> Result<Option<Whole>, StoreError> {
        let Some((_, root)) = self.store.held(name, digest).await? else { return Ok(None) };
        let mut content = Content { root: digest.clone(), digests: [digest.clone()].into(), bytes: root.len() };
        let (mut manifests, mut platforms) = (BTreeSet::from([digest.clone()]), BTreeSet::new());
        if children.manifests.is_empty() {
            let is_whole = self.add_blobs(name, &children.blobs, &mut content).await?;
            return Ok(is_whole.then_some(Whole { content, platforms: Platforms::All, manifests }));
        }
        for manifest in &children.manifests {
            let Some((_, held)) = self.store.held(name, &manifest.digest).await? else { continue };
            let Some(children) = self.stored_children(&manifest.digest).await else { continue };
            let mut with = content.clone();
            with.digests.insert(manifest.digest.clone());
            with.bytes += held.len();
            // An index in an index is something that nobody makes.
            if children.manifests.is_empty() && self.add_blobs(name, &children.blobs, &mut with).await? {
                content = with;
                manifests.insert(manifest.digest.clone());
                platforms.extend(manifest.platform.as_deref().and_then(|platform| Platform::parse(platform).ok()));
            }
        }
        let platforms = if platforms.is_empty() { Platforms::All } else { Platforms::Only(platforms) };
        Ok((manifests.len() > 1).then_some(Whole { content, platforms, manifests }))
    }

    async fn add_blobs(
        &self,
        name: &Name,
        blobs: &[ChildDescriptor],
        content: &mut Content,
    ) -> Result<bool, StoreError> {
        for blob in blobs {
            let Some((_, held)) = self.store.held(name, &blob.digest).await? else { return Ok(false) };
            if content.digests.insert(blob.digest.clone()) {
                content.bytes += held.len();
            }
        }
        Ok(true)
    }
}
