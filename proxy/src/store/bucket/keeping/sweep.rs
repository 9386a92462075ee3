//! What is left in the bucket beside something that never came, or is gone: the checksums of a blob whose writer was killed between the two, the note
//! that a pin is complete which somebody unpinned meanwhile.
//!
//! Each lies under the key of what it belongs to, in a folder of its own, so two listings in the same order say which of them are alone. No promise rests on
//! them (a blob without checksums is read whole before a byte of it leaves, `fill`; a pin without its note is looked at once more), so this needs no
//! pins, no declarations and no mark. Still nobody is to be hurt who is only slow: what goes is older than any upload takes, has no
//! upload under way, and is looked up once more by itself. Whoever is slower yet writes his checksums again (`upload`), and who reads a blob without them
//! does it for him.

use std::collections::VecDeque;
use std::sync::Arc;

use object_store::ObjectMeta;

use super::operations::{PAGE, modified};
use super::pins::BucketPins;
use crate::pins::{Holder, Pins as _, PinsError};
use crate::store::StoreError;
use crate::store::bucket::client::{Client, Who};
use crate::store::bucket::layout::{Beside, Generation};
use crate::store::bucket::shared::Shared;
use crate::store::document::MAXIMUM_LENGTH;
use crate::store::removal::{BucketTime, Key};

/// What lies in the folder of one digest, or one pin. There is one, or a few.
const OF_ONE: usize = 1000;

impl Shared {
    /// Removes what was left alone; how much that was.
    pub(in crate::store::bucket) async fn sweep(self: &Arc<Self>) -> Result<usize, StoreError> {
        self.sweep_in_pages(PAGE).await
    }

    pub(in crate::store::bucket) async fn sweep_in_pages(self: &Arc<Self>, page: usize) -> Result<usize, StoreError> {
        let now = self.time().await?;
        let mut swept = 0;
        for beside in self.layout.beside() {
            swept += self.sweep_beside(&beside, page, now).await?;
        }
        if swept > 0 {
            tracing::info!(
                bucket = self.client.place,
                swept,
                "store: what was left in the bucket by something that ended is gone"
            );
        }
        Ok(swept)
    }

    /// By the bucket's clock.
    async fn time(self: &Arc<Self>) -> Result<BucketTime, StoreError> {
        let pins = BucketPins { shared: Arc::clone(self) };
        match pins.begin_declaration(&Holder::pull()).await {
            Ok(as_of) => Ok(BucketTime(as_of.0)),
            Err(PinsError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Bucket {
                operation: "read the time of",
                place: self.client.place.clone(),
                reason: error.to_string(),
            }),
        }
    }

    async fn sweep_beside(&self, beside: &Beside, page: usize, now: BucketTime) -> Result<usize, StoreError> {
        let mut notes = Listing::new(&self.client, &beside.folder, page);
        let mut wholes = Listing::new(&self.client, &beside.of, page);
        let mut swept = 0;
        while let Some(note) = notes.next().await? {
            let Some((whole, key)) = beside.belongs_to(&self.layout, note.location.as_ref()) else { continue };
            if wholes.has(&whole).await? || !modified(&note).is_past(self.config.removal.alone, now) {
                continue;
            }
            // The listings are of different moments, and it may have come just now.
            if self.comes(&key).await? || self.is_there(&whole).await? {
                continue;
            }
            self.client.delete(note.location.as_ref()).await?;
            // Each for itself: a sweep that ends early has done something, too.
            self.standings.note_swept(1);
            swept += 1;
        }
        Ok(swept)
    }

    /// Whether it is being uploaded in parts: its note goes after the blob has come, so this is asked before it is looked for.
    async fn comes(&self, key: &Key) -> Result<bool, StoreError> {
        let Key::Blob(held) = key else { return Ok(false) };
        let note = self.layout.upload(&Generation::from(&held.generation));
        Ok(self.client.get(Who::Anybody, &note, MAXIMUM_LENGTH as u64).await?.is_some())
    }

    async fn is_there(&self, whole: &str) -> Result<bool, StoreError> {
        let Some((folder, _)) = whole.rsplit_once('/') else { return Ok(true) };
        let listed = self.client.list(folder, None, OF_ONE).await?;
        // Of more it is not known.
        Ok(listed.len() == OF_ONE || listed.iter().any(|object| object.location.as_ref() == whole))
    }
}

/// A folder in the order of its keys, a page at a time.
struct Listing<'a> {
    client: &'a Client,
    folder: &'a str,
    page: usize,
    read: VecDeque<ObjectMeta>,
    after: Option<String>,
    is_last: bool,
}

impl<'a> Listing<'a> {
    fn new(client: &'a Client, folder: &'a str, page: usize) -> Self {
        Self { client, folder, page, read: VecDeque::new(), after: None, is_last: false }
    }

    async fn fill(&mut self) -> Result<(), StoreError> {
        if self.read.is_empty() && !self.is_last {
            let listed = self.client.list(self.folder, self.after.as_deref(), self.page).await?;
            self.is_last = listed.len() < self.page;
            self.after = listed.last().map(|object| object.location.to_string());
            self.read = listed.into();
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ObjectMeta>, StoreError> {
        self.fill().await?;
        Ok(self.read.pop_front())
    }

    /// Whether a key is there that comes behind every key that was asked for before.
    async fn has(&mut self, key: &str) -> Result<bool, StoreError> {
        // What lies in between is nothing to read through: a folder's name sorts before all that is in it.
        if !self.is_last && self.after.as_deref().is_none_or(|after| after < key) {
            self.read.clear();
            self.after = key.rsplit_once('/').map(|(folder, _)| folder.to_owned()).max(self.after.take());
        }
        loop {
            self.fill().await?;
            match self.read.front() {
                Some(first) if first.location.as_ref() < key => _ = self.read.pop_front(),
                first => return Ok(first.is_some_and(|first| first.location.as_ref() == key)),
            }
        }
    }
}
