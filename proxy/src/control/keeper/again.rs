//! Whether what is complete still is, and what stays until something else is: disks lose files, and people remove them. All pins are looked at after the start and from time to time, beside the work and
//! slowly, and those that reach what the store has found missing or damaged at once. One that lacks something is fetched as any other, and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use larder_oci::Digest;
use tokio::time::{Instant, sleep};

use super::{Keeper, LOOK};
use crate::pins::{KeptPin, Overview, Put};

/// Pins that are listed at a time.
const PAGE: usize = 100;

/// So many times as long as a page took nothing is asked of the store, which has others to serve.
const REST: u32 = 4;

/// How long what was lost is gathered: who pulls an image that is not there asks for one blob after the other.
const GATHER: Duration = Duration::from_secs(1);

impl Keeper {
    /// Goes round, for ever.
    pub(super) async fn look_again(&self) {
        let all = async {
            loop {
                match self.pins.overview().await {
                    Ok(seen) => {
                        self.look_again_at(|kept| seen.as_ref().is_none_or(|seen| lacks(kept, seen))).await;
                        sleep(self.pins.look_again_after()).await;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "what is there cannot be listed now: whether pins are still complete is seen later");
                        sleep(LOOK).await;
                    }
                }
            }
        };
        let lost = async {
            loop {
                let lost = self.pins.lost().await;
                sleep(GATHER).await;
                // Those of meanwhile come next, if there are any.
                self.look_again_at(|kept| reaches(kept, &lost)).await;
            }
        };
        tokio::join!(all, lost);
    }

    /// All that promise something and are wanted; one that the store does not tell about stays as it is.
    async fn look_again_at(&self, is_wanted: impl Fn(&KeptPin) -> bool) {
        let mut after = None;
        loop {
            let began = Instant::now();
            match self.pins.list(None, after.as_ref(), PAGE).await {
                Ok(page) => {
                    let promising = |kept: &&KeptPin| kept.promised().is_some() && !kept.pin.name.holder.is_pull();
                    for kept in page.pins.iter().filter(promising) {
                        if is_wanted(kept) {
                            self.look_again_at_one(kept).await;
                        }
                    }
                    after = page.next;
                    if after.is_none() {
                        return;
                    }
                    sleep(began.elapsed() * REST).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "pins cannot be listed now: whether they are still complete is seen later");
                    sleep(LOOK).await;
                }
            }
        }
    }

    async fn look_again_at_one(&self, kept: &KeptPin) {
        let name = &kept.pin.name;
        match self.pins.look_again(name).await {
            Ok(Some(Put::Incomplete(missing))) => {
                let first = missing.first().map_or_else(String::new, Digest::to_string);
                if !kept.complete {
                    // What is known is tried for as often as the pin itself.
                    if !kept.older_lacks {
                        tracing::warn!(image = %name.image, holder = %name.holder, missing = missing.len(), first,
                            "of what an image was before, and is kept, something is lost; it is fetched");
                        self.hasten(kept);
                    }
                    return;
                }
                tracing::warn!(image = %name.image, holder = %name.holder, missing = missing.len(), first,
                    "a pin that was complete is not any more; what is missing is fetched");
                // One too many is found by whoever looks for what is not complete.
                self.enqueue_for(name, true);
                self.changed.notify_waiters();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(image = %name.image, %error, "whether a pin is still complete cannot be seen now");
            }
        }
    }
}

/// Something that it promises was not there, or came since.
fn lacks(kept: &KeptPin, seen: &Overview) -> bool {
    kept.older_lacks || !seen.has_all_of(kept)
}

fn reaches(kept: &KeptPin, lost: &BTreeSet<Digest>) -> bool {
    kept.promised().is_some_and(|content| !content.digests.is_disjoint(lost))
}
