//! A real API server that knows the custom resources, for tests of them and of the controller.
//!
//! [`World`] is started once for all cases that only use it, each with objects of its own; whoever breaks something of an API server starts
//! one for itself.

mod answer;
mod world;

pub use answer::Answer;
pub use larder_test_callers::ControlPlane;
pub use larder_test_callers::wait::until;
pub use world::{DEFINITIONS, GROUP, World};
