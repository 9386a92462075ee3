//! Which machine was sent to the bucket for which blob by a client that does not say whether it follows.
//!
//! Such a client cannot say either that the bucket did not serve it, or gave it wrong bytes: it fails, and is started again. So whoever asks again is taken for
//! one that was not served, and given the blob here, where it is checked. One that was served has no reason to; that several clients are behind
//! one address costs the second of them the redirect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_oci::Digest;
use tokio::time::Instant;

/// Longer than kubelet waits before it tries an image again, which is five minutes at most.
const COMES_BACK: Duration = Duration::from_mins(15);

/// How many are remembered. One that is not fails until it is.
const MOST: usize = 20_000;

/// `None` for an address: the system did not say which.
type Machine = Option<IpAddr>;

#[derive(Default)]
pub(super) struct SentOn(Mutex<HashMap<(Machine, Digest), Instant>>);

impl SentOn {
    /// Whether it was sent on not long ago.
    pub(super) fn comes_back(&self, machine: Machine, digest: &Digest, now: Instant) -> bool {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&(machine, digest.clone())).is_some_and(|at| now.duration_since(*at) < COMES_BACK)
    }

    pub(super) fn note(&self, machine: Machine, digest: &Digest, now: Instant) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= MOST {
            sent.retain(|_, at| now.duration_since(*at) < COMES_BACK);
        }
        if sent.len() < MOST {
            sent.insert((machine, digest.clone()), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Algorithm;

    use super::*;

    #[test]
    fn a_machine_comes_back_for_a_blob_that_it_was_sent_on_for_not_long_ago() {
        let (sent, now) = (SentOn::default(), Instant::now());
        let digest = |number: u64| Digest::of(Algorithm::Sha256, &number.to_be_bytes());
        let (one, other) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        sent.note(one, &digest(1), now);
        assert!(sent.comes_back(one, &digest(1), now + COMES_BACK / 2));
        assert!(!sent.comes_back(one, &digest(1), now + COMES_BACK));
        assert!(!sent.comes_back(one, &digest(2), now) && !sent.comes_back(other, &digest(1), now));
        // A flood drives nobody out, and is gone after a while.
        for number in 0..2 * MOST as u64 {
            sent.note(other, &digest(number), now);
        }
        assert!(sent.0.lock().unwrap().len() == MOST && sent.comes_back(one, &digest(1), now));
        sent.note(one, &digest(2), now + COMES_BACK);
        assert!(sent.comes_back(one, &digest(2), now + COMES_BACK) && sent.0.lock().unwrap().len() == 1);
    }
}
