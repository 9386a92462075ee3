//! Larder's pull path.
//!
//! A pull goes `server` → route → `pull` (what is answered) → `store`, or `fetch` (one fetch for all who ask)
//! → `source` (the trait) → `origin` (the registry), and comes back as a `reply`, which `server` writes to the socket.
//! This crate knows no engine and no Kubernetes.

pub mod certificates;
pub mod fetch;
pub mod metrics;
pub mod origin;
pub mod program;
pub mod pull;
pub mod reply;
pub mod server;
pub mod settings;
pub mod source;
pub mod store;
