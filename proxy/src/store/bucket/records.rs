//! Links, tags and pins: small objects of this cluster, and what of them was read or written a moment ago.
//!
//! What could not be written stays owed, in memory, and counts here meanwhile; so a bucket that is away for a minute costs no evidence.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use larder_oci::Tag;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::Who;
use super::recent::Recent;
use super::shared::Shared;
use super::turns::Turns;
use crate::store::document::{self, LinkDocument, MAXIMUM_LENGTH, TagDocument};
use crate::store::lease::lock;
use crate::store::{Link, MAXIMUM_LISTED_TAGS, Name, StoreError, TagRecord};

/// Records that wait for the bucket.
const MOST_OWED: usize = 10_000;

pub(super) struct Records {
    recent: Recent<String, Option<Bytes>>,
    /// `None`: to be removed.
    owed: Mutex<HashMap<String, Option<Bytes>>>,
    turns: Turns<String>,
    fresh_for: Duration,
    absent_for: Duration,
}

/// What is known of a record without asking.
enum Known {
    /// It is there, or is not.
    As(Option<Bytes>),
    Not,
}

impl Records {
    pub(super) fn new(capacity: usize, fresh_for: Duration, absent_for: Duration) -> Self {
        Self { recent: Recent::new(capacity), owed: Mutex::default(), turns: Turns::new(), fresh_for, absent_for }
    }

    fn known(&self, key: &str) -> Known {
        if let Some(owed) = lock(&self.owed).get(key) {
            return Known::As(owed.clone());
        }
        let recent =
            self.recent.get(key, |value, age| age <= if value.is_some() { self.fresh_for } else { self.absent_for });
        recent.map_or(Known::Not, Known::As)
    }

    fn owe(&self, key: &str, value: Option<Bytes>) {
        let mut owed = lock(&self.owed);
        if owed.len() < MOST_OWED || owed.contains_key(key) {
            owed.insert(key.to_owned(), value);
        }
    }

    /// Written, unless something else is owed by now.
    fn settled(&self, key: &str, value: Option<&Bytes>) {
        let mut owed = lock(&self.owed);
        if owed.get(key).is_some_and(|owed| owed.as_ref() == value) {
            owed.remove(key);
        }
    }

    pub(super) fn owed(&self) -> usize {
        lock(&self.owed).len()
    }

    fn any_owed(&self) -> Option<(String, Option<Bytes>)> {
        lock(&self.owed).iter().next().map(|(key, value)| (key.clone(), value.clone()))
    }
}

impl Shared {
    /// A record; `None` if there is none that can be read.
    pub(super) async fn record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let bytes = self.record_bytes(key).await?;
        Ok(bytes.and_then(|bytes| {
            document::parse(&bytes)
                .inspect_err(|reason| {
                    tracing::warn!(key, %reason, "store: a record that cannot be read counts as absent");
                })
                .ok()
        }))
    }

    async fn record_bytes(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        if let Known::As(bytes) = self.records.known(key) {
            return Ok(bytes);
        }
        let _turn = self.records.turns.take(&key.to_owned()).await;
        if let Known::As(bytes) = self.records.known(key) {
            return Ok(bytes);
        }
        let bytes = self.client.get(Who::Anybody, key, MAXIMUM_LENGTH as u64).await?;
        self.records.recent.note(key.to_owned(), bytes.clone());
        Ok(bytes)
    }

    /// Writes a record, over an older one.
    pub(super) async fn put_record(&self, key: &str, record: &impl Serialize) -> Result<(), StoreError> {
        let unfit = |reason: String| StoreError::Bucket { operation: "write", place: key.to_owned(), reason };
        let bytes = serde_json::to_vec(record).map_err(|error| unfit(error.to_string()))?;
        if bytes.len() > MAXIMUM_LENGTH {
            return Err(unfit(format!("a record of {} bytes would never be read", bytes.len())));
        }
        self.settle(key, Some(Bytes::from(bytes))).await
    }

    pub(super) async fn put_link(&self, name: &Name, link: Link) -> Result<(), StoreError> {
        let key = self.layout.link(name, &link.digest);
        self.put_record(&key, &LinkDocument::new(name, link)).await
    }

    pub(super) async fn put_tag(&self, name: &Name, tag: &Tag, record: TagRecord) -> Result<(), StoreError> {
        let key = self.layout.tag(name, tag);
        self.put_record(&key, &TagDocument::new(name, tag, record)).await
    }

    /// What was learnt of a record is not believed any more; what is owed is.
    pub(super) fn forget_record(&self, key: &str) {
        self.records.recent.forget(key);
    }

    /// Removes a record. Not an error if there is none.
    pub(super) async fn remove_record(&self, key: &str) -> Result<(), StoreError> {
        self.settle(key, None).await
    }

    async fn settle(&self, key: &str, value: Option<Bytes>) -> Result<(), StoreError> {
        self.records.owe(key, value.clone());
        let _turn = self.records.turns.take(&key.to_owned()).await;
        let done = match &value {
            Some(bytes) => self.client.put(key, bytes.clone()).await,
            None => self.client.delete(key).await,
        };
        if done.is_ok() {
            self.records.recent.note(key.to_owned(), value.clone());
            self.records.settled(key, value.as_ref());
        }
        done
    }

    /// Writes what the bucket did not take when it was due.
    pub(super) async fn settle_records(&self) -> Result<(), StoreError> {
        while let Some((key, value)) = self.records.any_owed() {
            self.settle(&key, value).await?;
        }
        Ok(())
    }

    /// Repositories with links, each by a listing of one key: those of a repository lie together, and the next one begins behind them.
    pub(super) async fn repositories(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        let folder = self.layout.links();
        let mut after = after.map(|name| self.layout.behind_links(name));
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(object) = self.client.list(&folder, after.as_deref(), 1).await?.pop()
        {
            let key = object.location.to_string();
            let name = self.layout.name_of_link(&key);
            after = Some(name.as_ref().map_or(key, |name| self.layout.behind_links(name)));
            found.extend(name);
        }
        Ok(found)
    }

    /// The last parts of the keys below a folder, in order.
    pub(super) async fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let listed = self.client.list(folder, None, MAXIMUM_LISTED_TAGS).await?;
        Ok(listed.iter().filter_map(|object| Some(object.location.filename()?.to_owned())).collect())
    }
}
