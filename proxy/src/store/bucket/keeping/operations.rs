//! One operation of the protocol, one request (a listing: one for each of its pages).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_oci::Digest;
use object_store::ObjectMeta;

use super::body;
use super::machine::Hands;
use crate::pins::Pin;
use crate::store::bucket::Provider;
use crate::store::bucket::client::{Client, Who};
use crate::store::bucket::layout::{Generation, Layout};
use crate::store::bucket::owed::checksums_of;
use crate::store::bucket::shared::Shared;
use crate::store::document::MAXIMUM_PIN_LENGTH;
use crate::store::removal::{Answer, Body, BucketTime, Entry, Held, Key, Label, Operation, Prefix, Unique};
use crate::store::{Store as _, StoreError};

/// Objects of one page: few enough to be held in memory more than once, many enough where each page is a listing from the start (Azure).
pub(super) const PAGE: usize = 50_000;
/// What no provider copies in one request any more is 5 GB.
const LARGEST_COPY: u64 = 5_000_000_000;
/// Clusters on one bucket.
const CLUSTERS: usize = 10_000;

/// Operations that need nothing but the bucket.
pub(super) struct Plain<'a> {
    pub(super) client: &'a Client,
    pub(super) layout: &'a Layout,
}

impl Plain<'_> {
    /// Where a key of the protocol lies.
    pub(super) fn place(&self, key: &Key) -> String {
        self.layout.below(&key.to_string())
    }

    /// The key of an object, if it is one of the protocol's.
    pub(super) fn key(&self, object: &ObjectMeta) -> Option<Key> {
        Key::parse(self.layout.within(object.location.as_ref())?)
    }

    pub(super) async fn page(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Answer, StoreError> {
        let folder = self.layout.below(&prefix.to_string());
        let (mut after, mut foreign) = (after.map(|key| self.place(key)), false);
        loop {
            let listed = self.client.list(&folder, after.as_deref(), PAGE).await?;
            let last = listed.len() < PAGE;
            let mut entries = Vec::new();
            for object in &listed {
                match self.key(object).filter(|key| prefix.covers(key)) {
                    Some(key) => entries.push(Entry { key, modified: modified(object) }),
                    None => foreign = true,
                }
            }
            // A machine goes on behind the last key that it was given: there has to be one.
            if last || !entries.is_empty() {
                return Ok(Answer::Page { entries, foreign, last });
            }
            after = listed.last().map(|object| object.location.to_string());
        }
    }

    pub(super) async fn clusters(&self) -> Result<Answer, StoreError> {
        let names = self.client.folders(&self.layout.below("clusters"), CLUSTERS).await?;
        let clusters: Option<BTreeSet<Label>> = names.iter().map(|name| Label::parse(name)).collect();
        Ok(clusters.map_or_else(
            || {
                tracing::warn!(
                    bucket = self.client.place,
                    "store: a folder below clusters/ is no cluster's: nothing is removed before it is gone"
                );
                Answer::Unknown
            },
            Answer::Clusters,
        ))
    }

    /// A pin; [`Answer::Pin`] has its digests only.
    pub(super) async fn pin(&self, key: &Key) -> Result<Result<Arc<Pin>, Answer>, StoreError> {
        let Key::Pin(name, _) = key else { return Ok(Err(Answer::Unreadable)) };
        let bytes = self.client.get(Who::Anybody, &self.place(key), MAXIMUM_PIN_LENGTH as u64).await?;
        Ok(match bytes.map(|bytes| body::decode(name, &bytes)) {
            None => Err(Answer::NotFound),
            Some(None) => Err(Answer::Unreadable),
            Some(Some(pin)) => Ok(Arc::new(pin)),
        })
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Answer, StoreError> {
        let place = self.place(key);
        match key {
            // They say the same each time, and a mark's age is to be the last time's.
            Key::Mark(_) | Key::Word(..) => self.client.put_once(&place, bytes).await?,
            _ => self.client.create_once(&place, bytes).await?,
        }
        Ok(Answer::Done)
    }

    async fn delete(&self, key: &Key) -> Result<Answer, StoreError> {
        match key {
            Key::Pin(..) => {
                if let Some(note) = self.layout.completed(key) {
                    self.client.delete_once(&note).await?;
                }
                self.client.delete_once(&self.place(key)).await?;
            }
            // With its mark goes what may be left of a blob that was removed by somebody who was killed.
            Key::Blob(held) | Key::Mark(held) => {
                self.client.delete_once(&self.place(key)).await?;
                let generation = Generation::from(&held.generation);
                self.client.delete_once(&self.layout.checksums(&held.digest, &generation)).await?;
            }
            _ => self.client.delete_once(&self.place(key)).await?,
        }
        Ok(Answer::Done)
    }

    async fn carried_out(&self, operation: &Operation) -> Result<Answer, StoreError> {
        match operation {
            Operation::List { prefix, after } => self.page(prefix, after.as_ref()).await,
            Operation::Clusters => self.clusters().await,
            Operation::GetPin(key) => {
                Ok(self.pin(key).await?.map_or_else(|answer| answer, |pin| Answer::Pin(digests(&pin))))
            }
            Operation::Put(key, Body::Empty) => self.put(key, Bytes::new()).await,
            Operation::Delete(key) => self.delete(key).await,
            // Only the store itself has blobs, and knows what a pin says.
            Operation::Put(_, Body::Pin(_)) | Operation::GetBlob(..) | Operation::Copy(..) | Operation::Fetch(_) => {
                Ok(Answer::Unknown)
            }
        }
    }
}

impl Hands for Plain<'_> {
    fn carry_out<'a>(&'a self, operation: &'a Operation) -> BoxFuture<'a, Answer> {
        Box::pin(async move { known(self.carried_out(operation).await) })
    }
}

/// By the store, which has copies and remembers pins that it has read. `pin` is what a pin that is written says.
pub(super) struct OfStore<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) pin: Option<&'a Pin>,
}

impl OfStore<'_> {
    async fn carried_out(&self, operation: &Operation) -> Result<Answer, StoreError> {
        let shared = self.shared;
        let plain = shared.plain();
        match operation {
            Operation::GetPin(key) => {
                Ok(shared.pin(key).await?.map_or_else(|answer| answer, |pin| Answer::Pin(digests(&pin))))
            }
            Operation::Put(key, Body::Pin(_)) => match self.pin.and_then(body::encode) {
                Some(bytes) => plain.put(key, bytes).await,
                None => Ok(Answer::Unknown),
            },
            Operation::Copy(held, unique) => shared.copy(held, unique).await,
            Operation::Fetch(held) => shared.bring(held).await,
            Operation::Delete(Key::Blob(held)) => {
                let deleted = plain.carried_out(operation).await;
                shared.forget(&held.digest);
                deleted
            }
            _ => plain.carried_out(operation).await,
        }
    }
}

impl Hands for OfStore<'_> {
    fn carry_out<'a>(&'a self, operation: &'a Operation) -> BoxFuture<'a, Answer> {
        Box::pin(async move { known(self.carried_out(operation).await) })
    }
}

impl Shared {
    pub(super) fn plain(&self) -> Plain<'_> {
        Plain { client: &self.client, layout: &self.layout }
    }

    /// A pin never changes: it is read once, as long as there are not too many.
    pub(super) async fn pin(&self, key: &Key) -> Result<Result<Arc<Pin>, Answer>, StoreError> {
        if let Some(pin) = self.pins.get(key, |_, _| true) {
            return Ok(Ok(pin));
        }
        let read = self.plain().pin(key).await?;
        if let Ok(pin) = &read {
            self.pins.note(key.clone(), Arc::clone(pin));
        }
        Ok(read)
    }

    /// A new generation of the bytes of another, with its checksums, which are there first.
    async fn copy(self: &Arc<Self>, from: &Held, to: &Unique) -> Result<Answer, StoreError> {
        let (digest, old, new) = (&from.digest, Generation::from(&from.generation), Generation::from(to));
        let kept = self.listed(digest).await?;
        let Some(kept) = kept.into_iter().find(|kept| kept.generation == old) else { return Ok(Answer::NotFound) };
        // Azure answers before it has copied, and shows what is not whole yet.
        if kept.length > LARGEST_COPY || self.config.address.provider == Provider::Azure {
            self.come_here(digest).await?;
            return self.bring(&Held { digest: digest.clone(), generation: to.clone() }).await;
        }
        if kept.length > self.config.small {
            let (from, to) = (self.layout.checksums(digest, &old), self.layout.checksums(digest, &new));
            // Without them it is read all the same, more slowly.
            self.client.copy_once(&from, &to).await?;
        }
        let copied = self.client.copy_once(&self.layout.blob(digest, &old), &self.layout.blob(digest, &new)).await?;
        self.forget_age(digest);
        Ok(if copied { Answer::Done } else { Answer::NotFound })
    }

    /// Waits until all of a blob is here, if it comes at all.
    async fn come_here(self: &Arc<Self>, digest: &Digest) -> Result<(), StoreError> {
        if let Some(blob) = self.blob(digest).await?
            && let Err(error) = blob.file_until(blob.len()).await
        {
            tracing::debug!(%digest, %error, "store: what is condemned does not come to be uploaded anew");
        }
        Ok(())
    }

    /// What is here goes to the bucket under that generation. The origin is for whoever wants the pin to ask: it puts it again then.
    async fn bring(self: &Arc<Self>, held: &Held) -> Result<Answer, StoreError> {
        let Some(blob) = self.local.blob(&held.digest).await? else { return Ok(Answer::NotFound) };
        let Some(checksums) = checksums_of(&blob).await else { return Ok(Answer::NotFound) };
        self.upload_as(&held.digest, Generation::from(&held.generation), &blob, &checksums).await?;
        Ok(Answer::Done)
    }
}

/// What is not known to have happened may happen yet.
fn known(answer: Result<Answer, StoreError>) -> Answer {
    answer.unwrap_or_else(|error| {
        // Rights are for a person to mend: without that to delete, nothing is ever removed.
        if error.to_string().contains("access denied") {
            tracing::warn!(%error, "store: the bucket refuses what removal has to do");
        } else {
            tracing::debug!(%error, "store: what removal wanted of the bucket may have happened or not");
        }
        Answer::Unknown
    })
}

pub(super) fn digests(pin: &Pin) -> BTreeSet<Digest> {
    pin.content.as_ref().map(|content| content.digests.clone()).unwrap_or_default()
}

pub(super) fn modified(object: &ObjectMeta) -> BucketTime {
    BucketTime(u64::try_from(object.last_modified.timestamp()).unwrap_or(0))
}
