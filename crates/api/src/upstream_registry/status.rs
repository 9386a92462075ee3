//! How a registry is doing, from what the caches and the controller see of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Time, schema};

/// Most errors that are kept.
pub const MOST_ERRORS: usize = 5;

/// How the registry is doing.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamRegistryStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Since when it answers. Nothing while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub reachable_since: Option<Time>,
    /// When it was last asked for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_checked: Option<Time>,
    /// How long it took to answer, in milliseconds: the median of the last questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub latency_milliseconds: Option<i64>,
    /// How many pulls it allows, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// The images of it that are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageCounts>,
    /// The last errors, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_ERRORS), extend("x-kubernetes-list-type" = "atomic"))]
    pub last_errors: Vec<UpstreamError>,
    /// Reachable, AllCached, Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What a registry says of its quota of pulls (`ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset`).
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Pulls in a window.
    #[schemars(range(min = 0))]
    pub limit: i64,
    /// Pulls that are left.
    #[schemars(range(min = 0))]
    pub remaining: i64,
    /// How long the window is, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub window_seconds: Option<i64>,
    /// When all of it is there again, at the latest: what the registry says (ratelimit-reset), or the end of a whole window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub resets_at: Option<Time>,
    /// When the registry said so.
    #[schemars(schema_with = "schema::time")]
    pub seen_at: Time,
}

/// How many images of a registry are wanted, and what has become of them.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageCounts {
    /// Images that are wanted.
    #[schemars(range(min = 0))]
    pub known: i32,
    /// Those that are in the cache, whole.
    #[schemars(range(min = 0))]
    pub cached: i32,
    /// Those that the registry no longer has.
    #[schemars(range(min = 0))]
    pub missing_upstream: i32,
}

/// One thing that went wrong with a registry.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamError {
    /// When it last happened.
    #[schemars(schema_with = "schema::time")]
    pub at: Time,
    /// Where the registry was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// What went wrong.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// How often in a row.
    #[schemars(range(min = 1))]
    pub count: i32,
}
