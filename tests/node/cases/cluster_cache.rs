//! The cluster cache between nodes with real engines and a registry: what it gives. What it does not take away is in
//! `cluster_cache_trouble`.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_cri::Auth;
use larder_test_node::cluster::Cluster;
use larder_test_node::http;
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher};
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("two_nodes_at_once_cost_the_registry_each_thing_once_and_a_new_node_needs_none", at_once).newest(),
    Case::any("a_tag_that_moved_is_the_new_image_through_the_cluster_cache", moved).newest(),
    Case::any("the_cluster_cache_keeps_nothing_that_needs_credentials", private).newest(),
    Case::any("nodes_are_sent_to_the_bucket_for_what_the_cluster_cache_has_no_copy_of", sent_to_the_bucket).newest(),
];

fn at_once(line: EngineLine) -> Result<()> {
    let cluster = Cluster::of(line, 2, &ImageSpec::default())?;
    // Slow enough that the second is there while the first one's blobs are on their way.
    cluster.origin.behave(Matcher::path("/blobs/"), Behaviour::Shape(300_000));
    let start = Barrier::new(cluster.nodes.len());
    thread::scope(|scope| {
        let pull = |node: &larder_test_node::cluster::Member| {
            start.wait();
            node.engine.pull(&cluster.by_tag()).map(drop)
        };
        let pulls: Vec<_> = cluster.nodes.iter().map(|node| scope.spawn(move || pull(node))).collect();
        pulls.into_iter().try_for_each(|pull| pull.join().expect("a pull does not panic"))
    })?;
    for digest in &cluster.image.host_platform().blobs {
        let gets = cluster.origin.blob_gets(digest);
        ensure!(gets == 1, "{digest} was fetched {gets} times");
    }
    let manifests = cluster.origin.log().iter().filter(|access| access.is_manifest_get()).count();
    ensure!(manifests == 2, "an index and a manifest are two GETs, not {manifests}: {:#?}", cluster.origin.log());
    ensure!(cluster.asked_by_engines() == 0, "an engine went to the registry itself");
    for node in &cluster.nodes {
        ensure!(node.asked_the_registry()? == 0.0, "a node's proxy went to the registry itself");
    }

    cluster.cache.wait_until_stored()?;
    cluster.origin.stop();
    let new = cluster.node(3)?;
    let manifest = format!("/v2/team/app/manifests/v1?ns={}", cluster.registry());
    let head = http::get(new.larder.listen, &manifest, &[])?.head.to_lowercase();
    let marked = head.contains("warning: 299 - ") && head.contains("larder-origin: unreachable");
    ensure!(head.starts_with("http/1.1 200") && marked, "nothing says that nobody confirmed it: {head}");
    ensure!(new.questions("stale")? > 0.0, "it was not the cluster cache that said so");
    let pulled = new.engine.pull(&cluster.by_tag()).with_context(|| new.larder.last_lines())?;
    ensure!(pulled.took < Duration::from_secs(6), "took {:?}", pulled.took);
    ensure!(new.engine.has(&cluster.by_tag())?, "the engine does not have the image");
    Ok(())
}

fn sent_to_the_bucket(line: EngineLine) -> Result<()> {
    let spec = ImageSpec { layers: vec![2_000, 2 << 20, 5 << 20], ..ImageSpec::default() };
    let mut cluster = Cluster::sent_to_bucket(line, &spec)?;
    let first = cluster.node_trusting_the_bucket(1)?;
    first.engine.pull(&cluster.by_tag())?;
    cluster.cache.wait_until_stored()?;
    ensure!(cluster.cache.sent_on()? == 0.0, "what came through the cache lies there");

    cluster.empty_its_folder()?;
    cluster.origin.stop();
    let second = cluster.node_trusting_the_bucket(2)?;
    second.engine.pull(&cluster.by_tag()).with_context(|| second.larder.last_lines())?;
    ensure!(second.engine.has(&cluster.by_tag())?, "the engine does not have the image");
    for counted in [cluster.cache.sent_on()?, second.questions("redirected")?] {
        ensure!((counted - 2.0).abs() < 0.5, "{counted}: {}", cluster.cache.last_lines());
    }
    ensure!(second.questions("unfollowed")? == 0.0, "{}", second.larder.last_lines());

    // Who does not trust the bucket pulls all the same.
    let third = cluster.node(3)?;
    third.engine.pull(&cluster.by_tag()).with_context(|| third.larder.last_lines())?;
    ensure!(third.questions("unfollowed")? > 0.0, "{}", third.larder.last_lines());
    for log in [cluster.cache.log(), second.larder.log(), third.larder.log()] {
        ensure!(!log.contains("X-Amz"), "a signed URL is in the log");
    }
    Ok(())
}

/// What `imagePullPolicy: Always` relies on.
fn moved(line: EngineLine) -> Result<()> {
    let cluster = Cluster::of(line, 2, &ImageSpec::default())?;
    let [first, second] = cluster.nodes.as_slice() else { anyhow::bail!("two nodes") };
    first.engine.pull(&cluster.by_tag())?;
    cluster.cache.wait_until_stored()?;
    let new = Image::build(&ImageSpec { seed: 77, ..ImageSpec::default() });
    cluster.origin.push("team/app", "v1", &new);
    cluster.origin.clear_log();
    for node in [first, second] {
        node.engine.pull(&cluster.by_tag())?;
        let digest = format!("{}/team/app@{}", cluster.registry(), new.index);
        ensure!(node.engine.has(&digest)?, "yesterday's image was pulled");
        ensure!(node.asked_the_registry()? == 0.0, "the node's proxy went to the registry itself");
    }
    for digest in &new.host_platform().blobs {
        ensure!(cluster.origin.blob_gets(digest) == 1, "{digest}: {:#?}", cluster.origin.log());
    }
    ensure!(cluster.asked_by_engines() == 0, "an engine went to the registry itself");
    Ok(())
}

fn private(line: EngineLine) -> Result<()> {
    let cluster = Cluster::of(line, 1, &ImageSpec::default())?;
    let node = cluster.first();
    // base64 of user:secret
    cluster.origin.require_token_from(&format!("{}/token", cluster.origin.url()), Some("dXNlcjpzZWNyZXQ="));
    ensure!(node.engine.pull(&cluster.by_tag()).is_err(), "the test registry gave it to anybody");
    ensure!(node.questions("denied")? > 0.0, "the cluster cache was not asked: {}", node.larder.metrics()?);
    node.engine.pull_as(&cluster.by_tag(), Some(Auth::new("user", "secret")))?;
    ensure!(cluster.asked_by_engines() > 0, "the engine did not go to the registry with the Pod's credentials");
    for digest in cluster.image.blobs.keys().chain(cluster.image.manifests.keys()) {
        ensure!(cluster.cached(digest).is_none(), "{digest} of a private image was kept");
    }
    node.engine.remove(&cluster.by_tag())?;
    ensure!(node.engine.pull(&cluster.by_tag()).is_err(), "a private image was served without credentials");
    ensure!(node.asked_the_registry()? == 0.0, "the node asked what the cluster cache had asked");
    Ok(())
}
