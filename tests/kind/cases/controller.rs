//! The controller of the chart, over the life of an image: what a Deployment uses is kept and described, whoever of its replicas lives, outlives its registry and
//! what is deleted there, and goes when nobody uses it any more. It begins as an upgrade of a release that had no controller, and ends as an uninstall.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::Case;
use crate::cluster_cache::{fresh, start_on_others};
use crate::images::{Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[Case::new(
    "controller::what_a_deployment_uses_becomes_safe_outlives_registry_leader_and_deletion_and_expires",
    life,
)
.bare()
.alone()
.leaves_it_changed()];

const DEPLOYMENT: &str = "deployment/larder-controller";

/// What keeps itself when Larder goes, and what goes with it.
const KEPT: [&str; 2] = ["cachedimages.larder.dev", "upstreamregistries.larder.dev"];

/// A cluster cache, and the controller or not, as it was by default before there was one.
fn values(controller: &Value) -> Value {
    let mut values = Release::with_cache();
    if let Some(values) = values.as_object_mut() {
        values.insert("controller".to_owned(), controller.clone());
        // As it is by default, and not for other cases.
        values.insert("crds".to_owned(), json!({"keep": true}));
    }
    values
}

/// The object of an image, if there is one.
fn object(cluster: &Cluster, image: &Image<'_>) -> Result<Option<Value>> {
    let list = cluster.get(&["cachedimages"])?;
    let items = list.get("items").and_then(Value::as_array).context("no list")?;
    Ok(items.iter().find(|item| item.pointer("/spec/image") == Some(&json!(image.reference))).cloned())
}

/// Waits until a condition of the image's object has this status and, if one is named, this reason.
fn wait_for(cluster: &Cluster, image: &Image<'_>, kind: &str, status: &str, reason: Option<&str>) -> Result<Value> {
    let mut found = Value::Null;
    until(&format!("{kind} of {} is {status}", image.reference), Duration::from_mins(2), || {
        found = object(cluster, image)?.with_context(|| format!("there is no object of {}", image.reference))?;
        must_be(&found, kind, status, reason)
    })?;
    Ok(found)
}

/// The same of the registry that it is from.
fn wait_for_registry(cluster: &Cluster, kind: &str, status: &str) -> Result<()> {
    until(&format!("{kind} of {ORIGIN} is {status}"), Duration::from_mins(2), || {
        must_be(&cluster.get(&["upstreamregistry", ORIGIN])?, kind, status, None)
    })
}

fn must_be(object: &Value, kind: &str, status: &str, reason: Option<&str>) -> Result<()> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).context("no conditions")?;
    let condition = conditions.iter().find(|condition| condition.get("type") == Some(&json!(kind)));
    let is = |key: &str, value: &str| condition.is_some_and(|it| it.get(key) == Some(&json!(value)));
    let reached = is("status", status) && reason.is_none_or(|reason| is("reason", reason));
    ensure!(reached, "{}", object.pointer("/status").unwrap_or(&Value::Null));
    Ok(())
}

/// The row of an image in what a person asks for.
fn row(cluster: &Cluster, image: &Image<'_>) -> Result<String> {
    let table = cluster.kubectl(&["get", "ci"])?;
    let row = table.lines().find(|line| line.contains(&image.reference));
    Ok(row.with_context(|| format!("{} is not in\n{table}", image.reference))?.to_owned())
}

/// A Deployment of one Pod on a node.
fn deploy(cluster: &Cluster, namespace: &Namespace<'_>, node: &Node, image: &Image<'_>) -> Result<()> {
    let labels = json!({"app": "shop"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node.name()},
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "main", "image": image.reference, "imagePullPolicy": "Always"}],
                },
            },
        },
    });
    let apply = ["apply", "--namespace", namespace.name(), "--filename", "-"];
    cluster.kubectl_with_input(&apply, deployment.to_string().as_bytes())?;
    let rollout = ["rollout", "status", "deployment/shop", "--namespace", namespace.name(), "--timeout=90s"];
    cluster.kubectl(&rollout).map(drop)
}

/// The Pod that has the lease.
fn leader(cluster: &Cluster) -> Result<String> {
    let lease = cluster.get(&["lease", "larder-controller", "--namespace", NAMESPACE])?;
    let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str).filter(|holder| !holder.is_empty());
    let holder = holder.context("nobody has the lease")?;
    let pods =
        cluster.get(&["pods", "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/component=controller"])?;
    let names = pods.get("items").and_then(Value::as_array).into_iter().flatten();
    let mut names = names.filter_map(|pod| pod.pointer("/metadata/name").and_then(Value::as_str));
    let found = names.find(|name| holder.starts_with(name)).with_context(|| format!("{holder} is no Pod"))?;
    Ok(found.to_owned())
}

fn life(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "controlled")?;
    from_a_release_without_one(cluster, &release, &namespace)?;

    let image = fresh(cluster, "controlled")?;
    let first = cluster.workers().next().context("there is no worker")?;
    deploy(cluster, &namespace, first, &image)?;
    let found = wait_for(cluster, &image, "Cached", "True", None)?;
    ensure!(found.pointer("/status/usedBy/count") == Some(&json!(1)), "{found:#}");
    ensure!(row(cluster, &image)?.contains("True"), "{}", row(cluster, &image)?);
    only_larder_asked(&image.requests()?)?;
    every_node_says_so(cluster)?;
    wait_for_registry(cluster, "Reachable", "True")?;

    another_one_leads(cluster)?;
    let second = fresh(cluster, "controlled-second")?;
    let pod = Pod::create(&namespace, "the-second", first, &second.reference, "IfNotPresent")?;
    pod.wait_until_running()?;
    wait_for(cluster, &second, "Cached", "True", None)?;

    image.registry.stop()?;
    let started = start_on_others(cluster, &namespace, &image);
    let seen = wait_for_registry(cluster, "Reachable", "False");
    image.registry.restart()?;
    started.and(seen)?;

    // Gone where it came from, seen so, and kept.
    wait_for_registry(cluster, "Reachable", "True")?;
    wait_for(cluster, &image, "UpstreamAvailable", "True", None)?;
    image.delete()?;
    let found = wait_for(cluster, &image, "UpstreamAvailable", "False", Some("Gone"))?;
    ensure!(row(cluster, &image)?.contains("Gone"), "{}", row(cluster, &image)?);
    must_be(&found, "Cached", "True", None).context("it is not kept")?;

    pod.delete()?;
    until("what nobody uses has expired", Duration::from_mins(2), || {
        let left = object(cluster, &second)?;
        ensure!(left.is_none(), "it is still there: {left:?}");
        Ok(())
    })?;
    ensure!(object(cluster, &image)?.is_some(), "what Pods use has gone, too");
    nothing_blocks_after_an_uninstall(cluster, &release, &image)
}

/// The form that the release before had by default, and one upgrade to that of today. Of the cluster's Pods only those of one namespace count: what the
/// cluster itself is made of comes from registries that are not beside it.
fn from_a_release_without_one(cluster: &Cluster, release: &Release<'_>, namespace: &Namespace<'_>) -> Result<()> {
    release.make_volume()?;
    let mut before = values(&json!({"enabled": false}));
    if let Some(before) = before.as_object_mut() {
        before.insert("agent".to_owned(), json!({"kubernetes": false}));
    }
    release.install_only(&before)?;
    release.wait_for_cache()?;
    let definitions = || cluster.kubectl(&["get", "crd", "--output", "name"]);
    ensure!(!definitions()?.contains("larder.dev"), "there are definitions already: {}", definitions()?);
    let selector = format!("kubernetes.io/metadata.name={}", namespace.name());
    let monitoring = json!({"interval": "5s"});
    release.upgrade(&values(&json!({"namespaces": selector, "expiry": "5s", "monitoring": monitoring})))?;
    let rollout = ["rollout", "status", DEPLOYMENT, "--namespace", NAMESPACE, "--timeout=120s"];
    cluster.kubectl(&rollout)?;
    release.wait()?;
    release.wait_for_cache()
}

/// Each node has its `NodeMirror`, which says that its engine was seen to ask, and is its Node's.
fn every_node_says_so(cluster: &Cluster) -> Result<()> {
    until("every node is configured", Duration::from_mins(2), || {
        let list = cluster.get(&["nodemirrors"])?;
        let items = list.get("items").and_then(Value::as_array).context("no list")?;
        for node in cluster.nodes() {
            let name = json!(node.name());
            let mirror = items.iter().find(|item| item.pointer("/metadata/name") == Some(&name));
            let mirror = mirror.with_context(|| format!("{} has no NodeMirror: {list:#}", node.name()))?;
            let owner = mirror.pointer("/metadata/ownerReferences/0/name");
            ensure!(owner == Some(&name), "{} is owned by {owner:?}", node.name());
            must_be(mirror, "Configured", "True", None).with_context(|| node.name().to_owned())?;
        }
        Ok(())
    })
}

/// Somebody else goes on when the one that works is gone at once.
fn another_one_leads(cluster: &Cluster) -> Result<()> {
    let first = leader(cluster)?;
    cluster.kubectl(&["delete", "pod", &first, "--namespace", NAMESPACE, "--grace-period=0", "--force"])?;
    until("another one works", Duration::from_mins(1), || {
        let now = leader(cluster)?;
        ensure!(now != first, "{now} has the lease still");
        Ok(())
    })
}

/// What people wrote and what was learnt stays for whoever installs again; nothing of it waits for somebody who is gone.
fn nothing_blocks_after_an_uninstall(cluster: &Cluster, release: &Release<'_>, image: &Image<'_>) -> Result<()> {
    release.uninstall()?;
    ensure!(object(cluster, image)?.is_some(), "an uninstall took the objects along");
    let claim = ["get", "persistentvolumeclaim", "larder-cache", "--namespace", NAMESPACE];
    cluster.kubectl(&claim).context("an uninstall took the images along")?;
    let left = cluster.kubectl(&[
        "get",
        "crd,validatingadmissionpolicy,clusterrole,clusterrolebinding",
        "--output",
        "name",
    ])?;
    let left: Vec<&str> = left.lines().filter(|name| name.contains("larder")).collect();
    let expected = KEPT.map(|name| format!("customresourcedefinition.apiextensions.k8s.io/{name}"));
    ensure!(left == expected, "an uninstall leaves {left:?}");
    for kind in KEPT {
        let list = cluster.get(&[kind])?;
        let items = list.get("items").and_then(Value::as_array).context("no list")?;
        let held = items.iter().find(|item| item.pointer("/metadata/finalizers").is_some());
        ensure!(held.is_none(), "it waits for somebody who is gone: {held:?}");
        cluster.kubectl(&["delete", "crd", kind, "--timeout=60s"])?;
    }
    release.delete_namespace()
}
