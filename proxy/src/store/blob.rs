//! Handles of blobs: one to read a complete one, one to write a growing one.
//!
//! Both are open files; a complete one may still be on its way into its file from where the store keeps it ([`Arriving`]). Whoever
//! reads uses positioned reads (`FileExt::read_at`), so any number of readers share a file; nobody
//! moves its cursor. The store behind a handle is a trait object, so `fetch` and `server` know no kind of store.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::checksums::{Check, Checksums};
use super::{PartialOrigin, StoreError};

/// What a store does behind a [`StoredBlob`]; dropped when the last reader is gone.
pub(crate) trait Keeper: Send + Sync {
    /// Bytes of the file turned out to be wrong: from now on nobody is given it. Does not block; the file goes in the background.
    fn condemn(&self);
}

/// Bytes on their way into a file of ours, from where the store keeps them. What has arrived was checked; the last chunk arrives when the
/// whole has its digest.
pub(crate) trait Arriving: Send + Sync {
    /// Begins if need be, and waits for the first bytes: whoever has to turn elsewhere learns it here.
    fn begun(&self) -> BoxFuture<'static, io::Result<()>>;

    /// The file, once its bytes before `end` have arrived. Fails when they stop coming.
    fn until(&self, end: u64) -> BoxFuture<'static, io::Result<Arc<File>>>;
}

#[derive(Clone)]
enum Content {
    Here(Arc<File>),
    Arriving(Arc<dyn Arriving>),
}

/// A complete, verified blob, open for reading. While a clone of it lives the store does not evict the blob.
#[derive(Clone)]
pub struct StoredBlob {
    content: Content,
    length: u64,
    check: Check,
    keeper: Arc<dyn Keeper>,
}

impl StoredBlob {
    pub(crate) fn new(file: Arc<File>, length: u64, check: Check, keeper: Arc<dyn Keeper>) -> Self {
        Self { content: Content::Here(file), length, check, keeper }
    }

    /// Of a store that keeps it elsewhere and fills a file with it while it is read.
    pub(crate) fn arriving(arriving: Arc<dyn Arriving>, length: u64, check: Check, keeper: Arc<dyn Keeper>) -> Self {
        Self { content: Content::Arriving(arriving), length, check, keeper }
    }

    /// Of a store that neither checks nor minds.
    #[cfg(test)]
    pub(crate) fn unchecked(file: Arc<File>, length: u64) -> Self {
        struct Nobody;
        impl Keeper for Nobody {
            fn condemn(&self) {}
        }
        Self::new(file, length, Check::Nothing, Arc::new(Nobody))
    }

    /// The blob's length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty blob is a blob like any other; nobody asks")]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// The file, unless its bytes are still arriving. They are not checked: what goes to a client is read by [`super::CheckedRange`].
    pub(crate) fn file(&self) -> Option<&Arc<File>> {
        match &self.content {
            Content::Here(file) => Some(file),
            Content::Arriving(_) => None,
        }
    }

    /// What is still on its way.
    pub(crate) fn still_arriving(&self) -> Option<&Arc<dyn Arriving>> {
        match &self.content {
            Content::Here(_) => None,
            Content::Arriving(arriving) => Some(arriving),
        }
    }

    /// The file, once its bytes before `end` are there.
    pub(crate) async fn file_until(&self, end: u64) -> io::Result<Arc<File>> {
        match &self.content {
            Content::Here(file) => Ok(Arc::clone(file)),
            Content::Arriving(arriving) => arriving.until(end).await,
        }
    }

    pub(crate) fn check(&self) -> &Check {
        &self.check
    }

    /// Its bytes are wrong, or lost: the store has it no more.
    pub(crate) fn condemn(&self, reason: &dyn fmt::Display) {
        tracing::warn!(length = self.length, %reason, "a stored blob is damaged; it is dropped and will be fetched anew");
        self.keeper.condemn();
    }
}

impl fmt::Debug for StoredBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredBlob").field("length", &self.length).finish_non_exhaustive()
    }
}

/// What a store does behind a [`PartialBlob`].
pub(crate) trait WritePartial: Send + Sync {
    fn existing(&self) -> u64;
    fn written(&self) -> u64;
    fn file(&self) -> Arc<File>;
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
    fn restart(&mut self) -> Result<(), StoreError>;
    fn origin(&self) -> Option<PartialOrigin>;
    fn set_origin(&mut self, origin: PartialOrigin) -> Result<(), StoreError>;
    fn commit(self: Box<Self>, checksums: Checksums) -> Result<StoredBlob, StoreError>;
    fn discard(self: Box<Self>) -> Result<(), StoreError>;
}

/// A blob that is being written, by this handle alone. Its methods block: call them on a blocking thread. Readers follow with
/// positioned reads of [`Self::file`], up to the length that the writer has told them.
///
/// Dropping it keeps what was written, for a later resume (bounded in number and age).
pub struct PartialBlob {
    writer: Box<dyn WritePartial>,
}

impl PartialBlob {
    pub(crate) fn new(writer: Box<dyn WritePartial>) -> Self {
        Self { writer }
    }

    /// How many bytes an earlier attempt had left when this one was opened. They are unverified: hash them before going on,
    /// and [`Self::restart`] if they cannot be trusted.
    pub fn existing(&self) -> u64 {
        self.writer.existing()
    }

    /// How many bytes it has now.
    pub fn written(&self) -> u64 {
        self.writer.written()
    }

    /// The growing file, for readers. It stays readable after [`Self::commit`] and [`Self::discard`].
    pub fn file(&self) -> Arc<File> {
        self.writer.file()
    }

    /// Writes the next bytes. After an error nothing of them counts as written, and another try is allowed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.writer.append(bytes)
    }

    /// Throws away what is there and begins with an empty file of its own: a reader of the earlier [`Self::file`] reads on in that one.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.writer.restart()
    }

    /// Where the bytes came from, if an attempt before this one said so.
    pub fn origin(&self) -> Option<PartialOrigin> {
        self.writer.origin()
    }

    /// Says where the bytes come from, for whoever resumes.
    pub fn set_origin(&mut self, origin: PartialOrigin) -> Result<(), StoreError> {
        self.writer.set_origin(origin)
    }

    /// Makes it a stored blob, durably. **The caller has verified the digest of all bytes**, and took `checksums` from the same
    /// ones. After an error the bytes are gone or kept as a partial, never visible as a blob.
    pub fn commit(self, checksums: Checksums) -> Result<StoredBlob, StoreError> {
        self.writer.commit(checksums)
    }

    /// Leaves it for a later resume; the same as dropping it.
    pub fn keep(self) {}

    /// Removes it.
    pub fn discard(self) -> Result<(), StoreError> {
        self.writer.discard()
    }
}

impl fmt::Debug for PartialBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialBlob")
            .field("existing", &self.existing())
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}
