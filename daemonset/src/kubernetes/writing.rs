//! The NodeMirror of this node: looked at often, written seldom, and never waited for by anybody.
//!
//! Its owner is the Node, so it goes when the Node does, and nobody here deletes it. Written by server-side apply: what somebody else put there stays.

use super::mirror::Facts;
use super::often::Often;
use super::{CONNECT, Telling, Written, a_part_of};
use crate::config::NodeName;
use crate::watch_loop::words;
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource as _};
use larder_api::{NodeMirror, NodeMirrorStatus, labels};
use larder_api_server as api_server;
use larder_process::readiness::Condition;
use serde_json::json;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks, which cost nothing.
const LOOK: Duration = Duration::from_secs(1);
/// For one question to the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// For the last word, at a stop.
const LAST_WORD: Duration = Duration::from_millis(1500);

/// The task.
pub(super) struct Writing {
    node: NodeName,
    written: Written,
    telling: Telling,
    trouble: Condition,
    without_owner: Condition,
    client: Option<Client>,
    /// `None`: not asked for yet, or the API server has none.
    owner: Option<String>,
    /// The object was seen to be there, with its owner.
    is_made: bool,
    /// This node's part of whatever is spread over the nodes.
    part: f64,
}

impl Writing {
    pub(super) fn new(node: NodeName, written: Written, telling: Telling) -> Self {
        let trouble = telling.readiness.condition("node mirror");
        let without_owner = telling.readiness.condition("node mirror owner");
        let part = a_part_of(Duration::from_secs(1)).as_secs_f64();
        Self { node, written, telling, trouble, without_owner, client: None, owner: None, is_made: false, part }
    }

    /// Until `shutdown`, and its last word.
    pub(super) async fn follow(mut self, shutdown: CancellationToken) {
        let mut often = Often::new(Instant::now());
        shutdown.run_until_cancelled(self.write_seldom(&mut often)).await;
        // A word that nobody hears is not waited for.
        if let (Some(written), Some(client), true) = (often.written().cloned(), self.client.clone(), self.is_made) {
            let status = Facts { stopping: true, ..self.facts() }.mirror(&written.conditions, SystemTime::now());
            let said = tokio::time::timeout(LAST_WORD, self.apply_status(&client, &status)).await;
            tracing::debug!(said = matches!(said, Ok(Ok(()))), "the NodeMirror says that the agent stops");
        }
    }

    async fn write_seldom(&mut self, often: &mut Often) {
        loop {
            tokio::time::sleep(LOOK).await;
            let before = often.written().map(|written| written.conditions.clone()).unwrap_or_default();
            let facts = self.facts();
            if facts.status.agent.is_none() {
                // Nobody has looked at the node yet.
                continue;
            }
            let wanted = facts.mirror(&before, SystemTime::now());
            if !often.is_due(&wanted, Instant::now(), self.part) {
                continue;
            }
            often.tries(Instant::now());
            match self.write(&before).await {
                Ok(written) => {
                    often.wrote(written, Instant::now());
                    self.written.now();
                    self.telling.metrics.node_mirror_writes.inc();
                    if self.trouble.clear() {
                        tracing::info!("the NodeMirror is written again");
                    }
                    self.say_without_owner();
                }
                Err(error) => {
                    often.failed(Instant::now(), self.part);
                    let words =
                        format!("this node's NodeMirror is not written: {error:#}; it is tried again by itself");
                    if self.trouble.set(words.clone()) {
                        tracing::warn!("{words}");
                    }
                }
            }
        }
    }

    /// What is known now.
    fn facts(&self) -> Facts {
        let mut status = self.telling.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(proxy) = &mut status.proxy {
            let (health, detail) = words(&self.telling.view.borrow());
            health.clone_into(&mut proxy.health);
            (proxy.detail, proxy.announced) = (detail, self.telling.announcer.is_announced());
        }
        Facts { status, told: self.telling.readiness.told(), stopping: false }
    }

    /// Makes it what it should be; what was written.
    async fn write(&mut self, before: &[larder_api::Condition]) -> anyhow::Result<NodeMirrorStatus> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(api_server::client(CONNECT).await?).clone(),
        };
        let mut before = before.to_vec();
        if !self.is_made {
            self.owner = self.own_node(&client).await?;
            if let Some(found) = self.make(&client).await? {
                // What an agent before this one said.
                before = found.conditions;
            }
            self.is_made = true;
        }
        let status = self.facts().mirror(&before, SystemTime::now());
        let applied = self.apply_status(&client, &status).await;
        if let Err(error) = &applied
            && api_server::code(error) == Some(404)
        {
            // Somebody deleted it, or its Node went and came: it is made anew.
            self.is_made = false;
        }
        applied.map_err(|error| anyhow::anyhow!(api_server::words(&error)))?;
        Ok(status)
    }

    /// The uid of this node's Node; nothing where there is none, or where it may not be asked for.
    async fn own_node(&self, client: &Client) -> anyhow::Result<Option<String>> {
        let nodes = Api::<PartialObjectMeta<Node>>::all(client.clone());
        match api_server::answered(ANSWER, nodes.get_metadata(&self.node.0)).await {
            Ok(node) => Ok(node.metadata.uid),
            Err(error) if matches!(api_server::code(&error), Some(403 | 404)) => Ok(None),
            Err(error) => Err(anyhow::anyhow!(api_server::words(&error))).context("get this Node"),
        }
    }

    /// Makes the object, or gives it its owner; the status that it has already.
    async fn make(&self, client: &Client) -> anyhow::Result<Option<NodeMirrorStatus>> {
        let owner = self
            .owner
            .as_ref()
            .map(|uid| json!([{ "apiVersion": "v1", "kind": "Node", "name": self.node.0, "uid": uid }]));
        let mut object = json!({
            "apiVersion": NodeMirror::api_version(&()), "kind": NodeMirror::kind(&()), "metadata": { "name": self.node.0 },
        });
        if let (Some(owner), Some(metadata)) =
            (owner, object.get_mut("metadata").and_then(|metadata| metadata.as_object_mut()))
        {
            metadata.insert("ownerReferences".to_owned(), owner);
        }
        let mirrors = Api::<NodeMirror>::all(client.clone());
        let (params, patch) = (PatchParams::apply(labels::NODE).force(), Patch::Apply(&object));
        let made = api_server::answered(ANSWER, mirrors.patch(&self.node.0, &params, &patch)).await;
        Ok(made.map_err(|error| anyhow::anyhow!(api_server::words(&error)))?.status)
    }

    async fn apply_status(&self, client: &Client, status: &NodeMirrorStatus) -> kube::Result<()> {
        let object =
            json!({ "apiVersion": NodeMirror::api_version(&()), "kind": NodeMirror::kind(&()), "status": status });
        let mirrors = Api::<NodeMirror>::all(client.clone());
        let (params, patch) = (PatchParams::apply(labels::NODE).force(), Patch::Apply(&object));
        api_server::answered(ANSWER, mirrors.patch_status(&self.node.0, &params, &patch)).await.map(drop)
    }

    fn say_without_owner(&self) {
        if self.owner.is_some() {
            self.without_owner.clear();
        } else {
            self.without_owner.set(format!(
                "the Node {} is not there or may not be read, so its NodeMirror does not go with it: is --node-name right, and is the ClusterRole that of \
                 docs/node-rights.yaml?",
                self.node.0
            ));
        }
    }
}
