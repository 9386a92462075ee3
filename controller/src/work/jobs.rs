//! What is asked of others: how it is begun, and who hears how it ended.

use std::future::Future;

use larder_api::CachedImage;
use tokio::time::Instant;

use super::expire::Expired;
use super::notes::Arrival;
use super::{ANSWER, Work, registries};
use crate::api_server::answered;
use crate::cluster_cache::{AsOf, CacheError, Pin, Planned, Revalidation};
use crate::decide::Image;
use crate::events::Note;
use crate::leader::NotLeading;

/// How something ended that was asked of others.
pub(super) enum Done {
    /// An object was made or written.
    Written { image: Image, told: Option<Told>, kind: &'static str, result: Box<Result<CachedImage, kube::Error>> },
    /// A pin went as far as it does for now.
    Fetched { image: Image, result: Result<(Pin, bool), CacheError> },
    /// How far it is meanwhile.
    Progress { image: Image, pin: Pin },
    /// All pins were listed.
    Listed { result: Result<(Option<AsOf>, Vec<Pin>), CacheError> },
    /// A pin was deleted.
    Unpinned { image: Image, result: Result<(), CacheError> },
    /// The set was declared.
    Declared { result: Result<(), CacheError> },
    /// A registry was asked.
    Checked { image: Image, result: Result<Revalidation, CacheError> },
    /// Something of registries.
    Registries(registries::Ended),
    /// What is to expire was looked at.
    Expired { result: Expired },
    /// The size of an image was asked for.
    Sized { image: Image, result: Result<Planned, CacheError> },
    /// An event of this reason was written.
    Told { reason: &'static str, result: Result<(), kube::Error> },
    /// The lead was lost on the way.
    NotLeading,
}

/// An object whose status was written.
pub(super) struct Told {
    pub(super) name: String,
    pub(super) uid: String,
    /// What is to be told of it when it is written, and what is remembered then.
    pub(super) notes: Vec<Note>,
    pub(super) arrival: Arrival,
}

impl Work {
    pub(super) fn take(&mut self, done: Done) -> Result<(), NotLeading> {
        match done {
            Done::Written { image, told, kind, result } => self.written(&image, told, kind, *result),
            Done::Fetched { image, result } => self.fetched(&image, result),
            Done::Progress { image, pin } => self.progressed(&image, pin),
            // With 100,000 images it takes seconds, in which the lease is to be renewed: nothing else waits behind it on this thread, nor behind whoever waits
            // for what is known of the world ([`World::known`](crate::world::World::known)).
            Done::Listed { result } => tokio::task::block_in_place(|| self.listed(result)),
            Done::Unpinned { image, result } => self.unpinned(&image, result),
            Done::Declared { result } => self.declared(result),
            Done::Checked { image, result } => self.checked(&image, result),
            Done::Expired { result } => self.expired(result),
            Done::Sized { image, result } => self.sized(&image, &result),
            Done::Registries(ended) => self.registries_ended(ended),
            Done::Told { reason, result } => self.events.written(reason, result),
            Done::NotLeading => return Err(NotLeading),
        }
        Ok(())
    }

    /// Writes an event, if one waits.
    pub(super) fn tell_of_events(&mut self) {
        if let Some((reason, write)) = self.events.next(Instant::now()) {
            self.write(answered(ANSWER, write), move |result| Done::Told { reason, result });
        }
    }

    /// What is to be written is not begun without the lead, and given up with it.
    pub(super) fn write<T: Send + 'static>(
        &mut self,
        write: impl Future<Output = T> + Send + 'static,
        done: impl FnOnce(T) -> Done + Send + 'static,
    ) {
        let leadership = self.leadership.clone();
        self.jobs.push(Box::pin(async move {
            match leadership.writing(write).await {
                Ok(value) => done(value),
                Err(NotLeading) => Done::NotLeading,
            }
        }));
    }
}
