//! The life of an image: a Pod wants it, it is cached, nobody wants it any more, it goes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use larder_controller::cluster_cache::Pin;
use larder_test_controller::{Cluster, until};
use serde_json::{Value, json};

/// The images of the controller's pins, as the cache's control API lists them.
pub(crate) fn pins(cluster: &Cluster) -> Result<Vec<String>> {
    let mut pins: Vec<String> = every_pin(cluster)?.into_iter().map(|pin| pin.image.to_string()).collect();
    pins.sort_unstable();
    Ok(pins)
}

/// All that is said there of them.
pub(crate) fn every_pin(cluster: &Cluster) -> Result<Vec<Pin>> {
    use futures_util::TryStreamExt as _;
    use larder_controller::cluster_cache::{ClusterCache, ClusterCacheConfig, Limits};

    let config = ClusterCacheConfig {
        url: cluster.cache.url().parse()?,
        replicas: None,
        ca: Some(cluster.cache.authority_file()),
        token: cluster.cache.token_file(),
        holder: "larder-controller".to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cache = ClusterCache::new(config, Limits::default())?;
    Ok(runtime.block_on(cache.pins().try_collect())?)
}

pub(crate) fn from_pod_to_expiry() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, content) = cluster.push("team/app", 1);
    let by_digest = {
        let (other, content) = cluster.push("team/other", 2);
        let (name, _) = other.rsplit_once(':').context("a tag")?;
        format!("{name}@{}", content.index)
    };
    // A node that was faster than the controller.
    cluster.cache.pull(&larder_oci::ImageReference::parse(&image)?)?;
    cluster.run("web", &image)?;
    let controller = cluster.controller(&["--expiry", "3s"])?;
    let object = cluster.until_reason(&image, "Cached", "Complete")?;
    ensure!(object.pointer("/status/digest") == Some(&json!(content.index.as_str())), "{object}");
    ensure!(object.pointer("/status/usedBy") == Some(&json!({"count": 1, "pods": ["default/web"]})), "{object}");
    ensure!(object.pointer("/status/expiresAt").is_none(), "it is used: {object}");
    ensure!(object.pointer("/status/lastPull").is_some_and(Value::is_string), "a node pulled it: {object}");
    ensure!(object.pointer("/status/platforms") == Some(&json!(["linux/amd64"])), "those of the nodes: {object}");
    // By digest, after the start.
    cluster.run("pinned", &by_digest)?;
    let object = cluster.until_reason(&by_digest, "Cached", "Complete")?;
    ensure!(object.pointer("/status/digest").and_then(Value::as_str).is_some_and(|digest| by_digest.ends_with(digest)));
    cluster.until_reason(&by_digest, "UpToDate", "ByDigest")?;
    let mut expected = vec![image.clone(), by_digest.clone()];
    expected.sort_unstable();
    ensure!(pins(&cluster)? == expected, "{:?}", pins(&cluster)?);
    // A person's own stays.
    let (kept, _) = cluster.push("team/kept", 3);
    let by_hand = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": "mine"}, "spec": {"image": kept}});
    cluster.plane.apply(&by_hand.to_string())?;
    let object = cluster.until_reason(&kept, "Cached", "Complete")?;
    ensure!(object.pointer("/status/lastPull").is_none(), "no node did: {object}");
    // Nor does one go that was there already when somebody applied it, because a Pod was faster.
    let (taken, _) = cluster.push("team/taken", 4);
    cluster.run("fast", &taken)?;
    let made = cluster.until_reason(&taken, "Cached", "Complete")?;
    let by_hand = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage",
        "metadata": {"name": made.pointer("/metadata/name"), "labels": {"team": "mine"}}, "spec": {"image": taken},
    });
    cluster.plane.apply(&by_hand.to_string())?;
    cluster.stop("fast")?;
    // Nobody uses it any more.
    cluster.stop("web")?;
    cluster.until_gone(&image)?;
    until("it is unpinned", || {
        let pins = pins(&cluster)?;
        ensure!(!pins.contains(&image), "{pins:?}");
        Ok(())
    })?;
    for image in [&by_digest, &kept, &taken] {
        ensure!(cluster.objects(image)?.len() == 1, "{image}: {}", controller.log());
    }
    ensure!(pins(&cluster)?.len() == 3);
    let object = cluster.object(&kept)?;
    ensure!(object.pointer("/metadata/finalizers").is_none(), "{object}");
    controller.terminate()
}

/// What a person set and took back, or noted, is no wish; what somebody applies is.
pub(crate) fn kept_as_long_as_somebody_means_it() -> Result<()> {
    let cluster = Cluster::start()?;
    let images: Vec<String> = ["retained", "noted", "applied", "served"]
        .iter()
        .zip(1..)
        .map(|(name, seed)| cluster.push(name, seed).0)
        .collect();
    let [retained, noted, applied, served] = images.as_slice() else { anyhow::bail!("four of them") };
    for (pod, image) in ["one", "two", "three", "four"].into_iter().zip(&images) {
        cluster.run(pod, image)?;
    }
    let controller = cluster.controller(&[])?;
    let mut names = BTreeMap::new();
    for image in &images {
        let object = cluster.until_reason(image, "Cached", "Complete")?;
        let name = object.pointer("/metadata/name").and_then(Value::as_str).context("a name")?;
        names.insert(image.as_str(), name.to_owned());
    }
    controller.terminate()?;
    let name = |image: &str| names.get(image).map_or("", String::as_str);
    let retain = |is: bool| {
        let patch = json!({ "spec": { "retain": is } }).to_string();
        cluster.plane.kubectl(&["patch", "cachedimage", name(retained), "--type=merge", "--patch", &patch], "")
    };
    retain(true)?;
    cluster.plane.kubectl(&["annotate", "cachedimage", name(noted), "team=mine"], "")?;
    // As it is in somebody's repository: who was first does not matter.
    let meant = |image: &str| {
        let object = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": name(image)}, "spec": {"image": image}});
        object.to_string()
    };
    cluster.plane.apply(&meant(applied))?;
    let by_server = ["apply", "--server-side", "--field-manager=kustomize-controller", "--filename=-"];
    cluster.plane.kubectl(&by_server, &meant(served))?;
    for pod in ["one", "two", "three", "four"] {
        cluster.stop(pod)?;
    }
    // It has not used up what it may write of each.
    let controller = cluster.controller(&["--expiry", "3s"])?;
    for (image, why) in [(retained, "Retained"), (applied, "Applied"), (served, "Applied")] {
        until(&format!("{image} says that it is {why}"), || {
            let object = cluster.object(image)?;
            ensure!(object.pointer("/status/kept") == Some(&json!(why)), "{object:#}");
            ensure!(object.pointer("/status/expiresAt").is_none(), "{object:#}");
            Ok(())
        })?;
    }
    let shown = cluster.plane.kubectl(&["get", "cachedimage", name(retained), "--no-headers"], "")?;
    ensure!(shown.contains(" Retained "), "{shown}");
    cluster.until_gone(noted)?;
    retain(false)?;
    cluster.until_gone(retained)?;
    for image in [applied, served] {
        ensure!(cluster.objects(image)?.len() == 1, "{image}: {}", controller.log());
    }
    controller.terminate()
}

/// What the tag means and what a Pod runs are two pins of one content.
pub(crate) fn what_a_pod_runs_is_pinned_and_fetched_once() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, content) = cluster.push("team/app", 1);
    let (name, _) = image.rsplit_once(':').context("a tag")?;
    let running = format!("{name}@{}", content.index);
    cluster.run("web", &image)?;
    let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
        "name": "main", "image": image, "imageID": running, "ready": true, "restartCount": 0,
        "state": { "running": { "startedAt": "2020-01-01T00:00:00Z" } },
    }] } });
    let words = ["patch", "pod", "web", "--namespace=default", "--subresource=status", "--patch", &status.to_string()];
    cluster.plane.kubectl(&words, "")?;
    let controller = cluster.controller(&[])?;
    let both = until("both are pinned", || {
        let object = cluster.object(&image)?;
        let digests = object.pointer("/status/digests").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_safe = |digest: &Value| {
            digest.pointer("/cached") == Some(&json!(true)) && digest.pointer("/pods") == Some(&json!(1))
        };
        ensure!(digests.iter().any(is_safe), "{object:#} {}", controller.log());
        let pins = pins(&cluster)?;
        ensure!(pins.len() == 2, "{pins:?}");
        Ok(pins)
    })?;
    ensure!(both == [image.clone(), running.clone()], "{both:?}");
    // By its tag or by its digest, it is one.
    let index = |path: &str| path.strip_suffix("v1").map(|before| format!("{before}{}", content.index));
    let mut fetched = BTreeMap::<String, usize>::new();
    for access in cluster.origin.log().iter().filter(|access| access.is_manifest_get() || access.is_blob_get()) {
        *fetched.entry(index(&access.path).unwrap_or_else(|| access.path.clone())).or_default() += 1;
    }
    ensure!(!fetched.is_empty() && fetched.values().all(|times| *times == 1), "{fetched:#?}");
    controller.terminate()
}

pub(crate) fn deleted_by_hand() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    let (other, _) = cluster.push("team/other", 2);
    cluster.run("web", &image)?;
    let by_hand = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": "mine"}, "spec": {"image": other}});
    cluster.plane.apply(&by_hand.to_string())?;
    let _controller = cluster.controller(&[])?;
    let first = cluster.until_reason(&image, "Cached", "Complete")?;
    cluster.until_reason(&other, "Cached", "Complete")?;
    cluster.plane.kubectl(&["delete", "cachedimage", "mine"], "")?;
    until("it is unpinned", || {
        ensure!(pins(&cluster)? == [image.clone()], "{:?}", pins(&cluster)?);
        Ok(())
    })?;
    let name = first.pointer("/metadata/name").and_then(Value::as_str).context("a name")?;
    cluster.plane.kubectl(&["delete", "cachedimage", name], "")?;
    until("it comes back", || {
        let object = cluster.object(&image)?;
        ensure!(object.pointer("/metadata/uid") != first.pointer("/metadata/uid"), "it is the old one");
        Ok(())
    })?;
    cluster.until_reason(&image, "Cached", "Complete")?;
    ensure!(pins(&cluster)? == [image.clone()], "{:?}", pins(&cluster)?);
    ensure!(cluster.objects(&other)?.is_empty(), "nobody wants this one");
    Ok(())
}

pub(crate) fn observing() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    let by_hand = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": "mine"}, "spec": {"image": image}});
    cluster.plane.apply(&by_hand.to_string())?;
    let (other, content) = cluster.push("team/other", 2);
    let (left_out, _) = cluster.push("team/secret", 3);
    cluster.run("web", &other)?;
    cluster.run("secret", &left_out)?;
    let before = cluster.object(&image)?;
    // Of a release that managed, before somebody wanted to see first.
    let registry = cluster.origin.registry().to_string();
    let name = registry.replace(':', ".port-");
    let upstream = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": {"name": name}, "spec": {"registry": registry}});
    cluster.plane.apply(&upstream.to_string())?;
    let of_registry = || cluster.plane.kubectl(&["get", "upstreamregistry", &name, "--output=json"], "");
    let registry_before = of_registry()?;
    let controller = cluster.controller(&["--mode", "observe", "--exclude", "**/secret"])?;
    let report = until("it has looked at everything, and knows how large that is", || {
        let report: Value = serde_json::from_str(&controller.page("/report")?)?;
        let list = report.pointer("/wouldCache/list").and_then(Value::as_array).cloned().unwrap_or_default();
        let found = list.into_iter().find(|found| found.pointer("/image") == Some(&json!(other)));
        let bytes = found.as_ref().and_then(|found| found.pointer("/bytes")).and_then(Value::as_u64);
        ensure!(bytes.is_some_and(|bytes| bytes > 25_000), "{report} {}", controller.log());
        Ok(report)
    })?;
    ensure!(report.pointer("/wouldCache/images") == Some(&json!(2)), "the one by hand, and the Pod's: {report}");
    ensure!(report.pointer("/leftOut") == Some(&json!({"Excluded": 1})), "{report}");
    ensure!(report.pointer("/leftOutImages/0/image") == Some(&json!(left_out)), "{report}");
    // Manifests were asked for, and nothing else.
    let log = cluster.origin.log();
    ensure!(
        log.iter().any(larder_test_origin::Access::is_manifest_get)
            && !log.iter().any(larder_test_origin::Access::is_blob_get)
    );
    ensure!(cluster.origin.blob_gets(&content.largest_layer()) == 0);
    let page = until("what would be said of its registry is counted", || {
        let page = controller.page("/metrics")?;
        ensure!(page.contains(r#"larder_controller_registries{condition="Accepted",reason="Valid"} 1"#), "{page}");
        Ok(page)
    })?;
    ensure!(pins(&cluster)?.is_empty() && cluster.object(&image)? == before && cluster.objects(&other)?.is_empty());
    ensure!(of_registry()? == registry_before, "its registry's object was written: {}", of_registry()?);
    ensure!(page.lines().all(|line| !line.starts_with("larder_controller_writes_total")), "{page}");
    ensure!(page.contains(r#"larder_controller_left_out{reason="Excluded"} 1"#), "{page}");
    Ok(())
}

/// Whoever takes over knows less than the one before, for a moment: it says nothing of what it does not know.
pub(crate) fn a_hand_over_changes_no_status() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    cluster.run("web", &image)?;
    let first = cluster.controller(&["--monitoring-interval", "2s"])?;
    cluster.until_reason(&image, "Cached", "Complete")?;
    cluster.until_reason(&image, "UpToDate", "Same")?;
    let before = cluster.until_reason(&image, "UpstreamAvailable", "Present")?;
    // Its interval is six hours.
    let second = cluster.controller(&[])?;
    first.terminate()?;
    until("the other one has compared all pins with all objects", || {
        let page = second.page("/metrics")?;
        ensure!(page.contains("larder_controller_passes_total{outcome="), "{}", second.log());
        Ok(())
    })?;
    // With the times of their last changes.
    let conditions = |object: &Value| object.pointer("/status/conditions").cloned();
    let after = cluster.object(&image)?;
    ensure!(conditions(&after) == conditions(&before), "{before:#}\n{after:#}");
    ensure!(after.pointer("/status/digest") == before.pointer("/status/digest"), "{after:#}");
    second.terminate()
}
