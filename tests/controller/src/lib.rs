//! A real API server that knows the custom resources, for tests of them and of the controller.
//!
//! [`World`] is started once for all cases that only use it, each with objects of its own; whoever breaks something of an API server starts
//! one for itself: [`Cluster`] is an API server, `larder-cache` behind TLS and a registry; [`Cache`] and [`Controller`] are processes that can be killed,
//! [`Registry`] is a real registry, [`Cut`] is a way to the API server that can be cut, [`Crowd`] is thousands of Pods, which kwok runs,
//! [`Renewals`] is when the lease was renewed.

mod answer;
mod cache;
mod cluster;
mod controller;
mod crowd;
mod cut;
mod node;
mod registry;
mod renewals;
mod world;

pub use answer::Answer;
pub use cache::Cache;
pub use cluster::{Cluster, RIGHTS, condition_of};
pub use controller::{Controller, Start};
pub use crowd::{Crowd, Seen, Used, median_and_worst};
pub use cut::Cut;
pub use larder_test_callers::ControlPlane;
pub use larder_test_callers::wait::until;
pub use node::{NODE_RIGHTS, Node};
pub use registry::Registry;
pub use renewals::Renewals;
pub use world::{DEFINITIONS, GROUP, World};
