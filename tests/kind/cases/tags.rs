//! A tag means what the registry says now, and a private image is nobody else's business.

use anyhow::{Result, ensure};
use larder_test_kind::Cluster;
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::registry::{ACCOUNT, PRIVATE};

use crate::Case;
use crate::images::{BLOBS, Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("tags::always_gets_todays_image", always_gets_todays_image).installed(),
    Case::new("private::an_image_goes_straight_to_its_registry_and_is_not_cached", a_private_image_goes_straight)
        .installed()
        .alone(),
];

/// Where a node keeps what it pulled.
const STORE: &str = "/var/lib/larder/store";

fn always_gets_todays_image(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "moved")?;
    let namespace = Namespace::create(cluster, "moved")?;
    for content in ["yesterday", "today"] {
        image.put(cluster, content)?;
        let digest = image.digest()?;
        cluster.on_each_worker(|worker| {
            let name = format!("{}-{content}", worker.name());
            let pod = Pod::create(&namespace, &name, worker, &image.reference, "Always")?;
            pod.wait_until_running()?;
            let id = pod.image_id()?;
            ensure!(id.ends_with(&digest), "{name} runs {id}, and the registry holds {digest}");
            Ok(())
        })?;
    }
    only_larder_asked(&image.requests()?)
}

fn a_private_image_goes_straight(cluster: &Cluster) -> Result<()> {
    let image = Image::push_to(cluster, cluster.private_registry()?, "private")?;
    let namespace = Namespace::create(cluster, "private")?;
    let (user, password) = ACCOUNT;
    cluster.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "account",
        &format!("--namespace={}", namespace.name()),
        &format!("--docker-server={PRIVATE}"),
        &format!("--docker-username={user}"),
        &format!("--docker-password={password}"),
    ])?;
    let blobs = |worker| cluster.node_exec(worker, &["find", STORE, "-path", "*/blobs/*", "-type", "f"]);
    cluster.on_each_worker(|worker| {
        let stored = blobs(worker)?;
        ensure!(!stored.is_empty(), "{} stores nothing at all, or elsewhere", worker.name());
        let pod =
            Pod::create_with(&namespace, worker.name(), worker, &image.reference, "IfNotPresent", Some("account"))?;
        pod.wait_until_running()?;
        pod.delete()?;
        let now = blobs(worker)?;
        ensure!(now == stored, "{} stored it: {stored} became {now}", worker.name());
        Ok(())
    })?;
    let requests = image.requests()?;
    // Larder has no credentials, so all that it may have got is a refusal.
    let got: Vec<_> = requests.iter().filter(|request| request.is_larders() && request.status != 401).collect();
    ensure!(got.is_empty(), "Larder got something without an account: {got:#?}");
    let workers = cluster.workers().count();
    let blobs = requests.iter().filter(|request| request.is_an_engines() && request.is_for_a_blob());
    let blobs = blobs.filter(|request| request.status == 200).count();
    ensure!(blobs == workers * BLOBS, "engines got {blobs} blobs by themselves: {requests:#?}");

    // Nobody gets it from a cache: with its registry away it is refused, Secret or not.
    let first = cluster.workers().next().expect("there are two");
    cluster.remove_image(first, &image.reference)?;
    image.registry.stop()?;
    let refused = Pod::create_with(&namespace, "away", first, &image.reference, "IfNotPresent", Some("account"))
        .and_then(|pod| pod.wait_until_refused());
    image.registry.restart()?;
    refused.map(drop)
}
