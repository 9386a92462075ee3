//! Pins on the disk: a record for each, a mark beside those that are not complete, and who is kept by them, in memory.
//!
//! A record lies in one of 256 folders of its holder, by the hash of its reference, so a listing reads one folder at a time. The marks
//! (empty files of the same names) are how what is incomplete is found among a million that are complete: one is durable before its record is, and
//! goes after the record says that it is complete.
//!
//! What pins reach is counted in memory, beside the serving ([`load`]); until that is done no blob is evicted. A pin is counted before its blobs
//! are looked for, and eviction looks at the counts under the lock of the blob's folder, under which the blobs are looked for, too: one of
//! the two always sees the other.

mod again;
mod pulled;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use larder_oci::Digest;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::record;
use super::shared::Shared;
use super::{DirectoryStore, layout, whole};
use crate::pins::kept::{Kept, KeptBy, follow};
use crate::pins::{
    AsOf, Declared, Failed, Holder, KeptPin, MAXIMUM_PAGE, Overview, Page, Pin, PinName, Pins, PinsError, Place, Put,
    SHARDS,
};
use crate::store::StoreError;
use crate::store::document::{self, MAXIMUM_PIN_LENGTH, PinDocument};
use crate::store::lease::lock;
use futures_util::future::BoxFuture;

use again::{Looked, look_again};
pub(super) use pulled::{expire, give_way};

/// Folders of a holder.
pub(super) const FOLDERS: usize = SHARDS;

/// Names that one page of a listing looks at beyond those that it lists: one that finds little ends early, and the next goes on.
const MAXIMUM_LOOKS: usize = 4096;

/// Who is kept, and how far the count of it is.
pub(super) struct Counted {
    kept: Mutex<Kept>,
    far: Mutex<Far>,
    all: AtomicBool,
    /// One for each number of a folder: held while a record in it is read and replaced, or counted.
    writing: Vec<Mutex<()>>,
}

/// How far the count is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Far {
    /// Pins up to here are counted; those after it will be when their turn comes.
    until: Option<(Holder, usize)>,
    /// Who wrote a pin whose turn had not come. A holder whose first pin it is has no folder yet when holders are listed.
    coming: BTreeSet<Holder>,
}

impl Counted {
    /// Nobody is kept yet; where the store has no pins that is all.
    pub(super) fn new(folder: &Folder) -> Result<Self, StoreError> {
        let all = folder.names(layout::PINS)?.is_empty();
        Ok(Self {
            kept: Mutex::default(),
            far: Mutex::default(),
            all: AtomicBool::new(all),
            writing: (0..FOLDERS).map(|_| Mutex::default()).collect(),
        })
    }

    /// After the store's folder was removed: there are no pins.
    pub(super) fn forget(&self) {
        *lock(&self.kept) = Kept::default();
    }

    /// Whether every pin is counted.
    pub(super) fn all(&self) -> bool {
        self.all.load(Ordering::SeqCst)
    }

    /// Whether there is no pin at all.
    pub(super) fn keep_nothing(&self) -> bool {
        self.all() && lock(&self.kept).is_empty()
    }

    /// Who keeps a blob; before all is counted it may be anybody.
    pub(super) fn by(&self, digest: &Digest) -> KeptBy {
        if self.all() { lock(&self.kept).by(digest) } else { KeptBy::Holder }
    }

    /// Whether a complete pin of a holder reaches it; before all is counted one may.
    pub(super) fn is_promised(&self, digest: &Digest) -> bool {
        !self.all() || lock(&self.kept).is_promised(digest)
    }

    /// Whether pins in the folder of this place have been counted; if not, they will be, this one among them. To be asked with its lock held.
    fn includes(&self, place: &Place) -> bool {
        let mut far = lock(&self.far);
        let here = (place.holder().clone(), place.shard());
        let is_counted = self.all() || far.until.as_ref().is_some_and(|until| here <= *until);
        if !is_counted {
            far.coming.insert(here.0);
        }
        is_counted
    }

    fn lock(&self, place: &Place) -> Option<MutexGuard<'_, ()>> {
        self.writing.get(place.shard()).map(lock)
    }
}

/// Counts the pins of one folder, the next one; `false` when all are counted.
pub(super) fn load(shared: &Shared) -> Result<bool, StoreError> {
    // A new store has none, and every pin since was counted as it came.
    if shared.pins.all() {
        return Ok(false);
    }
    let (far, next) = next(shared)?;
    count(shared, &far, next)
}

/// How far the count is, and what comes next.
fn next(shared: &Shared) -> Result<(Far, Option<(Holder, usize)>), StoreError> {
    let far = lock(&shared.pins.far).clone();
    let holders: BTreeSet<Holder> = holders(shared, layout::PINS)?.into_iter().chain(far.coming.clone()).collect();
    let next = holders.into_iter().find_map(|holder| match &far.until {
        Some((last, number)) if holder == *last => (*number + 1 < FOLDERS).then_some((holder, *number + 1)),
        Some((last, _)) if holder < *last => None,
        _ => Some((holder, 0)),
    });
    Ok((far, next))
}

/// Counts it, unless a holder has come since it was looked what is next: that one may be it.
fn count(shared: &Shared, looked: &Far, next: Option<(Holder, usize)>) -> Result<bool, StoreError> {
    let Some((holder, number)) = next else {
        let far = lock(&shared.pins.far);
        let is_new = far.coming != looked.coming;
        shared.pins.all.store(!is_new, Ordering::SeqCst);
        return Ok(is_new);
    };
    let Some(_writing) = shared.pins.writing.get(number).map(lock) else { return Ok(false) };
    let mut found = Vec::new();
    for place in places(shared, layout::PINS, &holder, number)? {
        found.extend(read(shared, &place)?);
    }
    let mut far = lock(&shared.pins.far);
    if far.coming == looked.coming {
        let mut kept = lock(&shared.pins.kept);
        for pin in &found {
            kept.add(pin);
        }
        far.until = Some((holder, number));
    }
    Ok(true)
}

/// Counts all, as [`load`] does, and lets something happen between a look at what is next and the count of it.
#[cfg(test)]
pub(super) fn load_while(shared: &Shared, mut happen: impl FnMut(Option<&Holder>)) -> Result<(), StoreError> {
    loop {
        let (far, next) = next(shared)?;
        happen(next.as_ref().map(|(holder, _)| holder));
        if !count(shared, &far, next)? {
            return Ok(());
        }
    }
}

/// In order.
fn holders(shared: &Shared, below: &str) -> Result<Vec<Holder>, StoreError> {
    let names = shared.folder.names(below)?;
    let mut holders: Vec<Holder> = names.iter().filter_map(|name| Holder::parse(name).ok()).collect();
    holders.sort_unstable();
    Ok(holders)
}

/// The places of one folder, in order.
fn places(shared: &Shared, below: &str, holder: &Holder, number: usize) -> Result<Vec<Place>, StoreError> {
    let names = shared.folder.names(&layout::pin_folder(below, holder, number))?;
    let mut places: Vec<Place> = names
        .iter()
        .filter_map(|name| Place::new(holder.clone(), name.strip_suffix(".json")?))
        .filter(|place| place.shard() == number)
        .collect();
    places.sort_unstable();
    Ok(places)
}

fn read(shared: &Shared, place: &Place) -> Result<Option<KeptPin>, StoreError> {
    let path = layout::pin(layout::PINS, place);
    let document = record::read_bounded::<PinDocument>(&shared.folder, &path, MAXIMUM_PIN_LENGTH)?;
    Ok(document.and_then(|document| document.of(place)))
}

fn put(shared: &Shared, pin: Pin) -> Result<Put, StoreError> {
    let place = pin.name.place();
    let Some(_writing) = shared.pins.lock(&place) else { return Ok(Put::Superseded) };
    let old = read(shared, &place)?;
    put_over(shared, &place, old.as_ref(), pin)
}

/// See [`Pins::protect`].
fn protect(shared: &Shared, pin: Pin) -> Result<bool, StoreError> {
    let place = pin.name.place();
    let Some(_writing) = shared.pins.lock(&place) else { return Ok(false) };
    let old = read(shared, &place)?;
    let Some(next) = follow(old.clone(), pin) else { return Ok(false) };
    if !old.as_ref().is_some_and(|old| old.complete && old.pin == next.pin) {
        put_next(shared, &place, old.as_ref(), &next, |next| Ok((next, Put::Incomplete(BTreeSet::new()))))?;
    }
    Ok(true)
}

/// In the place of `old`, with the place's lock held.
fn put_over(shared: &Shared, place: &Place, old: Option<&KeptPin>, pin: Pin) -> Result<Put, StoreError> {
    let Some(next) = follow(old.cloned(), pin) else { return Ok(Put::Superseded) };
    put_next(shared, place, old, &next, |next| look_for(shared, next))
}

/// The same; `look` is asked what of it is there once the pin is in force.
fn put_next(
    shared: &Shared,
    place: &Place,
    old: Option<&KeptPin>,
    next: &KeptPin,
    look: impl FnOnce(KeptPin) -> Result<(KeptPin, Put), StoreError>,
) -> Result<Put, StoreError> {
    let is_counted = shared.pins.includes(place);
    if is_counted {
        lock(&shared.pins.kept).add(next);
    }
    let written = look(next.clone()).and_then(|(now, put)| write(shared, place, &now, old).map(|()| (now, put)));
    if is_counted {
        let mut kept = lock(&shared.pins.kept);
        match &written {
            Ok((now, _)) => {
                kept.add(now);
                kept.remove(next);
                if let Some(old) = old {
                    kept.remove(old);
                }
            }
            Err(_) => kept.remove(next),
        }
    }
    written.map(|(_, put)| put)
}

/// What of a pin that is counted is there.
fn look_for(shared: &Shared, next: KeptPin) -> Result<(KeptPin, Put), StoreError> {
    let Some(content) = &next.pin.content else { return Ok((next, Put::Incomplete(BTreeSet::new()))) };
    let mut missing = BTreeSet::new();
    for digest in &content.digests {
        if !shared.blobs.has(&shared.folder, digest)? {
            missing.insert(digest.clone());
        }
    }
    Ok(if missing.is_empty() { (next.completed(), Put::Complete) } else { (next, Put::Incomplete(missing)) })
}

/// Writes it, as it is on the disk from now on.
fn write(shared: &Shared, place: &Place, next: &KeptPin, old: Option<&KeptPin>) -> Result<(), StoreError> {
    let mark = layout::pin(layout::INCOMPLETE, place);
    if old == Some(next) {
        return Ok(());
    }
    if !next.complete && old.is_none_or(|old| old.complete) {
        shared.folder.replace(&mark, b"")?;
    }
    write_document(shared, place, next)?;
    if next.complete && old.is_some_and(|old| !old.complete) {
        // One that stays is found to be of a complete pin, and goes then.
        let _ = shared.folder.remove(&mark);
    }
    Ok(())
}

fn write_document(shared: &Shared, place: &Place, kept: &KeptPin) -> Result<(), StoreError> {
    let path = layout::pin(layout::PINS, place);
    let put_at = kept.pin.put_at;
    record::write_bounded(shared, &path, &PinDocument::new(kept.clone()), MAXIMUM_PIN_LENGTH, Some(put_at))
}

fn delete(shared: &Shared, place: &Place) -> Result<bool, StoreError> {
    let Some(_writing) = shared.pins.lock(place) else { return Ok(false) };
    let old = read(shared, place)?;
    let path = layout::pin(layout::PINS, place);
    let was_there = shared.folder.remove(&path)?;
    if was_there {
        shared.folder.sync_parent(&path)?;
    }
    let _ = shared.folder.remove(&layout::pin(layout::INCOMPLETE, place));
    if let Some(old) = old
        && shared.pins.includes(place)
    {
        lock(&shared.pins.kept).remove(&old);
    }
    Ok(was_there)
}

/// A page of the pins whose names lie below `below`, of those that are wanted.
fn list(
    shared: &Shared,
    below: &str,
    holder: Option<&Holder>,
    after: Option<&Place>,
    limit: usize,
    is_wanted: impl Fn(&KeptPin) -> bool,
) -> Result<Page, StoreError> {
    let limit = limit.clamp(1, MAXIMUM_PAGE);
    let mut page = Page::default();
    let mut looks = 0;
    let holders = match holder {
        Some(holder) => vec![holder.clone()],
        None => holders(shared, below)?,
    };
    for holder in holders.into_iter().filter(|holder| after.is_none_or(|after| holder >= after.holder())) {
        let from = after.filter(|after| *after.holder() == holder);
        for folder in from.map_or(0, Place::shard)..FOLDERS {
            for place in places(shared, below, &holder, folder)? {
                if from.is_some_and(|from| place <= *from) {
                    continue;
                }
                if let Some(kept) = read(shared, &place)?.filter(&is_wanted) {
                    page.pins.push(kept);
                } else if below == layout::INCOMPLETE {
                    unmark(shared, &place)?;
                }
                looks += 1;
                if page.pins.len() == limit || looks == MAXIMUM_LOOKS {
                    page.next = Some(place);
                    return Ok(page);
                }
            }
        }
    }
    Ok(page)
}

/// Removes a mark that a crash has left of a pin that is complete, or is not there.
fn unmark(shared: &Shared, place: &Place) -> Result<(), StoreError> {
    let Some(_writing) = shared.pins.lock(place) else { return Ok(()) };
    if read(shared, place)?.is_none_or(|kept| kept.complete) {
        shared.folder.remove(&layout::pin(layout::INCOMPLETE, place))?;
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct DeclarationDocument {
    version: u64,
    holder: String,
    as_of: u64,
}

fn declared(shared: &Shared, holder: &Holder) -> Result<Option<AsOf>, StoreError> {
    let document = record::read::<DeclarationDocument>(&shared.folder, &layout::declaration(holder))?;
    Ok(document.filter(|document| document.holder == holder.as_str()).map(|document| AsOf(document.as_of)))
}

fn declare(shared: &Shared, holder: &Holder, as_of: AsOf, failed: &Failed) -> Result<Declared, StoreError> {
    if as_of > AsOf::at(shared.now()) {
        return Ok(Declared::Future);
    }
    let mut after = None;
    loop {
        let stands_in_the_way = |kept: &KeptPin| !kept.complete && !failed.has(&kept.pin);
        let page = list(shared, layout::INCOMPLETE, Some(holder), after.as_ref(), 1, stands_in_the_way)?;
        if let Some(kept) = page.pins.into_iter().next() {
            return Ok(Declared::Incomplete(kept.pin.name));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if declared(shared, holder)?.is_none_or(|newest| newest < as_of) {
        let document = DeclarationDocument { version: document::VERSION, holder: holder.to_string(), as_of: as_of.0 };
        record::write(shared, &layout::declaration(holder), &document)?;
    }
    Ok(Declared::Done)
}

impl DirectoryStore {
    /// Work with pins: it may go through many files, and none of it is worth a word about the disk's health.
    fn with_pins<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, PinsError>> {
        let shared = Arc::clone(&self.shared);
        let limit = self.shared.config.durable_within;
        Box::pin(async move { Ok(self.shared.gate.run(operation, limit, move || work(&shared)).await?) })
    }
}

impl Pins for DirectoryStore {
    fn put(&self, pin: Pin) -> BoxFuture<'_, Result<Put, PinsError>> {
        Box::pin(async move {
            pin.check()?;
            let (image, content) = (pin.name.image.clone(), pin.content.clone());
            // What was pulled is given by what it was pulled by, and promised to nobody.
            let content = content.filter(|_| !pin.name.holder.is_pull());
            let put = self.durable("write a pin", move |shared| put(shared, pin)).await?;
            if let Some(content) = content.filter(|_| put == Put::Complete) {
                let of = (image.clone(), content.clone());
                let lacking = self.with_pins("look for records", move |shared| whole::lacking(shared, &of.0, &of.1));
                self.write_anew(lacking.await?.anew(&image, &content)).await?;
            }
            Ok(put)
        })
    }

    fn protect(&self, pin: Pin) -> BoxFuture<'_, Result<bool, PinsError>> {
        Box::pin(async move {
            pin.check()?;
            Ok(self.durable("write a pin", move |shared| protect(shared, pin)).await?)
        })
    }

    fn get(&self, name: &PinName) -> BoxFuture<'_, Result<Option<KeptPin>, PinsError>> {
        let place = name.place();
        self.with_pins("read a pin", move |shared| read(shared, &place))
    }

    fn list(
        &self,
        holder: Option<&Holder>,
        after: Option<&Place>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, PinsError>> {
        let (holder, after) = (holder.cloned(), after.cloned());
        self.with_pins("list pins", move |shared| {
            list(shared, layout::PINS, holder.as_ref(), after.as_ref(), limit, |_| true)
        })
    }

    fn incomplete(&self, after: Option<&Place>, limit: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        let after = after.cloned();
        self.with_pins("list pins that are not complete", move |shared| {
            list(shared, layout::INCOMPLETE, None, after.as_ref(), limit, |kept| !kept.complete)
        })
    }

    /// A look for each costs no more than one over all blobs does.
    fn overview(&self) -> BoxFuture<'_, Result<Option<Overview>, PinsError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn look_again(&self, name: &PinName) -> BoxFuture<'_, Result<Option<Put>, PinsError>> {
        let place = name.place();
        let looking = self.with_pins("look for what a pin reaches", move |shared| look_again(shared, &place));
        Box::pin(async move {
            let Some(Looked { put, image, content, lacking }) = looking.await? else { return Ok(None) };
            self.write_anew(lacking.anew(&image, &content)).await?;
            Ok(Some(put))
        })
    }

    /// A few names of a folder, and a small record for each of them, for each pin.
    fn look_again_after(&self) -> Duration {
        Duration::from_hours(1)
    }

    fn lost(&self) -> BoxFuture<'_, BTreeSet<Digest>> {
        Box::pin(self.shared.lost.next())
    }

    fn delete(&self, name: &PinName) -> BoxFuture<'_, Result<bool, PinsError>> {
        let place = name.place();
        self.with_pins("remove a pin", move |shared| delete(shared, &place))
    }

    fn begin_declaration(&self, _: &Holder) -> BoxFuture<'_, Result<AsOf, PinsError>> {
        let now = AsOf::at(self.shared.now());
        Box::pin(std::future::ready(Ok(now)))
    }

    fn declare(&self, holder: &Holder, as_of: AsOf, failed: &Failed) -> BoxFuture<'_, Result<Declared, PinsError>> {
        let (holder, failed) = (holder.clone(), failed.clone());
        self.with_pins("write a declaration", move |shared| declare(shared, &holder, as_of, &failed))
    }

    fn declared(&self, holder: &Holder) -> BoxFuture<'_, Result<Option<AsOf>, PinsError>> {
        let holder = holder.clone();
        self.with_pins("read a declaration", move |shared| declared(shared, &holder))
    }

    fn undeclare(&self, holder: &Holder) -> BoxFuture<'_, Result<(), PinsError>> {
        let path = layout::declaration(holder);
        self.with_pins("remove a declaration", move |shared| {
            if shared.folder.remove(&path)? {
                shared.folder.sync_parent(&path)?;
            }
            Ok(())
        })
    }
}
