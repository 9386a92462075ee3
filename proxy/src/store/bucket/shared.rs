//! What the parts of a bucket store share, and looking a blob up in the bucket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_oci::Digest;
use rustls::crypto::aws_lc_rs;
use tokio::sync::{Notify, Semaphore};

use super::client::Client;
use super::elsewhere::Signing;
use super::fill::Fill;
use super::keeping::{Pulled, Standings};
use super::layout::{Generation, Layout};
use super::owed::Owed;
use super::recent::Recent;
use super::records::Records;
use super::turns::Turns;
use super::{BucketConfig, ClusterId};
use crate::pins::Pin;
use crate::pins::lost::Lost;
use crate::store::directory::DirectoryStore;
use crate::store::lease::lock;
use crate::store::removal::{Key, Label, Names, Prefix};
use crate::store::{Store as _, StoreError, StoredBlob};

/// Digests of which it is remembered what the bucket has.
const KNOWN: usize = 50_000;
/// Generations that turned out wrong.
const DISTRUSTED: usize = 10_000;
/// Generations of one digest that are looked at. There is one, or two after two replicas wrote at once.
const GENERATIONS: usize = 64;
/// Pins that are remembered; those of more are read again by each run of a collector.
const PINS: usize = 10_000;

/// An upload of a blob that is complete: the bucket shows nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) generation: Generation,
    pub(crate) length: u64,
}

pub(super) struct Shared {
    pub(super) client: Client,
    /// `None`: nobody is sent to the bucket.
    pub(super) signing: Option<Signing>,
    pub(super) layout: Layout,
    pub(super) local: Arc<DirectoryStore>,
    pub(super) config: BucketConfig,
    pub(super) records: Records,
    pub(super) owed: Owed,
    /// What listings showed, newest first.
    known: Recent<Digest, Vec<Kept>>,
    /// Those of them that will be there for a while, where that was asked.
    pub(super) lasting: Recent<Digest, Vec<Kept>>,
    distrusted: Recent<(Digest, Generation), ()>,
    /// Blobs that did not come from the bucket as they should have: for a while they count as absent.
    away: Recent<Digest, ()>,
    /// Blobs whose copy here is known to be in the bucket as well, or is being seen to.
    pub(super) confirmed: Recent<Digest, ()>,
    pub(super) fills: Mutex<HashMap<Digest, Weak<Fill>>>,
    pub(super) turns: Turns<Digest>,
    /// Parts of uploads that are in memory.
    pub(super) parts: Semaphore,
    /// Copies here that are looked after at a time.
    pub(super) confirming: Arc<Semaphore>,
    /// Something is owed, and the bucket may take it now.
    pub(super) due: Notify,
    /// Whose records are read and written, in the words of the removal protocol.
    pub(super) cluster: Label,
    /// What was read of pins, which never change.
    pub(super) pins: Recent<Key, Arc<Pin>>,
    /// When pulls of this cluster were pinned last, whichever replica did.
    pub(super) pulled: Pulled,
    /// Blobs that are condemned because they are damaged.
    pub(super) lost: Lost,
    /// How removal stands.
    pub(super) standings: Standings,
}

/// A cluster in the words of the removal protocol.
pub(super) fn label(cluster: &ClusterId) -> Result<Label, StoreError> {
    Label::parse(cluster.as_str()).ok_or_else(|| StoreError::Bucket {
        operation: "use",
        place: cluster.as_str().to_owned(),
        reason: "no cluster is called so".to_owned(),
    })
}

fn random(place: &str) -> Result<[u8; 16], StoreError> {
    let mut random = [0; 16];
    let filled = aws_lc_rs::default_provider().secure_random.fill(&mut random);
    filled.map_err(|_| StoreError::Bucket {
        operation: "name something in",
        place: place.to_owned(),
        reason: "the system gives no random bytes".to_owned(),
    })?;
    Ok(random)
}

fn new_generation(place: &str) -> Result<Generation, StoreError> {
    Ok(Generation::new(SystemTime::now(), random(place)?))
}

pub(super) fn new_names(place: &str) -> Result<Names, StoreError> {
    let generation = new_generation(place)?;
    Names::new(generation.seed()).ok_or_else(|| StoreError::Bucket {
        operation: "name something in",
        place: place.to_owned(),
        reason: "the clock is beyond all years".to_owned(),
    })
}

impl Shared {
    pub(super) fn new(
        client: Client,
        signing: Option<Signing>,
        layout: Layout,
        local: Arc<DirectoryStore>,
        config: BucketConfig,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            cluster: label(&config.cluster)?,
            pins: Recent::new(PINS),
            pulled: Pulled::default(),
            lost: Lost::default(),
            standings: Standings::default(),
            client,
            signing,
            layout,
            local,
            records: Records::new(config.remembered_records, config.fresh_for, config.absent_for),
            owed: Owed::default(),
            known: Recent::new(KNOWN),
            lasting: Recent::new(KNOWN),
            distrusted: Recent::new(DISTRUSTED),
            away: Recent::new(DISTRUSTED),
            confirmed: Recent::new(KNOWN),
            fills: Mutex::default(),
            turns: Turns::new(),
            parts: Semaphore::new(config.parts_in_memory),
            confirming: Arc::new(Semaphore::new(2)),
            due: Notify::new(),
            config,
        })
    }

    pub(super) fn new_generation(&self) -> Result<Generation, StoreError> {
        new_generation(&self.client.place)
    }

    /// For a machine of the removal protocol.
    pub(super) fn new_names(&self) -> Result<Names, StoreError> {
        new_names(&self.client.place)
    }

    pub(super) fn random(&self) -> Result<[u8; 16], StoreError> {
        random(&self.client.place)
    }

    /// The generations of a blob that may be read, newest first: those that are condemned, too, as long as they are there. Who wants to rely on one asks
    /// [`Self::usable`]. That there are none is believed for `absent` since it was seen.
    pub(super) async fn kept(&self, digest: &Digest, absent: Duration) -> Result<Vec<Kept>, StoreError> {
        let fresh =
            |kept: &Vec<Kept>, age: Duration| age <= if kept.is_empty() { absent } else { self.config.fresh_for };
        if let Some(kept) = self.known.get(digest, fresh) {
            return Ok(self.trusted(digest, kept));
        }
        let folder = self.layout.generations(digest);
        let listed = self.client.list(&folder, None, GENERATIONS).await?;
        let mut kept: Vec<Kept> = listed
            .into_iter()
            .filter_map(|object| {
                let generation = Generation::parse(object.location.filename()?)?;
                Some(Kept { generation, length: object.size })
            })
            .collect();
        kept.sort_unstable_by(|one, other| other.generation.cmp(&one.generation));
        self.known.note(digest.clone(), kept.clone());
        Ok(self.trusted(digest, kept))
    }

    pub(super) fn trusted(&self, digest: &Digest, mut kept: Vec<Kept>) -> Vec<Kept> {
        kept.retain(|kept| self.distrusted.get(&(digest.clone(), kept.generation.clone()), |(), _| true).is_none());
        kept
    }

    /// The same as the bucket shows it now.
    pub(super) async fn listed(&self, digest: &Digest) -> Result<Vec<Kept>, StoreError> {
        self.forget_age(digest);
        self.kept(digest, Duration::ZERO).await
    }

    /// This upload is complete.
    pub(super) fn note_kept(&self, digest: &Digest, kept: Kept) {
        self.known.note(digest.clone(), vec![kept]);
        self.away.forget(digest);
        self.confirmed.note(digest.clone(), ());
    }

    /// What is remembered of the blob may be wrong: it is listed again.
    pub(super) fn forget(&self, digest: &Digest) {
        self.known.forget(digest);
        self.confirmed.forget(digest);
    }

    /// The next question is answered by the bucket.
    pub(super) fn forget_age(&self, digest: &Digest) {
        self.known.forget(digest);
    }

    /// An upload's bytes are not those of the digest. It is not read again by this process, and condemned, so that nobody relies on it; what takes it
    /// from the bucket is a collector. It is said to whoever looks after pins whether one reaches it or not: here nobody counts them in memory, and damage is rare.
    pub(super) fn distrust(self: &Arc<Self>, digest: &Digest, generation: &Generation) {
        tracing::warn!(%digest, generation = generation.as_str(), bucket = self.client.place,
            "store: an object in the bucket does not have the bytes of its digest; it is not read any more");
        self.distrusted.note((digest.clone(), generation.clone()), ());
        self.confirmed.forget(digest);
        let (shared, digest, folder) = (Arc::clone(self), digest.clone(), Prefix::MarksOf(digest.clone()));
        let mark = self.layout.below(&format!("{folder}{}", generation.as_str()));
        tokio::spawn(async move {
            match shared.client.put(&mark, Bytes::new()).await {
                Ok(()) => shared.lost.tell(&digest),
                Err(error) => tracing::debug!(%error, "store: an object with wrong bytes could not be condemned"),
            }
        });
    }

    /// Whoever asks next goes to the origin.
    pub(super) fn keep_away(&self, digest: &Digest) {
        self.away.note(digest.clone(), ());
    }

    pub(super) fn is_away(&self, digest: &Digest) -> bool {
        self.away.get(digest, |(), age| age <= self.config.away_for).is_some()
    }

    /// From here, or from the bucket. `None` where neither has it, or where the bucket gives it too slowly.
    pub(super) async fn blob(self: &Arc<Self>, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        if let Some(blob) = self.here(digest).await {
            return Ok(Some(blob));
        }
        if self.is_away(digest) {
            return Ok(None);
        }
        let _turn = self.turns.take(digest).await;
        // In this order: a fill that is done is here before it leaves the list.
        let under_way = lock(&self.fills).get(digest).and_then(Weak::upgrade);
        match under_way {
            // Done, it may be on the list yet.
            Some(fill) if fill.withholds() => return Ok(self.here(digest).await),
            Some(fill) => return Ok(Some(fill.blob())),
            None => {}
        }
        if let Some(blob) = self.here(digest).await {
            return Ok(Some(blob));
        }
        let kept = self.kept(digest, self.config.absent_for).await?;
        match kept.first() {
            None => Ok(None),
            Some(first) if first.length <= self.config.small => self.take_small(digest, kept).await,
            Some(_) => Ok(Some(Fill::new(self, digest, kept).blob())),
        }
    }

    async fn here(self: &Arc<Self>, digest: &Digest) -> Option<StoredBlob> {
        match self.local.blob(digest).await {
            Ok(Some(blob)) => {
                self.confirm_later(digest, &blob);
                Some(blob)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%digest, %error, "store: the folder with copies does not answer");
                None
            }
        }
    }
}
