//! Whole pulls, through the proxy as a program, with a registry that answers and a bucket that may not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use larder_proxy::origin::ProxyVariables;
use larder_proxy::program::{OpenError, ProxyConfig, ProxyLimits, RunError, StoreConfig, open};
use larder_proxy::store::bucket::BucketConfig;
use larder_test_bucket::Fault;
use larder_test_origin::{Image, ImageSpec, Origin};
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};
use tokio_util::sync::CancellationToken;

use crate::client::{ask, exchange, metric, pull};
use crate::world::{Case, World, hurry, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("an_image_is_pulled_from_the_bucket_when_its_registry_is_gone", |world| Box::pin(registry_gone(world))),
        ("no_trouble_of_the_bucket_fails_a_pull", |world| Box::pin(bucket_in_trouble(world))),
    ]
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Proxy {
    address: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
    _folders: (TempDir, TempDir),
}

impl Proxy {
    fn start(world: &World, origin: &Origin, change: impl FnOnce(&mut BucketConfig)) -> Result<Self, OpenError> {
        let (mut bucket, copies) = world.config("one");
        change(&mut bucket);
        let folder = tempfile::tempdir().unwrap();
        let registries = folder.path().join("registries.toml");
        std::fs::write(&registries, format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry())).unwrap();
        let opened = open(ProxyConfig {
            cluster_cache: None,
            service: None,
            listen: vec![LOOPBACK],
            admin: LOOPBACK,
            metrics: None,
            store: StoreConfig::Bucket(bucket),
            run_folder: None,
            registries: Some(registries),
            settings_beside: None,
            upstream_ca: None,
            proxies: ProxyVariables::default(),
            limits: ProxyLimits::default(),
        })?;
        let (address, admin, shutdown) = (opened.addresses()[0], opened.admin_address(), CancellationToken::new());
        let running = tokio::spawn(opened.run(shutdown.clone()));
        Ok(Self { address, admin, shutdown, running, _folders: (folder, copies) })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    async fn metric(&self, line: &str) -> Option<u64> {
        metric(self.admin, line).await
    }

    async fn pull(&self, origin: &Origin, image: &Image) -> Result<Duration, String> {
        pull(self.address, &origin.registry(), "team/app", "v1", image).await
    }
}

fn image(seed: u64) -> Image {
    Image::build(&ImageSpec { layers: vec![2_000, 700_000, 5 << 20, 12 << 20], seed, ..ImageSpec::default() })
}

/// Waits until the bucket has all that was pulled.
async fn until_kept(proxy: &Proxy) {
    let done = async || {
        proxy.metric("larder_fetches_running").await == Some(0) && proxy.metric("larder_bucket_owed").await == Some(0)
    };
    assert!(until(Duration::from_secs(20), done).await, "waited in vain: the bucket has all that was pulled");
}

async fn registry_gone(world: World) {
    let world = world.fresh();
    let (origin, image) = (Origin::start(), image(1));
    origin.push("team/app", "v1", &image);
    let first = Proxy::start(&world, &origin, |_| {}).unwrap();
    first.pull(&origin, &image).await.unwrap();
    until_kept(&first).await;
    first.stop().await;
    block_in_place(|| origin.stop());

    // Another replica, with nothing of its own.
    let second = Proxy::start(&world, &origin, |_| {}).unwrap();
    second.pull(&origin, &image).await.unwrap();
    // What a HEAD says of a large layer, too, needs no registry.
    second.stop().await;
    let third = Proxy::start(&world, &origin, |_| {}).unwrap();
    for digest in &image.host_platform().blobs {
        let target = format!("/v2/team/app/blobs/{digest}?ns={}", origin.registry());
        assert_eq!(exchange(third.address, "HEAD", &target, 0).await.0, 200, "{digest}");
    }
    let gets = "larder_bucket_requests_total{operation=\"get\",outcome=\"ok\"}";
    let counted = until(Duration::from_secs(5), async || third.metric(gets).await.is_some_and(|gets| gets >= 4)).await;
    assert!(counted, "what it costs is shown");
    third.stop().await;
    block_in_place(|| drop(origin));
}

async fn bucket_in_trouble(world: World) {
    // Side by side: most of it is waiting.
    let faults = [
        Fault::Away,
        Fault::Unavailable,
        Fault::Silent,
        Fault::Slow(20_000),
        Fault::Cut(600_000),
        Fault::Cut(6_000_000),
        Fault::Corrupt(400),
        Fault::Corrupt(3_000_000),
    ];
    join_all((100..).zip(faults).map(|(number, fault)| pull_under(world.fresh(), number, fault))).await;
}

async fn pull_under(world: World, number: u64, fault: Fault) {
    let (origin, image) = (Origin::start(), image(number));
    origin.push("team/app", "v1", &image);
    let first = Proxy::start(&world, &origin, |_| {}).unwrap();
    first.pull(&origin, &image).await.unwrap();
    until_kept(&first).await;
    first.stop().await;

    let faults = world.faults();
    let second = Proxy::start(&world, &origin, |config| {
        config.endpoint = Some(world.behind(&faults));
        // Once with the times that are in use.
        if fault != Fault::Silent {
            hurry(config);
        }
    });
    let second = second.unwrap();
    // It serves once the bucket was looked at.
    assert_eq!(ask(second.address, "/v2/", 0).await.0, 200);
    faults.set(fault);
    let longest = second.pull(&origin, &image).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    assert!(longest < Duration::from_secs(15), "{fault:?}: an answer took {longest:?}");
    assert!(faults.touched() > 0, "{fault:?}");
    faults.set(Fault::None);
    second.stop().await;
    block_in_place(|| drop(origin));
}
