//! The controller of the chart: what Pods use is kept and described, whoever of its replicas lives, and goes when nobody uses it any more.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::Case;
use crate::cluster_cache::{fresh, start_on_first, start_on_others};
use crate::images::{Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[Case::new(
    "controller::what_a_pod_uses_becomes_safe_outlives_its_registry_and_a_killed_leader_and_expires",
    life,
)
.cached()
.alone()
.leaves_it_changed()];

const DEPLOYMENT: &str = "deployment/larder-controller";

/// Of the cluster's Pods only those of one namespace count: what the cluster itself is made of comes from registries that are not beside it.
fn values(namespace: &str) -> Value {
    let selector = format!("kubernetes.io/metadata.name={namespace}");
    let mut values = Release::with_cache();
    if let Some(values) = values.as_object_mut() {
        values.insert("controller".to_owned(), json!({"enabled": true, "namespaces": selector, "expiry": "5s"}));
        // The next case finds a cluster without them.
        values.insert("crds".to_owned(), json!({"keep": false}));
    }
    values
}

/// The object of an image, if there is one.
fn object(cluster: &Cluster, image: &Image<'_>) -> Result<Option<Value>> {
    let list = cluster.get(&["cachedimages"])?;
    let items = list.get("items").and_then(Value::as_array).context("no list")?;
    Ok(items.iter().find(|item| item.pointer("/spec/image") == Some(&json!(image.reference))).cloned())
}

fn wait_until_cached(cluster: &Cluster, image: &Image<'_>) -> Result<Value> {
    let mut found = Value::Null;
    until("the image is cached", Duration::from_mins(2), || {
        found = object(cluster, image)?.with_context(|| format!("there is no object of {}", image.reference))?;
        let conditions = found.pointer("/status/conditions").and_then(Value::as_array).context("no conditions")?;
        let cached = conditions.iter().find(|condition| condition.get("type") == Some(&json!("Cached")));
        ensure!(
            cached.is_some_and(|it| it.get("status") == Some(&json!("True"))),
            "{}",
            found.pointer("/status").unwrap_or(&Value::Null)
        );
        Ok(())
    })?;
    Ok(found)
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
    release.upgrade(&values(namespace.name()))?;
    let rollout = ["rollout", "status", DEPLOYMENT, "--namespace", NAMESPACE, "--timeout=120s"];
    cluster.kubectl(&rollout)?;
    release.wait()?;
    release.wait_for_cache()?;

    let image = fresh(cluster, "controlled")?;
    start_on_first(cluster, &namespace, &image)?;
    let found = wait_until_cached(cluster, &image)?;
    ensure!(found.pointer("/status/usedBy/count") == Some(&json!(1)), "{found:#}");
    let table = cluster.kubectl(&["get", "ci"])?;
    ensure!(table.lines().any(|line| line.contains(&image.reference) && line.contains("True")), "{table}");
    only_larder_asked(&image.requests()?)?;

    // Somebody else goes on when the one that works is gone at once.
    let first = leader(cluster)?;
    cluster.kubectl(&["delete", "pod", &first, "--namespace", NAMESPACE, "--grace-period=0", "--force"])?;
    until("another one works", Duration::from_mins(1), || {
        let now = leader(cluster)?;
        ensure!(now != first, "{now} has the lease still");
        Ok(())
    })?;
    let second = fresh(cluster, "controlled-second")?;
    let worker = cluster.workers().next().context("there is no worker")?;
    let pod = Pod::create(&namespace, "second", worker, &second.reference, "IfNotPresent")?;
    pod.wait_until_running()?;
    wait_until_cached(cluster, &second)?;

    image.registry.stop()?;
    let started = start_on_others(cluster, &namespace, &image);
    image.registry.restart()?;
    started?;

    pod.delete()?;
    until("what nobody uses has expired", Duration::from_mins(2), || {
        let left = object(cluster, &second)?;
        ensure!(left.is_none(), "it is still there: {left:?}");
        Ok(())
    })?;
    ensure!(object(cluster, &image)?.is_some(), "what Pods use has gone, too");
    Ok(())
}
