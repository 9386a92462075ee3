//! When images were last asked for by clients, as far as this process knows: what is shown of a pin. What is evicted first, and when a pin is renewed, is
//! decided by other times.
//!
//! Bounded: what nobody asked for while [`MOST`] others were asked for may be forgotten. An image is known by a hash under a key of this process, so that a
//! hundred thousand of them take a few megabytes.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_oci::Digest;

use crate::store::Name;

/// Images of a generation, of which there are two.
const MOST: usize = 65_536;

/// The times.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    key: RandomState,
    known: Mutex<Generations>,
}

/// Seconds since 1970 by the image's hash. What is asked for is in the young one; when that is full it is the old one.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
}

impl Pulls {
    /// A client asked for this manifest of this repository, and was given it or told of it.
    pub(super) fn note(&self, name: &Name, digest: &Digest, now: SystemTime) {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let image = self.key.hash_one((name, digest));
        let mut known = self.known();
        known.young.insert(image, seconds);
        if known.young.len() >= MOST {
            known.old = std::mem::take(&mut known.young);
        }
    }

    /// When one last did.
    pub(super) fn last(&self, name: &Name, digest: &Digest) -> Option<SystemTime> {
        let image = self.key.hash_one((name, digest));
        let known = self.known();
        let seconds = known.young.get(&image).or_else(|| known.old.get(&image))?;
        Some(UNIX_EPOCH + Duration::from_secs(*seconds))
    }

    fn known(&self) -> MutexGuard<'_, Generations> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Algorithm;

    use super::*;
    use crate::fetch::testing::name;

    #[test]
    fn the_last_time_counts_and_what_nobody_asks_for_gives_way() {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (pulls, app) = (Pulls::default(), name("team/app"));
        pulls.note(&app, &digest("rare"), at(1));
        pulls.note(&app, &digest("often"), at(1));
        pulls.note(&app, &digest("often"), at(2));
        assert_eq!(pulls.last(&app, &digest("often")), Some(at(2)));
        assert_eq!(pulls.last(&name("team/other"), &digest("often")), None, "another repository's is another image");
        for number in 0..2 * MOST {
            pulls.note(&app, &digest(&number.to_string()), at(3));
            if number % (MOST / 2) == 0 {
                pulls.note(&app, &digest("often"), at(3));
            }
        }
        assert_eq!(pulls.last(&app, &digest("often")), Some(at(3)));
        assert_eq!(pulls.last(&app, &digest("rare")), None);
        let known = pulls.known();
        assert!(known.young.len() + known.old.len() <= 2 * MOST);
    }
}
