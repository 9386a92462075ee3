//! Makes a node's own engine ask the Larder proxy first, proves it, repairs it, undoes it.
//!
//! The flow is observe → plan → apply → confirm, and restore. `engine` observes and plans (pure), `change` applies and
//! restores, `host` is the only room that touches files, `placement` is where our entries live while we do, `liveness`
//! decides when to withdraw. This crate knows no Kubernetes, and not how the proxy is asked (traits).

pub mod change;
pub mod confirm;
pub mod engine;
pub mod host;
pub mod listener;
pub mod liveness;
pub mod placement;
pub mod watch;
