//! What `UpstreamRegistry` objects say of pulls, for whoever pulls by it: the agent of a node, which hands it to its proxy, and the cluster cache.
//!
//! Both have it from here, so that they never understand the same object in two ways: where they were told of other endpoints, nodes do not ask the cache
//! ([`RegistrySettings::fingerprint`](larder_proxy::settings::RegistrySettings::fingerprint)).
//!
//! Invariants: pulls depend on none of it. What the API server says is taken into the settings only when it can be used, and what was taken in stays in force,
//! over restarts too, until the API server says otherwise and means it.
//!
//! [`Watching`] follows the objects, `objects` keeps them, `said` checks what one of them says. What is [`Known`] is [`merged`] with the registries file, and is
//! text for a file ([`Known::to_text`]) that is written whenever it changes ([`keep`]), from which a process that starts knows it before it has heard anybody. Where that
//! file lies, and who reads the merged settings, is the programs' business.

mod keeping;
mod kept;
mod merging;
mod objects;
mod reading;
mod said;
mod watching;

pub use keeping::keep;
pub use kept::{LARGEST_TEXT, NotKept};
pub use merging::{condition, merged};
pub use objects::Known;
pub use reading::{KnownFrom, Reading};
pub use said::OfRegistry;
pub use watching::Watching;
