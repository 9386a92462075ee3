//! Tags that moved to a manifest that we do not hold yet.
//!
//! A tag's record must never name something that cannot be served: then an outage would take away what was there before. So
//! when a HEAD says that a tag moved, that is remembered until the new manifest is stored, which it is as soon as the engine
//! that was told goes on to pull it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use larder_oci::{Digest, Tag};

use crate::store::Name;

/// Manifests that are waited for. Whoever asks for a tag again later has it noted again, so losing one costs little.
const MANIFESTS: usize = 1024;

/// Tags of one manifest.
const TAGS: usize = 64;

/// When the origin said so, if it was not just now: then the cluster cache has told what it last heard.
pub(super) type Heard = Option<SystemTime>;

#[derive(Debug, Default)]
pub(super) struct Moves {
    waiting: Mutex<HashMap<(Name, Digest), HashMap<Tag, Heard>>>,
}

impl Moves {
    pub(super) fn note(&self, name: &Name, digest: &Digest, tag: &Tag, heard: Heard) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), digest.clone());
        if !waiting.contains_key(&key)
            && waiting.len() >= MANIFESTS
            && let Some(one) = waiting.keys().next().cloned()
        {
            waiting.remove(&one);
        }
        let tags = waiting.entry(key).or_default();
        if tags.len() >= TAGS && !tags.contains_key(tag) {
            return;
        }
        // What was said just now is later than anything that was heard.
        let kept = tags.entry(tag.clone()).or_insert(heard);
        *kept = kept.zip(heard).map(|(kept, heard)| kept.max(heard));
    }

    /// The manifest is there: the tags that mean it.
    pub(super) fn take(&self, name: &Name, digest: &Digest) -> Vec<(Tag, Heard)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&(name.clone(), digest.clone())).into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fetch::testing::{digest, name};

    #[test]
    fn what_was_said_later_stays_whoever_tells_it_last() {
        let (app, manifest, tag) = (name("team/app"), digest(b"m"), Tag::parse("v1").unwrap());
        let before = |seconds| Some(SystemTime::now() - Duration::from_secs(seconds));
        let (hour, minute) = (before(3600), before(60));
        for (told, expected) in [
            (vec![None, hour], None),
            (vec![hour, None], None),
            (vec![minute, hour], minute),
            (vec![hour, minute], minute),
        ] {
            let moves = Moves::default();
            for heard in &told {
                moves.note(&app, &manifest, &tag, *heard);
            }
            assert_eq!(moves.take(&app, &manifest), [(tag.clone(), expected)], "{told:?}");
        }
    }
}
