//! One reader of a growing file.
//!
//! It holds one chunk at a time and asks for the next only when its client has taken the last. When the file is of no use
//! any more (the store failed, the disk hangs) it goes on by a request of its own, unseen by its client.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use larder_oci::{Digest, Hasher};
use tokio::sync::watch;

use super::FetchError;
use super::assembly::Presence;
use super::download::Origin;
use super::file_chunk;
use super::passage::Passage;
use super::progress::{Handover, Progress, Step};
use crate::reply::LiveBody;

/// The state of one body.
pub(super) struct Reader {
    pub(super) origin: Origin,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) file: Arc<File>,
    /// The first byte that was asked for.
    pub(super) began: u64,
    /// The next byte to deliver.
    pub(super) position: u64,
    /// Where to stop; `None` while the blob's length is not known.
    pub(super) end: Option<u64>,
    /// Dropped when the reader leaves.
    pub(super) presence: Option<Presence>,
}

/// How a body gets its bytes.
enum Way {
    File(Box<Reader>),
    Passage { passage: Box<Passage>, _presence: Option<Presence> },
    Over,
}

/// The body that a reader delivers.
pub(super) fn body(reader: Reader) -> LiveBody {
    let length = reader.end.map(|end| end.saturating_sub(reader.position));
    live(length, reader.origin.clone(), Way::File(Box::new(reader)))
}

/// The body of one who has no file from the beginning.
pub(super) fn passing(origin: &Origin, passage: Passage, length: Option<u64>) -> LiveBody {
    live(length, origin.clone(), Way::Passage { passage: Box::new(passage), _presence: None })
}

fn live(length: Option<u64>, origin: Origin, way: Way) -> LiveBody {
    let chunks = stream::unfold((origin, way), |(origin, mut way)| async move {
        match way.next().await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), (origin, way))),
            Err(error) => {
                // An engine that was cut short must not be cut at the same byte again.
                if !error.is_for_somebody_else() {
                    origin.refused.note(&origin.name, &origin.digest, origin.limits.refuse_cut);
                }
                tracing::warn!(registry = %origin.name.registry, repository = %origin.name.repository, %error,
                    "a reader is cut short");
                Some((Err(io::Error::other(error)), (origin, Way::Over)))
            }
        }
    });
    LiveBody::new(length, chunks.boxed())
}

impl Way {
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            match self {
                Self::Over => return Ok(None),
                Self::Passage { passage, .. } => return passage.next().await,
                Self::File(reader) => {
                    let passage = match reader.next().await? {
                        Next::Bytes(bytes) => return Ok(Some(bytes)),
                        Next::End => return Ok(None),
                        Next::PassOn(handover) => reader.pass_on(&handover).await?,
                        Next::Unreadable(error) => {
                            tracing::warn!(digest = %reader.origin.digest, %error, "a blob's file cannot be read; fetching it");
                            reader.pass_from_start().await?
                        }
                    };
                    let presence = reader.presence.take();
                    *self = Self::Passage { passage: Box::new(passage), _presence: presence };
                }
            }
        }
    }
}

enum Next {
    Bytes(Bytes),
    End,
    PassOn(Arc<Handover>),
    Unreadable(io::Error),
}

impl Reader {
    async fn next(&mut self) -> Result<Next, FetchError> {
        loop {
            let step = self.progress.borrow_and_update().step(self.position, self.end);
            match step {
                Step::Read(until) => {
                    let read = self.read(until).await;
                    if let Ok(bytes) = &read {
                        self.position += bytes.len() as u64;
                    }
                    return Ok(read.map_or_else(Next::Unreadable, Next::Bytes));
                }
                Step::Wait => {
                    if self.progress.changed().await.is_err() {
                        return Err(FetchError::GivenUp { digest: self.origin.digest.clone() });
                    }
                }
                Step::End => return Ok(Next::End),
                Step::PassOn(handover) => return Ok(Next::PassOn(handover)),
                Step::Fail(error) => return Err(error),
            }
        }
    }

    async fn read(&self, until: u64) -> io::Result<Bytes> {
        let limits = &self.origin.limits;
        let length = usize::try_from(until - self.position).unwrap_or(limits.chunk).min(limits.chunk);
        file_chunk::read(&self.file, self.position, length, limits.store_patience).await
    }

    /// Goes on from where the hash is. What is hashed and not delivered yet is read from the file: at most the tail.
    async fn pass_on(&self, handover: &Handover) -> Result<Passage, FetchError> {
        let Handover { hasher, etag, doubted } = handover;
        if *doubted {
            return self.pass_if_it_goes_on().await;
        }
        let total = self.progress.borrow().total;
        let mut kept = Vec::new();
        let mut offset = self.position;
        while offset < hasher.bytes_hashed() {
            let wanted =
                usize::try_from(hasher.bytes_hashed() - offset).unwrap_or(usize::MAX).min(self.origin.limits.chunk);
            match file_chunk::read(&self.file, offset, wanted, self.origin.limits.store_patience).await {
                Ok(bytes) => {
                    offset += bytes.len() as u64;
                    kept.push(bytes);
                }
                Err(_) => return self.pass_from_start().await,
            }
        }
        Passage::resumed(&self.origin, hasher.clone(), etag.clone(), total, kept, self.position, self.end).await
    }

    /// Goes on with what somebody else gives, all of which is hashed. What was given before has to be the same.
    async fn pass_if_it_goes_on(&self) -> Result<Passage, FetchError> {
        let given = if self.position > self.began { Some(self.hashed_so_far().await?) } else { None };
        Ok(self.pass_from_start().await?.after(self.position, given))
    }

    async fn hashed_so_far(&self) -> Result<Digest, FetchError> {
        let mut hasher = Hasher::new(self.origin.digest.algorithm());
        while hasher.bytes_hashed() < self.position {
            let left = usize::try_from(self.position - hasher.bytes_hashed()).unwrap_or(usize::MAX);
            let limits = &self.origin.limits;
            let read =
                file_chunk::read(&self.file, hasher.bytes_hashed(), left.min(limits.chunk), limits.store_patience);
            match read.await {
                Ok(bytes) => hasher.update(&bytes),
                Err(_) => return Err(FetchError::GivenUp { digest: self.origin.digest.clone() }),
            }
        }
        Ok(hasher.finish())
    }

    /// Goes on although nothing can be read back: all is hashed anew, and only what is missing delivered.
    async fn pass_from_start(&self) -> Result<Passage, FetchError> {
        let total = self.progress.borrow().total;
        let hasher = Hasher::new(self.origin.digest.algorithm());
        Passage::resumed(&self.origin, hasher, None, total, Vec::new(), self.position, self.end).await
    }
}
