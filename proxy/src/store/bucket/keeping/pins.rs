//! This cluster's pins on a bucket.
//!
//! A pin is written once under a key of its own and never changes; of several of one name the newest wish counts, and an older one goes once a newer
//! is complete. That one is complete is a note beside it (`clusters/<id>/complete/…`), which removal does not look at; a note that is not
//! empty says that it was, and has lost something while a newer one waits. What holders declare is in [`declarations`], the look whether all of it is still there in
//! [`again`].

mod again;
mod declarations;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_oci::Digest;
use object_store::ObjectMeta;

use super::machine::run;
use super::operations::{OfStore, digests, modified};
use super::pulled::Seen;
use crate::pins::kept::follow;
use crate::pins::{
    AsOf, Declared, Failed, Holder, KeptPin, MAXIMUM_PAGE, Overview, Page, Pin, PinName, Pins, PinsError, Place, Put,
};
use crate::store::Name;
use crate::store::bucket::shared::Shared;
use crate::store::removal::{self, BucketTime, Key, Label, Names, Owner, Pinned, Pinner, Prefix, Unique, Unpinner};

/// Pins of one name. There is one, or a few after replicas met.
const OF_ONE_NAME: usize = 1000;
/// Keys that are listed at a time.
const BATCH: usize = 2000;
/// So many declarations long a pull's pin may be incomplete, as another replica's is that brings its blobs now.
const UNDER_WAY: u32 = 3;
/// Holders of one cluster.
const HOLDERS: usize = 1000;

/// See [`Pins`].
pub(in crate::store::bucket) struct BucketPins {
    pub(in crate::store::bucket) shared: Arc<Shared>,
}

/// One pin of a name.
#[derive(Debug, Clone)]
struct Version {
    key: Key,
    unique: Unique,
    pin: Arc<Pin>,
    note: Option<Note>,
}

/// What is noted beside a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    Complete,
    /// It was, and has lost something since.
    Lacks,
}

/// By pins.
type Notes = HashMap<String, Note>;

fn notes_of(objects: &[ObjectMeta]) -> Notes {
    let note = |object: &ObjectMeta| if object.size == 0 { Note::Complete } else { Note::Lacks };
    objects.iter().filter_map(|object| Some((object.location.filename()?.to_owned(), note(object)))).collect()
}

impl Version {
    fn is_complete(&self) -> bool {
        self.note == Some(Note::Complete)
    }

    /// Older wishes first; what is known to be an image after the bare wish for it.
    fn order(&self) -> (std::time::SystemTime, bool, &Unique) {
        (self.pin.put_at, self.pin.content.is_some(), &self.unique)
    }
}

fn unanswered() -> PinsError {
    PinsError::Unanswered("the bucket did not say what came of it".to_owned())
}

/// What the pins of one name come to.
fn newest(versions: &[Version]) -> Option<KeptPin> {
    let (newest, older) = versions.split_last()?;
    let older = was_complete(older).filter(|_| !newest.is_complete());
    Some(KeptPin {
        pin: (*newest.pin).clone(),
        complete: newest.is_complete(),
        older: older.and_then(|version| version.pin.content.clone()),
        older_lacks: older.is_some_and(|version| version.note == Some(Note::Lacks)),
    })
}

/// The newest of them that is complete, or was.
fn was_complete(versions: &[Version]) -> Option<&Version> {
    versions.iter().rev().find(|version| version.note.is_some())
}

impl BucketPins {
    fn owner(&self, holder: &Holder) -> Result<Owner, PinsError> {
        let holder = Label::parse(holder.as_str()).ok_or_else(unanswered)?;
        Ok(Owner { cluster: self.shared.cluster.clone(), holder })
    }

    fn name_at(&self, place: &Place) -> Result<removal::PinName, PinsError> {
        let image = Label::parse(place.key()).ok_or_else(unanswered)?;
        Ok(removal::PinName { owner: self.owner(place.holder())?, image })
    }

    fn names(&self) -> Result<Names, PinsError> {
        Ok(self.shared.new_names()?)
    }

    fn of_store<'a>(&'a self, pin: Option<&'a Pin>) -> OfStore<'a> {
        OfStore { shared: &self.shared, pin }
    }

    /// The pins of a name, the newest last. One that cannot be read counts as absent, and stays.
    async fn versions(&self, place: &Place) -> Result<Vec<Version>, PinsError> {
        let name = self.name_at(place)?;
        let (client, layout) = (&self.shared.client, &self.shared.layout);
        let folder = layout.below(&Prefix::PinsOf(name.clone()).to_string());
        let pins = client.list(&folder, None, OF_ONE_NAME).await?;
        if pins.is_empty() {
            return Ok(Vec::new());
        }
        let notes = client.list(&layout.completed_of(&name), None, OF_ONE_NAME).await?;
        self.read(&pins, &notes_of(&notes)).await
    }

    async fn read(&self, pins: &[ObjectMeta], notes: &Notes) -> Result<Vec<Version>, PinsError> {
        let plain = self.shared.plain();
        let mut versions = Vec::new();
        for object in pins {
            let Some(key) = plain.key(object) else { continue };
            let Key::Pin(_, unique) = &key else { continue };
            let unique = unique.clone();
            if let Ok(pin) = self.shared.pin(&key).await? {
                let note = notes.get(&unique.to_string()).copied();
                versions.push(Version { key, unique, pin, note });
            }
        }
        versions.sort_by(|one, other| one.order().cmp(&other.order()));
        Ok(versions)
    }

    async fn put(&self, pin: Pin) -> Result<Put, PinsError> {
        pin.check()?;
        let place = pin.name.place();
        let versions = self.versions(&place).await?;
        let Some(KeptPin { pin, .. }) = follow(newest(&versions), pin) else { return Ok(Put::Superseded) };
        let name = self.name_at(&place)?;
        let written = versions.last().filter(|newest| *newest.pin == pin);
        if pin.content.is_none() {
            if written.is_none() {
                self.wish(&name, &pin).await?;
            }
            return Ok(Put::Incomplete(BTreeSet::new()));
        }
        let own = written.map(|version| version.unique.clone());
        let older = versions.iter().filter(|version| Some(&version.unique) != own.as_ref());
        let older = older.map(|version| version.key.clone()).collect();
        let mut pinner = Pinner::knowing(name.clone(), digests(&pin), older, own, self.names()?);
        match run(&mut pinner, &self.of_store(Some(&pin)), |_, _| {}).await.map_err(|_| unanswered())? {
            Pinned::Complete(key) => {
                self.note_complete(&key).await?;
                // What was pulled is given by what it was pulled by, and promised to nobody.
                if let Some(content) = pin.content.as_ref().filter(|_| !pin.name.holder.is_pull()) {
                    self.see_to_records(&pin.name.image, content, &HashSet::new(), false).await?;
                }
                Ok(Put::Complete)
            }
            Pinned::Lacking(missing) => {
                if let Some(version) = written.filter(|version| version.is_complete()) {
                    self.note_incomplete(&version.key).await?;
                }
                Ok(Put::Incomplete(missing))
            }
        }
    }

    /// See [`Pins::protect`].
    async fn protect(&self, pin: Pin) -> Result<bool, PinsError> {
        pin.check()?;
        let place = pin.name.place();
        let versions = self.versions(&place).await?;
        let Some(KeptPin { pin, .. }) = follow(newest(&versions), pin) else { return Ok(false) };
        if versions.last().is_none_or(|newest| *newest.pin != pin) {
            self.wish(&self.name_at(&place)?, &pin).await?;
        }
        Ok(true)
    }

    /// A pin of which it is not known yet what it reaches, or what of that is there: nothing is looked for, and no older one goes.
    async fn wish(&self, name: &removal::PinName, pin: &Pin) -> Result<(), PinsError> {
        let mut wisher = Pinner::knowing(name.clone(), BTreeSet::new(), BTreeSet::new(), None, self.names()?);
        run(&mut wisher, &self.of_store(Some(pin)), |_, _| {}).await.map_err(|_| unanswered())?;
        Ok(())
    }

    async fn note_complete(&self, key: &Key) -> Result<(), PinsError> {
        if let Some(note) = self.shared.layout.completed(key) {
            self.shared.client.put(&note, Bytes::new()).await?;
        }
        Ok(())
    }

    async fn note_incomplete(&self, key: &Key) -> Result<(), PinsError> {
        if let Some(note) = self.shared.layout.completed(key) {
            self.shared.client.delete(&note).await?;
        }
        Ok(())
    }

    async fn delete_at(&self, place: &Place) -> Result<(), PinsError> {
        let mut unpinner = Unpinner::new(self.name_at(place)?);
        run(&mut unpinner, &self.of_store(None), |_, _| {}).await.map_err(|_| unanswered())
    }

    async fn holders(&self) -> Result<BTreeSet<Holder>, PinsError> {
        let pins = self.shared.layout.below(&Prefix::Pins(self.shared.cluster.clone()).to_string());
        let names = self.shared.client.folders(&pins, HOLDERS).await?;
        Ok(names.iter().filter_map(|name| Holder::parse(name).ok()).collect())
    }

    /// The names of a holder's pins behind `after`, some of them, with the objects of each; which of those have a note; whether that is all.
    async fn groups(
        &self,
        holder: &Holder,
        after: Option<&str>,
    ) -> Result<(BTreeMap<String, Vec<ObjectMeta>>, Notes, bool), PinsError> {
        let (client, layout) = (&self.shared.client, &self.shared.layout);
        let owner = self.owner(holder)?;
        let pins = layout.below(&format!("{}{holder}", Prefix::Pins(owner.cluster.clone())));
        let complete = layout.completed_by(&owner);
        // The character behind the slash: all that lies below that name comes before.
        let behind = |folder: &str| after.map(|key| format!("{folder}/{key}0"));
        let listed = client.list(&pins, behind(&pins).as_deref(), BATCH).await?;
        let notes = client.list(&complete, behind(&complete).as_deref(), BATCH * 2).await?;
        let last = listed.len() < BATCH;
        let mut groups: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
        for object in listed {
            if let Some(Key::Pin(name, _)) = self.shared.plain().key(&object) {
                groups.entry(name.image.to_string()).or_default().push(object);
            }
        }
        // What is listed of the last name may not be all.
        if !last && groups.len() > 1 {
            groups.pop_last();
        }
        Ok((groups, notes_of(&notes), last))
    }

    async fn page(
        &self,
        holder: Option<&Holder>,
        after: Option<&Place>,
        limit: usize,
        incomplete_only: bool,
    ) -> Result<Page, PinsError> {
        let limit = limit.clamp(1, MAXIMUM_PAGE);
        let holders = match holder {
            Some(holder) => BTreeSet::from([holder.clone()]),
            None => self.holders().await?,
        };
        let mut page = Page::default();
        let mut place = after.cloned();
        for holder in holders {
            if after.is_some_and(|after| holder < *after.holder()) {
                continue;
            }
            let mut key = after.filter(|after| *after.holder() == holder).map(|after| after.key().to_owned());
            loop {
                let (groups, noted, last) = self.groups(&holder, key.as_deref()).await?;
                let ended = groups.is_empty();
                for (image, objects) in groups {
                    if page.pins.len() == limit {
                        page.next = place;
                        return Ok(page);
                    }
                    key = Some(image.clone());
                    let here = Place::new(holder.clone(), &image);
                    let only = if let [only] = objects.as_slice() { only.location.filename() } else { None };
                    let is_complete = only.is_some_and(|unique| noted.get(unique) == Some(&Note::Complete));
                    if !(incomplete_only && is_complete)
                        && let Some(kept) = newest(&self.read(&objects, &noted).await?)
                        && !(incomplete_only && kept.complete)
                    {
                        page.pins.push(kept);
                    }
                    place = here.or(place);
                }
                if last || ended {
                    break;
                }
            }
        }
        Ok(page)
    }

    /// What the holder `pull` wants, which is what was used not long ago: its other pins go, those that are not complete are seen to once
    /// more, and then it declares.
    pub(in crate::store::bucket) async fn hold_pulls(&self) -> Result<(), PinsError> {
        let holder = Holder::pull();
        let as_of = self.begin(&holder).await?;
        let mut key: Option<String> = None;
        let mut one_is_under_way = false;
        let mut pulled = Seen::default();
        loop {
            let (groups, noted, last) = self.groups(&holder, key.as_deref()).await?;
            let ended = groups.is_empty();
            for (image, objects) in groups {
                key = Some(image.clone());
                let Some(place) = Place::new(holder.clone(), &image) else { continue };
                let used = objects.iter().map(modified).max().unwrap_or(BucketTime(0));
                if used.is_past(self.shared.config.removal.pull, BucketTime(as_of.0)) {
                    tracing::debug!(%place, "store: a pull was not used for long; its image may go");
                    self.delete_at(&place).await?;
                    continue;
                }
                pulled.note(&place, used);
                let only = if let [only] = objects.as_slice() { only.location.filename() } else { None };
                if only.is_some_and(|unique| noted.get(unique) == Some(&Note::Complete)) {
                    continue;
                }
                let kept = newest(&self.versions(&place).await?);
                let Some(kept) = kept.filter(|kept| !kept.complete) else { continue };
                if self.put(kept.pin).await? == Put::Complete {
                    continue;
                }
                if used.is_past(UNDER_WAY * self.shared.config.removal.declare_every, BucketTime(as_of.0)) {
                    // What was pulled and is not there any more is nobody's wish: the next pull brings it again.
                    self.delete_at(&place).await?;
                } else {
                    // Another replica wrote the pin down first, as everybody does, and brings its blobs.
                    one_is_under_way = true;
                }
            }
            if last || ended {
                break;
            }
        }
        self.shared.pulled.replace(pulled);
        match self.declare(&holder, as_of, &Failed::default()).await? {
            Declared::Done => Ok(()),
            Declared::Incomplete(_) if one_is_under_way => Ok(()),
            // Somebody began another one meanwhile.
            Declared::Incomplete(_) | Declared::Future => Err(unanswered()),
        }
    }
}

impl Pins for BucketPins {
    fn put(&self, pin: Pin) -> BoxFuture<'_, Result<Put, PinsError>> {
        Box::pin(self.put(pin))
    }

    fn protect(&self, pin: Pin) -> BoxFuture<'_, Result<bool, PinsError>> {
        Box::pin(self.protect(pin))
    }

    fn get(&self, name: &PinName) -> BoxFuture<'_, Result<Option<KeptPin>, PinsError>> {
        let place = name.place();
        Box::pin(async move { Ok(newest(&self.versions(&place).await?)) })
    }

    fn list(
        &self,
        holder: Option<&Holder>,
        after: Option<&Place>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, PinsError>> {
        let (holder, after) = (holder.cloned(), after.cloned());
        Box::pin(async move { self.page(holder.as_ref(), after.as_ref(), limit, false).await })
    }

    fn incomplete(&self, after: Option<&Place>, limit: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        let after = after.cloned();
        Box::pin(async move { self.page(None, after.as_ref(), limit, true).await })
    }

    fn overview(&self) -> BoxFuture<'_, Result<Option<Overview>, PinsError>> {
        Box::pin(async move { self.overview().await.map(Some) })
    }

    fn look_again(&self, name: &PinName) -> BoxFuture<'_, Result<Option<Put>, PinsError>> {
        let place = name.place();
        Box::pin(async move { self.look_again(&place).await })
    }

    /// What is beyond a thousand blobs or records costs a request for each thousand, and each pin one that this process does not remember.
    fn look_again_after(&self) -> Duration {
        Duration::from_hours(24)
    }

    fn lost(&self) -> BoxFuture<'_, BTreeSet<Digest>> {
        Box::pin(self.shared.lost.next())
    }

    fn delete(&self, name: &PinName) -> BoxFuture<'_, Result<bool, PinsError>> {
        let place = name.place();
        Box::pin(async move {
            let folder = self.shared.layout.below(&Prefix::PinsOf(self.name_at(&place)?).to_string());
            let was_there = !self.shared.client.list(&folder, None, 1).await?.is_empty();
            self.delete_at(&place).await?;
            Ok(was_there)
        })
    }

    fn pulled_at(&self, name: &Name, digest: &Digest) -> Option<SystemTime> {
        self.shared.pulled.at(&PinName::place_of_pull(name, digest))
    }

    fn begin_declaration(&self, holder: &Holder) -> BoxFuture<'_, Result<AsOf, PinsError>> {
        let holder = holder.clone();
        Box::pin(async move { self.begin(&holder).await })
    }

    fn declare(&self, holder: &Holder, as_of: AsOf, failed: &Failed) -> BoxFuture<'_, Result<Declared, PinsError>> {
        let (holder, failed) = (holder.clone(), failed.clone());
        Box::pin(async move { self.declare(&holder, as_of, &failed).await })
    }

    fn declared(&self, holder: &Holder) -> BoxFuture<'_, Result<Option<AsOf>, PinsError>> {
        let holder = holder.clone();
        Box::pin(async move { self.declared(&holder).await })
    }

    fn undeclare(&self, holder: &Holder) -> BoxFuture<'_, Result<(), PinsError>> {
        let holder = holder.clone();
        Box::pin(async move { self.undeclare(&holder).await })
    }
}
