//! An upgrade and a rollback replace every Pod of Larder, and no other Pod notices.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::Namespace;
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Release};
use serde_json::{Value, json};

use crate::Case;
use crate::images::Image;

pub(crate) const CASES: &[Case] =
    &[Case::new("revisions::an_upgrade_and_a_rollback_while_fifty_pods_start", fifty_pods).installed().alone()];

/// So many Pods, spread over the workers, with images that no node has: while it is upgraded, and while that is taken back.
const PODS: (usize, usize) = (50, 20);
const IMAGES: usize = 5;

fn fifty_pods(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let format = || -> Result<bool> {
        let set = cluster.get(&["daemonset", "larder-node", "--namespace", NAMESPACE])?;
        Ok(set.to_string().contains("--log-format=json"))
    };
    ensure!(!format()?, "the upgrade would change nothing");
    let images = (0..IMAGES).map(|number| Image::push(cluster, &format!("upgrade-{number}")));
    let images = images.collect::<Result<Vec<_>>>()?;
    let namespace = Namespace::create(cluster, "upgrade")?;
    let all = create_pods(cluster, &namespace, "upgrade", &images, PODS.0)?;
    let began = now(cluster)?;
    release.upgrade(&json!({"logFormat": "json"}))?;
    release.wait()?;
    let window = began..=now(cluster)?;
    ensure!(format()?, "the upgrade changed nothing");
    wait_for(cluster, &namespace, &all)?;
    let during = started(cluster, &namespace)?.into_iter().filter(|at| window.contains(at)).count();
    ensure!(during >= PODS.0 / 2, "only {during} Pods started while Larder was replaced, {window:?}");
    delete(cluster, &namespace, &all)?;

    // The tags move, so that there is something to pull again.
    for image in &images {
        image.put(cluster, &format!("{}, for the rollback", image.repository))?;
    }
    let all = create_pods(cluster, &namespace, "rollback", &images, PODS.1)?;
    release.roll_back()?;
    release.wait()?;
    ensure!(!format()?, "the rollback changed nothing");
    wait_for(cluster, &namespace, &all)?;
    delete(cluster, &namespace, &all)?;
    for node in cluster.nodes() {
        ensure!(release.has_entry(node)?, "{} has no entry after the rollback", node.name());
    }
    Ok(())
}

/// As Kubernetes writes times, which sort as text.
pub(crate) fn now(cluster: &Cluster) -> Result<String> {
    let node = cluster.nodes().first().context("there is no node")?;
    let said = cluster.node_exec(node, &["date", "--utc", "+%Y-%m-%dT%H:%M:%SZ"])?;
    Ok(said.trim().to_owned())
}

/// When the container of each Pod was started.
pub(crate) fn started(cluster: &Cluster, namespace: &Namespace<'_>) -> Result<Vec<String>> {
    let pods = cluster.get(&["pods", "--namespace", namespace.name()])?;
    let pods = pods.pointer("/items").and_then(Value::as_array).context("there are no Pods")?;
    let at =
        |pod: &Value| Some(pod.pointer("/status/containerStatuses/0/state/running/startedAt")?.as_str()?.to_owned());
    Ok(pods.iter().filter_map(at).collect())
}

pub(crate) fn create_pods(
    cluster: &Cluster,
    namespace: &Namespace<'_>,
    name: &str,
    images: &[Image<'_>],
    count: usize,
) -> Result<Vec<String>> {
    let nodes: Vec<_> = cluster.workers().collect();
    let (mut manifests, mut names) = (String::new(), Vec::new());
    for (number, (node, image)) in nodes.iter().cycle().zip(images.iter().cycle()).take(count).enumerate() {
        let name = format!("{name}-{number}");
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node.name(),
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": image.reference, "imagePullPolicy": "Always"}],
            },
        });
        writeln!(manifests, "---\n{manifest}")?;
        names.push(format!("pod/{name}"));
    }
    let create = ["create", "--namespace", namespace.name(), "--filename", "-"];
    cluster.kubectl_with_input(&create, manifests.as_bytes())?;
    Ok(names)
}

pub(crate) fn wait_for(cluster: &Cluster, namespace: &Namespace<'_>, pods: &[String]) -> Result<()> {
    let pods: Vec<_> = pods.iter().map(String::as_str).collect();
    let wait = ["wait", "--for=condition=Ready", "--namespace", namespace.name(), "--timeout=150s"];
    cluster.kubectl(&[&wait[..], &pods].concat()).context("not every Pod started")?;
    no_pull_failed(cluster, namespace)
}

/// No Pod had to try twice for its image.
pub(crate) fn no_pull_failed(cluster: &Cluster, namespace: &Namespace<'_>) -> Result<()> {
    let events = cluster.get(&["events", "--namespace", namespace.name()])?;
    let events = events.pointer("/items").and_then(Value::as_array).context("there are no events")?;
    // On a busy machine runc sometimes looks for a control group that is not there yet, and kubelet tries again: that image was pulled.
    let is_of_runc = |event: &Value| {
        let message = event.get("message").and_then(Value::as_str);
        message.is_some_and(|message| message.starts_with("Error: container create failed"))
    };
    let failed: Vec<_> = events
        .iter()
        .filter(|event| event.get("reason").is_some_and(|reason| reason == "Failed") && !is_of_runc(event))
        .collect();
    ensure!(failed.is_empty(), "pulls failed: {failed:#?}");
    Ok(())
}

pub(crate) fn delete(cluster: &Cluster, namespace: &Namespace<'_>, pods: &[String]) -> Result<()> {
    let pods: Vec<_> = pods.iter().map(String::as_str).collect();
    let delete = ["delete", "--namespace", namespace.name(), "--timeout=120s"];
    cluster.kubectl(&[&delete[..], &pods].concat()).map(drop)
}
