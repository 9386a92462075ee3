//! The cluster cache of the chart: a node that never had an image starts its Pod while the registry is away, and a cache in trouble is in
//! nobody's way.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::bucket::Bucket;
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::release::{NAMESPACE, Replica, TESTED};
use larder_test_kind::requests::Request;
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;
use serde_json::json;

use crate::Case;
use crate::images::{BLOBS, Image, only_larder_asked};
use crate::revisions::{create_pods, delete, no_pull_failed, wait_for};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "cluster_cache::a_node_that_never_had_an_image_starts_it_while_registry_and_names_are_away",
        never_had_it,
    )
    .cached()
    .alone(),
    Case::new("cluster_cache::killed_in_the_middle_of_a_layer_it_fails_no_pull", killed).cached().alone(),
    Case::new("cluster_cache::gone_it_is_in_nobodys_way_and_helm_test_says_so", gone).cached().alone(),
    Case::new("cluster_cache::replaced_while_pods_start", replaced).cached().alone(),
    Case::new("cluster_cache::on_a_bucket_one_of_two_replicas_is_killed_in_the_middle_of_a_layer", one_of_two)
        .cached()
        .alone()
        .leaves_it_changed(),
];

/// A layer that takes seconds at [`SLOW`].
const LARGE: u64 = 24 << 20;
/// Kilobytes in a second.
const SLOW: u32 = 4096;

/// What a pull may take in which every layer is first asked of a cache that is not there.
const WITHOUT: Duration = Duration::from_secs(10);

/// Every node but the first.
pub(crate) fn others(cluster: &Cluster) -> Vec<&Node> {
    cluster.workers().skip(1).collect()
}

/// An image that no node of a cluster that was kept has from an earlier run.
pub(crate) fn fresh<'a>(cluster: &'a Cluster, name: &str) -> Result<Image<'a>> {
    let image = Image::push(cluster, name)?;
    image.put(cluster, &format!("{name}, {:?}", SystemTime::UNIX_EPOCH.elapsed()?))?;
    Ok(image)
}

pub(crate) fn start_on_others(cluster: &Cluster, namespace: &Namespace<'_>, image: &Image<'_>) -> Result<()> {
    let digest = image_digest(cluster, namespace)?;
    larder_test_kind::at_once(others(cluster), |worker| {
        let pod = Pod::create(namespace, worker.name(), worker, &image.reference, "Always")?;
        pod.wait_until_running().with_context(|| format!("on {} with {}", worker.name(), worker.engine()))?;
        let id = pod.image_id()?;
        ensure!(id.ends_with(&digest), "{} runs {id}, and the first one {digest}", worker.name());
        Ok(())
    })
    .map(drop)
}

/// The image of the only Pod, which is the first worker's.
fn image_digest(cluster: &Cluster, namespace: &Namespace<'_>) -> Result<String> {
    let pods = cluster.get(&["pods", "--namespace", namespace.name()])?;
    let id = pods.pointer("/items/0/status/containerStatuses/0/imageID").and_then(serde_json::Value::as_str);
    let id = id.context("the first Pod has no image")?;
    Ok(id.rsplit('@').next().unwrap_or_default().to_owned())
}

pub(crate) fn start_on_first(cluster: &Cluster, namespace: &Namespace<'_>, image: &Image<'_>) -> Result<()> {
    let first = cluster.workers().next().context("there is no worker")?;
    Pod::create(namespace, first.name(), first, &image.reference, "Always")?.wait_until_running()
}

/// Every question for a name is lost on its way, on every worker, for Pods as well.
fn names(cluster: &Cluster, action: &str) -> Result<()> {
    cluster
        .on_each_worker(|worker| {
            for (chain, protocol) in
                [("OUTPUT", "udp"), ("OUTPUT", "tcp"), ("PREROUTING", "udp"), ("PREROUTING", "tcp")]
            {
                let rule = [chain, "--protocol", protocol, "--dport", "53", "--jump", "DROP"];
                cluster.node_exec(worker, &[&["iptables", "--wait", "--table", "raw", action], &rule[..]].concat())?;
            }
            Ok(())
        })
        .map(drop)
}

fn never_had_it(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = fresh(cluster, "never-had")?;
    let namespace = Namespace::create(cluster, "never-had")?;
    start_on_first(cluster, &namespace, &image)?;
    let before = image.requests()?;
    only_larder_asked(&before)?;
    let blobs = before.iter().filter(|request| request.is_for_a_blob()).count();
    ensure!(blobs == BLOBS, "{blobs} blobs crossed for one image of {BLOBS}: {before:#?}");
    image.registry.stop()?;
    names(cluster, "--insert")?;
    let gone = cluster.node_exec(
        others(cluster).first().context("there is one worker")?,
        &["timeout", "2", "getent", "hosts", ORIGIN],
    );
    let started = start_on_others(cluster, &namespace, &image);
    names(cluster, "--delete")?;
    image.registry.restart()?;
    ensure!(gone.is_err(), "names still resolve: {gone:?}");
    started?;
    let asked = image.requests_since(&before)?;
    ensure!(asked.is_empty(), "the registry was asked again: {asked:#?}");
    for worker in others(cluster) {
        let served = release.metric(worker, "larder_cluster_cache_questions_total", &[r#"outcome="ok""#])?;
        ensure!(served > 0.0, "{} had nothing from the cluster cache", worker.name());
    }
    Ok(())
}

/// Waits until a replica has more to send than it may, which is in the middle of a layer, and ends it.
fn kill_the_sender(release: &Release<'_>) -> Result<()> {
    until("a part of the layer was sent", Duration::from_mins(1), || {
        let mut held_back = Vec::new();
        for replica in release.replicas()? {
            held_back.push((release.held_back(&replica)?, replica));
        }
        let most = held_back.iter().max_by_key(|(packets, _)| *packets).context("there is no replica")?;
        ensure!(most.0 > 0, "nothing was held back: {held_back:?}");
        release.kill_replica(&most.1)
    })
}

/// Two things at the same moment: Pods that start on all workers but the first, and the end of the replica that sends to them.
fn start_while_the_sender_is_killed(cluster: &Cluster, namespace: &Namespace<'_>, image: &Image<'_>) -> Result<()> {
    let release = Release::of(cluster);
    release.slow_down(SLOW)?;
    let (started, killed) = std::thread::scope(|scope| {
        let pods = scope.spawn(|| start_on_others(cluster, namespace, image));
        let killed = kill_the_sender(&release);
        // What is left need not take its time.
        let hurried = release.hurry(SLOW);
        let started = pods.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")));
        (started, killed.and(hurried))
    });
    killed?;
    started?;
    no_pull_failed(cluster, namespace)
}

fn killed(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push_large(cluster, "cache-killed", LARGE)?;
    let namespace = Namespace::create(cluster, "cache-killed")?;
    start_on_first(cluster, &namespace, &image)?;
    start_while_the_sender_is_killed(cluster, &namespace, &image)?;
    let requests = image.requests()?;
    ensure!(requests.iter().all(Request::is_larders), "an engine went round Larder: {requests:#?}");
    release.wait_for_cache()
}

fn gone(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = fresh(cluster, "cache-gone")?;
    let namespace = Namespace::create(cluster, "cache-gone")?;
    let tested = Image::push(cluster, "helm-test")?;
    ensure!(tested.repository == TESTED, "helm test pulls something else than {}", tested.repository);
    // Why it does not pass is known after the first try. Said first, for an upgrade brings the replicas back.
    let hurried = json!({"cache": Release::with_cache().get("cache"), "test": Release::tested(15)});
    release.upgrade(&hurried)?;
    release.scale_cache(0)?;
    let pulled = cluster.on_each_worker(|worker| {
        let pod = Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?;
        pod.wait_until_running()?;
        let took = pod.pull_took()?;
        ensure!(took < WITHOUT, "a pull of {} took {took:?}", worker.name());
        Ok(())
    });
    let test = test_without(&release);
    // Before it is back, and the controller has it fetch what Pods use.
    let requests = image.requests();
    release.upgrade(&Release::with_cache())?;
    pulled?;
    test?;
    release.wait_for_cache()?;
    release.test().context("the cluster cache is back")?;
    let requests = requests?;
    only_larder_asked(&requests)?;
    let blobs = requests.iter().filter(|request| request.is_for_a_blob()).count();
    ensure!(blobs == BLOBS * cluster.workers().count(), "each node asks for itself: {requests:#?}");
    // And it is found again.
    let again = fresh(cluster, "cache-back")?;
    cluster.on_each_worker(|worker| {
        let name = format!("{}-again", worker.name());
        Pod::create(&namespace, &name, worker, &again.reference, "Always")?.wait_until_running()
    })?;
    let blobs: Vec<_> = again.requests()?.into_iter().filter(Request::is_for_a_blob).collect();
    ensure!(blobs.len() == BLOBS, "an image of {BLOBS} blobs crossed more than once: {blobs:#?}");
    Ok(())
}

/// Without the cluster cache every node pulls, and `helm test` fails all the same, with words that lead on.
fn test_without(release: &Release<'_>) -> Result<()> {
    let tested = release.test();
    let said = release.test_says()?;
    ensure!(tested.is_err(), "helm test passed without the cluster cache:\n{said}");
    for words in ["the cluster cache answered nothing", "does not answer", "docs/troubleshooting.md"] {
        ensure!(said.contains(words), "helm test does not say {words:?}:\n{said}");
    }
    Ok(())
}

/// So many Pods, of so many images that no node has.
const PODS: usize = 24;
const IMAGES: usize = 6;

fn replaced(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let images = (0..IMAGES).map(|number| Image::push(cluster, &format!("cache-upgrade-{number}")));
    let images = images.collect::<Result<Vec<_>>>()?;
    let namespace = Namespace::create(cluster, "cache-upgrade")?;
    let before = release.replicas()?;
    let mut values = Release::with_cache();
    if let Some(cache) = values.get_mut("cache").and_then(serde_json::Value::as_object_mut) {
        cache.insert("podAnnotations".to_owned(), json!({"larder.test/revision": "two"}));
    }
    let all = create_pods(cluster, &namespace, "upgrade", &images, PODS)?;
    release.upgrade(&values)?;
    wait_for(cluster, &namespace, &all)?;
    release.wait_for_cache()?;
    let after = release.replicas()?;
    let addresses = |replicas: &[Replica]| format!("{replicas:?}");
    ensure!(addresses(&before) != addresses(&after), "nothing was replaced");
    delete(cluster, &namespace, &all)?;
    release.upgrade(&Release::with_cache())
}

/// Waits until everything of an image is in the bucket, and what is known of it as well. That nothing is owed is true of a cache that keeps
/// nothing, too.
pub(crate) fn wait_until_in(bucket: &Bucket<'_>, release: &Release<'_>, image: &Image<'_>) -> Result<()> {
    let parts = image.parts()?;
    until("everything is in the bucket", Duration::from_mins(1), || {
        let blobs = bucket.blobs()?;
        let missing: Vec<_> = parts.iter().filter(|part| !blobs.contains_key(*part)).collect();
        ensure!(missing.is_empty(), "it lacks {missing:?} of {}; {}", image.reference, release.caches_say()?);
        for replica in release.replicas()? {
            let owed = release.cache_metric(&replica, "larder_bucket_owed", &[])?;
            ensure!(owed == 0.0, "{} owes {owed}", replica.pod);
        }
        Ok(())
    })
}

/// The account that may say what is kept, and what its tokens are for.
const KEEPER: &str = "keeper";
const AUDIENCE: &str = "larder-control";

/// By the control API an image is in the bucket that no node ever pulled. Nodes may not say so, by whatever token.
fn an_account_says_what_is_kept(cluster: &Cluster, bucket: &Bucket<'_>) -> Result<()> {
    let release = Release::of(cluster);
    let image = fresh(cluster, "kept")?;
    release.create_account(KEEPER)?;
    let pin = format!("/v1/pins/kind/{}?wait=60", image.reference);
    for (account, audience) in [("larder-node", "larder-cache"), ("larder-node", AUDIENCE), (KEEPER, "larder-cache")] {
        let (status, said) = release.control("PUT", &pin, &release.token(account, audience)?)?;
        ensure!(status == 401, "{account} with a token for {audience} is answered {status}: {said}");
    }
    let (status, said) = release.control("PUT", &pin, &release.token(KEEPER, AUDIENCE)?)?;
    ensure!(status == 200 && said.get("state").is_some_and(|state| state == "complete"), "{status}: {said}");
    let (parts, blobs) = (image.parts()?, bucket.blobs()?);
    ensure!(parts.iter().all(|part| blobs.contains_key(part)), "{said}, and the bucket has not all of {parts:?}");
    only_larder_asked(&image.requests()?)
}

fn one_of_two(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push_large(cluster, "cache-bucket", LARGE)?;
    let namespace = Namespace::create(cluster, "cache-bucket")?;
    let bucket = Bucket::start(cluster)?;
    Bucket::put_secret(cluster, NAMESPACE, "bucket")?;
    let store = json!({"type": "bucket", "size": "2GiB", "reserve": "0", "bucket": Bucket::values("kind", "bucket")});
    let control = json!({"enabled": true, "accounts": [format!("{NAMESPACE}/{KEEPER}")]});
    release.upgrade(&json!({"cache": {"replicas": 2, "store": store, "control": control}}))?;
    release.wait()?;
    release.wait_for_cache()?;
    ensure!(release.replicas()?.len() == 2, "there are {:?}", release.replicas()?);
    an_account_says_what_is_kept(cluster, &bucket)?;
    start_on_first(cluster, &namespace, &image)?;
    wait_until_in(&bucket, &release, &image)?;
    image.registry.stop()?;
    let started = start_while_the_sender_is_killed(cluster, &namespace, &image);
    image.registry.restart()?;
    started
}
