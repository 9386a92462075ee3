//! A blob on its way through, for one reader, where there is no file to share.
//!
//! It keeps the promises of an assembly without the disk: the bytes are hashed as they pass and the tail waits for the
//! verdict. What is held is the tail and one chunk.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use larder_oci::{Digest, Hasher};
use tokio::time::Instant;

use super::FetchError;
use super::download::{Download, Origin};
use super::progress::TAIL;

pub(super) struct Passage {
    origin: Origin,
    download: Download,
    /// Has taken all bytes before `arrived`; `None` when the range ends before the tail, which does not wait.
    hasher: Option<Hasher>,
    /// The offset of what the download yields next.
    arrived: u64,
    /// The offset of what is delivered next.
    position: u64,
    end: Option<u64>,
    held: VecDeque<Bytes>,
    is_verified: bool,
    /// Where the reader began.
    began: u64,
    /// The digest of the bytes before an offset, which somebody else gave: it has to be that of these.
    before: Option<(u64, Digest)>,
}

impl Passage {
    /// From the beginning of the blob, with a download that yields its first byte next; `range` of it is delivered.
    pub(super) fn whole(origin: &Origin, download: Download, range: Option<Range<u64>>) -> Self {
        let hasher = Some(Hasher::new(origin.digest.algorithm()));
        let (position, end) = range.map_or((0, download.total()), |range| (range.start, Some(range.end)));
        Self::new(origin, download, hasher, 0, position, end)
    }

    /// A range that ends before the tail, with a download that yields its first byte next.
    pub(super) fn before_tail(origin: &Origin, download: Download, range: Range<u64>) -> Self {
        Self::new(origin, download, None, range.start, range.start, Some(range.end))
    }

    /// Goes on where a file was left: `hasher` has taken the bytes before its position, `kept` are those from `position` on
    /// that were hashed and not delivered yet.
    pub(super) async fn resumed(
        origin: &Origin,
        hasher: Hasher,
        etag: Option<String>,
        total: Option<u64>,
        kept: Vec<Bytes>,
        position: u64,
        end: Option<u64>,
    ) -> Result<Self, FetchError> {
        let from = hasher.bytes_hashed();
        let deadline = Instant::now() + origin.limits.headers;
        let download = Download::start(origin, from, etag, total, deadline).await?;
        let mut passage = Self::new(origin, download, Some(hasher), from, position, end);
        passage.held.extend(kept);
        Ok(passage)
    }

    fn new(
        origin: &Origin,
        download: Download,
        hasher: Option<Hasher>,
        arrived: u64,
        position: u64,
        end: Option<u64>,
    ) -> Self {
        let held = VecDeque::new();
        let (origin, began) = (origin.clone(), position);
        Self { origin, download, hasher, arrived, position, end, held, is_verified: false, began, before: None }
    }

    /// Goes on at `position` only if the bytes before it have the digest of those that the reader was `given`.
    pub(super) fn after(mut self, position: u64, given: Option<Digest>) -> Self {
        self.before = given.map(|given| (position, given));
        self
    }

    /// The next bytes for the reader.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            if let Some(bytes) = self.release() {
                return Ok(Some(bytes));
            }
            // The blob's own end comes with the verdict only, also where no byte is left to wait for it.
            let waits = self.hasher.is_some() && self.end >= self.download.total();
            if self.is_verified || (!waits && self.end.is_some_and(|end| self.position >= end)) {
                return Ok(None);
            }
            match self.download.next().await? {
                Some(bytes) => self.arrive(bytes)?,
                None => match self.judge() {
                    // Nothing has left yet.
                    Err(error) if error.is_for_somebody_else() && self.position == self.began => {
                        self.begin_anew().await?;
                    }
                    judged => judged?,
                },
            }
        }
    }

    /// How far the reader may have it.
    fn limit(&self) -> u64 {
        let limit = if self.is_verified || self.hasher.is_none() {
            self.arrived
        } else {
            match self.download.total() {
                Some(total) => self.arrived.min(total.saturating_sub(TAIL)),
                None => self.arrived.saturating_sub(TAIL),
            }
        };
        self.end.map_or(limit, |end| limit.min(end))
    }

    fn release(&mut self) -> Option<Bytes> {
        let free = usize::try_from(self.limit().saturating_sub(self.position)).unwrap_or(usize::MAX);
        if free == 0 {
            return None;
        }
        let mut front = self.held.pop_front()?;
        if front.len() > free {
            self.held.push_front(front.split_off(free));
        }
        self.position += front.len() as u64;
        Some(front)
    }

    /// All of it again, of somebody else.
    async fn begin_anew(&mut self) -> Result<(), FetchError> {
        let deadline = Instant::now() + self.origin.limits.headers;
        self.download = Download::start(&self.origin, 0, None, self.download.total(), deadline).await?;
        self.hasher = Some(Hasher::new(self.origin.digest.algorithm()));
        self.arrived = 0;
        self.held.clear();
        Ok(())
    }

    fn arrive(&mut self, mut bytes: Bytes) -> Result<(), FetchError> {
        self.hash(&bytes)?;
        let start = self.arrived;
        self.arrived += bytes.len() as u64;
        // Before what the reader wants: hashed, and forgotten.
        let before = self.position.saturating_sub(start).min(bytes.len() as u64);
        let _ = bytes.split_to(usize::try_from(before).unwrap_or(bytes.len()));
        let behind = self.end.map_or(0, |end| self.arrived.saturating_sub(end)).min(bytes.len() as u64);
        bytes.truncate(bytes.len() - usize::try_from(behind).unwrap_or(bytes.len()));
        if !bytes.is_empty() {
            self.held.push_back(bytes);
        }
        Ok(())
    }

    fn hash(&mut self, bytes: &Bytes) -> Result<(), FetchError> {
        let Some(hasher) = self.hasher.as_mut() else { return Ok(()) };
        let mut rest = bytes.clone();
        if let Some((at, given)) = &self.before
            && let Ok(before) = usize::try_from(at.saturating_sub(self.arrived))
            && before <= rest.len()
        {
            hasher.update(&rest.split_to(before));
            let got = hasher.clone().finish();
            if got != *given {
                // What the reader has is not the beginning of this blob, and cannot be taken back.
                return Err(FetchError::Mismatch {
                    digest: self.origin.digest.clone(),
                    got: given.clone(),
                    elsewhere: true,
                });
            }
            self.before = None;
        }
        hasher.update(&rest);
        Ok(())
    }

    fn judge(&mut self) -> Result<(), FetchError> {
        if let Some(hasher) = self.hasher.take() {
            let got = hasher.finish();
            if got != self.origin.digest {
                return Err(self.origin.mismatch(got));
            }
        }
        self.is_verified = true;
        Ok(())
    }
}
