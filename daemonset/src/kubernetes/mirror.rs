//! What the NodeMirror says, from what the agent knows. Pure.
//!
//! Invariant: `Configured` is `True` only while the engine was seen to ask the proxy and is told to still. All texts have the bounds of the definition, whatever
//! the node, its engine or its administrator wrote.

use super::seconds;
use crate::status::Status;
use larder_api::condition::set;
use larder_api::node_mirror::{
    Configured, Conflict, Engine, LeftAlone, MOST_ENTRIES, MOST_TO_DO, Placed, Proxy, Withdrawn,
};
use larder_api::{Condition, NodeMirrorStatus, Time, at};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is known of the node.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// As the watch loop told it last; the proxy as it is now.
    pub(super) status: Status,
    /// What is wrong, by the names that `/readyz` has.
    pub(super) told: BTreeMap<&'static str, String>,
    /// The agent is about to end.
    pub(super) stopping: bool,
}

/// Ours to say elsewhere, or said by a condition of the object.
const SAID_ELSEWHERE: [&str; 7] = ["proxy", "configured", "engine", "changes", "conflict", "api server", "node mirror"];

impl Facts {
    fn told(&self, name: &str) -> Option<&str> {
        self.told.get(name).map(String::as_str)
    }

    fn is_announced(&self) -> bool {
        self.status.proxy.as_ref().is_some_and(|proxy| proxy.announced) && !self.stopping
    }

    /// The status, with the times of `before` for what is as it was.
    pub(super) fn mirror(&self, before: &[Condition], now: SystemTime) -> NodeMirrorStatus {
        let Status { agent, engine, proxy, placed, left_alone, .. } = &self.status;
        let now = at(now);
        let mut conditions = before.to_vec();
        // Those of another version are not carried along.
        conditions.retain(|known| ["Configured", "Withdrawn", "Conflict"].contains(&known.type_.as_str()));
        let (reason, message) = self.configured();
        set(&mut conditions, reason, &message, None, &now);
        let (reason, message) = self.withdrawn();
        set(&mut conditions, reason, &message, None, &now);
        let (reason, message) = self.conflict();
        set(&mut conditions, reason, &message, None, &now);
        NodeMirrorStatus {
            engine: engine.as_ref().map(|engine| Engine {
                name: bounded(&engine.name, 64),
                version: bounded(&engine.version, 128),
                socket: Some(bounded_path(&engine.socket)),
            }),
            agent_version: agent.as_ref().map(|agent| bounded(&agent.version, 64)),
            proxy: proxy.as_ref().map(|proxy| Proxy {
                health: bounded(&proxy.health, 64),
                address: bounded(&proxy.address, 64),
                detail: proxy.detail.as_ref().map(|detail| bounded(detail, 1024)),
            }),
            seen_at: Some(now),
            proved_at: placed.iter().filter_map(|placed| placed.confirmed_at).max().map(moment),
            placed: placed
                .iter()
                .take(MOST_ENTRIES)
                .map(|placed| Placed {
                    registry: placed.registry.as_ref().map(|registry| bounded(registry, 261)),
                    kind: bounded(&placed.kind, 64),
                    path: bounded_path(&placed.path),
                    proved_at: placed.confirmed_at.map(moment),
                    not_seen: placed.not_seen.as_ref().map(|reason| bounded(reason, 512)),
                })
                .collect(),
            placed_count: count(placed.len()),
            left_alone: left_alone
                .iter()
                .take(MOST_ENTRIES)
                .map(|left| LeftAlone {
                    registry: left.registry.as_ref().map(|registry| bounded(registry, 261)),
                    path: bounded_path(&left.path),
                    reason: bounded(&left.reason, 512),
                })
                .collect(),
            left_alone_count: count(left_alone.len()),
            to_do: self.to_do(),
            conditions,
        }
    }

    fn configured(&self) -> (Configured, String) {
        let Some(engine) = &self.status.engine else {
            let looked = self.told("engine").unwrap_or("none was found yet");
            return (Configured::NoEngine, looked.to_owned());
        };
        let engine = format!("{} {}", engine.name, engine.version);
        if let Some(changes) = self.told("changes") {
            return (Configured::CannotWrite, changes.to_owned());
        }
        if matches!(self.status.verdict.as_str(), "needs-config-toml" | "cannot") {
            let advice = self.told("engine restart").unwrap_or(&self.status.reason);
            return (Configured::NeedsConfiguration, advice.to_owned());
        }
        if !self.is_announced() {
            return (Configured::Withdrawn, format!("{engine} is not told to ask Larder at the moment: see Withdrawn"));
        }
        if let Some(missing) = self.told("configured") {
            let was_tried = self.status.placed.iter().any(|placed| placed.not_seen.is_some());
            let reason = if was_tried { Configured::NotSeen } else { Configured::NotProved };
            return (reason, missing.to_owned());
        }
        match self.told("single registries") {
            Some(some) => (Configured::ProvedButSome, some.to_owned()),
            None => (Configured::Proved, format!("{engine} was seen to ask Larder")),
        }
    }

    fn withdrawn(&self) -> (Withdrawn, String) {
        if self.stopping {
            return (Withdrawn::Stopping, "the agent stops; the node is left as it was found".to_owned());
        }
        let (health, detail) = match &self.status.proxy {
            Some(proxy) => (proxy.health.as_str(), proxy.detail.clone()),
            None => ("starting", None),
        };
        if self.is_announced() {
            return (Withdrawn::Announced, "the engine is told to ask Larder".to_owned());
        }
        let (reason, words) = match health {
            "starting" => (Withdrawn::ProxyStarting, "the proxy is starting"),
            "dead" => (Withdrawn::ProxyDead, "the proxy is dead, and is started again"),
            "hung" | "held-off" | "stalled" => (Withdrawn::ProxyHung, "the proxy hangs, or did a moment ago"),
            "stranger" => (Withdrawn::Stranger, "somebody else has the proxy's address"),
            "stopping" => (Withdrawn::Stopping, "the proxy is stopping"),
            _ => (Withdrawn::NothingPlaced, "nothing is placed on the node; Configured says why"),
        };
        (reason, detail.map_or_else(|| words.to_owned(), |detail| format!("{words}: {detail}")))
    }

    fn conflict(&self) -> (Conflict, String) {
        if let Some(conflict) = self.told("conflict") {
            let reason = if conflict.contains("keeps changing") {
                Conflict::OtherWriter
            } else if conflict.contains("changed by someone else") {
                Conflict::ForeignEdit
            } else {
                Conflict::Occupied
            };
            return (reason, conflict.to_owned());
        }
        match self.status.conditions.iter().find(|condition| condition.starts_with("ForeignEdit: ")) {
            Some(edited) => (Conflict::ForeignEdit, edited.clone()),
            None => (Conflict::Nobody, "nobody else writes what Larder writes".to_owned()),
        }
    }

    /// What keeps the node from its work first, then what somebody should look at, then what is good to know.
    fn to_do(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut add = |text: &str| {
            if !text.is_empty() && !all.iter().any(|known| known == text) {
                all.push(bounded(text, 1024));
            }
        };
        let (configured, words) = self.configured();
        match configured {
            Configured::NoEngine | Configured::CannotWrite | Configured::NeedsConfiguration | Configured::NotSeen => {
                add(&words);
            }
            Configured::Proved | Configured::ProvedButSome | Configured::NotProved | Configured::Withdrawn => {}
        }
        let (withdrawn, words) = self.withdrawn();
        if withdrawn == Withdrawn::Stranger {
            add(&words);
        }
        let (conflict, words) = self.conflict();
        if conflict != Conflict::Nobody {
            add(&words);
        }
        for (name, text) in self.told.iter().filter(|(name, _)| !SAID_ELSEWHERE.contains(*name)) {
            add(&format!("{name}: {text}"));
        }
        // What is wrong is in the status as /readyz has it, and was said above.
        let ours = ["waiting: ", "not ready: ", "degraded: "];
        for condition in self.status.conditions.iter().filter(|text| !ours.iter().any(|word| text.starts_with(word))) {
            add(condition);
        }
        all.truncate(MOST_TO_DO);
        all
    }
}

fn moment(seconds: u64) -> Time {
    at(UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|at| seconds_fit(*at)).unwrap_or(UNIX_EPOCH))
}

/// Within what the API server can write.
fn seconds_fit(time: SystemTime) -> bool {
    seconds(time) < 253_402_300_800
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn bounded(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn bounded_path(path: &Path) -> String {
    bounded(&path.display().to_string(), 512)
}

#[cfg(test)]
mod tests;
