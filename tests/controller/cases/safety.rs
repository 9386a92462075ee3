//! Nothing is lost: by a restart, by a pool of nodes that is scaled to nothing, by an object that cannot be read, by a definition that is deleted.

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, Controller, DEFINITIONS, until};
use serde_json::{Value, json};

use crate::life::pins;

/// Has it compare all pins with all objects, once, from now on, without waiting for the minute to be over.
pub(crate) fn pass(cluster: &Cluster, name: &str) -> Result<()> {
    let (image, _) = cluster.push(&format!("team/{name}"), 77);
    cluster.wish(name, &image)?;
    cluster.until_reason(&image, "Cached", "Complete")?;
    cluster.plane.kubectl(&["delete", "cachedimage", name], "")?;
    until("it is unpinned", || {
        let pins = pins(cluster)?;
        ensure!(!pins.contains(&image), "{pins:?}");
        Ok(())
    })
}

/// The same where nothing goes, because it is held back.
fn another_pass(cluster: &Cluster, controller: &Controller) -> Result<()> {
    let passes = || -> Result<f64> {
        let page = controller.page("/metrics")?;
        let counts = page.lines().filter(|line| line.starts_with("larder_controller_passes_total"));
        Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    };
    let before = passes()?;
    // One may be under way.
    for round in 1..=2 {
        cluster.wish("once", &cluster.push("team/once", 78).0)?;
        cluster.plane.kubectl(&["delete", "cachedimage", "once"], "")?;
        until("it has looked at all", || {
            let now = passes()?;
            ensure!(now >= before + f64::from(round), "{now} passes");
            Ok(())
        })?;
    }
    Ok(())
}

fn platforms(cluster: &Cluster, image: &str) -> Result<Value> {
    cluster.object(image)?.pointer("/status/platforms").cloned().context("platforms")
}

pub(crate) fn what_a_restart_must_not_forget() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.node("two", "arm64")?;
    let (image, _) = cluster.push("team/app", 1);
    let (odd, _) = cluster.push("team/odd", 2);
    cluster.run("web", &image)?;
    cluster.wish("odd", &odd)?;
    let controller = cluster.controller(&[])?;
    let both = json!(["linux/amd64", "linux/arm64"]);
    for image in [&image, &odd] {
        cluster.until_reason(image, "Cached", "Complete")?;
        ensure!(platforms(&cluster, image)? == both, "{}", platforms(&cluster, image)?);
    }
    // The last node of a processor goes, and is remembered.
    cluster.plane.kubectl(&["delete", "node", "two"], "")?;
    pass(&cluster, "first")?;
    ensure!(platforms(&cluster, &image)? == both, "{}", platforms(&cluster, &image)?);
    controller.terminate()?;
    // Meanwhile an object is made what this release cannot read, under a definition that lets it through.
    cluster.plane.apply(&loose())?;
    let odd_patch = json!({ "spec": { "retain": "for ever" } }).to_string();
    until("it is odd", || {
        cluster.plane.kubectl(&["patch", "cachedimage", "odd", "--type=merge", "--patch", &odd_patch], "")
    })?;
    let controller = cluster.controller(&[])?;
    controller.until_it_says("degraded: unreadable: CachedImages cannot be read: odd.")?;
    pass(&cluster, "second")?;
    ensure!(platforms(&cluster, &image)? == both, "{}", platforms(&cluster, &image)?);
    ensure!(pins(&cluster)?.contains(&odd), "what cannot be read is kept");
    let line = "larder_controller_unreadable{kind=\"cachedimages\"} 1";
    ensure!(controller.page("/metrics")?.contains(line), "{}", controller.page("/metrics")?);
    // It is deleted by hand, which needs no reading.
    cluster.plane.kubectl(&["delete", "cachedimage", "odd"], "")?;
    until("it is unpinned", || {
        let pins = pins(&cluster)?;
        ensure!(pins == [image.clone()], "{pins:?}");
        Ok(())
    })?;
    controller.until_it_says_no_more("cannot be read")?;
    controller.terminate()
}

/// The definition as a release might have it that knows other types.
fn loose() -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": DEFINITIONS[0].0 },
        "spec": {
            "group": "larder.dev", "scope": "Cluster",
            "names": { "kind": "CachedImage", "plural": "cachedimages", "singular": "cachedimage" },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
    .to_string()
}

/// Every object goes with it, one by one and each of them deleted. Three pins may always go; the others wait for somebody's word.
pub(crate) fn a_definition_that_is_deleted() -> Result<()> {
    let cluster = Cluster::start()?;
    let images: Vec<String> = (0..8).map(|seed| cluster.push(&format!("team/app-{seed}"), seed).0).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.wish(&format!("mine-{number}"), image)?;
    }
    let controller = cluster.controller(&[])?;
    for image in &images {
        let object = cluster.until_reason(image, "Cached", "Complete")?;
        ensure!(object.pointer("/metadata/finalizers").is_none(), "{object}");
    }
    let (name, definition) = DEFINITIONS[0];
    // Nothing of ours stands in its way.
    cluster.plane.kubectl(&["delete", "customresourcedefinition", name, "--wait=true", "--timeout=50s"], "")?;
    controller.until_it_says("degraded: CachedImages: they are not watched now")?;
    ensure!(pins(&cluster)? == images, "{:?}: {}", pins(&cluster)?, controller.log());
    // It is there again, without the objects.
    cluster.plane.apply(definition)?;
    until("it is held back", || controller.word("brake")?.context("no word"))?;
    ensure!(pins(&cluster)? == images, "{:?}: {}", pins(&cluster)?, controller.log());
    // So many others come that what is held is less than a quarter: it is held all the same.
    let others = cluster.push_tags(28);
    for (number, other) in others.iter().enumerate() {
        cluster.run(&format!("pod-{number}"), other)?;
    }
    until("all of them are pinned", || {
        let pins = pins(&cluster)?;
        ensure!(others.iter().all(|other| pins.contains(other)), "{pins:?}");
        Ok(())
    })?;
    let are_held = |controller: &Controller| -> Result<()> {
        another_pass(&cluster, controller)?;
        let pinned = pins(&cluster)?;
        ensure!(images.iter().all(|image| pinned.contains(image)), "{pinned:?}: {}", controller.log());
        Ok(())
    };
    are_held(&controller)?;
    // By the next controller as well, which finds a few too many pins and no more than that.
    let lease =
        || cluster.plane.kubectl(&["get", "lease", "larder-controller", "--namespace=larder", "--output=json"], "");
    until("it is left for the next one", || {
        let lease = lease()?;
        ensure!(lease.contains(r#""larder.dev/held": "brake""#), "{lease}");
        Ok(())
    })?;
    controller.kill()?;
    let controller = cluster.controller(&[])?;
    controller.until_it_leads()?;
    are_held(&controller)?;
    let word = until("it is held back", || controller.word("brake")?.context("no word"))?;
    cluster.say(&word)?;
    until("they are unpinned", || {
        let pins = pins(&cluster)?;
        ensure!(pins.len() == others.len(), "{pins:?}");
        Ok(())
    })?;
    controller.until_it_says_no_more("degraded: brake")?;
    until("the next one is told of nothing", || {
        let lease = lease()?;
        ensure!(!lease.contains("larder.dev/held"), "{lease}");
        Ok(())
    })?;
    controller.terminate()
}
