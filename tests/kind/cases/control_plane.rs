//! The API server and the cluster's DNS may be away; pulls go through Larder all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::{Cluster, Release, at_once};
use larder_test_node::wait::until;
use serde_json::json;

use crate::Case;
use crate::images::{Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("control_plane::pulls_go_on_without_the_api_server", without_the_api_server).installed().alone(),
    Case::new("control_plane::pulls_go_on_without_the_clusters_dns", without_dns).installed().alone(),
];

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const ASIDE: &str = "/etc/kubernetes/kube-apiserver.yaml";

fn without_the_api_server(cluster: &Cluster) -> Result<()> {
    let (image, removed) = (Image::push(cluster, "no-api")?, Image::push(cluster, "no-api-removed")?);
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "no-api")?;
    let agents = cluster.on_each_worker(|worker| {
        let pod = Pod::create(&namespace, worker.name(), worker, &removed.reference, "Always")?;
        pod.wait_until_running()?;
        pod.delete()?;
        cluster.remove_image(worker, &removed.reference)?;
        // Kubelet makes a container wait that ended before; this is about the first time.
        release.replace_pod(worker)?;
        Ok((worker, release.agent(worker)?))
    })?;
    let control_plane = cluster.nodes().first().expect("it is the first");
    cluster.node_exec(control_plane, &["mv", MANIFEST, ASIDE])?;
    let pulled = at_once(agents, |(worker, agent)| {
        until("the API server is gone", Duration::from_mins(1), || {
            let said = cluster.node_exec(control_plane, &["sh", "-c", "pgrep -x kube-apiserver || true"])?;
            ensure!(said.is_empty(), "it still runs");
            Ok(())
        })?;
        runs_from_a_file(cluster, worker, "through", &image)?;
        // Whoever kills an agent meanwhile has another one soon, by kubelet's own means and an image that is there.
        release.signal(worker, agent, "KILL")?;
        until("the agent is gone", Duration::from_secs(10), || {
            ensure!(!release.lives(worker, agent)?, "it still lives");
            Ok(())
        })?;
        release.wait_until_ready(worker)
    });
    let outage = pulled.and_then(|_| {
        removed.registry.stop()?;
        let came_back = cluster.on_each_worker(|worker| runs_from_a_file(cluster, worker, "removed", &removed));
        removed.registry.restart()?;
        came_back
    });
    cluster.node_exec(control_plane, &["mv", ASIDE, MANIFEST])?;
    until("the API server is back", Duration::from_mins(2), || {
        cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout", "5s"])
    })?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"])?;
    release.wait()?;
    outage?;
    only_larder_asked(&image.requests()?)
}

/// Kubelet runs what lies in a folder of its node without any API server; the Pod ends with its file.
fn runs_from_a_file(cluster: &Cluster, node: &Node, name: &str, image: &Image<'_>) -> Result<()> {
    let path = cluster.files(node)?.join(format!("etc/kubernetes/manifests/{name}.json"));
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image.reference, "imagePullPolicy": "Always"}],
        },
    });
    std::fs::write(&path, manifest.to_string())?;
    let running = until(&format!("{} runs it", node.name()), Duration::from_secs(90), || {
        cluster.must_run(node, &image.reference)
    });
    std::fs::remove_file(&path)?;
    running
}

fn without_dns(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "no-dns")?;
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "no-dns")?;
    let scale = |replicas: &str| {
        let scale = ["scale", "deployment/coredns", "--namespace", "kube-system", replicas];
        cluster.kubectl(&scale)?;
        let status = ["rollout", "status", "deployment/coredns", "--namespace", "kube-system", "--timeout=120s"];
        cluster.kubectl(&status)
    };
    scale("--replicas=0")?;
    let pulled = cluster.on_each_worker(|worker| {
        // A new Pod of Larder, too, for it must not need a name of the cluster to begin.
        release.replace_pod(worker)?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()
    });
    scale("--replicas=2")?;
    pulled?;
    only_larder_asked(&image.requests()?)
}
