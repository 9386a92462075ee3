//! Changes of the node's files that are undone byte for byte: plan, diff, apply, verify, restore.
//!
//! The invariant: before the first file of the node changes, what was there is durable in a folder of ours (the
//! journal), so that from any instant, also after kill -9 or a lost power supply, [`restore`] leads back to what was
//! found and another [`apply`] forward to what was wanted. What someone else changed meanwhile is told, never overwritten.
//!
//! Plans come from `engine`, which decides what is wanted; how a single file changes atomically is `host`'s affair.

mod apply;
mod diff;
mod error;
mod journal;
pub mod marker;
mod masked;
mod plan;
mod present;
mod put_back;
mod restore;
#[cfg(test)]
mod tests;
mod verify;

pub use apply::{Applied, apply};
pub use diff::{Colour, diff};
pub use error::{ChangeError, Conflict, Reason};
pub use masked::masked;
pub use plan::{Change, Expected, Plan, Wanted};
pub use restore::{Failed, Restored, restore, undoing};
pub use verify::{Drift, Inventory, Item, ItemState, inventory, verify};

/// Takes our marked block out of an administrator's file; `None` when there is none in it (or it cannot be told where
/// it ends). Comes from the engine's adapter, which put the block in.
pub type Unsplice<'a> = dyn Fn(&[u8]) -> Option<Vec<u8>> + 'a;
