//! Larder with other values than everybody's: another store, other ports, a pool that differs, an engine that is restarted, and registries
//! that change under running agents.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::requests::Request;
use larder_test_kind::{Cluster, Release, at_once};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::Case;
use crate::images::{Image, only_engines_asked, only_larder_asked};
use crate::removal::{nothing_is_left, snapshots};

pub(crate) const CASES: &[Case] = &[
    Case::new("values::another_store_other_ports_and_a_pool_that_differs", all_other).bare().alone(),
    Case::new("values::an_engine_that_reads_no_folder_is_restarted_and_asks", an_engine_that_is_restarted)
        .bare()
        .alone()
        .of_containerd(),
];

pub(crate) const INSTALLED: &[Case] = &[Case::new(
    "values::a_registry_that_is_skipped_is_left_to_the_engine_without_a_restart",
    skipped_without_a_restart,
)
.installed()
.alone()];

/// Where the engines are sent here.
const PORT: u16 = 17439;

fn all_other(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push(cluster, "other-values")?;
    let namespace = Namespace::create(cluster, "other-values")?;
    let before = snapshots(cluster)?;
    let pooled = cluster.workers().next().context("there is no worker")?;
    let ports = json!({
        "mirror": PORT, "proxyAdmin": 17440, "agentAdmin": 17441, "proxyMetrics": 17442, "agentMetrics": 17444,
    });
    let pool = json!({
        "name": "other",
        "nodeLabel": {"key": "kubernetes.io/hostname", "values": [pooled.name()]},
        "logFormat": "json",
        "store": {"size": "1GiB"},
    });
    release.install(&json!({
        "store": {"type": "emptyDir", "size": "2GiB", "reserve": "0"},
        "ports": ports,
        "pools": [pool],
    }))?;
    let status = ["rollout", "status", "daemonset/larder-node-other", "--namespace", NAMESPACE, "--timeout=150s"];
    cluster.kubectl(&status)?;
    for node in cluster.nodes() {
        let entry = cluster.node_exec(node, &["cat", node.engine().entry()])?;
        ensure!(entry.contains(&format!("127.0.0.1:{PORT}")), "{} is sent elsewhere: {entry}", node.name());
        let (size, format) = if node == pooled { ("1GiB", "json") } else { ("2GiB", "text") };
        let arguments = proxy_arguments(cluster, &release, node)?;
        for wanted in [format!("--store-size={size}"), format!("--log-format={format}")] {
            ensure!(arguments.contains(&wanted), "the proxy of {} has no {wanted}: {arguments}", node.name());
        }
    }
    cluster.on_each_worker(|worker| {
        let first = Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?;
        first.wait_until_running()?;
        first.delete()?;
        cluster.remove_image(worker, &image.reference)
    })?;
    only_larder_asked(&image.requests()?)?;
    image.registry.stop()?;
    let came_back = cluster.on_each_worker(|worker| {
        let name = format!("{}-back", worker.name());
        Pod::create(&namespace, &name, worker, &image.reference, "Always")?.wait_until_running()
    });
    image.registry.restart()?;
    came_back?;
    release.uninstall()?;
    nothing_is_left(cluster, &before)
}

/// The words of the proxy's container, as the API server has them.
fn proxy_arguments(cluster: &Cluster, release: &Release<'_>, node: &Node) -> Result<String> {
    let pod = cluster.get(&["pod", &release.pod(node)?, "--namespace", NAMESPACE])?;
    let arguments = pod.pointer("/spec/initContainers").context("a Pod of Larder without a proxy")?;
    Ok(arguments.to_string())
}

/// The agents read the registries that they are given anew, and so do the proxies.
fn skipped_without_a_restart(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let (skipped, again) = (Image::push(cluster, "skipped")?, Image::push(cluster, "skipped-no-more")?);
    let namespace = Namespace::create(cluster, "skipped")?;
    let agents = cluster.on_each_worker(|worker| Ok((worker, release.agent(worker)?, release.proxy(worker)?)))?;
    let mut registries = release.values()?;
    let registries = registries.get_mut("registries").context("there are values about registries")?;
    let before = registries.clone();
    if let Some(origin) = registries.get_mut(ORIGIN).and_then(Value::as_object_mut) {
        origin.insert("skip".to_owned(), Value::Bool(true));
    }
    release.upgrade(&json!({"registries": registries}))?;
    let skips = cluster.on_each_worker(|worker| {
        until("the engine is left to itself", Duration::from_mins(3), || {
            release.look_after_pods()?;
            let said = answer(cluster, worker, &skipped)?;
            ensure!(said != "200", "the proxy of {} still serves it", worker.name());
            Ok(())
        })?;
        Pod::create(&namespace, worker.name(), worker, &skipped.reference, "Always")?.wait_until_running()
    });
    release.upgrade(&json!({"registries": before}))?;
    skips?;
    let direct: Vec<_> = skipped.requests()?.into_iter().filter(Request::is_for_a_blob).collect();
    only_engines_asked(&direct)?;
    at_once(agents, |(worker, agent, proxy)| {
        until("it is served again", Duration::from_mins(3), || {
            release.look_after_pods()?;
            let said = answer(cluster, worker, &again)?;
            ensure!(said == "200", "the proxy of {} answers {said}", worker.name());
            Ok(())
        })?;
        // CRI-O has to be told, and proved.
        release.wait_until_ready(worker)?;
        until("the engine has its entry", Duration::from_mins(1), || {
            let status = release.status(worker)?.to_string();
            ensure!(release.has_entry(worker)?, "there is none: {status}");
            Ok(())
        })?;
        ensure!(release.agent(worker)? == agent, "the agent of {} was restarted", worker.name());
        ensure!(release.proxy(worker)? == proxy, "the proxy of {} was restarted", worker.name());
        Ok(())
    })
    .map(drop)
}

/// The status that a node's proxy answers to its engine's question for an image.
pub(crate) fn answer(cluster: &Cluster, node: &Node, image: &Image<'_>) -> Result<String> {
    let url = format!("http://127.0.0.1:7439/v2/{}/manifests/1?ns={ORIGIN}", image.repository);
    let ask = ["curl", "--silent", "--max-time", "5", "--output", "/dev/null", "--write-out", "%{http_code}"];
    cluster.node_exec(node, &[&ask[..], &[url.as_str()]].concat())
}

/// containerd without `config_path` asks no mirror; where it is allowed the configuration is edited, and the engine restarted.
fn an_engine_that_is_restarted(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push(cluster, "engine-edited")?;
    let namespace = Namespace::create(cluster, "engine-edited")?;
    // The last line with the form of configuration in which no folder is the default.
    let node = cluster.workers().filter(|worker| worker.engine().service() == "containerd").last();
    let node = node.context("there is no worker with containerd")?;
    let path = cluster.files(node)?.join("etc/containerd/config.toml");
    let theirs = fs::read_to_string(&path)?;
    let kept: Vec<_> = theirs.lines().filter(|line| !line.contains("config_path")).collect();
    let without = kept.join("\n") + "\n";
    ensure!(without != theirs, "the configuration of {} names no folder of registries", node.name());
    fs::write(&path, &without)?;
    let restart = || cluster.node_exec(node, &["systemctl", "restart", "containerd"]);
    restart()?;
    let asked = edited(cluster, &release, &namespace, node, &image);
    let uninstalled = release.uninstall();
    fs::write(&path, &theirs)?;
    restart()?;
    asked?;
    uninstalled?;
    only_larder_asked(&image.requests()?)
}

fn edited(
    cluster: &Cluster,
    release: &Release<'_>,
    namespace: &Namespace<'_>,
    node: &Node,
    image: &Image<'_>,
) -> Result<()> {
    let pid = || cluster.node_exec(node, &["systemctl", "show", "--property", "MainPID", "--value", "containerd"]);
    let before = pid()?;
    let pool = json!({
        "name": "edited",
        "nodeLabel": {"key": "kubernetes.io/hostname", "values": [node.name()]},
        "agent": {"engineRestart": {"allow": true}},
    });
    release.install(&json!({"pools": [pool]}))?;
    let status = ["rollout", "status", "daemonset/larder-node-edited", "--namespace", NAMESPACE, "--timeout=150s"];
    cluster.kubectl(&status)?;
    let after = pid()?;
    ensure!(after != before, "containerd of {} was not restarted", node.name());
    // It is a service of its node, not a process of our Pod.
    let group = cluster.node_exec(node, &["cat", &format!("/proc/{}/cgroup", after.trim())])?;
    ensure!(group.contains("containerd.service"), "containerd runs in {group}");
    Pod::create(namespace, node.name(), node, &image.reference, "Always")?.wait_until_running()
}
