//! What the controller knows of an image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Time, schema};

/// Most digests that are kept of one image.
pub const MOST_DIGESTS: usize = 64;
/// Most Pods that are named.
pub const MOST_PODS: usize = 20;
/// Most namespaces that are named.
pub const MOST_NAMESPACES: usize = 16;

/// What is known of the image.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedImageStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// What the cache has for the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135), regex(pattern = schema::digest_pattern()))]
    pub digest: Option<String>,
    /// What the reference meant at the registry when it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135), regex(pattern = schema::digest_pattern()))]
    pub upstream_digest: Option<String>,
    /// When the registry last said what the reference means, or that it means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub upstream_checked: Option<Time>,
    /// Every digest that matters, each of them kept: what the reference means at the registry, and what a running Pod has of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_DIGESTS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["digest"])
    )]
    pub digests: Vec<HeldDigest>,
    /// The platforms that are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::platforms")]
    pub platforms: Vec<String>,
    /// How many bytes the cache has of it; layers that other images have as well are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub size_bytes: Option<i64>,
    /// Which Pods use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<UsedBy>,
    /// Namespaces whose Pods use it, or were the last that did; it counts against their bounds. The first of them by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMESPACES), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// When a Pod was first seen to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub first_used: Option<Time>,
    /// When a Pod was last seen to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_used: Option<Time>,
    /// When a client, a node as a rule, last pulled it through the cache. It may be an hour behind, and with several replicas of the cache a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_pull: Option<Time>,
    /// When it leaves the cache unless a Pod uses it again. Nothing while one does, or while something else keeps it: see kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub expires_at: Option<Time>,
    /// Why it has no end although no Pod uses it. Retained: because of spec.retain. Applied: somebody else than the controller made this object, or applies it (kubectl apply, Argo CD, Flux, Helm): delete it there, or say spec.expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// How far fetching it is, while it is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Cached, UpstreamAvailable, UpToDate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What keeps an image that no Pod uses.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    #[expect(missing_docs, reason = "described where it is used: a comment here would be a schema of its own")]
    Retained,
    #[expect(missing_docs, reason = "as above")]
    Applied,
}

/// One content that the reference stands for, somewhere.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldDigest {
    /// Of the index or manifest.
    #[schemars(length(max = 135), regex(pattern = schema::digest_pattern()))]
    pub digest: String,
    /// Whether it is what the registry has for the reference.
    #[serde(default)]
    pub upstream: bool,
    /// How many running Pods have it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub pods: i32,
    /// Whether all of it is in the cache, for the platforms that are kept.
    #[serde(default)]
    pub cached: bool,
}

/// Which Pods use an image.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedBy {
    /// How many.
    #[schemars(range(min = 0))]
    pub count: i32,
    /// Some of them, as namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_PODS), inner(length(max = 317)), extend("x-kubernetes-list-type" = "set"))]
    pub pods: Vec<String>,
}

impl UsedBy {
    /// Those Pods (namespace/name), counted; the first of them by name are named, so that the same Pods are always said the same way.
    pub fn of(pods: impl IntoIterator<Item = String>) -> Self {
        let mut pods: Vec<_> = pods.into_iter().collect();
        pods.sort_unstable();
        pods.dedup();
        let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        pods.truncate(MOST_PODS);
        Self { count, pods }
    }
}

/// How far a fetch is. What is to be fetched becomes known while it goes on.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes that are known to be needed.
    #[schemars(range(min = 0))]
    pub bytes_known: i64,
    /// Bytes that are there.
    #[schemars(range(min = 0))]
    pub bytes_fetched: i64,
    /// Blobs that are known to be needed.
    #[schemars(range(min = 0))]
    pub blobs_known: i32,
    /// Blobs that are there.
    #[schemars(range(min = 0))]
    pub blobs_fetched: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_counted_and_some_of_them_named() {
        let pods = |order: &mut dyn Iterator<Item = usize>| UsedBy::of(order.map(|number| format!("a/{number:02}")));
        let used = pods(&mut (0..30));
        assert_eq!((used.count, used.pods.len()), (30, MOST_PODS));
        assert_eq!(pods(&mut (0..30).rev().chain(0..30)), used, "in whatever order, and once");
        assert_eq!(pods(&mut (0..0)), UsedBy::default());
    }
}
