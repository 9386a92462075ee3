//! Pulls go through each node's Larder, by tag and by digest; where a node need not pull, nobody is asked.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::release::TESTED;
use larder_test_kind::requests::Request;
use larder_test_kind::{Cluster, Release, test_image};
use larder_test_node::wait::until;

use crate::Case;
use crate::images::{BLOBS, Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("pulls::a_loaded_image_needs_no_registry", a_loaded_image_needs_no_registry),
    Case::new("pulls::without_larder_a_removed_image_is_gone_while_its_registry_is_away", a_removed_image_is_gone)
        .bare()
        .alone(),
    Case::new("pulls::go_through_larder_by_tag", go_through_by_tag).installed(),
    Case::new("pulls::go_through_larder_by_digest", go_through_by_digest).installed(),
    Case::new("pulls::are_seen_in_the_metrics_of_the_node", are_seen_in_the_metrics).installed().alone(),
    Case::new("pulls::helm_test_pulls_through_every_node", helm_test).installed(),
    Case::new("pulls::if_not_present_asks_nobody", if_not_present_asks_nobody).installed(),
];

fn a_loaded_image_needs_no_registry(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = test_image::runnable(cluster.machine(), folder.path(), "loaded")?;
    cluster.load_image_archive(&archive, test_image::NAME)?;
    let namespace = Namespace::create(cluster, "loaded")?;
    cluster.on_each_worker(|worker| {
        Pod::create(&namespace, worker.name(), worker, test_image::NAME, "Never")?.wait_until_running()?;
        Ok(())
    })?;
    Ok(())
}

/// The control experiment: without Larder, what is stopped here takes the image along.
fn a_removed_image_is_gone(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "gone")?;
    let namespace = Namespace::create(cluster, "gone")?;
    cluster.on_each_worker(|worker| {
        let pod =
            Pod::create(&namespace, &format!("{}-before", worker.name()), worker, &image.reference, "IfNotPresent")?;
        pod.wait_until_running()?;
        pod.delete()?;
        cluster.remove_image(worker, &image.reference)?;
        Ok(())
    })?;
    image.registry.stop()?;
    let refused = cluster.on_each_worker(|worker| {
        let pod = Pod::create(&namespace, worker.name(), worker, &image.reference, "IfNotPresent")?;
        let events = pod.wait_until_refused()?;
        ensure!(events.contains("Failed to pull image"), "{} says nothing of a pull: {events}", worker.name());
        pod.delete()
    });
    image.registry.restart()?;
    refused?;
    // The registry was the reason.
    cluster.on_each_worker(|worker| {
        Pod::create(&namespace, &format!("{}-after", worker.name()), worker, &image.reference, "IfNotPresent")?
            .wait_until_running()?;
        Ok(())
    })?;
    let requests = image.requests()?;
    ensure!(requests.iter().all(Request::is_an_engines), "who asked? {requests:#?}");
    Ok(())
}

fn go_through_by_tag(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "by-tag")?;
    go_through(cluster, &image, &image.reference, "by-tag")
}

fn go_through_by_digest(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "by-digest")?;
    go_through(cluster, &image, &image.by_digest()?, "by-digest")
}

fn go_through(cluster: &Cluster, image: &Image<'_>, reference: &str, case: &str) -> Result<()> {
    let namespace = Namespace::create(cluster, case)?;
    let digest = image.digest()?;
    let nodes = cluster.on_each_worker(|worker| {
        let pod = Pod::create(&namespace, worker.name(), worker, reference, "Always")?;
        pod.wait_until_running()?;
        let id = pod.image_id()?;
        ensure!(id.ends_with(&digest), "{} runs {id}, and the registry holds {digest}", worker.name());
        cluster.address(worker)
    })?;
    let requests = image.requests()?;
    only_larder_asked(&requests)?;
    for node in nodes {
        let blobs = requests.iter().filter(|request| request.is_for_a_blob() && request.from == node).count();
        ensure!(blobs == BLOBS, "{node} asked for {blobs} blobs of {BLOBS}: {requests:#?}");
    }
    Ok(())
}

fn are_seen_in_the_metrics(cluster: &Cluster) -> Result<()> {
    let (image, release) = (Image::push(cluster, "metrics")?, Release::of(cluster));
    let namespace = Namespace::create(cluster, "metrics")?;
    let registry = format!("registry=\"{ORIGIN}\"");
    cluster.on_each_worker(|worker| {
        let requests = || release.metric(worker, "larder_requests_total", &[&registry]);
        let (before, stored) = (requests()?, release.metric(worker, "larder_store_bytes", &[])?);
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        // A tag, a manifest, and every blob.
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let expected = (2 + BLOBS) as f64;
        let asked = requests()? - before;
        ensure!(asked >= expected, "{} counted {asked} requests of its engine", worker.name());
        // The store's size is measured now and then.
        until("the store has grown", Duration::from_secs(30), || {
            ensure!(release.metric(worker, "larder_store_bytes", &[])? > stored, "{} stored nothing", worker.name());
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn if_not_present_asks_nobody(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "if-not-present")?;
    let namespace = Namespace::create(cluster, "if-not-present")?;
    cluster.on_each_worker(|worker| {
        let first =
            Pod::create(&namespace, &format!("{}-first", worker.name()), worker, &image.reference, "IfNotPresent")?;
        first.wait_until_running()?;
        first.delete()?;
        Ok(())
    })?;
    let before = image.requests()?;
    image.put(cluster, "another image, which nobody asks for")?;
    cluster.on_each_worker(|worker| {
        Pod::create(&namespace, worker.name(), worker, &image.reference, "IfNotPresent")?.wait_until_running()?;
        Ok(())
    })?;
    let asked = image.requests_since(&before)?;
    ensure!(asked.is_empty(), "the registry was asked: {asked:#?}");
    Ok(())
}

fn helm_test(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "helm-test")?;
    ensure!(image.repository == TESTED, "helm test pulls something else than {}", image.repository);
    Release::of(cluster).test()?;
    let requests = image.requests()?;
    only_larder_asked(&requests)?;
    for node in cluster.nodes() {
        let address = cluster.address(node)?;
        ensure!(requests.iter().any(|request| request.from == address), "{} did not pull it", node.name());
    }
    Ok(())
}
