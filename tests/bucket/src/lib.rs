//! Servers with buckets for tests, and what can go wrong between us and them.
//!
//! [`server`] starts one of a [`kind`]; [`faults`] is a connection to it that does what networks and servers do on a bad day, [`forward`] is a corporate proxy on the way to it;
//! [`cache`] is the program `larder-cache` on such a bucket.

mod azure;
pub mod cache;
pub mod faults;
pub mod forward;
pub mod google;
pub mod kind;
pub mod server;

pub use cache::{Cache, CacheSettings};
pub use faults::{Fault, Faults};
pub use forward::Forward;
pub use kind::{AZURE, BUCKET, CREDENTIALS, Kind};
pub use server::Server;
