//! The controller: from the Pods that a cluster runs to the images that its cache keeps.
//!
//! Decisions are functions of values and a time ([`decide`]); the rest asks the API server and the cluster cache, and
//! carries them out.

pub mod api_server;
pub mod cluster_cache;
pub mod decide;
pub mod events;
pub mod leader;
pub mod metrics;
pub mod pods;
pub mod registries;
pub mod watches;
pub mod work;
pub mod world;

/// The manager of all fields that the controller writes.
pub const FIELD_MANAGER: &str = larder_api::labels::CONTROLLER;
