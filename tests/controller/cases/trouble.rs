//! What may happen to those around it, and to the controller itself.

use anyhow::{Result, ensure};
use larder_test_controller::{Cluster, Cut, condition_of, until};
use larder_test_node::http::metric;
use serde_json::json;

use crate::life::pins;
use crate::safety::pass;

pub(crate) fn away_and_back() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let (first, _) = cluster.push("team/first", 1);
    let (second, _) = cluster.push("team/second", 2);
    let (third, _) = cluster.push("team/third", 3);
    cluster.run("first", &first)?;
    let controller = cluster.controller(&[])?;
    cluster.until_reason(&first, "Cached", "Complete")?;
    // The cache is away: what Pods want is described all the same, and had once it is back.
    cluster.cache.kill();
    cluster.run("second", &second)?;
    until("it has an object", || cluster.object(&second))?;
    controller.until_it_says("degraded: cluster cache:")?;
    cluster.cache.start_again()?;
    cluster.until_reason(&second, "Cached", "Complete")?;
    cluster.until_reason(&first, "Cached", "Complete")?;
    // The API server is away, and comes back without anything having been forgotten. Of what is quiet, nodes, it is known that it is watched again.
    cluster.plane.kill_api_server();
    for kind in ["Pods", "Namespaces", "Nodes", "CachedImages"] {
        controller.until_it_says(&format!("degraded: {kind}: they are not watched now"))?;
    }
    cluster.plane.start_api_server()?;
    controller.until_it_says_no_more("not watched")?;
    cluster.run("third", &third)?;
    cluster.until_reason(&third, "Cached", "Complete")?;
    ensure!(pins(&cluster)?.len() == 3);
    controller.terminate()
}

/// A watch that is behind by more than anybody remembers lists again: what came and went meanwhile is known.
pub(crate) fn compacted() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let (first, _) = cluster.push("team/first", 1);
    let (second, _) = cluster.push("team/second", 2);
    let (stays, _) = cluster.push("team/stays", 3);
    let way = Cut::to(cluster.plane.address())?;
    cluster.wish("mine", &first)?;
    // Whichever list comes first after that, and whoever leads: something is left, so the brake holds nothing.
    cluster.wish("stays", &stays)?;
    let controller = cluster.controller_by(&way, &[])?;
    for image in [&first, &stays] {
        cluster.until_reason(image, "Cached", "Complete")?;
    }
    // While it hears nothing, an object goes and a Pod comes; etcd forgets how it was before, and the API server begins anew.
    way.cut();
    cluster.plane.kubectl(&["delete", "cachedimage", "mine"], "")?;
    cluster.run("second", &second)?;
    cluster.plane.compact_etcd()?;
    cluster.plane.kill_api_server();
    cluster.plane.start_api_server()?;
    way.mend();
    cluster.until_reason(&second, "Cached", "Complete")?;
    controller.until_it_says_no_more("not watched")?;
    // Nobody saw it go: it was in no list any more. It is one of a few, and is let go.
    pass(&cluster, "other")?;
    until("it is unpinned", || {
        let pins = pins(&cluster)?;
        ensure!(pins == [second.as_str(), stays.as_str()], "{pins:?}: {}", controller.log());
        Ok(())
    })?;
    controller.terminate()
}

/// etcd is put back to what it was before, and the versions with it: a watch that went on where it was would wait for one that is yet to come, and
/// nobody would say meanwhile what is new.
pub(crate) fn put_back() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let images: Vec<String> = (0..4).map(|seed| cluster.push(&format!("team/app-{seed}"), seed).0).collect();
    cluster.run("before", &images[0])?;
    let controller = cluster.controller(&[])?;
    cluster.until_reason(&images[0], "Cached", "Complete")?;
    cluster.plane.back_up_etcd("backup")?;
    // What comes now is not in it, and is of versions that are far ahead of it.
    cluster.plane.etcd_goes_on(1_000)?;
    cluster.run("lost", &images[1])?;
    cluster.wish("lost", &images[2])?;
    for image in [&images[1], &images[2]] {
        cluster.until_reason(image, "Cached", "Complete")?;
    }
    cluster.plane.put_back_etcd("backup")?;
    controller.until_it_says_no_more("not watched")?;
    cluster.run("after", &images[3])?;
    cluster.until_reason(&images[3], "Cached", "Complete")?;
    // What is not there any more is known, too.
    pass(&cluster, "other")?;
    until("both are unpinned", || {
        let mut pins = pins(&cluster)?;
        // If its object was known to be gone before its Pod was, a use is remembered of which nothing says that it is kept: it gets an object of its own.
        let anew = cluster.objects(&images[1])?;
        if anew.iter().any(|object| object.pointer("/status/usedBy/count") == Some(&json!(0))) {
            pins.retain(|pin| *pin != images[1]);
        }
        ensure!(pins == [images[0].as_str(), images[3].as_str()], "{pins:?}: {anew:?}: {}", controller.log());
        Ok(())
    })?;
    controller.terminate()
}

pub(crate) fn brake_and_kill() -> Result<()> {
    let cluster = Cluster::start()?;
    let images: Vec<String> = (0..6).map(|seed| cluster.push(&format!("team/app-{seed}"), seed).0).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.run(&format!("pod-{number}"), image)?;
    }
    let leader = cluster.controller(&["--expiry", "2s"])?;
    leader.until_it_leads()?;
    let follower = cluster.controller(&["--expiry", "2s"])?;
    for image in &images {
        cluster.until_reason(image, "Cached", "Complete")?;
    }
    ensure!(!follower.leads());
    // The leader is killed; the other one waits for its lease to run out and goes on.
    leader.kill()?;
    follower.until_it_leads()?;
    // All Pods go at once: their objects would expire, and are held back until somebody says that this is meant.
    for number in 0..images.len() {
        cluster.stop(&format!("pod-{number}"))?;
    }
    follower.until_it_says("degraded: expiry:")?;
    let objects =
        |images: &[String]| -> Result<usize> { images.iter().map(|image| Ok(cluster.objects(image)?.len())).sum() };
    let left = objects(&images)?;
    ensure!(left > 2, "{left} objects are left: no more than three may go without a word");
    // A word for fewer, said while others were not due yet, lets go no more than those; nobody is asked again when their pins go.
    until("they are unpinned", || {
        if let Some(word) = follower.word("expiry")? {
            cluster.say(&word)?;
        }
        let (pins, left) = (pins(&cluster)?, objects(&images)?);
        ensure!(pins.is_empty() && left == 0, "{pins:?}, {left} objects");
        Ok(())
    })?;
    ensure!(!follower.log().contains("would go at once"), "the pins' brake asked, too: {}", follower.log());
    Ok(())
}

/// Its holder is another caller's: nothing can be kept, and that is said where people look.
pub(crate) fn refused() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.cache.kill();
    cluster.cache.set_holders("controller=another");
    cluster.cache.start_again()?;
    let (image, _) = cluster.push("team/app", 1);
    // As the controller before this one left it.
    cluster.wish("mine", &image)?;
    let said = json!({"type": "Cached", "status": "True", "reason": "Complete", "message": "it is kept", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"conditions": [said]}}).to_string();
    cluster
        .plane
        .kubectl(&["patch", "cachedimage", "mine", "--subresource=status", "--type=merge", "--patch", &status], "")?;
    let controller = cluster.controller(&[])?;
    controller.until_it_says("degraded: cluster cache: the cluster cache refuses (403)")?;
    // It asks for the pins every few seconds, and until they are listed there is nothing to look at.
    let counted = || -> Result<(f64, f64)> {
        let page = controller.page("/metrics")?;
        let failed = metric(&page, r#"larder_controller_passes_total{outcome="failed"}"#).unwrap_or_default();
        Ok((failed, metric(&page, "larder_controller_looks_total").unwrap_or_default()))
    };
    let (failed, looks) = counted()?;
    let after = until("it has asked twice more", || {
        let (now, looks) = counted()?;
        ensure!(now >= failed + 2.0, "{now}");
        Ok(looks)
    })?;
    ensure!(after - looks <= 4.0, "{} looks at one image of which there is nothing to say", after - looks);
    controller.terminate()
}

/// Who may make `CachedImages` keeps nobody's image from being cached: neither by its name nor by asking for too much of it.
pub(crate) fn squatters() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    let (other, _) = cluster.push("team/other", 2);
    let name = |image: &str| {
        let reference = larder_oci::ImageReference::parse(image).unwrap();
        larder_api::CachedImage::of(&reference).metadata.name.unwrap()
    };
    let make = |name: &str, spec: serde_json::Value| {
        let object = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": name}, "spec": spec});
        cluster.plane.apply(&object.to_string())
    };
    make(&name(&image), json!({"image": "evil.example.com/x:1"}))?;
    for number in 0..3 {
        let platforms: Vec<String> = (0..32).map(|platform| format!("odd/{number}-{platform}")).collect();
        make(&format!("greedy-{number}"), json!({"image": other, "platforms": platforms}))?;
    }
    cluster.run("web", &image)?;
    cluster.run("web-too", &other)?;
    let controller = cluster.controller(&[])?;
    cluster.until_reason(&image, "Cached", "Complete")?;
    // Objects of one image share its writes, so the others say it later.
    until("one of them says that it is cached", || {
        let objects = cluster.objects(&other)?;
        let says =
            |object| condition_of(object, "Cached").and_then(|found| found.get("status")) == Some(&json!("True"));
        ensure!(objects.iter().any(says), "{objects:#?}");
        Ok(())
    })?;
    controller.terminate()
}
