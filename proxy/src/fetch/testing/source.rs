//! An origin that does what the test wrote down, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use larder_oci::{Digest, ManifestReference, media_type};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::digest;
use crate::source::{BlobHead, BlobStream, Listing, ManifestBody, ManifestHead, Source, SourceError, Unconfirmed};
use crate::store::Name;

/// What the origin was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    HeadManifest(String),
    GetManifest(String),
    HeadBlob(String),
    GetBlob { repository: String, from: u64 },
}

/// What it does with one GET of a blob; without any it sends the blob.
#[derive(Debug, Clone, Default)]
pub(crate) struct Act {
    /// Fails at once.
    pub(crate) error: Option<SourceError>,
    /// Breaks off after so many bytes of this answer.
    pub(crate) break_after: Option<usize>,
    /// Sends this instead.
    pub(crate) lie: Option<Bytes>,
    /// Does not say the length.
    pub(crate) hide_total: bool,
    /// Starts at the first byte whatever was asked for.
    pub(crate) ignore_range: bool,
    /// Its `ETag`.
    pub(crate) etag: Option<&'static str>,
    /// Answers at all only with a permit.
    pub(crate) headers: Option<Arc<Semaphore>>,
    /// Sends a chunk for each permit only.
    pub(crate) gate: Option<Arc<Semaphore>>,
    /// The length of its chunks.
    pub(crate) chunk: Option<usize>,
}

/// What HEADs say of a length.
#[derive(Debug, Clone, Copy, Default)]
enum SaidLength {
    #[default]
    True,
    Instead(Option<u64>),
}

impl SaidLength {
    fn of(self, length: u64) -> Option<u64> {
        match self {
            Self::True => Some(length),
            Self::Instead(said) => said,
        }
    }
}

#[derive(Default)]
struct Script {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, Bytes>,
    tags: HashMap<(Name, String), Digest>,
    acts: VecDeque<Act>,
    asked: Vec<Asked>,
    /// What everything but blob bytes gets instead of an answer.
    failure: Option<SourceError>,
    /// How long everything but blob bytes takes.
    delay: Duration,
    hide_digest: bool,
    said_length: SaidLength,
    /// HEADs of manifests are what was last heard.
    unconfirmed: Option<Unconfirmed>,
    listing: Option<Listing>,
}

#[derive(Default)]
pub(crate) struct ScriptedSource {
    script: Mutex<Script>,
}

impl ScriptedSource {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn add_blob(&self, bytes: &Bytes) -> Digest {
        let digest = digest(bytes);
        self.script().blobs.insert(digest.clone(), bytes.clone());
        digest
    }

    /// A manifest that is told apart by `note`, and the tag that means it.
    pub(crate) fn tag(&self, name: &Name, tag: &str, note: &str) -> (Digest, Bytes) {
        let bytes = Bytes::from(format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","layers":[],"annotations":{{"note":"{note}"}}}}"#,
            media_type::OCI_MANIFEST
        ));
        let digest = digest(&bytes);
        let mut script = self.script();
        script.manifests.insert(digest.clone(), bytes.clone());
        script.tags.insert((name.clone(), tag.to_owned()), digest.clone());
        (digest, bytes)
    }

    /// A manifest without a tag.
    pub(crate) fn add_manifest(&self, bytes: Bytes) -> Digest {
        let digest = digest(&bytes);
        self.script().manifests.insert(digest.clone(), bytes);
        digest
    }

    /// A manifest that names these blobs, and the tag that means it.
    pub(crate) fn tag_image(&self, name: &Name, tag: &str, blobs: &[&Digest]) -> Digest {
        let layers: Vec<_> = blobs.iter().map(|digest| serde_json::json!({"digest": digest, "size": 1})).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": layers});
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest(&bytes);
        let mut script = self.script();
        script.manifests.insert(digest.clone(), bytes);
        script.tags.insert((name.clone(), tag.to_owned()), digest.clone());
        digest
    }

    pub(crate) fn act(&self, act: Act) {
        self.script().acts.push_back(act);
    }

    pub(crate) fn fail(&self, failure: Option<SourceError>) {
        self.script().failure = failure;
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.script().delay = delay;
    }

    pub(crate) fn hide_digest(&self) {
        self.script().hide_digest = true;
    }

    /// From now on HEADs of manifests and lists are what somebody last heard from the registry.
    pub(crate) fn unconfirmed(&self, unconfirmed: Option<Unconfirmed>) {
        self.script().unconfirmed = unconfirmed;
    }

    /// HEADs say this length, or none, whatever they are asked.
    pub(crate) fn say_length(&self, length: Option<u64>) {
        self.script().said_length = SaidLength::Instead(length);
    }

    pub(crate) fn list(&self, text: &'static str) {
        let listing = Listing {
            bytes: Bytes::from_static(text.as_bytes()),
            media_type: "application/json".to_owned(),
            link: None,
            filters: None,
            unconfirmed: None,
        };
        self.script().listing = Some(listing);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script().asked.clone()
    }

    pub(crate) fn forget(&self) {
        self.script().asked.clear();
    }

    /// How many GETs of blobs there were.
    pub(crate) fn blob_gets(&self) -> usize {
        self.asked().iter().filter(|asked| matches!(asked, Asked::GetBlob { .. })).count()
    }

    /// Notes the question; the answer comes after the delay, or the failure, or the deadline.
    fn answer<T: Send + 'static>(
        &self,
        asked: Asked,
        deadline: Instant,
        answer: Result<T, SourceError>,
    ) -> BoxFuture<'_, Result<T, SourceError>> {
        let mut script = self.script();
        script.asked.push(asked);
        let answer = script.failure.clone().map_or(answer, Err);
        let delay = script.delay;
        async move {
            if delay > Duration::ZERO && timeout_at(deadline, sleep(delay)).await.is_err() {
                return Err(SourceError::Timeout);
            }
            answer
        }
        .boxed()
    }

    fn listing(&self) -> Result<Listing, SourceError> {
        let script = self.script();
        let listing = script.listing.clone().ok_or(SourceError::NotFound)?;
        Ok(Listing { unconfirmed: script.unconfirmed, ..listing })
    }

    fn manifest(&self, name: &Name, reference: &ManifestReference) -> Result<(Digest, Bytes), SourceError> {
        let script = self.script();
        let digest = match reference {
            ManifestReference::Digest(digest) => digest.clone(),
            ManifestReference::Tag(tag) => {
                script.tags.get(&(name.clone(), tag.as_str().to_owned())).cloned().ok_or(SourceError::NotFound)?
            }
        };
        let bytes = script.manifests.get(&digest).cloned().ok_or(SourceError::NotFound)?;
        Ok((digest, bytes))
    }
}

impl Source for ScriptedSource {
    fn head_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        let hide = self.script().hide_digest;
        let said = self.script().said_length;
        let head = self.manifest(name, reference).map(|(digest, bytes)| ManifestHead {
            digest: Some(digest).filter(|_| !hide),
            size: said.of(bytes.len() as u64),
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            unconfirmed: self.script().unconfirmed,
        });
        self.answer(Asked::HeadManifest(reference.to_string()), deadline, head)
    }

    fn get_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestBody, SourceError>> {
        let body = self.manifest(name, reference).map(|(digest, bytes)| ManifestBody {
            digest,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            bytes,
        });
        self.answer(Asked::GetManifest(reference.to_string()), deadline, body)
    }

    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>> {
        let size = self.script().blobs.get(digest).map(|bytes| bytes.len() as u64);
        let said = self.script().said_length;
        let head = size.map(|size| BlobHead { size: said.of(size) }).ok_or(SourceError::NotFound);
        self.answer(Asked::HeadBlob(name.repository.to_string()), deadline, head)
    }

    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        _etag: Option<&str>,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>> {
        let mut script = self.script();
        script.asked.push(Asked::GetBlob { repository: name.repository.to_string(), from });
        let act = script.acts.pop_front().unwrap_or_default();
        let found = script.blobs.get(digest).cloned();
        drop(script);
        async move {
            if let Some(headers) = act.headers {
                headers.acquire().await.unwrap().forget();
            }
            if let Some(error) = act.error {
                return Err(error);
            }
            let bytes = act.lie.or(found).ok_or(SourceError::NotFound)?;
            let total = (!act.hide_total).then_some(bytes.len() as u64);
            let first = if act.ignore_range { 0 } else { from };
            let mut rest = bytes.slice(usize::try_from(first).unwrap()..);
            let is_broken = act.break_after.is_some_and(|after| after < rest.len());
            rest.truncate(act.break_after.unwrap_or(usize::MAX));
            let mut chunks = Vec::new();
            while !rest.is_empty() {
                chunks.push(Ok(rest.split_to(act.chunk.unwrap_or(10_000).min(rest.len()))));
            }
            if is_broken {
                chunks.push(Err(SourceError::Broken { reason: "scripted".to_owned() }));
            }
            let gate = act.gate;
            let body = stream::iter(chunks)
                .then(move |chunk| {
                    let gate = gate.clone();
                    async move {
                        if let Some(gate) = gate {
                            gate.acquire().await.unwrap().forget();
                        }
                        chunk
                    }
                })
                .boxed();
            Ok(BlobStream { first, total, etag: act.etag.map(ToOwned::to_owned), body })
        }
        .boxed()
    }

    fn tags(&self, _: &Name, _: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let listing = self.listing();
        self.answer(Asked::GetManifest("tags".to_owned()), deadline, listing)
    }

    fn referrers(
        &self,
        _: &Name,
        _: &Digest,
        _: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let listing = self.listing();
        self.answer(Asked::GetManifest("referrers".to_owned()), deadline, listing)
    }
}
