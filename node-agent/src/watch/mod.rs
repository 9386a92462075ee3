//! When to look at the node again: on changes of what a plan depends on, and what to do about somebody who keeps undoing
//! our entries.
//!
//! [`Watcher`] only says "look again"; what is so is always read anew, so a lost event costs time and nothing else.
//! [`Fights`] is pure.

mod fights;
mod watcher;

pub use fights::{Fight, Fights};
pub use watcher::Watcher;
