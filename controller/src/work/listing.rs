//! Whether everything is listed. Until then nothing is made nor removed, which a person hears of when it takes long.

use std::time::Duration;

use tokio::time::Instant;

use super::Work;
use crate::world::Listed;

/// How long lists may take before that is said.
const SAID: Duration = Duration::from_secs(5);

/// Since when not everything is.
#[derive(Debug, Default)]
pub(super) struct Unlisted {
    since: Option<Instant>,
    is_said: bool,
}

impl Unlisted {
    /// What is to be said now that was not said yet.
    fn see(&mut self, listed: Listed, now: Instant) -> Option<String> {
        if listed.everything() {
            *self = Self::default();
            return None;
        }
        let since = *self.since.get_or_insert(now);
        // What is missing may change meanwhile.
        self.is_said |= now.saturating_duration_since(since) >= SAID;
        let missing: Vec<&str> = listed.missing().collect();
        self.is_said
            .then(|| format!("not all is listed yet ({}): nothing is made nor removed until it is", missing.join(", ")))
    }

    /// When it is to be said, if it was not.
    pub(super) fn said_at(&self) -> Option<Instant> {
        self.since.filter(|_| !self.is_said).map(|since| since + SAID)
    }
}

impl Work {
    /// Whether everything is listed.
    pub(super) fn is_all_listed(&mut self) -> bool {
        let listed = self.shared.world.known().listed;
        match self.unlisted.see(listed, Instant::now()) {
            Some(words) => {
                if self.conditions.lists.set(words.clone()) {
                    tracing::warn!("{words}");
                }
            }
            None => {
                if self.conditions.lists.clear() {
                    tracing::info!("everything is listed");
                }
            }
        }
        listed.everything()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_said_until_it_is_over() {
        let (mut unlisted, start) = (Unlisted::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let all = Listed { pods: true, namespaces: true, nodes: true, images: true, registries: true };
        let images = Listed { images: false, ..all };
        assert_eq!((unlisted.see(all, start), unlisted.said_at()), (None, None));
        assert_eq!((unlisted.see(images, start), unlisted.said_at()), (None, Some(after(5))));
        assert_eq!(unlisted.see(images, after(4)), None);
        let words = unlisted.see(images, after(5)).unwrap();
        assert_eq!(words, "not all is listed yet (CachedImages): nothing is made nor removed until it is");
        assert_eq!(unlisted.said_at(), None, "nobody wakes for it any more");
        let words = unlisted.see(Listed { pods: false, ..images }, after(6)).unwrap();
        assert!(words.contains("(Pods, CachedImages)"), "{words}");
        assert_eq!(unlisted.see(all, after(7)), None);
        assert_eq!((unlisted.see(images, after(8)), unlisted.said_at()), (None, Some(after(13))));
    }
}
