//! Nodes, the cluster cache and a registry, over real sockets.

mod odd_caches;
mod redirected;

use std::path::PathBuf;

use http::header::AUTHORIZATION;
use larder_test_origin::private_certificate;

use super::*;
use crate::source::Verdict;

const NAME: &str = "reg.example.com";
const TOKEN: &str = "a-token-of-many-letters";

/// A cluster of one cache and its nodes; everything of it is in one process.
struct Cluster {
    origin: TestOrigin,
    image: Image,
    folder: tempfile::TempDir,
    cache: Option<Running>,
    url: String,
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(super) fn start(config: ProxyConfig) -> Self {
        let opened = open(config).unwrap();
        let (address, admin, shutdown) = (opened.addresses()[0], opened.admin_address(), CancellationToken::new());
        let task = tokio::spawn(opened.run(shutdown.clone()));
        Self { address, admin, shutdown, task }
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        ended(self.task).await;
    }

    /// The manifest by tag, then the largest layer by digest, as an engine asks.
    async fn pull(&self, image: &Image) -> (u16, bool) {
        let (status, _) = ask(self.address, "GET", &format!("/v2/team/app/manifests/v1?ns={NAME}")).await;
        if status != 200 {
            return (status, false);
        }
        let digest = image.largest_layer();
        let (status, blob) = ask(self.address, "GET", &format!("/v2/team/app/blobs/{digest}?ns={NAME}")).await;
        (status, larder_oci::Digest::of(digest.algorithm(), &blob) == digest)
    }
}

impl Cluster {
    fn start() -> Self {
        let origin = TestOrigin::start();
        let image = Image::build(&ImageSpec { layers: vec![3_000_000, 1000], ..ImageSpec::default() });
        origin.push("team/app", "v1", &image);
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("[registries.\"{NAME}\"]\nendpoints = [\"{}\"]\ninsecure = true\n", origin.url());
        fs::write(folder.path().join(REGISTRIES), settings).unwrap();
        let certificate = private_certificate(&["127.0.0.1", "larder-cache.invalid"]);
        fs::write(folder.path().join("ca.pem"), &certificate.authority).unwrap();
        fs::write(folder.path().join("tls.crt"), &certificate.certificate).unwrap();
        fs::write(folder.path().join("tls.key"), &certificate.key).unwrap();
        fs::write(folder.path().join("tokens"), format!("nodes {TOKEN}\n")).unwrap();
        fs::write(folder.path().join("token"), TOKEN).unwrap();
        let mut cluster = Self { origin, image, folder, cache: None, url: String::new() };
        let cache = Running::start(cluster.cache_config());
        cluster.url = format!("https://{}", cache.address);
        cluster.cache = Some(cache);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache_config(&self) -> ProxyConfig {
        let service = ServiceConfig {
            tls: Some(CertificateConfig::Files { certificate: self.path("tls.crt"), key: self.path("tls.key") }),
            tokens: Some(self.path("tokens")),
            callers: None,
            anonymous: Vec::new(),
            control: None,
        };
        ProxyConfig {
            registries: Some(self.path(REGISTRIES)),
            service: Some(service),
            ..config(StoreConfig::Directory(directory(self.folder.path())), None)
        }
    }

    fn node(&self) -> Running {
        self.node_asking(&self.url)
    }

    fn node_asking(&self, url: &str) -> Running {
        self.node_with(ClusterCacheConfig {
            url: url.parse().unwrap(),
            ca: Some(self.path("ca.pem")),
            token: Some(self.path("token")),
            addresses: Vec::new(),
            copies: None,
        })
    }

    fn node_with(&self, cluster_cache: ClusterCacheConfig) -> Running {
        Running::start(ProxyConfig { cluster_cache: Some(cluster_cache), ..self.node_config() })
    }

    /// Asks this cluster's cache, unless the configuration says another one.
    fn node_of(&self, config: ProxyConfig) -> Running {
        let cluster_cache = ClusterCacheConfig {
            url: self.url.parse().unwrap(),
            ca: Some(self.path("ca.pem")),
            token: Some(self.path("token")),
            addresses: Vec::new(),
            copies: None,
        };
        Running::start(ProxyConfig { cluster_cache: config.cluster_cache.or(Some(cluster_cache)), ..config })
    }

    fn node_config(&self) -> ProxyConfig {
        ProxyConfig { registries: Some(self.path(REGISTRIES)), ..config(StoreConfig::Memory { limit: 64 << 20 }, None) }
    }

    fn cache(&self) -> &Running {
        self.cache.as_ref().unwrap()
    }

    async fn wait_until_stored(&self) {
        let is_stored = async || page(self.cache().admin, "/metrics").await.contains("\nlarder_fetches_running 0\n");
        until("it is stored", is_stored).await;
    }

    async fn end(mut self, nodes: Vec<Running>) {
        for node in nodes {
            node.stop().await;
        }
        if let Some(cache) = self.cache.take() {
            cache.stop().await;
        }
        tokio::task::block_in_place(|| drop(self.origin));
    }
}

/// Waits until `holds` does, and no longer than anything of this takes.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(), "{what}: it never came true");
}

async fn question(node: &Running, outcome: &str) -> bool {
    let page = page(node.admin, "/metrics").await;
    page.contains(&format!("larder_cluster_cache_questions_total{{outcome=\"{outcome}\"}}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_nodes_pull_at_once_crosses_from_the_origin_once_and_stays_for_a_new_node() {
    let cluster = Cluster::start();
    let nodes: Vec<_> = (0..3).map(|_| cluster.node()).collect();
    let pulls = nodes.iter().map(|node| node.pull(&cluster.image));
    assert_eq!(futures_util::future::join_all(pulls).await, vec![(200, true); 3]);
    assert_eq!(cluster.origin.blob_gets(&cluster.image.largest_layer()), 1);
    let manifests = cluster.origin.log().iter().filter(|access| access.is_manifest_get()).count();
    assert_eq!(manifests, 1);
    cluster.wait_until_stored().await;
    tokio::task::block_in_place(|| cluster.origin.stop());
    let fourth = cluster.node();
    assert_eq!(fourth.pull(&cluster.image).await, (200, true));
    assert!(question(&fourth, "stale").await && question(&fourth, "ok").await);
    let mut nodes = nodes;
    nodes.push(fourth);
    cluster.end(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_answer_of_the_cache_stays_stale_on_the_node_and_what_the_origin_said_is_handed_through() {
    let cluster = Cluster::start();
    assert_eq!(cluster.node().pull(&cluster.image).await, (200, true));
    cluster.wait_until_stored().await;
    cluster.origin.delete("team/app");
    cluster.origin.clear_log();
    let node = cluster.node();
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!("GET /v2/team/app/manifests/v1?ns={NAME} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let head = String::from_utf8_lossy(&all).to_lowercase();
    let said = format!("larder-origin: {}", Verdict::NotFound.as_str());
    assert!(head.starts_with("http/1.1 200") && head.contains("warning: 299 - ") && head.contains(&said), "{head}");
    // The cache asked; the node did not ask again, neither for this nor for what does not exist anywhere.
    assert_eq!(cluster.origin.log().len(), 1, "{:#?}", cluster.origin.log());
    assert_eq!(ask(node.address, "GET", &format!("/v2/team/none/manifests/v1?ns={NAME}")).await.0, 404);
    assert_eq!(cluster.origin.log().len(), 2, "{:#?}", cluster.origin.log());
    assert!(question(&node, "not_found").await);
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_cache_or_its_token_a_node_asks_the_origin_and_says_so() {
    let mut cluster = Cluster::start();
    fs::write(cluster.path("token"), "some-other-token-that-nobody-has").unwrap();
    let stranger = cluster.node();
    assert_eq!(stranger.pull(&cluster.image).await, (200, true));
    assert!(question(&stranger, "unauthorized").await);
    until("it is said", async || page(stranger.admin, "/readyz").await.contains("degraded: cluster cache: ")).await;
    assert!(page(stranger.admin, "/readyz").await.contains("does not know this node's token"));
    // It is mended by the file alone.
    fs::write(cluster.path("token"), TOKEN).unwrap();
    until("it is mended", async || page(stranger.admin, "/readyz").await == "ready\n").await;

    let gone = cluster.node();
    cluster.cache.take().unwrap().stop().await;
    let began = Instant::now();
    assert_eq!(gone.pull(&cluster.image).await, (200, true));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    cluster.end(vec![stranger, gone]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_accepts_and_never_answers_costs_a_pull_some_seconds_once() {
    let cluster = Cluster::start();
    let silent = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let node = cluster.node_asking(&format!("https://{}", silent.local_addr().unwrap()));
    let began = Instant::now();
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    until("it is said", async || page(node.admin, "/readyz").await.contains("does not answer")).await;
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_anything_of_it_without_a_token_and_the_origin_is_not_asked() {
    let cluster = Cluster::start();
    let service = ServiceConfig {
        tls: None,
        tokens: Some(cluster.path("tokens")),
        callers: None,
        anonymous: Vec::new(),
        control: None,
    };
    let plain = Running::start(ProxyConfig {
        registries: Some(cluster.path(REGISTRIES)),
        service: Some(service),
        ..config(StoreConfig::Memory { limit: 64 << 20 }, None)
    });
    let manifest = format!("/v2/{NAME}/team/app/manifests/v1");
    for target in ["/v2/", &manifest, "/", "/larder/probe?challenge=ab", "/v2/larder-probe/x/manifests/v1?ns=a.example"]
    {
        for method in ["GET", "HEAD", "PUT"] {
            assert_eq!(ask(plain.address, method, target).await.0, 401, "{method} {target}");
        }
    }
    assert!(cluster.origin.log().is_empty());
    let authorization = format!("{AUTHORIZATION}: Bearer {TOKEN}\r\n");
    assert_eq!(ask_with(plain.address, "GET", "/v2/", &authorization).await, (200, b"{}".to_vec()));
    assert_eq!(ask_with(plain.address, "GET", &manifest, &authorization).await.0, 200);
    // And one that forgot the TLS is told.
    assert_eq!(ask(cluster.cache().address, "GET", "/v2/").await.0, 400);
    cluster.end(vec![plain]).await;
}
