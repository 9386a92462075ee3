//! How content leaves a bucket that several replicas and several clusters share: who decides it, and who need not fear it.
//!
//! There is no lock, no conditional delete to rely on, and every request may arrive late. So no key is ever written twice, and
//! two rules meet: whoever pins **writes the pin first and looks for condemned blobs after**; whoever removes **condemns
//! first and looks for pins after**. One of them always sees the other. No clock takes part in that: the times here keep removal
//! cheap and calm, not safe. The whole argument is in `docs/decisions/0016-removal-from-a-shared-bucket.md`.
//!
//! Everything here is a value. A machine ([`Pinner`], [`Unpinner`], [`Reader`], [`Collector`], [`Declarer`], [`Forgetter`]) says
//! by `next` which one [`Operation`] on the bucket it wants, and is fed the [`Answer`]; the shell that carries operations out is
//! the bucket store's (`bucket/keeping`), and `tests` explores every order in which they can happen, with the very same machines.
//!
//! Invariants, as explored: a blob that a completed pin reaches is readable; no deleted key is written again; nothing goes
//! while a holder is missing or stale, or while the brake is on; what nothing pins goes in the end.

mod brake;
mod collector;
mod decide;
mod declarer;
mod forgetter;
mod holders;
mod key;
mod key_text;
mod operation;
mod pinner;
mod policy;
mod reader;
mod rules;
#[cfg(test)]
mod tests;
mod unpinner;

pub use brake::{Reference, Word};
pub use collector::{Collector, Run};
pub use decide::{Act, Decision, Reason, View, Wait};
pub use declarer::{Declared, Declarer};
pub use forgetter::{Forgetter, Forgotten};
pub use holders::Declaration;
pub use key::{BucketTime, Held, Key, Label, Names, Owner, PinName, Prefix, Unique};
pub use operation::{Answer, Body, Entry, Operation, Step};
pub use pinner::{Pinned, Pinner};
pub use policy::Policy;
pub use reader::{Read, Reader};
pub use unpinner::Unpinner;
