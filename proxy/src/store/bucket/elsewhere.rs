//! A URL of the bucket, for whoever follows a redirect there.
//!
//! Only what the bucket has whole, under a key that is not condemned, and only for reading. A condemned blob stays for the grace period
//! after its mark, and that there was none was seen a minute ago at most: a URL that holds for less than an eighth of that period ends
//! before its blob does. What comes here anyway is not asked of the bucket twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Method;
use larder_oci::Digest;
use object_store::signer::Signer;
use tokio::time::timeout;

use super::layout::path;
use super::shared::{Kept, Shared};
use crate::secret::SignedUrl;
use crate::store::StoreError;
use crate::store::lease::lock;

/// How long a URL holds. Whoever gets it asks at once, so this is for clocks that are not the same.
const HOLDS: Duration = Duration::from_mins(5);

/// Less is no time to ask in.
const SHORTEST: Duration = Duration::from_secs(1);

/// Signs URLs with the bucket's credentials.
pub(super) struct Signing {
    signer: Arc<dyn Signer>,
    told: AtomicBool,
}

impl Signing {
    pub(super) fn new(signer: Arc<dyn Signer>) -> Self {
        Self { signer, told: AtomicBool::new(false) }
    }
}

/// How long a URL of a bucket holds that leaves what is condemned there for so long.
fn holds(grace: Duration) -> Duration {
    HOLDS.min(grace / 8).max(SHORTEST)
}

impl Shared {
    /// Where a blob of `length` bytes may be had. `None`: here.
    pub(super) async fn elsewhere(&self, digest: &Digest, length: u64) -> Result<Option<SignedUrl>, StoreError> {
        let Some(signing) = &self.signing else { return Ok(None) };
        let fill = lock(&self.fills).get(digest).and_then(Weak::upgrade);
        if !self.client.gate.is_open() || self.is_away(digest) || fill.is_some_and(|fill| fill.has_begun()) {
            return Ok(None);
        }
        let known = self.lasting.get(digest, |_, age| age <= self.config.fresh_for);
        let lasting = match known {
            Some(lasting) => lasting,
            None => self.seen_to_last(digest).await?,
        };
        let Some(kept) = self.trusted(digest, lasting).into_iter().find(|kept| kept.length == length) else {
            return Ok(None);
        };
        let key = path(&self.layout.blob(digest, &kept.generation))?;
        let holds = holds(self.config.removal.policy.grace);
        // Credentials without a key of their own ask their provider for each signature.
        let signed = timeout(self.config.read_within, signing.signer.signed_url(Method::GET, &key, holds)).await;
        let signed = signed.map_err(|_| format!("nobody signs within {:?}", self.config.read_within));
        match signed.and_then(|signed| signed.map_err(|error| error.to_string())) {
            Ok(url) => Ok(SignedUrl::new(url)),
            Err(error) => {
                // Of every request, and for a person to mend.
                if !signing.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        bucket = self.client.place,
                        error,
                        "store: these credentials sign no URL, so nobody is sent to the bucket and what is asked for is served from here; use others, or --redirect none"
                    );
                }
                Ok(None)
            }
        }
    }

    async fn seen_to_last(&self, digest: &Digest) -> Result<Vec<Kept>, StoreError> {
        let lasting = self.usable(digest, Duration::ZERO).await?;
        self.lasting.note(digest.clone(), lasting.clone());
        Ok(lasting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::removal::Policy;

    #[test]
    fn a_url_ends_long_before_what_it_names_may_go() {
        let grace = Policy::default().grace;
        assert!(holds(grace) == HOLDS && holds(grace) * 100 < grace);
        for grace in [Duration::from_secs(30), Duration::from_mins(10)] {
            assert!(holds(grace) < grace / 4, "{grace:?}");
        }
    }
}
