//! What an image was before, which stays until what it is now is complete: what of that is lost is fetched again, by digest, before anything else is tried for the pin.

use larder_oci::ImageReference;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{KEPT_AGAIN, KEPT_TRIES, Keeper, Progress, in_turn, not_kept, unanswered};
use crate::control::plan::{Wanted, plan};
use crate::pins::{Content, KeptPin, PinName, Place, Put};
use crate::pull::Unkept;

impl Keeper {
    /// A pin whose older image has lost something is tried soon.
    pub(super) fn hasten(&self, kept: &KeptPin) {
        let name = &kept.pin.name;
        let known = self.entries().get_mut(&name.place()).map(|entry| entry.not_before = Instant::now());
        match known {
            Some(()) => self.wake.notify_one(),
            // One too many is found by whoever looks for what is not complete.
            None => _ = self.enqueue_for(name, kept.goes_on_as_planned()),
        }
    }

    /// Fetches it, and says why it cannot be had.
    pub(super) async fn mend_older(&self, kept: &KeptPin, place: &Place, gone: &CancellationToken) {
        let Some(older) = kept.promised().filter(|_| kept.older_lacks) else { return };
        let why = match in_turn(gone, self.bring_older(&kept.pin.name, older)).await {
            Ok(_) => None,
            Err(unkept) => {
                tracing::info!(image = %kept.pin.name.image, holder = %kept.pin.name.holder, error = %unkept,
                    "of what an image was before something is lost and cannot be fetched");
                Some(unkept.to_string())
            }
        };
        if let Some(entry) = self.entries().get_mut(place) {
            entry.older = why;
        }
    }

    async fn bring_older(&self, name: &PinName, older: &Content) -> Result<(), Unkept> {
        let image = ImageReference { digest: Some(older.root.clone()), ..name.image.clone() };
        self.may_bring(&image, older).await?;
        let plan = plan(&self.puller, &image, Wanted::Of(&older.digests)).await?;
        self.fetch(&plan, &Progress::default()).await?;
        for tries in 0.. {
            match self.pins.look_again(name).await.map_err(|error| unanswered(&error))? {
                Some(Put::Incomplete(missing)) if tries == KEPT_TRIES => return Err(not_kept(&missing)),
                Some(Put::Incomplete(_)) => sleep(KEPT_AGAIN).await,
                // Or it is no older one any more.
                _ => break,
            }
        }
        Ok(())
    }

    /// Why what of the older image is lost cannot be had, as far as that is known here.
    pub(in crate::control) fn why_older_lacks(&self, place: &Place) -> Option<String> {
        self.entries().get(place).and_then(|entry| entry.older.clone())
    }
}
