//! The custom resources of the group `larder.dev/v1alpha1`: their Rust types, from which their definitions are generated.
//!
//! Knows the words of `larder-oci` and of the Kubernetes API; does no IO.
