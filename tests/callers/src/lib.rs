//! A real API server with its etcd, and the cluster cache beside it, for tests of who may ask and of the cache's own certificate.
//!
//! [`control_plane`] is the API server, which can be killed, started again, and given another key for tokens; [`cache`] is a process of
//! `larder-cache` with a token of its own ServiceAccount and no right but those of `docs/cluster-cache-rights.yaml`.

pub mod cache;
pub mod control_plane;
pub mod wait;

pub use cache::Cache;
pub use control_plane::ControlPlane;
