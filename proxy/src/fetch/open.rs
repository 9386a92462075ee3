//! Joining, or starting, the fetch of a blob for one request.

use std::ops::Range;
use std::sync::Arc;

use larder_oci::{ByteRange, Digest};
use tokio::time::{Instant, timeout_at};

use super::assembly::{Assembly, Presence};
use super::course::Course;
use super::download::{Download, Origin};
use super::passage::Passage;
use super::progress::{Phase, Progress, TAIL};
use super::reader::{self, Reader};
use super::{FetchError, Fetcher, Shared};
use crate::reply::LiveBody;
use crate::store::{Name, StoredBlob};

/// What a request for a blob gets.
#[derive(Debug)]
pub enum Opened {
    /// Bytes, now or as they come.
    Body(OpenedBody),
    /// It has come into the store meanwhile.
    Stored(StoredBlob),
    /// The range lies outside the blob, which has this many bytes.
    OutOfRange(u64),
    /// It is being fetched from another repository: ask the origin whether this one has it, and call again with that.
    NeedsEvidence,
}

/// A body and what its headers need.
#[derive(Debug)]
pub struct OpenedBody {
    /// The blob's whole length, if the origin said it.
    pub total: Option<u64>,
    /// The range of it that the body is; `None`: all of it, as 200, also where a range was asked for that cannot be given.
    pub range: Option<Range<u64>>,
    /// The bytes.
    pub body: LiveBody,
    /// Somebody else had asked for it before, and both share one fetch.
    pub joined: bool,
}

/// Where a request found itself.
enum Place {
    At(Presence, bool),
    NeedsEvidence,
    NoRoom,
}

impl Fetcher {
    /// Joins the fetch of a blob, or starts it. `proven`: the origin has answered 200 to a HEAD for this very repository.
    /// The origin's headers have until `deadline`; the fetch itself goes on beyond it.
    pub async fn open(
        &self,
        name: &Name,
        digest: &Digest,
        range: Option<ByteRange>,
        proven: bool,
        deadline: Instant,
    ) -> Result<Opened, FetchError> {
        if self.refuses(name, digest) {
            return Err(FetchError::Refused { digest: digest.clone() });
        }
        let origin = self.shared.origin(name, digest);
        if !self.shared.store.health().writable() {
            return pass_through(&origin, range, deadline).await;
        }
        loop {
            let (presence, joined) = match self.enter(&origin, proven) {
                Place::At(presence, joined) => (presence, joined),
                Place::NeedsEvidence => return Ok(Opened::NeedsEvidence),
                Place::NoRoom => return pass_through(&origin, range, deadline).await,
            };
            let mut progress = presence.assembly.progress.subscribe();
            let begun = timeout_at(deadline, progress.wait_for(|progress| !matches!(progress.phase, Phase::Starting)));
            let seen = match begun.await {
                Ok(Ok(seen)) => seen.clone(),
                Ok(Err(_)) => return Err(FetchError::GivenUp { digest: digest.clone() }),
                Err(_) => return Err(FetchError::Late { digest: digest.clone() }),
            };
            match seen.phase {
                Phase::Stored(blob) => return Ok(Opened::Stored(blob)),
                Phase::NoStore => return pass_through(&origin, range, deadline).await,
                // Another repository's origin failed; this one has been proven to have it.
                Phase::Failed(_) if presence.assembly.name != *name => {
                    self.shared.remove(digest, &presence.assembly);
                }
                Phase::Failed(error) => return Err(error),
                _ => return Self::attend(&origin, &seen, presence, range, joined),
            }
        }
    }

    fn enter(&self, origin: &Origin, proven: bool) -> Place {
        let mut assemblies = self.shared.assemblies();
        if let Some(assembly) = assemblies.get(&origin.digest) {
            if proven {
                assembly.prove(&origin.name);
            }
            return if assembly.is_proven(&origin.name) {
                Place::At(assembly.enter(), true)
            } else {
                Place::NeedsEvidence
            };
        }
        if assemblies.len() >= self.shared.limits.assemblies {
            return Place::NoRoom;
        }
        let assembly = Assembly::new(origin.name.clone());
        assemblies.insert(origin.digest.clone(), Arc::clone(&assembly));
        let presence = assembly.enter();
        drop(assemblies);
        let course = Course::new(Arc::clone(&self.shared), assembly, origin.clone());
        tokio::spawn(course.run());
        Place::At(presence, false)
    }

    fn attend(
        origin: &Origin,
        seen: &Progress,
        presence: Presence,
        range: Option<ByteRange>,
        joined: bool,
    ) -> Result<Opened, FetchError> {
        let total = seen.total;
        // Without the length no Content-Range can be written, so all of it is given (RFC 9110 §14.2 allows that).
        let range = match (range, total) {
            (Some(range), Some(total)) => match range.resolve(total) {
                Some(range) => Some(range),
                None => return Ok(Opened::OutOfRange(total)),
            },
            _ => None,
        };
        let Some(file) = presence.assembly.file.get().cloned() else {
            // The phases that reach here come after the file.
            return Err(FetchError::GivenUp { digest: origin.digest.clone() });
        };
        let reader = Reader {
            origin: origin.clone(),
            progress: presence.assembly.progress.subscribe(),
            file,
            began: range.as_ref().map_or(0, |range| range.start),
            position: range.as_ref().map_or(0, |range| range.start),
            end: range.as_ref().map(|range| range.end).or(total),
            presence: Some(presence),
        };
        Ok(Opened::Body(OpenedBody { total, range, body: reader::body(reader), joined }))
    }
}

impl Shared {
    pub(super) fn origin(&self, name: &Name, digest: &Digest) -> Origin {
        Origin {
            source: Arc::clone(&self.source),
            name: name.clone(),
            digest: digest.clone(),
            limits: self.limits.clone(),
            metrics: Arc::clone(&self.metrics),
            refused: Arc::clone(&self.refused),
        }
    }

    /// Takes an assembly from the list, if it is still that one.
    pub(super) fn remove(&self, digest: &Digest, assembly: &Arc<Assembly>) {
        let mut assemblies = self.assemblies();
        if assemblies.get(digest).is_some_and(|current| Arc::ptr_eq(current, assembly)) {
            assemblies.remove(digest);
        }
    }
}

/// A request of its own for one reader, where nothing can be shared.
async fn pass_through(origin: &Origin, range: Option<ByteRange>, deadline: Instant) -> Result<Opened, FetchError> {
    let opened = |total, range: Option<Range<u64>>, passage| {
        let length = range.as_ref().map(|range| range.end - range.start).or(total);
        Opened::Body(OpenedBody { total, range, body: reader::passing(origin, passage, length), joined: false })
    };
    if let Some(ByteRange::FromTo { first, .. } | ByteRange::From(first @ 1..)) = range {
        let download = Download::start(origin, first, None, None, deadline).await?;
        if let (Some(range), Some(total)) = (range, download.total()) {
            let Some(range) = range.resolve(total) else { return Ok(Opened::OutOfRange(total)) };
            if range.end <= total.saturating_sub(TAIL) {
                return Ok(opened(Some(total), Some(range.clone()), Passage::before_tail(origin, download, range)));
            }
        }
    }
    let download = Download::start(origin, 0, None, None, deadline).await?;
    let total = download.total();
    let range = match (range, total) {
        // containerd asks so first when it means to fetch in parallel; all of it as 200 makes it stay with one request,
        // which here, where ranges cannot share anything, is what everybody wants.
        (None | Some(ByteRange::From(0)), _) | (Some(_), None) => None,
        (Some(range), Some(total)) => match range.resolve(total) {
            Some(range) => Some(range),
            None => return Ok(Opened::OutOfRange(total)),
        },
    };
    let passage = Passage::whole(origin, download, range.clone());
    Ok(opened(total, range, passage))
}
