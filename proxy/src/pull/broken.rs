//! Images that were promised and then not given in full: their manifests are refused for some minutes.
//!
//! A client that stays with whoever gave it the manifest cannot be sent on in the middle. What can be done is to send it on at the
//! beginning of its next try: then it asks the origin itself, which may have what we could not get.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_oci::{Digest, ManifestReference};
use tokio::time::Instant;

use crate::store::Name;

/// Tags and digests that are refused at once; beyond it the one that ends first gives way.
const REFERENCES: usize = 1024;

type Key = (Name, ManifestReference);

/// What could not be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// A config or a layer. Once it is stored the image is whole again.
    Blob(Digest),
    /// A manifest of an index, or a signature.
    Manifest(ManifestReference),
}

#[derive(Debug, Clone)]
struct Entry {
    until: Instant,
    cause: Cause,
}

#[derive(Debug, Default)]
pub(super) struct Broken {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Broken {
    /// Refuses what led to the image for as long as `time` from now on.
    pub(super) fn note(&self, name: &Name, references: HashSet<ManifestReference>, cause: &Cause, time: Duration) {
        let mut entries = self.lock();
        let until = Instant::now() + time;
        for reference in references {
            insert(&mut entries, (name.clone(), reference), Entry { until, cause: cause.clone() });
        }
    }

    /// Refuses what leads to `from` for the same reason and no longer than that.
    pub(super) fn spread(&self, name: &Name, from: &ManifestReference, references: HashSet<ManifestReference>) {
        let mut entries = self.lock();
        let Some(entry) = entries.get(&(name.clone(), from.clone())).cloned() else { return };
        for reference in references {
            let key = (name.clone(), reference);
            if entries.get(&key).is_none_or(|known| known.until < entry.until) {
                insert(&mut entries, key, entry.clone());
            }
        }
    }

    /// Why this is refused now, if it is.
    pub(super) fn cause(&self, name: &Name, reference: &ManifestReference) -> Option<Cause> {
        let entries = self.lock();
        if entries.is_empty() {
            return None;
        }
        let entry = entries.get(&(name.clone(), reference.clone()))?;
        (entry.until > Instant::now()).then(|| entry.cause.clone())
    }

    /// What was missing has been given.
    pub(super) fn mended(&self, name: &Name, cause: &Cause) {
        let mut entries = self.lock();
        if !entries.is_empty() {
            entries.retain(|(of, _), entry| of != name || entry.cause != *cause);
        }
    }

    /// How many digests, which is how many images and indexes of them, are refused now.
    pub(super) fn images(&self) -> usize {
        let mut entries = self.lock();
        let now = Instant::now();
        entries.retain(|_, entry| entry.until > now);
        entries.keys().filter(|(_, reference)| matches!(reference, ManifestReference::Digest(_))).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(entries: &mut HashMap<Key, Entry>, key: Key, entry: Entry) {
    if entries.len() >= REFERENCES && !entries.contains_key(&key) {
        let now = Instant::now();
        entries.retain(|_, entry| entry.until > now);
        if entries.len() >= REFERENCES
            && let Some(first) = entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone())
        {
            entries.remove(&first);
        }
    }
    entries.insert(key, entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::{digest, name};

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_time_or_when_it_is_mended_and_is_bounded() {
        let broken = Broken::default();
        let (app, tag, cause) = (name("team/app"), ManifestReference::parse("v1").unwrap(), Cause::Blob(digest(b"1")));
        let minute = Duration::from_mins(1);
        broken.note(&app, HashSet::from([tag.clone(), ManifestReference::Digest(digest(b"m"))]), &cause, minute);
        assert_eq!((broken.cause(&app, &tag), broken.images()), (Some(cause.clone()), 1));
        assert_eq!(broken.cause(&name("team/other"), &tag), None);
        broken.mended(&app, &Cause::Blob(digest(b"2")));
        broken.mended(&name("team/other"), &cause);
        assert_eq!(broken.images(), 1);
        broken.mended(&app, &cause);
        assert_eq!((broken.cause(&app, &tag), broken.images()), (None, 0));
        broken.note(&app, HashSet::from([tag.clone()]), &cause, minute);
        tokio::time::advance(minute).await;
        assert_eq!(broken.cause(&app, &tag), None);
        for number in 0..2 * REFERENCES {
            broken.note(&name(&format!("team/app{number}")), HashSet::from([tag.clone()]), &cause, minute);
        }
        assert_eq!(broken.lock().len(), REFERENCES);
    }
}
