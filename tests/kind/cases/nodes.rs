//! The nodes are what the cases take them for; and a node, a kubelet and an engine that were restarted pull through Larder again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;

use crate::Case;
use crate::images::{Image, only_larder_asked};

pub(crate) const BARE: &[Case] = &[
    Case::new("nodes::run_the_engines_of_their_lines", run_the_engines_of_their_lines),
    Case::new("nodes::a_snapshot_sees_what_changes", a_snapshot_sees_what_changes).bare().alone(),
];

pub(crate) const INSTALLED: &[Case] = &[
    Case::new("nodes::pull_through_larder_after_a_restart", pull_through_larder_after_a_restart).installed().alone(),
    Case::new("nodes::pull_through_larder_after_a_restart_of_kubelet", after_a_restart_of_kubelet).installed().alone(),
    Case::new("nodes::pull_through_larder_after_a_restart_of_its_engine", after_a_restart_of_its_engine)
        .installed()
        .alone(),
];

fn run_the_engines_of_their_lines(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let object = cluster.get(&["node", node.name()])?;
        let engine = object.pointer("/status/nodeInfo/containerRuntimeVersion").and_then(|version| version.as_str());
        let engine = engine.context("a node without an engine")?;
        let engine = engine.replace("://v", "://");
        ensure!(engine.starts_with(&node.engine().reported()), "{} runs {engine}", node.name());
    }
    Ok(())
}

fn a_snapshot_sees_what_changes(cluster: &Cluster) -> Result<()> {
    cluster.on_each_worker(|worker| {
        let seen = format!("/{}/seen.example.com", worker.engine().configuration());
        let before = cluster.snapshot(worker)?;
        cluster.node_exec(worker, &["mkdir", &seen])?;
        let difference = cluster.snapshot(worker)?.must_equal(&before);
        cluster.node_exec(worker, &["rmdir", &seen])?;
        let difference = format!("{:#}", difference.err().context("no difference was seen")?);
        ensure!(difference.contains("seen.example.com"), "{difference}");
        Ok(())
    })?;
    Ok(())
}

fn pull_through_larder_after_a_restart(cluster: &Cluster) -> Result<()> {
    let (image, release) = (Image::push(cluster, "node-restart")?, Release::of(cluster));
    let namespace = Namespace::create(cluster, "node-restart")?;
    cluster.stop_workers()?;
    cluster.start_workers()?;
    cluster.on_each_worker(|worker| {
        release.wait_until_ready(worker)?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()
    })?;
    only_larder_asked(&image.requests()?)
}

fn after_a_restart_of_kubelet(cluster: &Cluster) -> Result<()> {
    let (image, release) = (Image::push(cluster, "kubelet-restart")?, Release::of(cluster));
    let namespace = Namespace::create(cluster, "kubelet-restart")?;
    cluster.on_each_worker(|worker| {
        let agent = release.agent(worker)?;
        cluster.node_exec(worker, &["systemctl", "restart", "kubelet"])?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        ensure!(release.lives(worker, agent)?, "the agent of {} did not outlive a restart of kubelet", worker.name());
        Ok(())
    })?;
    only_larder_asked(&image.requests()?)
}

fn after_a_restart_of_its_engine(cluster: &Cluster) -> Result<()> {
    let (meanwhile, image) = (Image::push(cluster, "engine-restarts")?, Image::push(cluster, "engine-restarted")?);
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "engine-restart")?;
    cluster.on_each_worker(|worker| {
        let before = engine(&release, worker)?;
        cluster.node_exec(worker, &["systemctl", "restart", worker.engine().service()])?;
        // Kubelet may take it for a reason to make every Pod of the node's network anew, ours and its own: a pull goes on all the while.
        let pod = format!("{}-meanwhile", worker.name());
        Pod::create(&namespace, &pod, worker, &meanwhile.reference, "Always")?.wait_until_running()?;
        until("the agent has found the engine again", Duration::from_mins(1), || {
            ensure!(engine(&release, worker)? != before, "it still speaks of the process before");
            Ok(())
        })?;
        release.wait()?;
        release.wait_until_ready(worker)?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        Ok(())
    })?;
    only_larder_asked(&image.requests()?)
}

/// The engine's process, as the agent sees it.
fn engine(release: &Release<'_>, node: &Node) -> Result<u64> {
    let status = release.status(node)?;
    status.pointer("/engine/pid").and_then(serde_json::Value::as_u64).context("the agent knows no engine")
}
