//! NodeMirror: one node, and whether its engine asks Larder. Written by the agent of that node, for people.

mod reasons;
mod status;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::Column;

pub use reasons::{Configured, Conflict, Withdrawn};
pub use status::{Engine, LeftAlone, MOST_ENTRIES, MOST_TO_DO, NodeMirrorStatus, Placed, Proxy};

/// What `kubectl get` prints.
pub(crate) const COLUMNS: &[Column] = &[
    Column::new("Engine", "string", ".status.engine.name", "containerd or cri-o."),
    Column::new("Version", "string", ".status.engine.version", "The engine's version."),
    Column::new(
        "Configured",
        "string",
        ".status.conditions[?(@.type=='Configured')].status",
        "True: the engine was seen to ask Larder.",
    ),
    Column::new(
        "Withdrawn",
        "string",
        ".status.conditions[?(@.type=='Withdrawn')].status",
        "True: the engine is not told to ask Larder at the moment, and pulls directly.",
    ),
    Column::new(
        "Conflict",
        "string",
        ".status.conditions[?(@.type=='Conflict')].status",
        "True: somebody else writes what Larder writes.",
    ),
    Column::new(
        "Left alone",
        "integer",
        ".status.leftAloneCount",
        "Registries that are pulled from as without Larder.",
    ),
    Column::new(
        "Seen",
        "date",
        ".status.seenAt",
        "How long ago the agent said all this: after more than 90 minutes none does any more, whatever the row says.",
    ),
    Column::new("Age", "date", ".metadata.creationTimestamp", "How long it has been there."),
    Column::wide("Proved", "date", ".status.provedAt", "When the engine was last seen to ask Larder."),
    // A sentence, which would push all else off a terminal.
    Column::wide("To do", "string", ".status.toDo[0]", "What a person has to do first."),
    Column::wide("Larder", "string", ".status.agentVersion", "The agent's version."),
];

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
    doc = "A node: whether its engine asks Larder, and what a person has to do. Written by the node's agent alone; it has the node's name."
)]
#[serde(rename_all = "camelCase")]
pub struct NodeMirrorSpec {}
