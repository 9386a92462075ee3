//! Whether all is still there that pins promise: one look over all, and one at a pin; and records that are not there, which are written anew.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use larder_oci::{Digest, ImageReference};

use super::{BucketPins, Note, unanswered, was_complete};
use crate::pins::records::{Lacking, name_of, tag_of};
use crate::pins::{Content, Overview, PinsError, Place, Put};
use crate::store::bucket::keeping::machine::run;
use crate::store::bucket::keeping::operations::{PAGE, digests};
use crate::store::document::{LinkDocument, TagDocument};
use crate::store::removal::{Answer, Held, Key, Pinned, Pinner, Prefix};
use crate::store::{Name, StoreError};

/// Links of a repository that are listed for one pin of it; of those beyond them each is asked for.
const LINKS: usize = 10_000;

impl BucketPins {
    /// See [`Pins::look_again`](crate::pins::Pins::look_again). As whoever goes on with a pin: from its look on, so the pin itself is not written, and is not there
    /// again if it goes meanwhile.
    pub(super) async fn look_again(&self, place: &Place) -> Result<Option<Put>, PinsError> {
        let versions = self.versions(place).await?;
        let Some((newest, older)) = versions.split_last() else { return Ok(None) };
        let version = if newest.is_complete() { Some(newest) } else { was_complete(older) };
        let Some(version) = version.filter(|version| version.pin.content != newest.pin.content || newest.is_complete())
        else {
            return Ok(None);
        };
        let Some(content) = &version.pin.content else { return Ok(None) };
        let older = versions.iter().take_while(|other| other.unique != version.unique);
        let older = older.map(|version| version.key.clone()).collect();
        let own = Some(version.unique.clone());
        let mut pinner = Pinner::knowing(self.name_at(place)?, digests(&version.pin), older, own, self.names()?);
        let of_store = self.of_store(Some(&version.pin));
        let looked = run(&mut pinner, &of_store, |_, _| {}).await.map_err(|_| unanswered())?;
        let is_newest = version.unique == newest.unique;
        let put = match looked {
            Pinned::Complete(_) => {
                if version.note == Some(Note::Lacks) {
                    self.note_complete(&version.key).await?;
                }
                Put::Complete
            }
            Pinned::Lacking(missing) => {
                if is_newest {
                    self.note_incomplete(&version.key).await?;
                } else if version.note == Some(Note::Complete) {
                    self.note_lacks(&version.key).await?;
                }
                Put::Incomplete(missing)
            }
        };
        let image = &version.pin.name.image;
        self.see_to_records(image, content, &self.links(&name_of(image)).await?, true).await?;
        Ok(Some(put))
    }

    async fn note_lacks(&self, key: &Key) -> Result<(), PinsError> {
        if let Some(note) = self.shared.layout.completed(key) {
            self.shared.client.put(&note, Bytes::from_static(b"lacks")).await?;
        }
        Ok(())
    }

    /// Writes anew what is not there of the records of an image that is or was complete. What is `listed` is there; of the rest each is asked for, in the
    /// bucket itself if that is wanted.
    pub(super) async fn see_to_records(
        &self,
        image: &ImageReference,
        content: &Content,
        listed: &HashSet<String>,
        in_bucket: bool,
    ) -> Result<(), PinsError> {
        let (shared, name) = (&self.shared, name_of(image));
        let ask = |key: &str| {
            if in_bucket {
                shared.forget_record(key);
            }
        };
        let mut lacking = Lacking::default();
        for digest in &content.digests {
            let key = shared.layout.link(&name, digest);
            if listed.contains(&key) {
                continue;
            }
            ask(&key);
            let found = shared.record::<LinkDocument>(&key).await?;
            if found.and_then(|document| document.of(&name, digest)).is_none() {
                lacking.links.push(digest.clone());
            }
        }
        if let Some(tag) = tag_of(image) {
            let key = shared.layout.tag(&name, &tag);
            ask(&key);
            let found = shared.record::<TagDocument>(&key).await?.and_then(|document| document.of(&name, &tag));
            let is_given = match found.map(|record| record.digest) {
                Some(digest) => digest == content.root || self.is_given(&name, &digest).await?,
                None => false,
            };
            lacking.tag = (!is_given).then_some(tag);
        }
        let anew = lacking.anew(image, content);
        for link in anew.links {
            shared.put_link(&name, link).await?;
        }
        if let Some((tag, record)) = anew.tag {
            shared.put_tag(&name, &tag, record).await?;
        }
        Ok(())
    }

    async fn is_given(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError> {
        let found = self.shared.record::<LinkDocument>(&self.shared.layout.link(name, digest)).await?;
        let is_linked = found.and_then(|document| document.of(name, digest)).is_some();
        Ok(is_linked && !self.shared.usable(digest, Duration::ZERO).await?.is_empty())
    }

    /// The keys of a repository's links.
    async fn links(&self, name: &Name) -> Result<HashSet<String>, StoreError> {
        let listed = self.shared.client.list(&self.shared.layout.links_of(name), None, LINKS).await?;
        // Nothing can be read of one that is empty.
        let listed = listed.iter().filter(|object| object.size > 0);
        Ok(listed.map(|object| object.location.to_string()).collect())
    }

    /// What somebody may rely on. Marks before blobs, as whoever pins; all of them cost what a collector's run does. Then what this cluster knows of repositories and tags.
    pub(super) async fn overview(&self) -> Result<Overview, PinsError> {
        let marked: HashSet<Held> =
            self.listed(&Prefix::Marks, |held, marked: &mut HashSet<Held>| _ = marked.insert(held)).await?;
        let note = |held: Held, seen: &mut Overview| {
            if !marked.contains(&held) {
                seen.note(&held.digest);
            }
        };
        let mut seen = self.listed(&Prefix::Blobs, note).await?;
        let layout = &self.shared.layout;
        // Of a registry whose name is too long to stand in a key each pin is looked at.
        let link = |key: &str| _ = layout.link_of(key).map(|(name, digest)| seen.note_link(&name, &digest));
        self.records(&layout.links(), link).await?;
        let tag = |key: &str| _ = layout.tag_of(key).map(|(name, tag)| seen.note_tag(&name, &tag));
        self.records(&layout.all_tags(), tag).await?;
        Ok(seen)
    }

    /// All records below a folder, a page at a time.
    async fn records(&self, folder: &str, mut note: impl FnMut(&str)) -> Result<(), StoreError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.shared.client.list(folder, after.as_deref(), PAGE).await?;
            for object in page.iter().filter(|object| object.size > 0) {
                note(object.location.as_ref());
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|object| object.location.to_string());
        }
    }

    /// All that is below a prefix, a page at a time.
    async fn listed<T: Default>(&self, prefix: &Prefix, note: impl Fn(Held, &mut T)) -> Result<T, PinsError> {
        let (mut noted, mut after) = (T::default(), None);
        loop {
            let page = self.shared.plain().page(prefix, after.as_ref()).await?;
            let Answer::Page { entries, last, .. } = page else { return Err(unanswered()) };
            after = entries.last().map(|entry| entry.key.clone());
            for held in entries.into_iter().filter_map(|entry| entry.key.into_held()) {
                note(held, &mut noted);
            }
            if last {
                return Ok(noted);
            }
        }
    }
}
