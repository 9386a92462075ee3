//! Promise 1 with a cluster cache: whatever happens to it, a pull that would succeed without it succeeds, at the first try with every
//! engine, because the node's proxy stands between them.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::cache::{Cache, CacheOptions, TOKEN};
use larder_test_node::cluster::Cluster;
use larder_test_node::disk::SmallDisk;
use larder_test_node::http;
use larder_test_node::wait::until;
use larder_test_origin::{Access, Behaviour, ImageSpec, Matcher, private_certificate};
use larder_test_parts::EngineLine;
use nix::sys::signal::Signal;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("cluster_cache_killed_in_the_middle_of_a_layer_and_started_again", killed).newest(),
    Case::any("cluster_cache_frozen_in_the_middle_of_a_layer", frozen_during).newest(),
    Case::any("cluster_cache_frozen_before_a_pull", frozen_before).newest(),
    Case::any("cluster_cache_stopped_in_the_middle_of_a_layer", stopped).newest(),
    Case::any("cluster_cache_that_is_not_trusted_or_does_not_know_the_node", strangers).newest(),
    Case::any("cluster_cache_with_a_full_disk", full).newest(),
    Case::any("a_replica_killed_while_it_leads_a_herd_and_the_other_one_alone", replicas).newest(),
];

/// One node, and a layer that takes some seconds.
fn slow(line: EngineLine) -> Result<Cluster> {
    let spec = ImageSpec { layers: vec![6_000_000], ..ImageSpec::default() };
    let cluster = Cluster::of(line, 1, &spec)?;
    cluster.origin.behave(Matcher::path("/blobs/"), Behaviour::Shape(3_000_000));
    Ok(cluster)
}

/// Pulls, and calls `meanwhile` once the largest layer is on its way through the cluster cache. How long the pull took after that; it has
/// to succeed at the first try, and the engine may not have noticed anything.
fn during_a_pull(cluster: &Cluster, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let (node, layer) = (cluster.first(), cluster.image.largest_layer());
    thread::scope(|scope| {
        let pull = scope.spawn(|| node.engine.pull(&cluster.by_tag()));
        until("the layer is on its way", Duration::from_secs(20), || {
            ensure!(cluster.origin.blob_bytes(&layer) > 500_000, "it is not");
            Ok(())
        })?;
        ensure!(node.asked_the_registry()? == 0.0, "the layer does not come through the cluster cache");
        let began = Instant::now();
        meanwhile()?;
        pull.join().expect("a pull does not panic").with_context(|| node.larder.last_lines())?;
        ensure!(node.engine.has(&cluster.by_tag())?, "the engine does not have the image");
        ensure!(cluster.asked_by_engines() == 0, "the engine noticed: {:#?}", cluster.origin.log());
        Ok(began.elapsed())
    })
}

/// Whether the node's proxy went on at the registry from where the cluster cache left it.
fn went_on(cluster: &Cluster) -> Result<()> {
    let layer = cluster.image.largest_layer();
    let asked: Vec<_> = cluster.origin.log().into_iter().filter(Access::is_blob_get).collect();
    let from_there = asked.iter().any(|access| {
        access.path.ends_with(layer.as_str()) && access.header("range").is_some_and(|range| range != "bytes=0-")
    });
    ensure!(from_there, "nobody asked for the rest of the layer: {asked:#?}");
    Ok(())
}

fn killed(line: EngineLine) -> Result<()> {
    let cluster = slow(line)?;
    let node = cluster.first();
    during_a_pull(&cluster, || cluster.cache.kill())?;
    went_on(&cluster)?;
    let (direct, _) = cluster.push_another("direct", 11);
    let pulled = node.engine.pull(&direct)?;
    ensure!(pulled.took < Duration::from_secs(3), "a cluster cache that is gone costs {:?}", pulled.took);
    node.wait_until_it_says("does not answer")?;

    cluster.cache.start_again()?;
    let mut seed = 20;
    until("the cluster cache is asked again", Duration::from_secs(20), || {
        seed += 1;
        let (reference, _) = cluster.push_another(&format!("again-{seed}"), seed);
        let before = node.asked_the_registry()?;
        node.engine.pull(&reference)?;
        ensure!(node.asked_the_registry()? <= before, "the node went to the registry itself");
        Ok(())
    })
}

fn frozen_during(line: EngineLine) -> Result<()> {
    let cluster = slow(line)?;
    let took = during_a_pull(&cluster, || cluster.cache.signal(Signal::SIGSTOP))?;
    // A second of silence, 1.5 s for a sign of life, and the rest of the layer.
    ensure!(took < Duration::from_secs(7), "took {took:?} after the cluster cache froze");
    went_on(&cluster)
}

fn frozen_before(line: EngineLine) -> Result<()> {
    let cluster = Cluster::of(line, 1, &ImageSpec::default())?;
    let node = cluster.first();
    cluster.cache.signal(Signal::SIGSTOP)?;
    let pulled = node.engine.pull(&cluster.by_tag()).with_context(|| node.larder.last_lines())?;
    ensure!(pulled.took < Duration::from_secs(5), "took {:?}", pulled.took);
    let (next, _) = cluster.push_another("next", 12);
    let pulled = node.engine.pull(&next)?;
    ensure!(pulled.took < Duration::from_secs(2), "the next pull paid for it again: {:?}", pulled.took);
    ensure!(cluster.asked_by_engines() == 0, "the engine went to the registry itself");
    Ok(())
}

/// A planned stop: who is being served is served, and others go elsewhere.
fn stopped(line: EngineLine) -> Result<()> {
    let cluster = slow(line)?;
    let node = cluster.first();
    let (other, _) = cluster.push_another("other", 13);
    during_a_pull(&cluster, || {
        cluster.cache.signal(Signal::SIGTERM)?;
        let pulled = node.engine.pull(&other)?;
        ensure!(pulled.took < Duration::from_secs(3), "a pull of that moment took {:?}", pulled.took);
        Ok(())
    })?;
    let layer = cluster.image.largest_layer();
    let (sent, length) = (cluster.origin.blob_bytes(&layer), cluster.image.blobs[&layer].len() as u64);
    ensure!(sent == length, "the registry sent {sent} bytes of a layer of {length}: it did not end through the cache");
    let status = cluster.cache.wait()?;
    ensure!(status.success(), "larder-cache ended with {status}: {}", cluster.cache.last_lines());
    Ok(())
}

/// Each of them is mended by a file, which is read again.
fn strangers(line: EngineLine) -> Result<()> {
    let cluster = Cluster::of(line, 0, &ImageSpec::default())?;
    let authority = std::fs::read(cluster.trust.authority())?;
    std::fs::write(cluster.trust.authority(), private_certificate(&["127.0.0.1"]).authority)?;
    std::fs::write(cluster.trust.token(), "another-token-that-nobody-has")?;
    let node = cluster.node(1)?;
    let pull = |name: &str, seed, limit| -> Result<f64> {
        let (reference, _) = cluster.push_another(name, seed);
        let before = node.asked_the_registry()?;
        let pulled = node.engine.pull(&reference).with_context(|| node.larder.last_lines())?;
        ensure!(pulled.took < Duration::from_secs(limit), "{name}: took {:?}", pulled.took);
        ensure!(cluster.asked_by_engines() == 0, "{name}: the engine went to the registry itself");
        Ok(node.asked_the_registry()? - before)
    };
    ensure!(pull("not-trusted", 14, 3)? > 0.0, "the node believed a stranger");
    node.wait_until_it_says("certificate")?;

    std::fs::write(cluster.trust.authority(), authority)?;
    until("the cluster cache says that it does not know the node", Duration::from_secs(20), || {
        ensure!(pull("not-known", 15, 3)? > 0.0, "the cluster cache served a stranger");
        node.engine.remove(&cluster.named("not-known"))?;
        ensure!(node.questions("unauthorized")? > 0.0, "the node has not read who is trusted now");
        Ok(())
    })?;
    node.wait_until_it_says("does not know this node's token")?;

    std::fs::write(cluster.trust.token(), TOKEN)?;
    let mut seed = 30;
    until("the cluster cache knows the node", Duration::from_secs(20), || {
        seed += 1;
        ensure!(pull(&format!("known-{seed}"), seed, 3)? == 0.0, "the node went to the registry itself");
        Ok(())
    })
}

fn full(line: EngineLine) -> Result<()> {
    let disk = SmallDisk::mount(4)?;
    let store = Some(format!("directory:{}", disk.path().join("store").display()));
    let spec = ImageSpec { layers: vec![9_000_000, 1000], ..ImageSpec::default() };
    let options = CacheOptions { store, reserve: Some("3%"), ..CacheOptions::default() };
    let cluster = Cluster::with(line, 1, &spec, &options)?;
    let node = cluster.first();
    node.engine.pull(&cluster.by_tag()).with_context(|| node.larder.last_lines())?;
    ensure!(node.asked_the_registry()? == 0.0, "the node went to the registry itself");
    // The disk was full in the middle of the layer. Now somebody else fills it for good.
    let mut filler = std::fs::File::create(disk.path().join("somebody-elses"))?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    until("the cluster cache says that its store is full", Duration::from_secs(10), || {
        let said = http::get(cluster.cache.admin, "/readyz", &[])?;
        ensure!(said.status == 200 && said.text().contains("full"), "/readyz says {}: {}", said.status, said.text());
        Ok(())
    })?;
    let (next, _) = cluster.push_another("next", 15);
    node.engine.pull(&next).with_context(|| node.larder.last_lines())?;
    ensure!(cluster.asked_by_engines() == 0, "the engine went to the registry itself");
    Ok(())
}

/// Two replicas on a bucket: nobody is left to ask but the other one, and it is enough.
fn replicas(line: EngineLine) -> Result<()> {
    let spec = ImageSpec { layers: vec![6_000_000], ..ImageSpec::default() };
    let cluster = Cluster::on_bucket(line, 2, &spec)?;
    let layer = cluster.image.largest_layer();
    let other = cluster.other.as_ref().context("there is no other replica")?;
    // Of several, so that neither replica is the first for all of them.
    let before: Vec<String> = (0..4).map(|seed| cluster.push_another(&format!("before-{seed}"), 40 + seed).0).collect();
    for reference in &before {
        cluster.first().engine.pull(reference)?;
    }
    cluster.origin.behave(Matcher::path("/blobs/"), Behaviour::Shape(3_000_000));
    let left = thread::scope(|scope| {
        let pulls: Vec<_> =
            cluster.nodes.iter().map(|node| scope.spawn(|| node.engine.pull(&cluster.by_tag()))).collect();
        until("the layer is on its way", Duration::from_secs(20), || {
            ensure!(cluster.origin.blob_bytes(&layer) > 500_000, "it is not");
            Ok(())
        })?;
        ensure!(cluster.origin.blob_gets(&layer) == 1, "the herd did not meet in one place");
        let leads =
            |cache: &Cache| -> Result<bool> { Ok(http::metric(&cache.metrics()?, "larder_fetches_running")? > 0.0) };
        let (leader, left) = if leads(&cluster.cache)? { (&cluster.cache, other) } else { (other, &cluster.cache) };
        leader.kill()?;
        for (node, pull) in cluster.nodes.iter().zip(pulls) {
            pull.join().expect("a pull does not panic").with_context(|| node.larder.last_lines())?;
            ensure!(node.asked_the_registry()? == 0.0, "the node went to the registry, and not to the other replica");
        }
        anyhow::Ok(left)
    })?;
    ensure!(cluster.asked_by_engines() == 0, "an engine noticed: {:#?}", cluster.origin.log());
    left.wait_until_stored()?;
    // With the registry gone too, the other one is all that is left, and tags are known there: they are on the bucket, whoever heard them.
    cluster.origin.stop();
    let new = cluster.node(3)?;
    for reference in before.iter().chain([&cluster.by_tag()]) {
        let pulled = new.engine.pull(reference).with_context(|| new.larder.last_lines())?;
        ensure!(pulled.took < Duration::from_secs(6), "{reference} took {:?}", pulled.took);
    }
    Ok(())
}
