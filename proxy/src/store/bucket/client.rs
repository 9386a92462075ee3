//! Single operations on the bucket: a limit in time for each, retries within one budget, and what its answers say of its health.
//!
//! Invariant: whatever the bucket does, an operation ends within its limit. That there is no such object is an answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::MultipartId;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::RetryBudget;
use super::connect::Remote;
use super::gate::Gate;
use super::layout::path;
use crate::store::StoreError;

/// The first pause before a request is repeated; the next one doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// Of one request in all.
const TRIES: u32 = 4;
/// An error may hold a server's whole answer.
const LONGEST_REASON: usize = 300;

/// How long operations may take, retries included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// What somebody waits for: small reads, a page of a listing, the head of a large object.
    pub(super) read: Duration,
    /// What is done behind somebody's back: writes, parts.
    pub(super) write: Duration,
}

pub(super) struct Client {
    remote: Arc<dyn Remote>,
    pub(super) gate: Gate,
    budget: RetryBudget,
    pub(super) limits: Limits,
    /// For messages.
    pub(super) place: String,
}

/// What came of writing something that must not be there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    Written,
    /// The server says so. Whether it does is for whoever asked to see.
    ExistsAlready,
}

/// Whether an operation is let through a closed gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Anybody,
    Probe,
}

impl Client {
    pub(super) fn new(remote: Arc<dyn Remote>, limits: Limits, place: String) -> Self {
        Self { remote, gate: Gate::new(), budget: RetryBudget::new(), limits, place }
    }

    fn error(&self, operation: &'static str, key: &str, reason: &str) -> StoreError {
        let reason = reason.get(..LONGEST_REASON).unwrap_or(reason).to_owned();
        StoreError::Bucket { operation, place: format!("{} {key}", self.place), reason }
    }

    async fn attempt<T, F: Future<Output = object_store::Result<T>> + Send>(
        &self,
        who: Who,
        operation: (&'static str, &str),
        limit: Duration,
        work: impl Fn(Path) -> F + Send + Sync,
    ) -> Result<Result<T, Error>, StoreError> {
        self.attempt_at_most(TRIES, who, operation, limit, work).await
    }

    /// Runs `work` until it has an answer, `limit` is over, or the tries or the budget of retries are spent.
    async fn attempt_at_most<T, F: Future<Output = object_store::Result<T>> + Send>(
        &self,
        mut tries: u32,
        who: Who,
        (operation, key): (&'static str, &str),
        limit: Duration,
        work: impl Fn(Path) -> F + Send + Sync,
    ) -> Result<Result<T, Error>, StoreError> {
        let location = path(key)?;
        let until = Instant::now() + limit;
        let mut pause = PAUSE;
        loop {
            if who == Who::Anybody {
                self.gate.check(operation, &self.place)?;
            }
            let (reason, again) = match timeout_at(until, work(location.clone())).await {
                Ok(Ok(done)) => {
                    self.answered();
                    return Ok(Ok(done));
                }
                Ok(Err(error)) if is_answer(&error) => {
                    self.answered();
                    return Ok(Err(error));
                }
                Ok(Err(error)) => (shown(&error), is_worth_another_try(&error)),
                Err(_) => (format!("no answer within {limit:?}"), false),
            };
            tries -= 1;
            if again && tries > 0 && Instant::now() + pause < until && self.budget.spend() {
                tracing::debug!(operation, key, reason, "store: the bucket is asked again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            self.gate.failed(&self.place, &reason);
            return Err(self.error(operation, key, &reason));
        }
    }

    fn answered(&self) {
        self.budget.earn();
        self.gate.answered();
    }

    /// A small object; `None` if there is none.
    pub(super) async fn get(&self, who: Who, key: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        let read = |location: Path| async move {
            let object = self.remote.get_opts(&location, GetOptions::default()).await?;
            if object.meta.size > most {
                return Ok(None);
            }
            let mut bytes = BytesMut::new();
            let mut body = object.into_stream();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > most {
                    return Ok(None);
                }
            }
            Ok(Some(bytes.freeze()))
        };
        match self.attempt(who, ("read", key), self.limits.read, read).await? {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(self.error("read", key, &format!("it has more than {most} bytes, which none of ours has"))),
            Err(error) => self.absent("read", key, error).map(|()| None),
        }
    }

    /// A large object from a byte on; `None` if there is none. What comes has no limit of its own.
    pub(super) async fn stream(
        &self,
        key: &str,
        from: u64,
    ) -> Result<Option<BoxStream<'static, object_store::Result<Bytes>>>, StoreError> {
        let open = |location: Path| async move {
            let range = (from > 0).then_some(GetRange::Offset(from));
            let object = self.remote.get_opts(&location, GetOptions { range, ..GetOptions::default() }).await?;
            Ok(object.into_stream())
        };
        match self.attempt(Who::Anybody, ("read", key), self.limits.read, open).await? {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => self.absent("read", key, error).map(|()| None),
        }
    }

    fn absent(&self, operation: &'static str, key: &str, error: Error) -> Result<(), StoreError> {
        match error {
            Error::NotFound { .. } => Ok(()),
            error => Err(self.error(operation, key, &shown(&error))),
        }
    }

    /// Writes an object, over an older one.
    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let put = |location: Path| {
            let payload = PutPayload::from(bytes.clone());
            async move { self.remote.put_opts(&location, payload, PutOptions::default()).await }
        };
        match self.attempt(Who::Anybody, ("write", key), self.limits.write, put).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error("write", key, &shown(&error))),
        }
    }

    /// Writes an object where there is none (If-None-Match). A server that does not know the condition refuses it or does not
    /// heed it: whoever calls is right in either case, and reads back what matters.
    pub(super) async fn create(&self, who: Who, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let put = |location: Path, mode: PutMode| {
            let payload = PutPayload::from(bytes.clone());
            async move { self.remote.put_opts(&location, payload, PutOptions::from(mode)).await }
        };
        let conditionally = |location| put(location, PutMode::Create);
        match self.attempt(who, ("write", key), self.limits.write, conditionally).await? {
            Ok(_) => return Ok(Created::Written),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(Created::ExistsAlready),
            Err(error) => tracing::debug!(key, error = %shown(&error), "store: the bucket knows no condition"),
        }
        match self.attempt(who, ("write", key), self.limits.write, |location| put(location, PutMode::Overwrite)).await?
        {
            Ok(_) => Ok(Created::Written),
            Err(error) => Err(self.error("write", key, &shown(&error))),
        }
    }

    /// Removes an object. Not an error if there is none.
    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let delete = |location: Path| async move { self.remote.delete(&location).await };
        match self.attempt(Who::Anybody, ("remove", key), self.limits.write, delete).await? {
            Ok(()) => Ok(()),
            Err(error) => self.absent("remove", key, error),
        }
    }

    /// Writes an object, over an older one, by one request. An error leaves open whether it is or will be there.
    pub(super) async fn put_once(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.send_once(key, bytes, PutMode::Overwrite).await?.map_err(|error| self.error("write", key, &shown(&error)))
    }

    /// The same for a key that nobody else has, with the condition that there is none (If-None-Match). That there is one may mean that the request arrived
    /// twice. It may as well be said where nothing is: 409 is S3's word for a conflict of any kind, after which nothing was written, and a gateway's for folders that
    /// went while it made them. So it is no proof, and an error as others are.
    pub(super) async fn create_once(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.send_once(key, bytes.clone(), PutMode::Create).await? {
            Ok(()) => Ok(()),
            Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => {
                Err(self.error("write", key, &shown(&error)))
            }
            // The condition is not known: it was an answer, and nothing is there.
            Err(_) => self.put_once(key, bytes).await,
        }
    }

    async fn send_once(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<Result<(), Error>, StoreError> {
        let put = |location: Path| {
            let (payload, mode) = (PutPayload::from(bytes.clone()), mode.clone());
            async move { self.remote.put_opts(&location, payload, PutOptions::from(mode)).await }
        };
        let put = self.attempt_at_most(1, Who::Anybody, ("write", key), self.limits.write, put).await?;
        Ok(put.map(|_| ()))
    }

    /// Removes an object by one request. An error leaves open whether it is or will be gone.
    pub(super) async fn delete_once(&self, key: &str) -> Result<(), StoreError> {
        let delete = |location: Path| async move { self.remote.delete(&location).await };
        match self.attempt_at_most(1, Who::Anybody, ("remove", key), self.limits.write, delete).await? {
            Ok(()) => Ok(()),
            Err(error) => self.absent("remove", key, error),
        }
    }

    /// Copies an object to a key that nobody else has, by one request; false if there is none. An error leaves open whether it is or will be there.
    pub(super) async fn copy_once(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let to = path(to)?;
        let copy = |location: Path| {
            let to = to.clone();
            async move { self.remote.copy_opts(&location, &to, CopyOptions::default()).await }
        };
        // The server moves all the bytes before it answers.
        match self.attempt_at_most(1, Who::Anybody, ("copy", from), self.limits.write * 4, copy).await? {
            Ok(()) => Ok(true),
            Err(error) => self.absent("copy", from, error).map(|()| false),
        }
    }

    /// The folders in a folder, by their last names; at most so many.
    pub(super) async fn folders(&self, folder: &str, most: usize) -> Result<Vec<String>, StoreError> {
        let list = |location: Path| async move { self.remote.list_with_delimiter(Some(&location)).await };
        match self.attempt(Who::Anybody, ("list", folder), self.limits.read * 5, list).await? {
            Ok(listed) if listed.common_prefixes.len() > most => {
                Err(self.error("list", folder, &format!("it has more than {most} folders")))
            }
            Ok(listed) => {
                Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
            }
            Err(error) => self.absent("list", folder, error).map(|()| Vec::new()),
        }
    }

    /// At most `most` objects below a folder, beginning behind the key `after`. Pages are read as they are needed; nothing
    /// but the result is kept.
    pub(super) async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let after = after.map(path).transpose()?;
        // Each page has as long as any small read.
        let pages = u32::try_from(most / 1000).unwrap_or(u32::MAX).saturating_add(1);
        let list = |location: Path| {
            let mut entries = match &after {
                Some(after) => self.remote.list_with_offset(Some(&location), after),
                None => self.remote.list(Some(&location)),
            };
            async move {
                let mut found = Vec::new();
                while found.len() < most
                    && let Some(entry) = entries.next().await
                {
                    found.push(entry?);
                }
                Ok(found)
            }
        };
        match self.attempt(Who::Anybody, ("list", folder), self.limits.read * pages, list).await? {
            Ok(found) => Ok(found),
            // Some servers have no folder without anything in it.
            Err(error) => self.absent("list", folder, error).map(|()| Vec::new()),
        }
    }

    /// Begins an upload in parts.
    pub(super) async fn begin(&self, key: &str) -> Result<MultipartId, StoreError> {
        let create = |location: Path| async move { self.remote.create_multipart(&location).await };
        let begun = self.attempt(Who::Anybody, ("begin to write", key), self.limits.write, create).await?;
        begun.map_err(|error| self.error("begin to write", key, &shown(&error)))
    }

    pub(super) async fn part(
        &self,
        key: &str,
        id: &MultipartId,
        number: usize,
        bytes: Bytes,
    ) -> Result<PartId, StoreError> {
        let put = |location: Path| {
            let payload = PutPayload::from(bytes.clone());
            async move { self.remote.put_part(&location, id, number, payload).await }
        };
        let put = self.attempt(Who::Anybody, ("write a part of", key), self.limits.write, put).await?;
        put.map_err(|error| self.error("write a part of", key, &shown(&error)))
    }

    /// Ends an upload in parts: only now there is an object. An error leaves open whether there is.
    pub(super) async fn complete(&self, key: &str, id: &MultipartId, parts: Vec<PartId>) -> Result<(), StoreError> {
        let complete = |location: Path| {
            let parts = parts.clone();
            async move { self.remote.complete_multipart(&location, id, parts).await }
        };
        // A server may copy all the parts together before it answers.
        let limit = self.limits.write * 4;
        match self.attempt(Who::Anybody, ("finish", key), limit, complete).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error("finish", key, &shown(&error))),
        }
    }

    /// Gives an upload in parts up. Not an error if it is not known (any more).
    pub(super) async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), StoreError> {
        let abort = |location: Path| async move { self.remote.abort_multipart(&location, id).await };
        match self.attempt(Who::Anybody, ("give up", key), self.limits.write, abort).await? {
            Ok(()) => Ok(()),
            Err(error) => self.absent("give up", key, error),
        }
    }

    /// Waits for the next piece of a stream.
    pub(super) async fn next_piece(
        stream: &mut BoxStream<'static, object_store::Result<Bytes>>,
        patience: Duration,
    ) -> Result<Option<Bytes>, String> {
        match timeout(patience, stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => Err(shown(&error)),
            Err(_) => Err(format!("nothing came for {patience:?}")),
        }
    }
}

/// What a bucket in good health says as well.
fn is_answer(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
    ) || is_not_implemented(error)
}

/// A status that the client of buckets has no word for.
fn is_not_implemented(error: &Error) -> bool {
    matches!(error, Error::Generic { .. }) && error.to_string().contains("status code: 501")
}

fn is_worth_another_try(error: &Error) -> bool {
    // Rights do not come back within seconds.
    !matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

/// The innermost cause, in one line: the layers around it say where in the client it was.
fn shown(error: &Error) -> String {
    let (mut innermost, mut text): (&dyn std::error::Error, String) = (error, error.to_string());
    while let Some(cause) = innermost.source() {
        innermost = cause;
        text = innermost.to_string();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("access denied, look at the credentials and their rights: {text}")
        }
        _ => text,
    }
}
