//! Which digests of an image are pinned beside what its tag means: those that Pods run.
//!
//! A tag moves while Pods still run what it meant before; a node that lost the image then pulls by the old digest, or a
//! Pod of a Deployment is moved. A digest is kept for an hour after its last Pod, because in a rolling restart there is
//! often a moment without any.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_api::CachedImageStatus;
use larder_oci::Digest;

use super::Moment;

/// For how long after its last Pod.
pub const GRACE: Duration = Duration::from_hours(1);

/// Digests without a Pod that are kept of one image at most. Those that Pods run are all kept.
pub const MOST_UNUSED: usize = 8;

/// Those that the process before this one kept of an image, by what its status says: with a Pod, or cached beside what the tag means, which is the hour after
/// the last one. When they were used last nobody knows, so it was `now`.
pub fn of_status(status: &CachedImageStatus, now: Moment) -> BTreeMap<Digest, Moment> {
    let is_of_the_tag = |digest: &str| status.digest.as_deref() == Some(digest);
    let held = status.digests.iter();
    let held = held.filter(|held| held.pods > 0 || (held.cached && !held.upstream && !is_of_the_tag(&held.digest)));
    held.filter_map(|held| Digest::parse(&held.digest).ok()).map(|digest| (digest, now)).collect()
}

/// The digests to keep, with their last use, from those in the status and those that Pods run.
pub fn keep(
    recorded: &BTreeMap<Digest, Moment>,
    running: &BTreeMap<Digest, usize>,
    now: Moment,
) -> BTreeMap<Digest, Moment> {
    let mut unused: Vec<(Moment, &Digest)> = recorded
        .iter()
        // A last use in the future is some other clock's: it is given its hour from now.
        .map(|(digest, used)| ((*used).min(now), digest))
        .filter(|(used, digest)| !running.contains_key(*digest) && used.after(GRACE) > now)
        .collect();
    unused.sort_by(|a, b| b.cmp(a));
    let kept = unused.into_iter().take(MOST_UNUSED).map(|(used, digest)| (digest.clone(), used));
    running.keys().map(|digest| (digest.clone(), now)).chain(kept).collect()
}

#[cfg(test)]
mod tests;
