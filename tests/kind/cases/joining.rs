//! A node that joins is served like the others, and Larder's own image needs no registry where a node has it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::release::{self, NAMESPACE};
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::Case;
use crate::images::{Image, only_engines_asked, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("joining::a_node_that_joins_pulls_through_larder", a_node_that_joins).installed().alone(),
    Case::new("joining::a_pod_of_larder_is_replaced_while_its_own_registry_is_away", replaced).installed().alone(),
];

pub(crate) const BARE: &[Case] =
    &[Case::new("joining::nodes_without_larders_image_pull_directly_while_its_registry_is_away", without_our_image)
        .bare()
        .alone()];

/// Kubernetes forgets a node, and kubelet introduces it anew, as it does on a machine that is added.
fn a_node_that_joins(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "joining")?;
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "joining")?;
    let node = cluster.workers().last().context("there is no worker")?;
    let before = release.pod(node)?;
    cluster.join_anew(node)?;
    release.wait()?;
    release.wait_until_ready(node)?;
    ensure!(release.pod(node)? != before, "the Pod of {} is from before", node.name());
    Pod::create(&namespace, node.name(), node, &image.reference, "Always")?.wait_until_running()?;
    only_larder_asked(&image.requests()?)
}

/// The registry that the image's name says does not exist at all.
fn replaced(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "replaced")?;
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "replaced")?;
    cluster.on_each_worker(|worker| {
        let name = cluster.node_exec(worker, &["sh", "-c", "getent hosts registry.example || true"])?;
        ensure!(name.is_empty(), "the registry of our own image is there: {name}");
        release.replace_pod(worker)?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        Ok(())
    })?;
    only_larder_asked(&image.requests()?)
}

/// As a machine that is added on the day on which our own registry is away, too: it has no Larder, and is none the worse for it.
fn without_our_image(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "without-larder")?;
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "without-larder")?;
    let removed = cluster.on_each_worker(|worker| cluster.remove_image(worker, release::IMAGE));
    let installed = removed.and_then(|_| release.install_only(&json!({})));
    let direct = installed.and_then(|()| {
        cluster.on_each_worker(|worker| {
            until("Larder's Pod has no image", Duration::from_secs(90), || {
                let pod = cluster.get(&["pod", &release.pod(worker)?, "--namespace", NAMESPACE])?;
                let reason =
                    pod.pointer("/status/initContainerStatuses/0/state/waiting/reason").and_then(Value::as_str);
                ensure!(matches!(reason, Some("ErrImagePull" | "ImagePullBackOff")), "it waits for {reason:?}");
                Ok(())
            })?;
            Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()
        })
    });
    // Whatever came of it: those who follow need the image.
    release.load_image()?;
    direct?;
    let requests = image.requests()?;
    only_engines_asked(&requests)?;
    // Kubelet would look again in minutes; other Pods have the image at once.
    release.delete_pods()?;
    release.wait()?;
    release.uninstall()
}
