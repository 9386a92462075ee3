//! What keeps content in a bucket and lets it go: the shell of the removal protocol (`store::removal`, decision 16).
//!
//! The machines there decide; here their operations become requests, one each, never repeated by ourselves: a write or a delete that is not known to
//! have succeeded is an answer of its own ([`Answer::Unknown`]), and what to do about it is the machine's matter. A machine that gets too many of them
//! is left where it is, as if the process had died there.
//!
//! `operations` carries out, `machine` drives, `pins` is this cluster's pins ([`crate::pins::Pins`]), `upkeep` runs beside the serving (the holder `pull`,
//! collectors), `sweep` removes what belongs to nothing any more, `person` is what a person may say.
//!
//! [`Answer::Unknown`]: crate::store::removal::Answer::Unknown

mod body;
mod machine;
mod operations;
mod person;
mod pins;
mod pulled;
mod standing;
mod sweep;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use larder_oci::Digest;

use super::shared::{Kept, Shared};
use crate::store::StoreError;
use crate::store::removal::{Policy, Prefix};

pub use person::{Brake, BucketPerson, Cluster, ForgetError};
pub(super) use pins::BucketPins;
pub(super) use pulled::Pulled;
pub use standing::Standing;
pub(super) use standing::Standings;
pub(super) use upkeep::{collect, hold_pulls};

/// Marks of one digest that are looked at.
const MARKS: usize = 1000;

/// When what is done about pins and removal.
#[derive(Debug, Clone)]
pub struct Removal {
    /// The spans of the protocol, by the bucket's clock.
    pub policy: Arc<Policy>,
    /// Between two runs of this process's collector, more or less.
    pub every: Duration,
    /// Between two declarations of the holder `pull`. A fraction of [`Policy::declared_within`].
    pub declare_every: Duration,
    /// How long a pull that completed keeps itself after its last use. A use within a thirtieth of it renews no pin.
    pub pull: Duration,
    /// How long after a manifest was given it is looked whether its image has come, to be pinned.
    pub settle: Duration,
    /// Between two sweeps of this process, more or less: what was left beside a blob that never came, a pin that is gone.
    pub sweep: Duration,
    /// How old that is before it goes, by the bucket's clock. Longer than any upload takes ([`BucketConfig::upload_age`](super::BucketConfig::upload_age)).
    pub alone: Duration,
}

impl Default for Removal {
    fn default() -> Self {
        Self {
            policy: Arc::default(),
            every: Duration::from_hours(1),
            declare_every: Duration::from_mins(10),
            pull: Policy::PULL,
            settle: Duration::from_secs(30),
            sweep: Duration::from_hours(24),
            alone: Duration::from_hours(48),
        }
    }
}

impl Shared {
    /// The generations that somebody may begin to rely on: those that are not condemned. Marks are listed before blobs, as a pinner does. That
    /// there are none is believed for `absent`.
    pub(super) async fn usable(&self, digest: &Digest, absent: Duration) -> Result<Vec<Kept>, StoreError> {
        if self.kept(digest, absent).await?.is_empty() {
            return Ok(Vec::new());
        }
        let marks = self.layout.below(&Prefix::MarksOf(digest.clone()).to_string());
        let marks = self.client.list(&marks, None, MARKS).await?;
        self.forget_age(digest);
        let mut kept = self.kept(digest, Duration::ZERO).await?;
        kept.retain(|kept| marks.iter().all(|mark| mark.location.filename() != Some(kept.generation.as_str())));
        Ok(kept)
    }
}
