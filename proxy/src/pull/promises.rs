//! Images that were given out to clients that cannot turn elsewhere any more: what each of them still has to ask for.
//!
//! A client that got a manifest here stays here (CRI-O), so the manifest was a promise of everything that it names. Two questions
//! are answered from this table: which images are broken when one thing cannot be given ([`Promises::led_to`]), and whether
//! anybody still counts on us when we are to stop ([`Promises::kept`]). Everything in it is from clients and bounded; what is
//! forgotten costs one failed pull at worst, never a wrong answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_oci::{Digest, ManifestReference};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::store::Name;

/// Images at once; the oldest gives way.
const IMAGES: usize = 256;

/// Things that they name, in all.
const CONTENT: usize = 32 * 1024;

/// Tags and indexes that led to one image.
const REASONS: usize = 16;

/// After so long without a request nothing that is asked for is part of that pull.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// A manifest that was given out.
#[derive(Debug)]
struct Image {
    name: Name,
    digest: Digest,
    /// What else is refused with it: the tags and indexes that the client came from.
    reasons: Vec<ManifestReference>,
    /// What it names, and whether that was asked for.
    content: HashMap<Digest, bool>,
    /// Of an index a client asks for one manifest only.
    is_index: bool,
    /// Replies under way.
    under_way: usize,
    last: Instant,
}

impl Image {
    fn is_done(&self) -> bool {
        let mut asked = self.content.values();
        if self.is_index { asked.any(|asked| *asked) } else { asked.all(|asked| *asked) }
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.under_way == 0 && now.duration_since(self.last) >= FORGOTTEN
    }

    fn add_reason(&mut self, reason: ManifestReference) {
        let is_itself = matches!(&reason, ManifestReference::Digest(digest) if *digest == self.digest);
        if !is_itself && self.reasons.len() < REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn references(&self) -> impl Iterator<Item = ManifestReference> + '_ {
        std::iter::once(ManifestReference::Digest(self.digest.clone())).chain(self.reasons.iter().cloned())
    }
}

#[derive(Debug, Default)]
struct Table {
    images: VecDeque<Image>,
    /// Of all of them together.
    content: usize,
    is_closing: bool,
}

#[derive(Debug)]
pub(super) struct Promises {
    /// How long a client that asks for nothing is still taken to be in the middle of a pull.
    quiet: Duration,
    table: Mutex<Table>,
    changed: Notify,
}

/// What a manifest promises.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) name: Name,
    /// Of the manifest or index.
    pub(super) digest: Digest,
    /// What was asked for.
    pub(super) reference: ManifestReference,
    /// The image that this is a signature of.
    pub(super) attached_to: Option<Digest>,
    /// What it names.
    pub(super) content: Vec<Digest>,
    pub(super) is_index: bool,
}

/// While it lives its client is not quiet.
#[derive(Debug)]
pub(super) struct UnderWay {
    promises: Arc<Promises>,
    images: Vec<(Name, Digest)>,
}

impl Promises {
    /// None yet.
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, table: Mutex::default(), changed: Notify::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client gets this manifest.
    pub(super) fn add(&self, promise: Promise) {
        let Promise { name, digest, reference, attached_to, content, is_index } = promise;
        let now = Instant::now();
        let mut table = self.lock();
        let before = table.remove(&name, &digest);
        let (reasons, under_way) = before.map_or_else(Default::default, |image| (image.reasons, image.under_way));
        let content: HashMap<Digest, bool> = content.into_iter().map(|digest| (digest, false)).collect();
        let mut image = Image { name, digest, reasons, content, is_index, under_way, last: now };
        image.add_reason(reference);
        if let Some(digest) = &attached_to {
            image.add_reason(ManifestReference::Digest(digest.clone()));
        }
        let parents = table.images.iter().filter(|other| {
            other.name == image.name
                && !other.is_forgotten(now)
                && (other.content.contains_key(&image.digest) || attached_to.as_ref() == Some(&other.digest))
        });
        let reasons: Vec<_> = parents.flat_map(Image::references).take(REASONS).collect();
        for reason in reasons {
            image.add_reason(reason);
        }
        table.push(image, now);
        drop(table);
        self.changed.notify_waiters();
    }

    /// A client asks for something that a manifest named.
    pub(super) fn asked(self: &Arc<Self>, name: &Name, digest: &Digest) -> UnderWay {
        let now = Instant::now();
        let mut table = self.lock();
        let mut images = Vec::new();
        for image in table.images.iter_mut().filter(|image| image.name == *name) {
            if let Some(asked) = image.content.get_mut(digest) {
                *asked = true;
                image.under_way += 1;
                image.last = now;
                images.push((image.name.clone(), image.digest.clone()));
            }
        }
        drop(table);
        self.changed.notify_waiters();
        UnderWay { promises: Arc::clone(self), images }
    }

    /// What led to the images that name `digest`, and these themselves; with `digest` itself if `is_image`.
    pub(super) fn led_to(&self, name: &Name, digest: &Digest, is_image: bool) -> HashSet<ManifestReference> {
        let now = Instant::now();
        let table = self.lock();
        let broken = table.images.iter().filter(|image| {
            image.name == *name
                && !image.is_forgotten(now)
                && (image.content.contains_key(digest) || (is_image && image.digest == *digest))
        });
        broken.flat_map(Image::references).collect()
    }

    /// From now on nothing new is promised.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
    }

    /// Whether this may still be given out: it belongs to a pull that is under way, or there is no end in sight.
    pub(super) fn admits(&self, name: &Name, reference: &ManifestReference, attached_to: Option<&Digest>) -> bool {
        let table = self.lock();
        !table.is_closing
            || table.images.iter().filter(|image| image.name == *name && !image.is_quiet(self.quiet)).any(|image| {
                attached_to == Some(&image.digest)
                    || image.references().any(|known| known == *reference)
                    || matches!(reference, ManifestReference::Digest(digest) if image.content.contains_key(digest))
            })
    }

    /// Ends when everybody has asked for all that was promised, or has gone quiet.
    pub(super) async fn kept(&self) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Before the look, so that nothing is missed in between.
            changed.as_mut().enable();
            let Some(quiet_at) = self.quiet_at() else { return };
            tokio::select! {
                () = changed => {}
                () = sleep_until(quiet_at) => {}
            }
        }
    }

    /// When to look again whether everybody is quiet; `None` if so.
    fn quiet_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let table = self.lock();
        // What is under way may be cut and asked for again, or be a manifest of which more is promised when it is found.
        let waiting =
            table.images.iter().filter(|image| image.under_way > 0 || !(image.is_done() || image.is_quiet(self.quiet)));
        waiting.map(|image| if image.under_way > 0 { now + self.quiet } else { image.last + self.quiet }).max()
    }
}

impl Image {
    fn is_quiet(&self, quiet: Duration) -> bool {
        self.under_way == 0 && self.last.elapsed() >= quiet
    }
}

impl Table {
    fn remove(&mut self, name: &Name, digest: &Digest) -> Option<Image> {
        let at = self.images.iter().position(|image| image.name == *name && image.digest == *digest)?;
        let image = self.images.remove(at)?;
        self.content -= image.content.len();
        Some(image)
    }

    fn push(&mut self, image: Image, now: Instant) {
        self.content += image.content.len();
        self.images.push_back(image);
        while self.images.len() > IMAGES
            || self.content > CONTENT
            || self.images.front().is_some_and(|oldest| oldest.is_forgotten(now))
        {
            let Some(oldest) = self.images.pop_front() else { break };
            self.content -= oldest.content.len();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut table = self.promises.lock();
        for image in &mut table.images {
            if self.images.iter().any(|(name, digest)| image.name == *name && image.digest == *digest) {
                image.under_way = image.under_way.saturating_sub(1);
                image.last = Instant::now();
            }
        }
        drop(table);
        self.promises.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::{digest, name};

    const QUIET: Duration = Duration::from_secs(5);

    fn tag(text: &str) -> ManifestReference {
        ManifestReference::parse(text).unwrap()
    }

    fn by(digest: &Digest) -> ManifestReference {
        ManifestReference::Digest(digest.clone())
    }

    fn promise(reference: ManifestReference, own: &Digest, content: &[&Digest], is_index: bool) -> Promise {
        let content = content.iter().map(|digest| (*digest).clone()).collect();
        Promise { name: name("team/app"), digest: own.clone(), reference, attached_to: None, content, is_index }
    }

    /// `v1` is an index of `manifest`, which names `config` and `layer`.
    fn pulled() -> (Arc<Promises>, [Digest; 4]) {
        let promises = Arc::new(Promises::new(QUIET));
        let [index, manifest, config, layer] = [b"i", b"m", b"c", b"l"].map(|bytes| digest(bytes));
        promises.add(promise(tag("v1"), &index, &[&manifest, &digest(b"other")], true));
        drop(promises.asked(&name("team/app"), &manifest));
        promises.add(promise(by(&manifest), &manifest, &[&config, &layer], false));
        (promises, [index, manifest, config, layer])
    }

    #[tokio::test(start_paused = true)]
    async fn what_led_to_an_image_is_broken_with_it_and_nothing_else() {
        let (promises, [index, manifest, config, layer]) = pulled();
        let other = digest(b"image");
        promises.add(promise(tag("v2"), &other, &[&config], false));
        let first = HashSet::from([tag("v1"), by(&index), by(&manifest)]);
        assert_eq!(promises.led_to(&name("team/app"), &layer, false), first);
        let both = first.iter().cloned().chain([tag("v2"), by(&other)]).collect();
        assert_eq!(promises.led_to(&name("team/app"), &config, false), both);
        assert_eq!(promises.led_to(&name("team/other"), &config, false), HashSet::new());
        assert_eq!(promises.led_to(&name("team/app"), &manifest, false), HashSet::from([tag("v1"), by(&index)]));
        // Its signature breaks the image.
        assert_eq!(promises.led_to(&name("team/app"), &manifest, true), first);
        let signature = Promise {
            attached_to: Some(manifest.clone()),
            ..promise(tag("sha256-m.sig"), &digest(b"s"), &[&digest(b"payload")], false)
        };
        promises.add(signature);
        let all = first.into_iter().chain([tag("sha256-m.sig"), by(&digest(b"s"))]).collect();
        assert_eq!(promises.led_to(&name("team/app"), &digest(b"payload"), false), all);
        tokio::time::advance(FORGOTTEN).await;
        assert_eq!(promises.led_to(&name("team/app"), &layer, false), HashSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_what_was_promised_and_not_for_who_went_quiet() {
        let (promises, [_, manifest, config, layer]) = pulled();
        let began = Instant::now();
        promises.close();
        assert!(promises.admits(&name("team/app"), &tag("v1"), None), "asked for twice in one pull");
        assert!(promises.admits(&name("team/app"), &by(&manifest), None));
        assert!(promises.admits(&name("team/app"), &tag("sha256-m.sig"), Some(&manifest)));
        assert!(!promises.admits(&name("team/app"), &tag("v2"), None));
        assert!(!promises.admits(&name("team/other"), &tag("v1"), None));
        let client = async {
            let slow = promises.asked(&name("team/app"), &config);
            tokio::time::sleep(4 * QUIET).await;
            drop(slow);
            tokio::time::sleep(QUIET / 2).await;
            drop(promises.asked(&name("team/app"), &layer));
        };
        tokio::join!(promises.kept(), client);
        assert_eq!(began.elapsed(), 4 * QUIET + QUIET / 2);

        let (promises, _) = pulled();
        let began = Instant::now();
        promises.kept().await;
        assert_eq!(began.elapsed(), QUIET);
        promises.close();
        assert!(!promises.admits(&name("team/app"), &tag("v1"), None), "it is quiet");
        Promises::new(QUIET).kept().await;
        assert_eq!(began.elapsed(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_in_images_and_in_what_they_name() {
        let promises = Arc::new(Promises::new(QUIET));
        let numbered = |number: usize| digest(number.to_string().as_bytes());
        for number in 0..2 * IMAGES {
            promises.add(promise(tag(&format!("t{number}")), &numbered(number), &[&digest(b"l")], false));
        }
        let counts = |table: &Table| (table.images.len(), table.content);
        assert_eq!(counts(&promises.lock()), (IMAGES, IMAGES));
        let large: Vec<Digest> = (0..CONTENT / 3).map(numbered).collect();
        let large: Vec<&Digest> = large.iter().collect();
        for number in 0..5 {
            promises.add(promise(tag(&format!("t{number}")), &numbered(number), &large, false));
        }
        assert!(promises.lock().content <= CONTENT);
        for number in 0..2 * REASONS {
            promises.add(promise(tag(&format!("x{number}")), &digest(b"same"), &[], false));
        }
        assert_eq!(promises.lock().images.back().unwrap().reasons.len(), REASONS);
    }
}
