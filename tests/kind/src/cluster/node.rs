//! Nodes: which there are, what is on them, and how one is taken away for a while.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_cri::Cri;
use larder_test_node::tree::Tree;
use larder_test_node::wait::until;
use serde_json::Value;

use super::Cluster;
use crate::at_once::at_once;
use crate::engine::Engine;

/// A node, which is a container of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    name: String,
    engine: Engine,
    worker: bool,
}

impl Node {
    pub(super) fn new(name: String, engine: Engine, worker: bool) -> Self {
        Self { name, engine, worker }
    }

    /// Its name in Kubernetes and in Docker.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }
}

impl Cluster {
    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes that run Pods of cases, each with an engine of its own.
    pub fn workers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.worker)
    }

    /// Does the same on every worker [at once](at_once), for it may take some time on each.
    pub fn on_each_worker<'a, T: Send>(&'a self, work: impl Fn(&'a Node) -> Result<T> + Sync) -> Result<Vec<T>> {
        at_once(self.workers(), |worker| {
            work(worker).with_context(|| format!("on {} with {}", worker.name, worker.engine))
        })
    }

    /// The node's files, as the machine sees them.
    pub fn files(&self, node: &Node) -> Result<PathBuf> {
        self.docker.root_of(&node.name)
    }

    /// Everything in the node's `/etc`, where the engines' configuration is too.
    pub fn snapshot(&self, node: &Node) -> Result<Tree> {
        Tree::read(&self.docker.root_of(&node.name)?.join("etc"))
    }

    /// Takes an image from the node's engine, with every blob that nothing else needs, as kubelet does.
    pub fn remove_image(&self, node: &Node, reference: &str) -> Result<()> {
        // A container that has ended holds it until kubelet clears away what is left of Pods, once a minute.
        until(&format!("{reference} is gone"), Duration::from_secs(90), || {
            self.ask(node, async |engine| {
                // By a reference, CRI-O takes away no more than that.
                if let Some(image) = engine.image(reference).await? {
                    engine.remove_image(&image.id).await?;
                }
                ensure!(!engine.image_present(reference).await?, "it is still there");
                Ok(())
            })
        })
    }

    /// Fails unless a container of a node runs this image. Engines say by its reference, its digest or its id which one that is.
    pub fn must_run(&self, node: &Node, reference: &str) -> Result<()> {
        self.ask(node, async |engine| {
            let image = engine.image(reference).await?.with_context(|| format!("the engine has no {reference}"))?;
            let is_it = |name: &String| *name == reference || *name == image.id || image.digests.contains(name);
            let containers = engine.list_containers().await?;
            ensure!(containers.iter().any(|container| is_it(&container.image)), "none runs it: {containers:?}");
            Ok(())
        })
    }

    /// Asks a node's engine as its kubelet does.
    fn ask<T>(&self, node: &Node, question: impl AsyncFnOnce(Cri) -> Result<T>) -> Result<T> {
        let socket = self.files(node)?.join(node.engine.socket().trim_start_matches('/'));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { question(Cri::connect(&socket)?).await })
    }

    /// Turns a node off, as a power cut with a second of grace.
    pub fn stop_node(&self, node: &Node) -> Result<()> {
        self.docker.run(&["stop", "--time", "1", &node.name]).map(drop)
    }

    /// Turns it on again, and waits until kubelet has said so and its Pods are connected.
    pub fn start_node(&self, node: &Node) -> Result<()> {
        self.turn_on(node)?;
        self.reconnect(&[node])
    }

    /// Turns every worker off.
    pub fn stop_workers(&self) -> Result<()> {
        self.on_each_worker(|worker| self.stop_node(worker)).map(drop)
    }

    /// Turns every worker on again, as [`Self::start_node`] does one.
    pub fn start_workers(&self) -> Result<()> {
        self.on_each_worker(|worker| self.turn_on(worker))?;
        self.reconnect(&self.workers().collect::<Vec<_>>())
    }

    fn turn_on(&self, node: &Node) -> Result<()> {
        let before = self.heartbeat(node)?;
        self.docker.run(&["start", &node.name])?;
        // What a node that is off last said of itself is still there: the first new word counts.
        until(&format!("{} reports again", node.name), Duration::from_mins(2), || {
            ensure!(self.heartbeat(node)? != before, "kubelet has said nothing yet");
            Ok(())
        })
    }

    /// A container that starts has another address, maybe, and no routes.
    fn reconnect(&self, nodes: &[&Node]) -> Result<()> {
        self.connect_pods()?;
        let names: Vec<_> = nodes.iter().map(|node| format!("node/{}", node.name)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.kubectl(&[&["wait", "--for=condition=Ready", "--timeout=120s"], &names[..]].concat())?;
        Ok(())
    }

    /// Lets Kubernetes forget a node that is off; kubelet introduces it anew when it is on again, as on a machine that is added.
    pub fn join_anew(&self, node: &Node) -> Result<()> {
        self.stop_node(node)?;
        self.kubectl(&["delete", "node", &node.name, "--timeout=60s"])?;
        // Kubernetes does it a minute later by itself; a node that comes back before keeps its Pods.
        let of_node = format!("--field-selector=spec.nodeName={}", node.name);
        self.kubectl(&[
            "delete",
            "pods",
            "--all-namespaces",
            &of_node,
            "--force",
            "--grace-period=0",
            "--timeout=60s",
        ])?;
        self.docker.run(&["start", &node.name])?;
        until(&format!("{} is introduced", node.name), Duration::from_mins(2), || {
            let object = self.get(&["node", &node.name])?;
            ensure!(object.pointer("/spec/podCIDR").is_some(), "it has no addresses for Pods yet");
            Ok(())
        })?;
        self.reconnect(&[node])
    }

    fn heartbeat(&self, node: &Node) -> Result<String> {
        let object = self.get(&["node", &node.name])?;
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let ready = conditions.into_iter().find(|condition| condition.get("type") == Some(&Value::from("Ready")));
        let heartbeat = ready.and_then(|condition| condition.get("lastHeartbeatTime")?.as_str());
        Ok(heartbeat.with_context(|| format!("{} says nothing of itself", node.name))?.to_owned())
    }
}
