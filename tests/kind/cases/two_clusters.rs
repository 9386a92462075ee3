//! Two clusters on one bucket share bytes, and nothing that would have to be believed: what one of them knows of a registry, or wants kept,
//! is nobody else's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::bucket::Bucket;
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Release, at_once};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::Case;
use crate::cluster_cache::{others, start_on_first, wait_until_in};
use crate::images::{Image, only_larder_asked};
use crate::values::answer;

pub(crate) const CASES: &[Case] =
    &[Case::new("two_clusters::share_the_bytes_of_a_bucket_and_no_trust", share).cached().alone().leaves_it_changed()];

/// Whose records are whose.
const IDS: [&str; 2] = ["first", "second"];
/// The Secret with the credentials.
const SECRET: &str = "bucket";
/// Large enough to have checksums of its own in the bucket.
const LAYER: u64 = 4 << 20;

fn on_the_bucket(id: &str) -> Value {
    json!({"type": "bucket", "size": "2GiB", "reserve": "0", "bucket": Bucket::values(id, SECRET)})
}

fn share(cluster: &Cluster) -> Result<()> {
    let bucket = Bucket::start(cluster)?;
    let image = Image::push_large(cluster, "two-clusters", LAYER)?;
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| second(cluster));
        let first = first(cluster);
        (first, second.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))))
    });
    let second = second.context("the second cluster")?;
    first.context("the first cluster")?;
    let outcome = shared(cluster, &second, &bucket, &image);
    outcome.map_err(|error| match second.gather("two_clusters::the-second") {
        Ok(folder) => error.context(format!("what explains it of the second cluster is in {}", folder.display())),
        Err(gathering) => error.context(format!("and nothing could be gathered of the second cluster: {gathering:#}")),
    })
}

fn first(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    Bucket::put_secret(cluster, NAMESPACE, SECRET)?;
    release.upgrade(&json!({"cache": {"store": on_the_bucket(IDS[0])}}))?;
    release.wait_for_cache()
}

fn second(cluster: &Cluster) -> Result<Cluster> {
    let second = cluster.beside()?;
    let release = Release::of(&second);
    release.load_image()?;
    release.create_namespace()?;
    Bucket::put_secret(&second, NAMESPACE, SECRET)?;
    // What the node itself keeps goes with its Pod.
    let store = json!({"type": "emptyDir", "size": "2GiB", "reserve": "0"});
    release.install(&json!({"cache": {"store": on_the_bucket(IDS[1])}, "store": store}))?;
    release.wait_for_cache()?;
    Ok(second)
}

fn shared(cluster: &Cluster, second: &Cluster, bucket: &Bucket<'_>, image: &Image<'_>) -> Result<()> {
    let (here, there) = (Namespace::create(cluster, "two-clusters")?, Namespace::create(second, "two-clusters")?);
    let by_digest = image.by_digest()?;
    start_on_first(cluster, &here, image)?;
    wait_until_in(bucket, &Release::of(cluster), image)?;
    let parts = image.parts()?;
    let of_image =
        || -> Result<Vec<_>> { Ok(bucket.blobs()?.into_iter().filter(|(digest, _)| parts.contains(digest)).collect()) };
    let uploads = of_image()?;

    // A node of the first cluster has it from there while the registry is away. The second one has the bytes at hand, and no reason to
    // believe that this registry would give them to anybody.
    image.registry.stop()?;
    let of_the_first = others(cluster).first().copied().context("there is one worker")?;
    let apart = Pod::create(&here, "without-registry", of_the_first, &image.reference, "Always")
        .and_then(|pod| pod.wait_until_running())
        .context("a node of the first cluster")
        .and_then(|()| refused(second, &there, &[("by-tag", &image.reference), ("by-digest", &by_digest)]));
    image.registry.restart()?;
    apart?;

    // The registry vouches for it, and sends none of it again.
    let before = image.requests()?;
    has_heard_of_it(second, image)?;
    start_there(second, &there, "vouched-for", (&image.reference, &by_digest))?;
    let asked = image.requests_since(&before)?;
    only_larder_asked(&asked)?;
    let again: Vec<_> = asked.iter().filter(|request| request.is_for_a_blob()).collect();
    ensure!(again.is_empty(), "what is in the bucket was fetched again: {again:#?}");
    ensure!(of_image()? == uploads, "it was put into the bucket again: {uploads:#?}, then {:#?}", of_image()?);

    // The first cluster goes for good. A living one is not forgotten.
    pins_of(bucket, IDS[1])?;
    let forgotten = forget(second, IDS[0]);
    let said = format!("{:#}", forgotten.err().context("a cluster that lives was forgotten")?);
    ensure!(said.contains("it is alive"), "{said}");
    Release::of(cluster).uninstall()?;
    bucket.age_declarations(IDS[0], Duration::from_hours(2))?;
    forget(second, IDS[0])?;
    for kind in ["pins", "holders", "tags", "links"] {
        let left = bucket.objects(&format!("clusters/{}/{kind}", IDS[0]))?;
        ensure!(left.is_empty(), "of a cluster that was forgotten there is {left:#?}");
    }

    // And the second one has all of it by itself, with nothing but the bucket.
    let release = Release::of(second);
    let node = second.workers().next().context("there is no node")?;
    release.delete_all_pods()?;
    release.wait()?;
    release.wait_for_cache()?;
    second.remove_image(node, &image.reference)?;
    image.registry.stop()?;
    let started = start_there(second, &there, "alone", (&image.reference, &by_digest));
    image.registry.restart()?;
    started?;
    for replica in release.replicas()? {
        let read = release.cache_metric(&replica, "larder_bucket_requests_total", &[r#"operation="get""#])?;
        ensure!(read > 0.0, "{} read nothing from the bucket", replica.pod);
    }
    Ok(())
}

/// None of these images is had on the second cluster.
fn refused(second: &Cluster, namespace: &Namespace<'_>, images: &[(&str, &String)]) -> Result<()> {
    let node = second.workers().next().context("there is no node")?;
    at_once(images, |(name, reference)| {
        let pod = Pod::create(namespace, name, node, reference, "Always")?;
        pod.wait_until_refused().context("the second cluster believed the first one")?;
        pod.delete()
    })
    .map(drop)
}

/// A Pod of the second cluster that runs an image and no other one, and goes.
fn start_there(
    second: &Cluster,
    namespace: &Namespace<'_>,
    name: &str,
    (reference, by_digest): (&str, &str),
) -> Result<()> {
    let node = second.workers().next().context("there is no node")?;
    let pod = Pod::create(namespace, name, node, reference, "Always")?;
    pod.wait_until_running()?;
    let (runs, digest) = (pod.image_id()?, by_digest.rsplit('@').next().unwrap_or_default());
    ensure!(runs.ends_with(digest), "{} runs {runs} in place of {digest}", node.name());
    pod.delete()
}

/// Waits until the second cluster's cache asks a registry again that was away.
fn has_heard_of_it(second: &Cluster, image: &Image<'_>) -> Result<()> {
    let (release, node) = (Release::of(second), second.workers().next().context("there is no node")?);
    let told = || release.metric(node, "larder_cluster_cache_questions_total", &[r#"outcome="ok""#]);
    until("the cluster cache speaks to the registry again", Duration::from_mins(1), || {
        let before = told()?;
        let said = answer(second, node, image)?;
        ensure!(said == "200" && told()? > before, "the proxy of {} answers {said} for {ORIGIN}", node.name());
        Ok(())
    })
}

/// Waits until a cluster has pinned what was pulled there.
fn pins_of(bucket: &Bucket<'_>, id: &str) -> Result<()> {
    until("what was pulled is pinned", Duration::from_mins(2), || {
        let pins = bucket.objects(&format!("clusters/{id}/pins"))?;
        ensure!(!pins.is_empty(), "{id} has none");
        Ok(())
    })
}

/// `larder-cache forget-cluster`, as a person says it in the second cluster.
fn forget(second: &Cluster, id: &str) -> Result<String> {
    let release = Release::of(second);
    let replica = release.replicas()?.into_iter().next().context("the second cluster has no cache")?;
    let (store, endpoint) = (format!("--store=bucket:{}", Bucket::url()), format!("--endpoint={}", Bucket::endpoint()));
    let own = format!("--store-cluster={}", IDS[1]);
    release.in_cache(&replica, &["forget-cluster", id, &store, &endpoint, &own])
}
