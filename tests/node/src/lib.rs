//! One node with a real engine, a registry that can have a bad day, and `larder-node` as a user runs it.
//!
//! Everything lives in a folder and on ports of its own, so that cases run side by side and never touch an engine of
//! the machine. The cases are in `cases/`, one file a promise.
#![expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a test harness may fail loudly")]

pub mod cache;
pub mod cluster;
pub mod containerd;
pub mod crio;
pub mod disk;
pub mod engine;
pub mod http;
pub mod larder;
pub mod mounts;
pub mod node;
pub mod process;
pub mod signing;
pub mod tree;
pub mod wait;

pub use larder_test_parts::own as programs;
