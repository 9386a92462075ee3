//! Whether what a plan wanted is (still) so, and what of ours is on the node. Looks only.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Change, ChangeError, Expected, Plan, Wanted,
    journal::{Journal, Progress},
    present::Present,
};
use crate::host::{Host, HostError, Kind, path_as_text};

/// A path that is not as the plan wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Where.
    #[serde(with = "path_as_text")]
    pub path: PathBuf,
    /// What should be there.
    pub wanted: Expected,
    /// What is there; `None` is a device, a socket or a pipe. Equal to `wanted` when only the mode differs.
    pub found: Option<Expected>,
    /// What it is for.
    pub why: String,
}

/// What of the plan is not so. Empty after an apply.
pub fn verify(host: &dyn Host, plan: &Plan) -> Result<Vec<Drift>, HostError> {
    let mut drift = Vec::new();
    for change in &plan.changes {
        let present = Present::look(host, &change.path)?;
        if !satisfied(host, change, &present)? {
            let (path, why) = (change.path.clone(), change.why.clone());
            drift.push(Drift { path, wanted: change.after.expected(), found: present.expected(), why });
        }
    }
    Ok(drift)
}

pub(super) fn satisfied(host: &dyn Host, change: &Change, present: &Present) -> Result<bool, HostError> {
    Ok(match (&change.after, present) {
        (Wanted::File { bytes, mode }, Present::File { bytes: found, attributes, .. }) => {
            bytes == found && attributes.mode == *mode
        }
        // The administrator's own link to a directory serves as well.
        (Wanted::Directory { .. }, Present::Link { .. }) => match host.metadata(&change.path) {
            Ok(metadata) => metadata.kind == Kind::Directory,
            Err(HostError::NotFound { .. } | HostError::Loop { .. }) => false,
            Err(error) => return Err(error),
        },
        (wanted, present) => present.is(&wanted.expected()),
    })
}

/// What the journal says is ours on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// An apply was killed or could not finish; another apply or a restore goes on from there.
    pub interrupted: bool,
    /// Each path that we changed.
    pub items: Vec<Item>,
}

/// One path that we changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Where.
    #[serde(with = "path_as_text")]
    pub path: PathBuf,
    /// What it is for.
    pub why: String,
    /// Our block in an administrator's file, which stays when the agent stops.
    pub splice: bool,
    /// It means nothing once the agent or the node has stopped.
    pub volatile: bool,
    /// Whether it is as we left it.
    pub state: ItemState,
}

/// What became of something that we placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemState {
    /// As we left it.
    InPlace,
    /// As it was before us.
    NotPlaced,
    /// Changed by someone else.
    Changed,
}

/// Reads the journal in `folder` without locking it: for status, also while an agent is at work.
pub fn inventory(host: &dyn Host, folder: &Path) -> Result<Inventory, ChangeError> {
    let Some(apply) = Journal::peek(host, folder)? else { return Ok(Inventory::default()) };
    let mut inventory = Inventory { interrupted: apply.manifest.progress == Progress::Started, items: Vec::new() };
    for record in apply.manifest.records {
        let present = Present::look(host, &record.path)?;
        let state = if record.expects(&present) {
            ItemState::InPlace
        } else if present.is(&record.original.expected()) {
            ItemState::NotPlaced
        } else {
            ItemState::Changed
        };
        let (splice, volatile) = (record.splice, record.volatile);
        inventory.items.push(Item { path: record.path, why: record.why, splice, volatile, state });
    }
    Ok(inventory)
}
