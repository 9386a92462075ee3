//! What may happen to those around it, and to the controller itself.

use anyhow::{Result, ensure};
use larder_test_controller::{Cluster, condition_of, until};
use serde_json::json;

use crate::life::pins;

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
    // The API server is away, and comes back without anything having been forgotten.
    cluster.plane.kill_api_server();
    controller.until_it_says("they are not watched now")?;
    cluster.plane.start_api_server()?;
    cluster.run("third", &third)?;
    cluster.until_reason(&third, "Cached", "Complete")?;
    ensure!(pins(&cluster)?.len() == 3);
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
    // All Pods go at once: their objects expire, and the pins are held back until somebody says that this is meant.
    for number in 0..images.len() {
        cluster.stop(&format!("pod-{number}"))?;
    }
    for image in &images {
        cluster.until_gone(image)?;
    }
    let how = "kubectl -n larder annotate --overwrite lease larder-controller larder.dev/remove=";
    // Of the set that would go now: a word for fewer, said while some objects were still there, releases nothing.
    follower.until_it_says(how)?;
    let left = pins(&cluster)?.len();
    ensure!(left > 2, "{left} pins are left: nothing is removed without a word");
    until("they are unpinned", || {
        if let Some((_, rest)) = follower.page("/readyz")?.split_once(how) {
            let word: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            let words = ["annotate", "--namespace=larder", "--overwrite", "lease", "larder-controller"];
            cluster.plane.kubectl(&[&words[..], &[&format!("larder.dev/remove={word}")]].concat(), "")?;
        }
        let pins = pins(&cluster)?;
        ensure!(pins.is_empty(), "{pins:?}");
        Ok(())
    })
}

/// Its holder is another caller's: nothing can be kept, and that is said where people look.
pub(crate) fn refused() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.cache.kill();
    cluster.cache.set_holders("controller=another");
    cluster.cache.start_again()?;
    let (image, _) = cluster.push("team/app", 1);
    cluster.run("web", &image)?;
    let controller = cluster.controller(&[])?;
    controller.until_it_says("degraded: cluster cache: the cluster cache refuses (403)")?;
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
