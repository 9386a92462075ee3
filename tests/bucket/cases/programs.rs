//! The program `larder-cache` as a person starts it: several processes, of one cluster and of two, on one bucket.

use std::net::SocketAddr;
use std::time::Duration;

use larder_oci::Registry;
use larder_test_bucket::{BUCKET, Cache, CacheSettings};
use larder_test_origin::{Image, ImageSpec, Origin};
use tokio::task::block_in_place;

use crate::client::{ask, metric, pull};
use crate::world::{Case, World, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![("two_processes_share_a_bucket_and_another_cluster_shares_bytes_only", |world| Box::pin(shared(world)))]
}

/// A process of a cluster.
pub(crate) fn settings(world: &World, cluster: &str, registry: &Registry) -> CacheSettings {
    CacheSettings {
        store: format!("bucket:s3://{BUCKET}/{}", world.prefix()),
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
    assert!(until(Duration::from_secs(20), done).await);
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
