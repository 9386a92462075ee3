//! NodeMirror: one node, and whether its engine asks Larder. Written by the agent of that node, for people.

mod reasons;
mod status;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use reasons::{Configured, Conflict, Withdrawn};
pub use status::{Engine, LeftAlone, MOST_ENTRIES, MOST_TO_DO, NodeMirrorStatus, Placed, Proxy};

/// Nothing is said to a node by its NodeMirror: settings are UpstreamRegistry objects and values of the chart.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "NodeMirror",
    plural = "nodemirrors",
    shortname = "nm",
    category = "larder",
    no_spec,
    status = "NodeMirrorStatus",
    derive = "PartialEq",
    doc = "A node: whether its engine asks Larder, and what a person has to do. Written by the node's agent alone; it has the node's name.",
    printcolumn(
        name = "Engine",
        type_ = "string",
        json_path = ".status.engine.name",
        description = "containerd or cri-o."
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.engine.version",
        description = "The engine's version."
    ),
    printcolumn(
        name = "Configured",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Configured\")].status",
        description = "True: the engine was seen to ask Larder."
    ),
    printcolumn(
        name = "Withdrawn",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Withdrawn\")].status",
        description = "True: the engine is not told to ask Larder at the moment, and pulls directly."
    ),
    printcolumn(
        name = "Conflict",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Conflict\")].status",
        description = "True: somebody else writes what Larder writes."
    ),
    printcolumn(
        name = "Left alone",
        type_ = "integer",
        json_path = ".status.leftAloneCount",
        description = "Registries that are pulled from as without Larder."
    ),
    printcolumn(
        name = "To do",
        type_ = "string",
        json_path = ".status.toDo[0]",
        description = "What a person has to do first."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Proved",
        type_ = "date",
        json_path = ".status.provedAt",
        priority = 1,
        description = "When the engine was last seen to ask Larder."
    ),
    printcolumn(
        name = "Larder",
        type_ = "string",
        json_path = ".status.agentVersion",
        priority = 1,
        description = "The agent's version."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeMirrorSpec {}
