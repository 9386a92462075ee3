//! The custom resources of the group `larder.dev/v1alpha1`: their Rust types, from which their definitions are generated.
//!
//! Knows the words of `larder-oci` and of the Kubernetes API; does no IO.
//!
//! A resource is a folder: its spec with what is printed of it, its status, the reasons of its conditions, and how it is named. Texts stay
//! texts in these types, for what somebody stored long ago must not stop a watch; what they mean is a method beside them, which
//! may fail. `schema` is what the API server checks, `definition` makes whole definitions (`cargo xtask crds` writes them to
//! `chart/files/crds` and `docs/api.md`).
#![expect(
    clippy::doc_markdown,
    reason = "comments of fields are the descriptions of `kubectl explain`, which knows no Markdown"
)]

pub mod cached_image;
pub mod condition;
pub mod definition;
pub mod labels;
pub mod node_mirror;
mod schema;
pub mod span;
pub mod upstream_registry;

pub use cached_image::{CachedImage, CachedImageSpec, CachedImageStatus};
pub use node_mirror::{NodeMirror, NodeMirrorSpec, NodeMirrorStatus};
pub use upstream_registry::{UpstreamRegistry, UpstreamRegistrySpec, UpstreamRegistryStatus};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The group of all of them.
pub const GROUP: &str = "larder.dev";

/// The version of all of them.
pub const VERSION: &str = "v1alpha1";

/// A moment as the API server stores it: to the second, so that what was written and what is read are equal.
pub fn at(moment: std::time::SystemTime) -> Time {
    use k8s_openapi::jiff::Timestamp;
    let moment = Timestamp::try_from(moment).unwrap_or_default();
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}
