//! Tags that are given to something else at a real registry: whose pins follow them, and whose do not.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_controller::{Cluster, Registry, condition_of, until};
use larder_test_origin::{Image, ImageSpec};
use larder_test_parts::own::larder_cache;
use serde_json::{Value, json};

use crate::life::every_pin;

/// A Pod that runs this digest of an image.
fn run(cluster: &Cluster, name: &str, image: &str, policy: &str, running: &str) -> Result<()> {
    let container = json!({ "name": "main", "image": image, "imagePullPolicy": policy });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "automountServiceAccountToken": false, "containers": [container] },
    });
    cluster.plane.apply(&pod.to_string())?;
    let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
        "name": "main", "image": image, "imageID": running, "ready": true, "restartCount": 0,
        "state": { "running": { "startedAt": "2020-01-01T00:00:00Z" } },
    }] } });
    let words = ["patch", "pod", name, "--namespace=default", "--subresource=status", "--patch", &status.to_string()];
    cluster.plane.kubectl(&words, "").map(drop)
}

/// As a person says of an image whose object there is.
fn say(cluster: &Cluster, image: &str, follow: bool) -> Result<()> {
    let object = cluster.object(image)?;
    let name = object.pointer("/metadata/name").and_then(Value::as_str).context("a name")?;
    let change = json!({ "spec": { "follow": follow } }).to_string();
    cluster.plane.kubectl(&["patch", "cachedimage", name, "--type=merge", "--patch", &change], "").map(drop)
}

/// What is pinned for each reference.
fn pinned(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let pins = every_pin(cluster)?.into_iter();
    Ok(pins.filter_map(|pin| Some((pin.image.to_string(), pin.held()?.to_string()))).collect())
}

fn until_pinned(cluster: &Cluster, image: &str, digest: &str) -> Result<()> {
    until(&format!("{image} is pinned as {digest}"), || {
        let pinned = pinned(cluster)?;
        ensure!(pinned.get(image).is_some_and(|found| found == digest), "{pinned:#?}");
        Ok(())
    })
}

pub(crate) fn a_moved_tag() -> Result<()> {
    let registry = Registry::start()?;
    let cluster = Cluster::start_beside(larder_cache()?, &[registry.name()])?;
    let build = |seed| Image::build(&ImageSpec { layers: vec![3_000], seed, ..ImageSpec::default() });
    let (old, new) = (build(1), build(2));
    let (before, after) = (old.index.to_string(), new.index.to_string());
    // Of whoever says nothing, of `Always`, of `Always` whose object says no, of an object that says yes, and of a part of a registry that does.
    let repositories = ["team/plain", "team/late", "team/always", "team/stays", "team/said", "moving/part"];
    let mut images = Vec::new();
    for repository in repositories {
        let image = registry.push(repository, "v1", &old)?;
        let policy = if repository == "team/always" || repository == "team/stays" { "Always" } else { "IfNotPresent" };
        let (name, _) = image.rsplit_once(':').context("a tag")?;
        run(&cluster, &repository.replace('/', "-"), &image, policy, &format!("{name}@{before}"))?;
        images.push(image);
    }
    let [plain, late, always, stays, said, part] = images.as_slice() else { bail!("six of them") };
    let upstream = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
        "metadata": { "name": registry.name().replace(':', ".port-") },
        "spec": { "registry": registry.name(), "prefixes": [{ "prefix": "moving", "follow": true }] },
    });
    cluster.plane.apply(&upstream.to_string())?;
    let first = cluster.controller(&[])?;
    for image in &images {
        cluster.until_reason(image, "Cached", "Complete")?;
        until_pinned(&cluster, image, &before)?;
    }
    // Each object was written as often as it may be within a minute; another leader begins anew.
    first.terminate()?;
    say(&cluster, said, true)?;
    say(&cluster, stays, false)?;
    for repository in repositories {
        registry.push(repository, "v1", &new)?;
    }
    let second = cluster.controller(&["--monitoring-interval", "2s"])?;
    for image in [said, always, part] {
        until_pinned(&cluster, image, &after)?;
    }
    for image in [plain, late, stays] {
        let object = cluster.until_reason(image, "UpToDate", "Moved")?;
        ensure!(object.pointer("/status/digest") == Some(&json!(before)), "{object:#}");
        ensure!(object.pointer("/status/upstreamDigest") == Some(&json!(after)), "{object:#}");
    }
    // What moved and stayed is followed from the moment that somebody says so, of it or of all.
    let still = pinned(&cluster)?;
    ensure!([plain, late, stays].iter().all(|image| still.get(*image) == Some(&before)), "{still:#?}");
    say(&cluster, late, true)?;
    until_pinned(&cluster, late, &after)?;
    second.terminate()?;
    let third = cluster.controller(&["--monitoring-interval", "2s", "--follow"])?;
    until_pinned(&cluster, plain, &after)?;
    for image in [plain, late, said, always, part] {
        let object = cluster.until_reason(image, "UpToDate", "Same")?;
        ensure!(object.pointer("/status/digest") == Some(&json!(after)), "{object:#}");
    }
    // Pods run what was before: it is pinned beside.
    let pinned = pinned(&cluster)?;
    for image in [plain, late, said, always, part] {
        let (name, _) = image.rsplit_once(':').context("a tag")?;
        ensure!(pinned.get(&format!("{name}@{before}")) == Some(&before), "{image}: {pinned:#?}");
    }
    ensure!(pinned.get(stays) == Some(&before), "{pinned:#?}");
    // What a person said is still there, whatever the controller wrote since.
    for (image, follow) in [(late, true), (said, true), (stays, false)] {
        let object = cluster.object(image)?;
        ensure!(object.pointer("/spec/follow") == Some(&json!(follow)), "{object:#}");
    }
    third.terminate()
}

/// What the cache loses of an image comes back as what it was, whoever wants it: only whoever follows a tag gets something else for it.
pub(crate) fn what_is_lost_of_it() -> Result<()> {
    let mut registry = Registry::start()?;
    let mut cluster = Cluster::start_beside(larder_cache()?, &[registry.name()])?;
    let build = |seed| Image::build(&ImageSpec { layers: vec![3_000], seed, ..ImageSpec::default() });
    let (old, new) = (build(1), build(2));
    let (before, after) = (old.index.to_string(), new.index.to_string());
    let mut images = Vec::new();
    for repository in ["team/plain", "team/always"] {
        let image = registry.push(repository, "v1", &old)?;
        let policy = if repository == "team/always" { "Always" } else { "IfNotPresent" };
        let (name, _) = image.rsplit_once(':').context("a tag")?;
        run(&cluster, &repository.replace('/', "-"), &image, policy, &format!("{name}@{before}"))?;
        images.push(image);
    }
    let [plain, always] = images.as_slice() else { bail!("two of them") };
    let controller = cluster.controller(&["--monitoring-interval", "30d"])?;
    for image in &images {
        cluster.until_reason(image, "Cached", "Complete")?;
    }
    for repository in ["team/plain", "team/always"] {
        registry.push(repository, "v1", &new)?;
    }
    // The registry and a layer are lost on one day, and the controller says so (another one: the first has written as much of each as it may in a minute).
    controller.terminate()?;
    registry.kill();
    cluster.cache.kill();
    cluster.cache.lose(&old.largest_layer())?;
    cluster.cache.start_again()?;
    let controller = cluster.controller(&["--monitoring-interval", "30d"])?;
    for image in &images {
        until("it is not complete", || {
            let object = cluster.object(image)?;
            let cached = condition_of(&object, "Cached");
            let said = cached.and_then(|cached| cached.get("status"));
            ensure!(said == Some(&json!("False")), "{cached:?}");
            Ok(())
        })?;
    }
    registry.start_again()?;
    for image in &images {
        cluster.until_reason(image, "Cached", "Complete")?;
        until_pinned(&cluster, image, &before)?;
    }
    // Neither now nor when it would have been tried again.
    until("nothing waits to be tried again", || {
        let page = controller.page("/metrics")?;
        let is_none = |queue| page.contains(&format!("larder_controller_queue{{queue=\"{queue}\"}} 0\n"));
        ensure!(["ready", "resting", "under_way"].into_iter().all(is_none), "{page}");
        Ok(())
    })?;
    for image in &images {
        until_pinned(&cluster, image, &before)?;
    }
    // This one asks the registry in 30 days; one that asks sooner follows the tag of the one.
    controller.terminate()?;
    let controller = cluster.controller(&["--monitoring-interval", "2s"])?;
    until_pinned(&cluster, always, &after)?;
    cluster.until_reason(plain, "UpToDate", "Moved")?;
    until_pinned(&cluster, plain, &before)?;
    controller.terminate()
}
