//! Pins: who wants which image kept, and what that image reaches.
//!
//! A **pin** says that a holder (the controller, a person, `pull` for what was pulled through) wants an image, on some platforms or on all. What
//! it reaches is not evicted, not collected, and survives whatever the origin does. One trait, [`Pins`], beside each store that keeps them; all pass
//! the suite in `conformance`.
//!
//! The order is that of `store::removal` (decision 16): **the pin is written first, and its blobs are looked for after**. So a pin lives in three
//! steps, each of which a crash may follow: it is *wished for* (nobody knows yet what the image is), *incomplete* (what it reaches is known and
//! protected, and not all there), *complete*. Whoever finds one that is not complete goes on with it ([`Pins::incomplete`]): `control` does.
//!
//! Invariants of every implementation:
//! - From the moment that [`Pins::put`] returns, nothing that the pin reaches is removed, whether it is there yet or comes later.
//! - While a pin is incomplete, what an older, complete one of its name reaches stays. So an image that moved upstream and cannot be
//!   fetched now is still there as it was, and is looked after in the same way.
//! - A pin of an older wish never replaces one of a newer ([`Put::Superseded`]).
//! - A pin that is complete was so when it was looked at; nothing of it went since by our doing. What a disk or a person took is found by looking again
//!   ([`Pins::look_again`], [`Pins::lost`]). The small records by which it is given are there as well, or are written anew ([`records`]).

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod failed;
pub(crate) mod kept;
pub(crate) mod ledger;
pub(crate) mod lost;
mod name;
mod overview;
mod platform;
pub(crate) mod records;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use larder_oci::Digest;

use crate::store::{Name, StoreError};

pub use failed::Failed;
pub(crate) use name::SHARDS;
pub use name::{Holder, HolderError, PinName, Place};
pub use overview::Overview;
pub use platform::{Platform, PlatformError, Platforms};

/// More digests than any image has; a pin that reaches more is refused.
pub const MAXIMUM_DIGESTS: usize = 16_384;

/// More pins than one page of a listing has.
pub const MAXIMUM_PAGE: usize = 1000;

/// A wish, and what it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Who wants which image.
    pub name: PinName,
    /// For which platforms.
    pub platforms: Platforms,
    /// When it was wished for; of `pull`, when it was last used (coarse). Later ones replace earlier ones.
    pub put_at: SystemTime,
    /// What the image is; `None`: not known yet.
    pub content: Option<Content>,
}

impl Pin {
    /// Whether there is an image like that.
    pub(crate) fn check(&self) -> Result<(), PinsError> {
        match self.content.as_ref().map_or(0, |content| content.digests.len()) {
            0..=MAXIMUM_DIGESTS => Ok(()),
            digests => Err(PinsError::TooLarge(digests)),
        }
    }
}

/// What an image reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The index or manifest that the reference means.
    pub root: Digest,
    /// Everything to keep, `root` included: index, manifests, configurations, layers.
    pub digests: BTreeSet<Digest>,
    /// Bytes of all of it, as the manifests say.
    pub bytes: u64,
}

/// A pin as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPin {
    /// The newest wish of this name.
    pub pin: Pin,
    /// Everything that it reaches was found when it was last looked at.
    pub complete: bool,
    /// What an older, complete pin of this name reaches, while this one is incomplete.
    pub older: Option<Content>,
    /// Something of that was not there when it was last looked for, and is brought again where that can be.
    pub older_lacks: bool,
}

/// What came of putting a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Written, and all that it reaches is there.
    Complete,
    /// Written, and these are not there. None of them: it is not known yet what the image is.
    Incomplete(BTreeSet<Digest>),
    /// There is one of a newer wish; nothing was written.
    Superseded,
}

/// Some pins, in the order of [`Place`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The pins.
    pub pins: Vec<KeptPin>,
    /// Where the next page begins (after this place); `None`: there is none.
    pub next: Option<Place>,
}

/// A time that a declaration speaks of, in seconds since 1970 by the store's own clock (a bucket's is not ours): never compared with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsOf(pub u64);

impl AsOf {
    /// By the clock of this machine.
    pub(crate) fn at(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}

/// What came of a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// It is declared.
    Done,
    /// This pin of the holder's is not complete; nothing was declared.
    Incomplete(PinName),
    /// That time has not come yet; nothing was declared.
    Future,
}

/// Why a pin could not be put, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not known whether it happened: ask again, which does no harm.
    #[error("the store does not answer: {0}")]
    Unanswered(String),
    /// No image is like that.
    #[error("it reaches {0} digests, more than the {MAXIMUM_DIGESTS} that any image has")]
    TooLarge(usize),
}

/// Where pins are kept. The futures borrow only the pins.
pub trait Pins: Send + Sync + 'static {
    /// Writes a pin, durably, over an older one of its name, and then looks for what it reaches. To be repeated (with the same `put_at`) as what it
    /// reaches becomes known and arrives, until it is [`Put::Complete`]. A pin without [`Pin::content`] keeps what its predecessor reaches.
    ///
    /// With a content it is for whoever has seen the repository deliver all that is there of it, without credentials: what is complete is given by it, and
    /// where the records of that are not there they are written. Who has not seen that yet calls [`Self::protect`].
    fn put(&self, pin: Pin) -> BoxFuture<'_, Result<Put, PinsError>>;

    /// Writes a pin in the same way and looks for nothing: what it reaches stays from now on, and it is not complete, whatever is there, unless it is so
    /// already and says the same. `false`: there is one of a newer wish, and nothing was written.
    fn protect(&self, pin: Pin) -> BoxFuture<'_, Result<bool, PinsError>>;

    /// A pin. One that cannot be read counts as absent.
    fn get(&self, name: &PinName) -> BoxFuture<'_, Result<Option<KeptPin>, PinsError>>;

    /// Pins in the order of [`Place`], those after `after`, at most `limit` (and [`MAXIMUM_PAGE`]). Each that is there during all of the listing is listed
    /// once; memory is for one page. A page may be short, even empty, and not be the last: [`Page::next`] says.
    fn list(
        &self,
        holder: Option<&Holder>,
        after: Option<&Place>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, PinsError>>;

    /// The same, of pins that are not complete: what whoever continues them has to do after a restart. With several replicas on one store, those that
    /// another one is known to be at may be left out.
    fn incomplete(&self, after: Option<&Place>, limit: usize) -> BoxFuture<'_, Result<Page, PinsError>>;

    /// What of all blobs and records is there, where one look over all of them costs less than one for each: then only pins that promise something else have to
    /// be looked at ([`Self::look_again`]). `None`: all of them.
    fn overview(&self) -> BoxFuture<'_, Result<Option<Overview>, PinsError>>;

    /// Looks once more for what a pin promises (what it reaches if it is complete, else [`KeptPin::older`]), by what can be seen at little cost: that it is
    /// there, and where that is seen without reading it, not cut short. If all of it is, no pin is written; what is missing makes a complete pin incomplete,
    /// and else is noted ([`KeptPin::older_lacks`]). An error changes nothing. Records that are not there are written anew. `None`: there is no pin of that name
    /// that promises something, and none comes into being.
    fn look_again(&self, name: &PinName) -> BoxFuture<'_, Result<Option<Put>, PinsError>>;

    /// How often that is worth what it costs.
    fn look_again_after(&self) -> Duration;

    /// Waits until blobs that pins may promise were found damaged, or not found; which. One waits at a time. Pins that promise one of them are to be looked
    /// at.
    fn lost(&self) -> BoxFuture<'_, BTreeSet<Digest>>;

    /// Removes a pin and what is older of its name; whether there was one. What only it reached may go from now on.
    fn delete(&self, name: &PinName) -> BoxFuture<'_, Result<bool, PinsError>>;

    /// When `pull` last had reason to write its pin of an image, as far as that is known without asking anybody: what other processes on the same store have
    /// seen of it. Some time behind, as such pins are renewed seldom.
    fn pulled_at(&self, name: &Name, digest: &Digest) -> Option<SystemTime> {
        let _ = (name, digest);
        None
    }

    /// Begins a declaration: the time of which it will speak. After this the holder looks at what it wants, puts what is missing, deletes what it does
    /// not want, and then calls [`Pins::declare`].
    fn begin_declaration(&self, holder: &Holder) -> BoxFuture<'_, Result<AsOf, PinsError>>;

    /// Declares that as of then all that the holder wants is pinned, and that it has no other pins. Refused while one of its pins is incomplete that is not
    /// among the `failed`: what they reach is in their records as far as anybody knows, or nobody knows what they are; so nothing is lost without them.
    fn declare(&self, holder: &Holder, as_of: AsOf, failed: &Failed) -> BoxFuture<'_, Result<Declared, PinsError>>;

    /// Of when the holder's newest declaration is.
    fn declared(&self, holder: &Holder) -> BoxFuture<'_, Result<Option<AsOf>, PinsError>>;

    /// Takes back all that a holder has declared: without pins it is as if there had never been one. With pins it is one that never declared.
    fn undeclare(&self, holder: &Holder) -> BoxFuture<'_, Result<(), PinsError>>;
}
