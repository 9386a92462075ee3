//! A store that lives as long as the process, in anonymous memory files: for tests, and for nodes without a disk to spare.
//!
//! Memory files, so that readers and writers of a blob do with it what they do with a file on a disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use larder_oci::{Digest, ImageReference, Tag};
use rustix::fs::MemfdFlags;

use super::blob::{Keeper, WritePartial};
use super::checksums::{Check, Checksums, is_chunked};
use super::lease::lock;
use super::{
    Link, MAXIMUM_LISTED_TAGS, Name, PartialBlob, PartialOrigin, Store, StoreError, StoreHealth, StoredBlob, TagRecord,
};
use crate::pins::kept::KeptBy;
use crate::pins::ledger::Ledger;
use crate::pins::lost::Lost;
use crate::pins::records::{self, name_of, tag_of};
use crate::pins::{
    AsOf, Content, Declared, Failed, Holder, KeptPin, Overview, Page, Pin, PinName, Pins, PinsError, Place, Put,
};

/// Links and tags together.
const MAXIMUM_RECORDS: usize = 100_000;

/// Unfinished blobs without a writer.
const MAXIMUM_IDLE_PARTIALS: usize = 16;

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    lost: Lost,
}

#[derive(Debug)]
struct State {
    limit: u64,
    used: u64,
    /// Counts uses: the order of last use without a clock.
    uses: u64,
    blobs: HashMap<Digest, Blob>,
    partials: HashMap<Digest, Partial>,
    links: BTreeMap<(Name, Digest), Link>,
    tags: BTreeMap<(Name, Tag), TagRecord>,
    pins: Ledger,
}

#[derive(Debug)]
struct Blob {
    file: Arc<File>,
    length: u64,
    last_use: u64,
    checksums: Option<Arc<Checksums>>,
    /// More than one owner means that it is open.
    lease: Arc<()>,
}

/// What a reader holds of a blob.
struct Open {
    state: Weak<Mutex<State>>,
    digest: Digest,
    file: Arc<File>,
    _lease: Arc<()>,
}

impl Keeper for Open {
    fn condemn(&self) {
        let Some(state) = self.state.upgrade() else { return };
        let mut state = lock(&state);
        if state.blobs.get(&self.digest).is_some_and(|blob| Arc::ptr_eq(&blob.file, &self.file)) {
            state.remove(&self.digest);
        }
    }
}

type Begun = (Arc<File>, u64, Option<PartialOrigin>);

#[derive(Debug)]
enum Partial {
    Idle { file: Arc<File>, written: u64, last_use: u64, origin: Option<PartialOrigin> },
    Open { promised: u64 },
}

impl MemoryStore {
    /// An empty store of at most `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        let state = State {
            limit,
            used: 0,
            uses: 0,
            blobs: HashMap::new(),
            partials: HashMap::new(),
            links: BTreeMap::new(),
            tags: BTreeMap::new(),
            pins: Ledger::default(),
        };
        Arc::new(Self { state: Arc::new(Mutex::new(state)), lost: Lost::default() })
    }

    /// Bytes in it, of complete and unfinished blobs.
    pub fn used(&self) -> u64 {
        lock(&self.state).used
    }
}

pub(super) fn memory_file() -> Result<File, StoreError> {
    rustix::fs::memfd_create("larder-blob", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|errno| StoreError::from_io("memory file", errno.into()))
}

fn write(file: &File, bytes: &[u8], at: u64) -> Result<(), StoreError> {
    file.write_all_at(bytes, at).map_err(|error| StoreError::from_io("memory file", error))
}

impl State {
    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Counts `bytes` more, evicting what nobody uses.
    fn claim(&mut self, bytes: u64) -> Result<(), StoreError> {
        while self.used.saturating_add(bytes) > self.limit {
            if !self.drop_oldest_partial() && !self.evict_oldest_blob() && !self.pins.give_way() {
                return Err(StoreError::Full { reason: format!("the store in memory may hold {} bytes", self.limit) });
            }
        }
        self.used += bytes;
        Ok(())
    }

    fn drop_oldest_partial(&mut self) -> bool {
        let idle = self.partials.iter().filter_map(|(digest, partial)| match partial {
            Partial::Idle { written, last_use, .. } => Some((*last_use, *written, digest.clone())),
            Partial::Open { .. } => None,
        });
        let Some((_, written, digest)) = idle.min() else { return false };
        self.partials.remove(&digest);
        self.used -= written;
        true
    }

    fn evict_oldest_blob(&mut self) -> bool {
        let pinned = &self.pins.kept;
        let unused = self
            .blobs
            .iter()
            .filter(|(digest, blob)| Arc::strong_count(&blob.lease) == 1 && pinned.by(digest) == KeptBy::Nobody);
        let oldest = unused.min_by_key(|(_, blob)| blob.last_use).map(|(digest, _)| digest.clone());
        oldest.is_some_and(|digest| self.remove(&digest))
    }

    fn remove(&mut self, digest: &Digest) -> bool {
        let removed = self.blobs.remove(digest);
        self.used -= removed.as_ref().map_or(0, |blob| blob.length);
        removed.is_some()
    }

    /// Puts a blob whose bytes are counted already.
    fn place(&mut self, digest: &Digest, file: Arc<File>, checksums: Checksums) {
        self.remove(digest);
        let length = checksums.length();
        let checksums = is_chunked(length).then(|| Arc::new(checksums));
        let last_use = self.next_use();
        self.blobs.insert(digest.clone(), Blob { file, length, last_use, checksums, lease: Arc::new(()) });
    }

    fn open(&mut self, digest: &Digest, state: &Arc<Mutex<Self>>) -> Option<StoredBlob> {
        let last_use = self.next_use();
        let blob = self.blobs.get_mut(digest)?;
        blob.last_use = last_use;
        let check = Check::new(digest, blob.length, blob.checksums.clone());
        let keeper = Open {
            state: Arc::downgrade(state),
            digest: digest.clone(),
            file: Arc::clone(&blob.file),
            _lease: Arc::clone(&blob.lease),
        };
        Some(StoredBlob::new(Arc::clone(&blob.file), blob.length, check, Arc::new(keeper)))
    }

    fn room_for_record(&mut self) -> Result<(), StoreError> {
        if self.links.len() + self.tags.len() < MAXIMUM_RECORDS {
            return Ok(());
        }
        let (blobs, partials) = (&self.blobs, &self.partials);
        let pinned = &self.pins.kept;
        let here = |digest: &Digest| {
            blobs.contains_key(digest) || partials.contains_key(digest) || pinned.by(digest) != KeptBy::Nobody
        };
        self.links.retain(|(_, digest), _| here(digest));
        self.tags.retain(|_, record| here(&record.digest));
        if self.links.len() + self.tags.len() < MAXIMUM_RECORDS {
            return Ok(());
        }
        Err(StoreError::Full { reason: format!("{MAXIMUM_RECORDS} links and tags") })
    }

    /// Those that are not there, of an image that is or was complete.
    fn write_records(&mut self, image: &ImageReference, content: &Content) {
        let name = name_of(image);
        for digest in &content.digests {
            let link = || records::link(digest.clone());
            self.links.entry((name.clone(), digest.clone())).or_insert_with(link);
        }
        let Some(tag) = tag_of(image) else { return };
        let is_given = |digest: &Digest| {
            self.blobs.contains_key(digest) && self.links.contains_key(&(name.clone(), digest.clone()))
        };
        let key = (name.clone(), tag);
        if self.tags.get(&key).is_none_or(|record| record.digest != content.root && !is_given(&record.digest)) {
            self.tags.insert(key, records::tag_record(content));
        }
    }

    /// Registers a writer; its file, how much is in it, and where that came from.
    fn begin(&mut self, digest: &Digest, size: Option<u64>) -> Result<Begun, StoreError> {
        if matches!(self.partials.get(digest), Some(Partial::Open { .. })) {
            return Err(StoreError::InUse { digest: digest.clone() });
        }
        let promised = self.partials.values().map(|partial| match partial {
            Partial::Open { promised } => *promised,
            Partial::Idle { .. } => 0,
        });
        let promised = promised.fold(size.unwrap_or(0), u64::saturating_add);
        if promised > self.limit {
            let reason = format!("{promised} bytes would be on their way, the store may hold {}", self.limit);
            return Err(StoreError::Full { reason });
        }
        let (file, existing, origin) = match self.partials.remove(digest) {
            Some(Partial::Idle { file, written, origin, .. }) if size.is_none_or(|size| written <= size) => {
                (file, written, origin)
            }
            Some(Partial::Idle { written, .. }) => {
                self.used -= written;
                (Arc::new(memory_file()?), 0, None)
            }
            Some(Partial::Open { .. }) | None => (Arc::new(memory_file()?), 0, None),
        };
        self.partials.insert(digest.clone(), Partial::Open { promised: size.unwrap_or(0) });
        Ok((file, existing, origin))
    }
}

struct MemoryPartial {
    state: Arc<Mutex<State>>,
    digest: Digest,
    file: Arc<File>,
    existing: u64,
    written: u64,
    origin: Option<PartialOrigin>,
    ended: bool,
}

impl WritePartial for MemoryPartial {
    fn existing(&self) -> u64 {
        self.existing
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        lock(&self.state).claim(length)?;
        write(&self.file, bytes, self.written).inspect_err(|_| lock(&self.state).used -= length)?;
        self.written += length;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        self.file = Arc::new(memory_file()?);
        lock(&self.state).used -= self.written;
        self.existing = 0;
        self.written = 0;
        self.origin = None;
        Ok(())
    }

    fn origin(&self) -> Option<PartialOrigin> {
        self.origin.clone()
    }

    fn set_origin(&mut self, origin: PartialOrigin) -> Result<(), StoreError> {
        self.origin = Some(origin);
        Ok(())
    }

    fn commit(mut self: Box<Self>, checksums: Checksums) -> Result<StoredBlob, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged { path: "memory file".into(), reason: reason.to_owned() };
        if checksums.length() != self.written {
            return Err(damaged("the checksums are of another length"));
        }
        self.ended = true;
        let mut state = lock(&self.state);
        state.partials.remove(&self.digest);
        state.place(&self.digest, Arc::clone(&self.file), checksums);
        state.open(&self.digest, &self.state).ok_or_else(|| damaged("it was placed and is not there"))
    }

    fn discard(mut self: Box<Self>) -> Result<(), StoreError> {
        self.ended = true;
        let mut state = lock(&self.state);
        state.partials.remove(&self.digest);
        state.used -= self.written;
        Ok(())
    }
}

impl Drop for MemoryPartial {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = lock(&self.state);
        state.partials.remove(&self.digest);
        if self.written > 0 {
            let last_use = state.next_use();
            let (file, origin) = (Arc::clone(&self.file), self.origin.take());
            let idle = Partial::Idle { file, written: self.written, last_use, origin };
            state.partials.insert(self.digest.clone(), idle);
            let idle = state.partials.values().filter(|partial| matches!(partial, Partial::Idle { .. })).count();
            if idle > MAXIMUM_IDLE_PARTIALS {
                state.drop_oldest_partial();
            }
        }
    }
}

impl Store for MemoryStore {
    fn link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<Link>, StoreError>> {
        Box::pin(ready(Ok(lock(&self.state).links.get(&(name.clone(), digest.clone())).cloned())))
    }

    fn put_link(&self, name: &Name, link: Link) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = lock(&self.state);
        let room = state.room_for_record();
        Box::pin(ready(room.map(|()| {
            state.links.insert((name.clone(), link.digest.clone()), link);
        })))
    }

    fn remove_link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        lock(&self.state).links.remove(&(name.clone(), digest.clone()));
        Box::pin(ready(Ok(())))
    }

    fn tag(&self, name: &Name, tag: &Tag) -> BoxFuture<'_, Result<Option<TagRecord>, StoreError>> {
        Box::pin(ready(Ok(lock(&self.state).tags.get(&(name.clone(), tag.clone())).cloned())))
    }

    fn put_tag(&self, name: &Name, tag: &Tag, record: TagRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = lock(&self.state);
        let room = state.room_for_record();
        Box::pin(ready(room.map(|()| {
            state.tags.insert((name.clone(), tag.clone()), record);
        })))
    }

    fn tags(&self, name: &Name) -> BoxFuture<'_, Result<Vec<Tag>, StoreError>> {
        let state = lock(&self.state);
        let of_name = state.tags.keys().filter(|(of, _)| of == name).map(|(_, tag)| tag.clone());
        Box::pin(ready(Ok(of_name.take(MAXIMUM_LISTED_TAGS).collect())))
    }

    fn names(&self, after: Option<&Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        let state = lock(&self.state);
        let mut names: Vec<Name> = Vec::new();
        for (name, _) in state.links.keys() {
            if names.len() < limit && after.is_none_or(|after| name > after) && names.last() != Some(name) {
                names.push(name.clone());
            }
        }
        Box::pin(ready(Ok(names)))
    }

    fn blob(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<StoredBlob>, StoreError>> {
        let stored = lock(&self.state).open(digest, &self.state);
        Box::pin(ready(Ok(stored)))
    }

    fn put_bytes(&self, digest: &Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let put = || {
            let actual = Digest::of(digest.algorithm(), &bytes);
            if actual != *digest {
                return Err(StoreError::Mismatch { expected: digest.clone(), actual });
            }
            let file = memory_file()?;
            write(&file, &bytes, 0)?;
            let mut state = lock(&self.state);
            state.claim(bytes.len() as u64)?;
            state.place(digest, Arc::new(file), Checksums::of(&bytes));
            Ok(())
        };
        Box::pin(ready(put()))
    }

    fn create(&self, digest: &Digest, size: Option<u64>) -> BoxFuture<'_, Result<PartialBlob, StoreError>> {
        let begun = lock(&self.state).begin(digest, size).map(|(file, existing, origin)| {
            let (state, digest) = (Arc::clone(&self.state), digest.clone());
            let writer = MemoryPartial { state, digest, file, existing, written: existing, origin, ended: false };
            PartialBlob::new(Box::new(writer))
        });
        Box::pin(ready(begun))
    }

    fn remove_damaged(&self, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = lock(&self.state);
        state.remove(digest);
        let is_promised = state.pins.kept.is_promised(digest);
        drop(state);
        if is_promised {
            self.lost.tell(digest);
        }
        Box::pin(ready(Ok(())))
    }

    fn health(&self) -> StoreHealth {
        StoreHealth::Ok
    }
}

fn now() -> AsOf {
    AsOf::at(SystemTime::now())
}

impl Pins for MemoryStore {
    fn put(&self, pin: Pin) -> BoxFuture<'_, Result<Put, PinsError>> {
        if let Err(error) = pin.check() {
            return Box::pin(ready(Err(error)));
        }
        let mut state = lock(&self.state);
        let State { pins, blobs, .. } = &mut *state;
        let promised = (!pin.name.holder.is_pull()).then(|| (pin.name.image.clone(), pin.content.clone()));
        let put = pins.put(pin, |digest| blobs.contains_key(digest));
        if let Some((image, Some(content))) = promised.filter(|_| put == Put::Complete) {
            state.write_records(&image, &content);
        }
        Box::pin(ready(Ok(put)))
    }

    fn protect(&self, pin: Pin) -> BoxFuture<'_, Result<bool, PinsError>> {
        Box::pin(ready(pin.check().map(|()| lock(&self.state).pins.protect(pin))))
    }

    fn get(&self, name: &PinName) -> BoxFuture<'_, Result<Option<KeptPin>, PinsError>> {
        Box::pin(ready(Ok(lock(&self.state).pins.get(name))))
    }

    fn list(
        &self,
        holder: Option<&Holder>,
        after: Option<&Place>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, PinsError>> {
        let is_of = |kept: &KeptPin| holder.is_none_or(|holder| kept.pin.name.holder == *holder);
        Box::pin(ready(Ok(lock(&self.state).pins.list(after, limit, is_of))))
    }

    fn incomplete(&self, after: Option<&Place>, limit: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        Box::pin(ready(Ok(lock(&self.state).pins.list(after, limit, |kept| !kept.complete))))
    }

    fn overview(&self) -> BoxFuture<'_, Result<Option<Overview>, PinsError>> {
        Box::pin(ready(Ok(None)))
    }

    fn look_again(&self, name: &PinName) -> BoxFuture<'_, Result<Option<Put>, PinsError>> {
        let mut state = lock(&self.state);
        let State { pins, blobs, .. } = &mut *state;
        let promised = pins.get(name).and_then(|kept| kept.promised().cloned());
        let looked = pins.look_again(name, |digest| blobs.contains_key(digest));
        if let Some(content) = promised {
            state.write_records(&name.image, &content);
        }
        Box::pin(ready(Ok(looked)))
    }

    fn look_again_after(&self) -> Duration {
        Duration::from_hours(1)
    }

    fn lost(&self) -> BoxFuture<'_, BTreeSet<Digest>> {
        Box::pin(self.lost.next())
    }

    fn delete(&self, name: &PinName) -> BoxFuture<'_, Result<bool, PinsError>> {
        Box::pin(ready(Ok(lock(&self.state).pins.delete(name))))
    }

    fn begin_declaration(&self, _: &Holder) -> BoxFuture<'_, Result<AsOf, PinsError>> {
        Box::pin(ready(Ok(now())))
    }

    fn declare(&self, holder: &Holder, as_of: AsOf, failed: &Failed) -> BoxFuture<'_, Result<Declared, PinsError>> {
        Box::pin(ready(Ok(lock(&self.state).pins.declare(holder, as_of, failed, now()))))
    }

    fn declared(&self, holder: &Holder) -> BoxFuture<'_, Result<Option<AsOf>, PinsError>> {
        Box::pin(ready(Ok(lock(&self.state).pins.declared(holder))))
    }

    fn undeclare(&self, holder: &Holder) -> BoxFuture<'_, Result<(), PinsError>> {
        lock(&self.state).pins.undeclare(holder);
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::conformance::{LIMIT, conformance_tests};

    conformance_tests!((super::MemoryStore::new(LIMIT) as std::sync::Arc<dyn crate::store::Store>, ()));

    mod pins {
        use std::sync::Arc;

        use crate::pins::Pins;
        use crate::pins::conformance::{LIMIT, pins_conformance_tests};
        use crate::store::Store;
        use crate::store::memory::MemoryStore;

        pins_conformance_tests!(bounded; {
            let store = MemoryStore::new(LIMIT);
            ((Arc::clone(&store) as Arc<dyn Pins>, store as Arc<dyn Store>), ())
        });
    }
}
