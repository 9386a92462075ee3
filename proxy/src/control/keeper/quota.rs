//! What was lost yields: where a registry has few pulls left they are for what is pulled now, and what is brought again waits for the next ones.
//!
//! Only what costs pulls: registries that count them count manifests. An image that has lost a layer is made whole at once. Nor does it hold for what somebody
//! puts anew, whose matter it is what he spends.

use larder_oci::ImageReference;
use tokio::time::Instant;

use super::Keeper;
use crate::pins::Content;
use crate::pull::{Code, Unkept};
use crate::source::Verdict;

impl Keeper {
    /// Whether an image may be made what it was now.
    pub(super) async fn may_bring(&self, image: &ImageReference, content: &Content) -> Result<(), Unkept> {
        let now = Instant::now();
        let Some(until) = self.standings.low_until(&image.registry, now) else { return Ok(()) };
        if !self.puller.lacks_manifest(&content.root, &content.digests).await {
            return Ok(());
        }
        let minutes = (until - now).as_secs().div_ceil(60);
        let words = format!(
            "{} has few pulls left, which are for what is pulled now; what is lost of the image is fetched when there are more, which may be in {minutes} minutes, or at once if the pin is put anew",
            image.registry
        );
        Err(Unkept::later(Code::Origin(Verdict::RateLimited), words))
    }
}
