//! What was pulled keeps itself for a while (holder `pull`), so that nothing depends on anybody else's wishes.
//!
//! Whoever is given a manifest begins to use an image; a moment later, when its blobs have come, what of it is here is pinned: of an index the platforms that
//! are whole. Another use renews the pin once a while; how long it lasts after the last use is the store's matter. An image that is not whole by then was not pulled, and is not pinned.

use std::collections::{BTreeSet, HashMap};
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use larder_oci::{ChildDescriptor, Children, Digest, ImageReference};
use tokio::time::{Instant, sleep};

use super::{Puller, Shared};
use crate::pins::{Content, Holder, Pin, PinName, Pins, PinsError, Platform, Platforms, Put};
use crate::store::Name;

/// Images that are looked after at a time; one that is not among them is pinned when it is used the next time.
const MOST: usize = 10_000;

/// How often it is looked whether an image has come, and how long. Layers may take that.
const LOOKS: u32 = 20;

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
}

impl Uses {
    /// A client was given this manifest of this repository.
    pub(super) fn note(&self, name: &Name, digest: &Digest) {
        if self.watched.load(Ordering::Relaxed) {
            self.look_again(name.clone(), digest.clone(), 0);
        }
    }

    fn look_again(&self, name: Name, digest: Digest, looks: u32) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MOST {
            noted.entry((name, digest)).or_insert(looks);
        }
    }

    fn take(&self) -> HashMap<Image, u32> {
        take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An image of which something is whole.
struct Whole {
    content: Content,
    platforms: Platforms,
    /// Every manifest in it, which need no pin of their own.
    manifests: BTreeSet<Digest>,
}

impl Puller {
    /// Pins what is pulled, for as long as the program runs.
    pub async fn keep_pulled(self, pins: Arc<dyn Pins>, times: KeepPulled) {
        let shared = &self.shared;
        shared.uses.watched.store(true, Ordering::Relaxed);
        // What was pinned when, and which manifests are covered by that.
        let (mut pinned, mut covered) =
            (HashMap::<Image, (Instant, BTreeSet<Digest>)>::new(), HashMap::<Image, Instant>::new());
        loop {
            sleep(times.settle).await;
            let now = Instant::now();
            pinned.retain(|_, (at, _)| now.duration_since(*at) < times.renew);
            covered.retain(|_, at| now.duration_since(*at) < times.renew);
            let mut used = Vec::new();
            for ((name, digest), looks) in shared.uses.take() {
                match shared.stored_children(&digest).await {
                    Some(children) => used.push((children, name, digest, looks)),
                    None => shared.looked(name, digest, looks),
                }
            }
            // Indexes first: their manifests need no pins of their own then.
            used.sort_by_key(|(children, ..)| children.manifests.is_empty());
            for (children, name, digest, looks) in used {
                let image = (name, digest);
                if covered.contains_key(&image) {
                    continue;
                }
                let (name, digest) = &image;
                let Some(whole) = shared.whole(name, digest, &children).await else {
                    shared.looked(name.clone(), digest.clone(), looks);
                    continue;
                };
                if pinned.get(&image).is_some_and(|(_, digests)| *digests == whole.content.digests) {
                    continue;
                }
                let digests = whole.content.digests.clone();
                match pin(&*pins, name, digest, whole.content, whole.platforms).await {
                    Ok(true) => {
                        covered.extend(whole.manifests.into_iter().map(|manifest| ((name.clone(), manifest), now)));
                        pinned.insert(image, (now, digests));
                    }
                    Ok(false) => shared.looked(name.clone(), digest.clone(), looks),
                    Err(error) => {
                        tracing::debug!(%name, %digest, %error, "what was pulled could not be pinned; it is tried again");
                        shared.looked(name.clone(), digest.clone(), looks);
                    }
                }
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
    let Ok(image) = ImageReference::parse(&format!("{name}@{digest}")) else { return Ok(true) };
    let name = PinName { holder: Holder::pull(), image };
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
    fn looked(&self, name: Name, digest: Digest, looks: u32) {
        if looks < LOOKS {
            self.uses.look_again(name, digest, looks + 1);
        }
    }

    /// What of an image this repository may deliver from the store in full.
    async fn whole(&self, name: &Name, digest: &Digest, children: &Children) -> Option<Whole> {
        let root = self.held(name, digest).await?;
        let mut content = Content { root: digest.clone(), digests: [digest.clone()].into(), bytes: root.blob.len() };
        let (mut manifests, mut platforms) = (BTreeSet::from([digest.clone()]), BTreeSet::new());
        if children.manifests.is_empty() {
            self.add_blobs(name, &children.blobs, &mut content).await?;
            return Some(Whole { content, platforms: Platforms::All, manifests });
        }
        for manifest in &children.manifests {
            let Some(held) = self.held(name, &manifest.digest).await else { continue };
            let Some(children) = self.stored_children(&manifest.digest).await else { continue };
            let mut with = content.clone();
            with.digests.insert(manifest.digest.clone());
            with.bytes += held.blob.len();
            // An index in an index is something that nobody makes.
            if children.manifests.is_empty() && self.add_blobs(name, &children.blobs, &mut with).await.is_some() {
                content = with;
                manifests.insert(manifest.digest.clone());
                platforms.extend(manifest.platform.as_deref().and_then(|platform| Platform::parse(platform).ok()));
            }
        }
        let platforms = if platforms.is_empty() { Platforms::All } else { Platforms::Only(platforms) };
        (manifests.len() > 1).then_some(Whole { content, platforms, manifests })
    }

    async fn add_blobs(&self, name: &Name, blobs: &[ChildDescriptor], content: &mut Content) -> Option<()> {
        for blob in blobs {
            let held = self.held(name, &blob.digest).await?;
            if content.digests.insert(blob.digest.clone()) {
                content.bytes += held.blob.len();
            }
        }
        Some(())
    }
}
