//! What is kept: content by digest, and the small records that say who may have it.
//!
//! Content-addressed blobs (manifests are blobs too) and, beside them, **links** (this repository was seen to deliver that
//! digest: evidence, nothing is served without it) and **tags** (what a tag meant when the origin was last asked).
//! One trait, [`Store`], several stores: [`directory::DirectoryStore`] keeps a folder, [`memory::MemoryStore`] keeps nothing
//! beyond the process, [`bucket::BucketStore`] a bucket that replicas and clusters share. All pass the suite in `conformance`.
//!
//! Invariants of every store:
//! - What [`Store::blob`] returns is complete and was verified by whoever wrote it. What the disk did to it since then is found
//!   when it is read: [`CheckedRange`] is how its bytes leave.
//! - A blob that somebody reads ([`StoredBlob`]) or writes ([`PartialBlob`]) is not evicted.
//! - A record that cannot be read counts as absent: the worst that a damaged store does is to ask the origin again.
//! - No error of a store is a reason to fail a pull: whoever calls goes on with the origin.
//!
//! `fetch` fills a store, `pull` answers from it, `server` sends a [`CheckedRange`] of a [`StoredBlob`].

mod blob;
pub mod bucket;
mod checked;
mod checksums;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod directory;
mod document;
mod error;
mod lease;
pub mod memory;
mod record;
pub mod removal;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_oci::{Digest, Tag};

use crate::secret::SignedUrl;

pub use blob::{PartialBlob, StoredBlob};
pub use checked::CheckedRange;
pub(crate) use checksums::Summing;
pub use checksums::{CHUNK, Checksums};
pub use error::{StoreError, StoreHealth};
pub use record::{Link, Name, PartialOrigin, TagRecord};

/// Where content and its records are kept.
///
/// The futures borrow only the store: names and digests are copied into them, so that a caller may spawn them.
pub trait Store: Send + Sync + 'static {
    /// The evidence that `name` delivered `digest`, if there is any. It says nothing about whether the blob is still here.
    fn link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<Link>, StoreError>>;

    /// Writes evidence, over an older one for the same digest.
    fn put_link(&self, name: &Name, link: Link) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets evidence. Not an error if there is none.
    fn remove_link(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What `tag` meant when the origin last said so.
    fn tag(&self, name: &Name, tag: &Tag) -> BoxFuture<'_, Result<Option<TagRecord>, StoreError>>;

    /// Writes what a tag means now, over an older record.
    fn put_tag(&self, name: &Name, tag: &Tag, record: TagRecord) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The tags of `name` that are known here, in order, at most [`MAXIMUM_LISTED_TAGS`]: for `tags/list` while the origin is away.
    fn tags(&self, name: &Name) -> BoxFuture<'_, Result<Vec<Tag>, StoreError>>;

    /// Repositories of which something was seen here (there is evidence, or was a while ago), in an order of the store's own: those after `after`, which
    /// need not be there, at most `limit`. Fewer are the last ones. Memory is for that many, and for one folder.
    fn names(&self, after: Option<&Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Name>, StoreError>>;

    /// A complete, verified blob, open for reading, or `None`. Counts as a use of it.
    fn blob(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<StoredBlob>, StoreError>>;

    /// Whether the blob is kept where a restart, another replica and a bad disk here do not matter: what a pin may rest on. The same as
    /// being there, for a store that has one place only.
    fn keeps(&self, digest: &Digest) -> BoxFuture<'_, Result<bool, StoreError>> {
        let blob = self.blob(digest);
        Box::pin(async move { Ok(blob.await?.is_some()) })
    }

    /// Where whoever asks for this blob of `length` bytes may get it without us, for some minutes. `None` if there is no such place, or if
    /// it comes from here as well or better.
    fn elsewhere(&self, digest: &Digest, length: u64) -> BoxFuture<'_, Result<Option<SignedUrl>, StoreError>> {
        let _ = (digest, length);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// A blob with the evidence that `name` delivered it, or neither: [`Store::link`] and [`Store::blob`] as one question, which
    /// is what every hit asks.
    fn held(&self, name: &Name, digest: &Digest) -> BoxFuture<'_, Result<Option<(Link, StoredBlob)>, StoreError>> {
        let (link, digest) = (self.link(name, digest), digest.clone());
        Box::pin(async move {
            let Some(link) = link.await? else { return Ok(None) };
            Ok(self.blob(&digest).await?.map(|blob| (link, blob)))
        })
    }

    /// Stores a small blob (a manifest) at once. Verifies the digest itself and refuses other bytes with
    /// [`StoreError::Mismatch`].
    fn put_bytes(&self, digest: &Digest, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Begins a blob, or goes on with one that was left unfinished ([`PartialBlob::existing`] tells how far it is).
    /// `size` is the blob's whole length if it is known: a blob for which there can be no room is refused here, with
    /// [`StoreError::Full`], instead of half-way. While another [`PartialBlob`] of this digest lives: [`StoreError::InUse`].
    fn create(&self, digest: &Digest, size: Option<u64>) -> BoxFuture<'_, Result<PartialBlob, StoreError>>;

    /// Drops a blob whose bytes were found to be wrong. Readers that have it open read on (the file has no name any more).
    fn remove_damaged(&self, digest: &Digest) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Whether it is worth asking. Never blocks, takes no lock.
    fn health(&self) -> StoreHealth;
}

/// How many tags [`Store::tags`] returns at most.
pub const MAXIMUM_LISTED_TAGS: usize = 10_000;
