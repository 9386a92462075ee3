//! The program `larder-cache` as a person starts it: several processes, of one cluster and of two, on one bucket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_oci::Registry;
use larder_test_bucket::{Cache, CacheSettings, Fault};
use larder_test_origin::{Image, ImageSpec, Origin};
use tokio::task::block_in_place;

use crate::client::{ask, metric, pull};
use crate::world::{Case, World, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("two_processes_share_a_bucket_and_another_cluster_shares_bytes_only", |world| Box::pin(shared(world))),
        ("a_bucket_that_is_gone_for_a_while_fails_nobody_and_gets_what_came_meanwhile", |world| {
            Box::pin(bad_minute(world))
        }),
        ("what_was_pulled_stays_and_a_dead_cluster_is_forgotten", |world| Box::pin(let_go(world))),
    ]
}

/// A process of a cluster.
pub(crate) fn settings(world: &World, cluster: &str, registry: &Registry) -> CacheSettings {
    CacheSettings {
        store: format!("bucket:{}", world.bucket()),
        endpoint: world.server().endpoint(),
        cluster: cluster.to_owned(),
        registries: format!("[registries.\"{registry}\"]\ninsecure = true\n"),
        arguments: Vec::new(),
        environment: Vec::new(),
    }
}

pub(crate) async fn until_serving(cache: &Cache) {
    let serving = until(Duration::from_secs(30), async || ask(cache.admin, "/readyz", 0).await.0 == 200).await;
    assert!(serving, "{}", cache.log());
}

/// Waits until the bucket has all that was pulled.
pub(crate) async fn until_kept(admin: SocketAddr) {
    let done = async || {
        metric(admin, "larder_fetches_running").await == Some(0) && metric(admin, "larder_bucket_owed").await == Some(0)
    };
    assert!(until(Duration::from_secs(20), done).await, "waited in vain: the bucket has all that was pulled");
}

async fn shared(world: World) {
    let world = world.fresh();
    let origin = Origin::start();
    let registry = origin.registry();
    let image = |seed| Image::build(&ImageSpec { layers: vec![2_000, 3 << 20, 9 << 20], seed, ..ImageSpec::default() });
    let images = [image(1), image(2)];
    for (number, image) in images.iter().enumerate() {
        origin.push("team/app", &format!("v{number}"), image);
    }
    let start = |cluster| Cache::start(settings(&world, cluster, &registry)).unwrap();
    let (first, second, stranger) = (start("one"), start("one"), start("two"));
    for cache in [&first, &second, &stranger] {
        until_serving(cache).await;
    }
    // Each pulls something, and at the same time.
    let (one, two) = tokio::join!(
        pull(first.address, &registry, "team/app", "v0", &images[0]),
        pull(second.address, &registry, "team/app", "v1", &images[1])
    );
    one.unwrap();
    two.unwrap();
    for cache in [&first, &second] {
        until_kept(cache.admin).await;
    }
    block_in_place(|| origin.stop());
    for cache in [&first, &second] {
        for (number, image) in images.iter().enumerate() {
            pull(cache.address, &registry, "team/app", &format!("v{number}"), image).await.unwrap();
        }
    }
    for image in &images {
        for digest in &image.host_platform().blobs {
            assert_eq!(block_in_place(|| origin.blob_gets(digest)), 1, "{digest}");
        }
    }
    // The bytes are there, but nobody has shown this cluster that the repository delivers them.
    let (status, _) = ask(stranger.address, &format!("/v2/team/app/manifests/v0?ns={registry}"), 0).await;
    assert!(matches!(status, 404 | 502), "{status}");
    block_in_place(|| origin.start_again());
    pull(stranger.address, &registry, "team/app", "v0", &images[0]).await.unwrap();
    for digest in &images[0].host_platform().blobs {
        assert_eq!(block_in_place(|| origin.blob_gets(digest)), 1, "a HEAD is evidence enough");
    }
    block_in_place(|| drop(origin));
}

async fn bad_minute(world: World) {
    let world = world.fresh();
    let origin = Origin::start();
    let registry = origin.registry();
    let images: Vec<Image> = (21..29)
        .map(|seed| Image::build(&ImageSpec { layers: vec![2_000, 700_000, 3 << 20], seed, ..ImageSpec::default() }))
        .collect();
    for (number, image) in images.iter().enumerate() {
        origin.push("team/app", &format!("v{number}"), image);
    }
    let (whole, faults) = (Cache::start(settings(&world, "one", &registry)).unwrap(), world.faults());
    let behind = CacheSettings { endpoint: world.behind(&faults), ..settings(&world, "one", &registry) };
    let behind = Cache::start(behind).unwrap();
    for cache in [&whole, &behind] {
        until_serving(cache).await;
    }
    // The other replica has brought these; this one has none of them.
    for (number, image) in images.iter().enumerate().take(2) {
        pull(whole.address, &registry, "team/app", &format!("v{number}"), image).await.unwrap();
    }
    until_kept(whole.admin).await;
    let span = if std::env::var_os("LARDER_BUCKET_MINUTES").is_some() { 60 } else { 12 };
    for (number, fault) in (0..).zip([Fault::Away, Fault::Silent, Fault::Unavailable]) {
        faults.set(fault);
        let until_when = Instant::now() + Duration::from_secs(span / 3);
        let mut longest = Duration::ZERO;
        while Instant::now() < until_when {
            // One that is new, and all that came before.
            for (which, image) in images.iter().enumerate().take(4 + 2 * number) {
                let took = pull(behind.address, &registry, "team/app", &format!("v{which}"), image).await;
                longest = longest.max(took.unwrap_or_else(|error| panic!("{fault:?}: {error}")));
            }
        }
        assert!(longest < Duration::from_secs(8), "{fault:?}: an answer took {longest:?}");
        let (status, text) = ask(behind.admin, "/readyz", 0).await;
        assert!(status == 200 && String::from_utf8(text).unwrap().contains("the bucket does not answer"), "{fault:?}");
    }
    assert!(faults.touched() > 0);
    faults.set(Fault::None);
    let owed = async || metric(behind.admin, "larder_bucket_owed").await == Some(0);
    assert!(until(Duration::from_mins(1), owed).await, "{}", behind.log());
    block_in_place(|| origin.stop());
    for (number, image) in images.iter().enumerate() {
        pull(whole.address, &registry, "team/app", &format!("v{number}"), image).await.unwrap();
    }
    block_in_place(|| drop(origin));
}

/// A day in a second or two, but for pulls: grace, young, declared, tombstone, sudden, every, declare, pull.
const SPANS: &str = "1,1,10,60,1,1,1,600";

async fn let_go(world: World) {
    let world = world.fresh();
    let origin = Origin::start();
    let registry = origin.registry();
    let images: Vec<Image> = (11..17)
        .map(|seed| Image::build(&ImageSpec { layers: vec![2_000, 1_500_000], seed, ..ImageSpec::default() }))
        .collect();
    for (number, image) in images.iter().enumerate() {
        origin.push("team/app", &format!("v{number}"), image);
    }
    let start = |cluster| {
        let environment = vec![("LARDER_REMOVAL_SPANS".to_owned(), SPANS.to_owned())];
        Cache::start(CacheSettings { environment, ..settings(&world, cluster, &registry) }).unwrap()
    };
    let (used, mut dying) = (start("one"), start("dying"));
    for cache in [&used, &dying] {
        until_serving(cache).await;
    }
    for (number, image) in images.iter().enumerate() {
        // The first is used by one, all others by the other.
        let cache = if number == 0 { &used } else { &dying };
        pull(cache.address, &registry, "team/app", &format!("v{number}"), image).await.unwrap();
    }
    let pins = async |expected| metric(used.admin, "larder_bucket_pins").await == Some(expected);
    assert!(until(Duration::from_secs(30), async || pins(6).await).await, "{}", used.log());
    dying.kill().unwrap();
    block_in_place(|| origin.stop());

    // One that is silent stops removal for all, and it is said what to do about it.
    let waits = async |word: &str| {
        let (status, text) = ask(used.admin, "/readyz", 0).await;
        status == 200 && String::from_utf8(text).unwrap().contains(word)
    };
    assert!(
        until(Duration::from_secs(30), async || waits("of cluster dying last declared").await).await,
        "{}",
        used.log()
    );
    let command = |words: &[&str]| block_in_place(|| used.command(words)).unwrap();
    let (status, text) = command(&["forget-cluster", "dying", "--dry-run"]);
    assert!(status == Some(0) && text.contains("holder pull: 5 pins") && !text.contains("alive"), "{status:?} {text}");
    let (status, text) = command(&["forget-cluster", "one"]);
    assert!(status == Some(1) && text.contains("--store-cluster itself"), "{status:?} {text}");
    let (status, text) = command(&["forget-cluster", "dyin"]);
    assert!(
        status == Some(1) && text.contains("there is: dying, one") && !text.contains("Forgotten"),
        "{status:?} {text}"
    );
    let (status, text) = command(&["forget-cluster", "dying"]);
    assert!(status == Some(0) && text.contains("release-brake"), "{status:?} {text}");
    assert!(!world.has("clusters/dying/"));

    // Five pins fewer at once are more than a machine decides.
    assert!(until(Duration::from_secs(30), async || waits("larder-cache release-brake").await).await, "{}", used.log());
    assert_eq!(metric(used.admin, "larder_bucket_brake").await, Some(1));
    let (status, text) = command(&["release-brake", "--dry-run"]);
    assert!(status == Some(0) && text.contains("compares with 6") && text.contains("The brake is on"), "{text}");
    let unwanted = images[1].host_platform().blobs.clone();
    let is_there = |digest: &larder_oci::Digest| world.has(&format!("blobs/sha256/{}/", digest.hex()));
    assert!(unwanted.iter().all(is_there), "nothing went before the word");
    let (status, text) = command(&["release-brake"]);
    assert!(status == Some(0) && text.contains("Said."), "{text}");

    // What only the dead cluster wanted goes; what was pulled here stays, though its registry is away all the time.
    let gone = async || !unwanted.iter().any(is_there);
    assert!(until(Duration::from_mins(1), gone).await, "{}", used.log());
    pull(used.address, &registry, "team/app", "v0", &images[0]).await.unwrap();
    let kept = images[0].host_platform().blobs.clone();
    assert!(kept.iter().all(is_there));
    let counted = async || metric(used.admin, "larder_bucket_removed_total").await.is_some_and(|removed| removed > 0);
    assert!(until(Duration::from_secs(20), counted).await, "waited in vain: what was removed is counted");
    block_in_place(|| drop(origin));
}
