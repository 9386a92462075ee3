//! What the agent of a node says of it: `larder-node status`, bounded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Time, schema};

/// Most entries of `placed` and of `leftAlone` each; the counts beside them are of all.
pub const MOST_ENTRIES: usize = 64;
/// Most sentences of `toDo`.
pub const MOST_TO_DO: usize = 20;

/// How the node is doing.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMirrorStatus {
    /// The engine that was found; nothing while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The version of the agent that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,
    /// The proxy on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// When the agent last said this. It says so at least every 70 minutes: an hour and a half later there is no agent any more, or none that reaches the API server, and all else here is of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub seen_at: Option<Time>,
    /// When the engine was last seen to ask Larder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub proved_at: Option<Time>,
    /// Where the engine is told to ask Larder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_ENTRIES), extend("x-kubernetes-list-type" = "atomic"))]
    pub placed: Vec<Placed>,
    /// How many places there are in all.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub placed_count: i32,
    /// Registries that are pulled from as without Larder, because the node says something of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_ENTRIES), extend("x-kubernetes-list-type" = "atomic"))]
    pub left_alone: Vec<LeftAlone>,
    /// How many of them there are in all.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub left_alone_count: i32,
    /// What a person has to do, or should know, a sentence each, the most important first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_TO_DO), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub to_do: Vec<String>,
    /// Configured, Withdrawn, Conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The node's container engine.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// containerd or cri-o.
    #[schemars(length(max = 64))]
    pub name: String,
    /// As it says itself.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Where it listens, as the engine sees the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub socket: Option<String>,
}

/// The proxy on a node.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// One word: well, starting, stalled, dead, hung, held-off, stranger or stopping.
    #[schemars(length(max = 64))]
    pub health: String,
    /// Where it listens.
    #[schemars(length(max = 64))]
    pub address: String,
    /// Who has its address instead, or what could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub detail: Option<String>,
}

/// One place where the engine is told to ask Larder.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The registry; nothing: every registry without a place of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 261))]
    pub registry: Option<String>,
    /// How: default-link, registry-link, hosts-file-link, splice or registries-drop-in.
    #[schemars(length(max = 64))]
    pub kind: String,
    /// Where, as the engine sees the path.
    #[schemars(length(max = 512))]
    pub path: String,
    /// When the engine was last seen to ask Larder by this kind of place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub proved_at: Option<Time>,
    /// Why it was not seen to, if that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub not_seen: Option<String>,
}

/// A registry that is pulled from as without Larder.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftAlone {
    /// The registry; nothing: every registry without a place of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 261))]
    pub registry: Option<String>,
    /// The file or folder that says so, as the engine sees the path.
    #[schemars(length(max = 512))]
    pub path: String,
    /// Why.
    #[schemars(length(max = 512))]
    pub reason: String,
}
