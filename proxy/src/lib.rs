//! Larder's pull path.
//!
//! A pull goes `server` → route → `pull` (what is answered) → `store`, or `fetch` (one fetch for all who ask)
//! → `source` (the trait) → `cluster_cache`, then `origin` (the registry), and comes back as a `reply`, which `server` writes to the socket.
//! The program `larder-cache` (`../cache`) is the same as a service for a whole cluster. This crate knows no engine and no Kubernetes.

pub mod authorities;
pub mod cluster_cache;
pub(crate) mod control;
pub mod fetch;
pub(crate) mod followed;
pub(crate) mod hop;
pub mod metrics;
pub mod origin;
pub mod pins;
pub mod program;
pub mod pull;
pub mod reply;
pub mod secret;
pub mod server;
pub mod server_certificate;
pub mod settings;
pub mod source;
pub mod static_tokens;
pub mod store;

pub use larder_process::small_file;
