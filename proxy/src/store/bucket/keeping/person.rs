//! What a person may say about removal: that a cluster is no more, and that so few pins are right.
//!
//! Needs nothing but the bucket, so it can be said beside a running cache and from anywhere. Each has a look that changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use thiserror::Error;

use super::machine::{Hands as _, run};
use super::operations::Plain;
use crate::store::StoreError;
use crate::store::bucket::client::{Client, Who};
use crate::store::bucket::layout::Layout;
use crate::store::bucket::upkeep::{LARGEST_VERSION, check_version};
use crate::store::bucket::{BucketConfig, ClusterId, client_of, shared};
use crate::store::removal::{
    Answer, Body, BucketTime, Entry, Forgetter, Forgotten, Key, Label, Names, Operation, Policy, Prefix, Reference,
    Word,
};

/// Objects of a cluster that are listed at a time, and removed at a time.
const BATCH: usize = 10_000;
const AT_ONCE: usize = 16;

/// A bucket, for a person.
pub struct BucketPerson {
    client: Client,
    layout: Layout,
    own: Label,
    policy: Arc<Policy>,
}

/// What there is of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its pins, by holder.
    pub pins: BTreeMap<String, u64>,
    /// Seconds since each holder declared, by the bucket's clock.
    pub declared: BTreeMap<String, u64>,
    /// Tags, evidence and other records.
    pub records: u64,
    /// Whether a holder declared so recently that the cluster must be alive.
    pub alive: bool,
}

/// How the brake of this cluster's collectors stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brake {
    /// How many pins there were, and of when that number is; `None`: nobody has looked yet.
    pub reference: Option<Reference>,
    /// Seconds since then, by the bucket's clock.
    pub age: u64,
    /// How many there are.
    pub pins: u64,
    /// Of which cluster and holder.
    pub by: BTreeMap<(String, String), u64>,
    /// Whether nothing goes until a person says that this is right.
    pub on: bool,
}

/// Why a cluster was not forgotten.
#[derive(Debug, Error)]
pub enum ForgetError {
    /// It lives.
    #[error("it declared its pins {0} seconds ago, so it is alive: stop its caches, and say it again an hour later")]
    Alive(u64),
    /// It is the one that the command was told it belongs to.
    #[error(
        "that is the cluster of --store-cluster itself: say it from another one, or give --store-cluster another id"
    )]
    Own,
    /// Half-way, perhaps. Nothing that a pin of another cluster reaches goes by it.
    #[error("the bucket did not answer; say it again")]
    Unanswered,
    /// The bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BucketPerson {
    /// Reads the environment for credentials; looks at no folder.
    pub async fn open(config: &BucketConfig) -> Result<Self, StoreError> {
        Self::on(client_of(config)?.0, config).await
    }

    pub(in crate::store::bucket) async fn on(client: Client, config: &BucketConfig) -> Result<Self, StoreError> {
        let layout = Layout::new(&config.address.prefix, config.cluster.clone());
        let own = shared::label(&config.cluster)?;
        let person = Self { client, layout, own, policy: Arc::clone(&config.removal.policy) };
        let version = person.client.get(Who::Probe, &person.layout.version(), LARGEST_VERSION).await?;
        let Some(version) = version else {
            let reason = "there is no store of Larder's at this place".to_owned();
            return Err(StoreError::Bucket { operation: "use", place: person.client.place.clone(), reason });
        };
        check_version(&person.client, &person.layout, &version)?;
        person.client.gate.open(&person.client.place);
        Ok(person)
    }

    fn plain(&self) -> Plain<'_> {
        Plain { client: &self.client, layout: &self.layout }
    }

    fn unanswered(&self) -> StoreError {
        let reason = "it does not answer; say it again".to_owned();
        StoreError::Bucket { operation: "read", place: self.client.place.clone(), reason }
    }

    fn names(&self) -> Result<Names, StoreError> {
        shared::new_names(&self.client.place)
    }

    /// The bucket's time, by writing there.
    async fn now(&self) -> Result<BucketTime, StoreError> {
        let plain = self.plain();
        let clock = Key::Clock(self.own.clone(), self.names()?.take());
        if plain.carry_out(&Operation::Put(clock.clone(), Body::Empty)).await != Answer::Done {
            return Err(self.unanswered());
        }
        let entries = self.all(&Prefix::Removal(self.own.clone())).await;
        plain.carry_out(&Operation::Delete(clock.clone())).await;
        let found = entries?.into_iter().find(|entry| entry.key == clock);
        found.map(|entry| entry.modified).ok_or_else(|| self.unanswered())
    }

    async fn all(&self, prefix: &Prefix) -> Result<Vec<Entry>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let Answer::Page { entries, last, .. } = self.plain().page(prefix, after.as_ref()).await? else {
                return Err(self.unanswered());
            };
            after = entries.last().map(|entry| entry.key.clone());
            found.extend(entries);
            if last {
                return Ok(found);
            }
        }
    }

    /// The clusters of which there is anything.
    pub async fn clusters(&self) -> Result<BTreeSet<String>, StoreError> {
        let Answer::Clusters(clusters) = self.plain().clusters().await? else { return Err(self.unanswered()) };
        Ok(clusters.iter().map(Label::to_string).collect())
    }

    /// What would be forgotten.
    pub async fn cluster(&self, id: &ClusterId) -> Result<Cluster, StoreError> {
        let label = shared::label(id)?;
        let now = self.now().await?;
        let (mut pins, mut declared) =
            (BTreeMap::<String, BTreeSet<Label>>::new(), BTreeMap::<String, BucketTime>::new());
        let mut own = 0;
        for entry in self.all(&Prefix::Cluster(label.clone())).await? {
            own += 1;
            match entry.key {
                Key::Pin(name, _) => _ = pins.entry(name.owner.holder.to_string()).or_default().insert(name.image),
                Key::Declaration(owner, as_of, _) => {
                    let newest = declared.entry(owner.holder.to_string()).or_insert(as_of);
                    *newest = as_of.max(*newest);
                }
                _ => {}
            }
        }
        let alive = declared.values().any(|as_of| !as_of.is_past(self.policy.declared_within, now));
        let records = self.count(&self.layout.below(&Prefix::Cluster(label).to_string())).await?.saturating_sub(own);
        Ok(Cluster {
            pins: pins.into_iter().map(|(holder, images)| (holder, count(images.len()))).collect(),
            declared: declared.into_iter().map(|(holder, as_of)| (holder, now.0.saturating_sub(as_of.0))).collect(),
            records,
            alive,
        })
    }

    async fn count(&self, folder: &str) -> Result<u64, StoreError> {
        let (mut all, mut after) = (0, None::<String>);
        loop {
            let listed = self.client.list(folder, after.as_deref(), BATCH).await?;
            all += count(listed.len());
            match listed.last() {
                Some(last) if listed.len() == BATCH => after = Some(last.location.to_string()),
                _ => return Ok(all),
            }
        }
    }

    /// Forgets a cluster: what it has on the bucket beside blobs goes, its declarations last.
    pub async fn forget(&self, id: &ClusterId) -> Result<(), ForgetError> {
        let label = shared::label(id)?;
        if label == self.own {
            return Err(ForgetError::Own);
        }
        let found = self.cluster(id).await?;
        if found.alive {
            return Err(ForgetError::Alive(found.declared.values().copied().min().unwrap_or(0)));
        }
        self.clear(&self.layout.below(&Prefix::Cluster(label.clone()).to_string())).await?;
        let mut forgetter = Forgetter::new(self.own.clone(), label, Arc::clone(&self.policy), self.names()?);
        match run(&mut forgetter, &self.plain(), |_, _| {}).await {
            Ok(Forgotten::Done) => Ok(()),
            Ok(Forgotten::Alive(as_of)) => Err(ForgetError::Alive(self.now().await?.0.saturating_sub(as_of.0))),
            Ok(Forgotten::Unanswered) | Err(_) => Err(ForgetError::Unanswered),
        }
    }

    /// Removes what removal does not look at: links, tags, notes, and whatever else there is. A cluster of which anything is left is not forgotten.
    async fn clear(&self, folder: &str) -> Result<(), StoreError> {
        let mut after = None::<String>;
        loop {
            let listed = self.client.list(folder, after.as_deref(), BATCH).await?;
            let is_last = listed.len() < BATCH;
            after = listed.last().map(|object| object.location.to_string());
            let beside = listed.into_iter().filter(|object| self.plain().key(object).is_none());
            let deleting = beside.map(|object| async move { self.client.delete(object.location.as_ref()).await });
            stream::iter(deleting).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// How the brake stands.
    pub async fn brake(&self) -> Result<Brake, StoreError> {
        let now = self.now().await?;
        let (mut reference, mut words) = (None, Vec::new());
        for entry in self.all(&Prefix::Removal(self.own.clone())).await? {
            match entry.key {
                Key::Reference(_, found, _) => {
                    let later = |known: Reference| (found.since, found.pins) > (known.since, known.pins);
                    if reference.is_none_or(later) {
                        reference = Some(found);
                    }
                }
                Key::Word(_, word) => words.push(word),
                _ => {}
            }
        }
        let Answer::Clusters(clusters) = self.plain().clusters().await? else { return Err(self.unanswered()) };
        let (mut all, mut by) = (BTreeSet::new(), BTreeMap::new());
        for cluster in clusters {
            for entry in self.all(&Prefix::Pins(cluster.clone())).await? {
                if let Key::Pin(name, _) = entry.key
                    && all.insert(name.clone())
                {
                    *by.entry((cluster.to_string(), name.owner.holder.to_string())).or_insert(0) += 1;
                }
            }
        }
        let pins = count(all.len());
        let said = |reference: Reference| words.iter().any(|word| word.reference == reference && pins >= word.down_to);
        let on = reference.is_some_and(|reference| reference.stops_at(pins, &self.policy) && !said(reference));
        let age = reference.map_or(0, |reference| now.0.saturating_sub(reference.since.0));
        Ok(Brake { reference, age, pins, by, on })
    }

    /// Says that so few pins are right, as they were looked at. The next run of this cluster's collectors goes on.
    pub async fn release(&self, brake: &Brake) -> Result<(), StoreError> {
        let Some(reference) = brake.reference else { return Ok(()) };
        let word = Key::Word(self.own.clone(), Word { reference, down_to: brake.pins });
        self.client.put(&self.plain().place(&word), Bytes::new()).await
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
