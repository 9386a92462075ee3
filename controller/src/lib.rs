//! The controller: from the Pods that a cluster runs to the images that its cache keeps.
//!
//! Decisions are functions of values and a time ([`decide`]); the rest asks the API server and the cluster cache, and
//! carries them out.

pub mod decide;
pub mod pods;
