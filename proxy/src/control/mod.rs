//! The control API: who wants which image kept, said over HTTP to a port of its own (docs/control-api.md).
//!
//! `server` (a connection, TLS, whose token it is) → `api` (pure: what is asked, what is answered) → [`Control`], which writes pins and tells the
//! `keeper`, which fetches what they reach by the same way as a client's pull, shows how far it is, and goes on after a restart.
//!
//! Nothing here decides what may be fetched and from where: `pull` does.

mod api;
mod holders;
mod keeper;
mod plan;
mod registry;
mod server;
mod writings;

pub use holders::HolderOf;
pub(crate) use keeper::Keeper;
pub(crate) use server::{Control, Listening};
