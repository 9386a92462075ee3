//! A cluster cache that sends whoever follows to the bucket: the signed URLs, nodes, and the tools of people.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use larder_oci::{Digest, Registry};
use larder_proxy::cluster_cache::ClusterCacheConfig;
use larder_proxy::origin::ProxyVariables;
use larder_proxy::program::{self, ProxyConfig, ProxyLimits, StoreConfig};
use larder_test_bucket::{Cache, CacheSettings, Fault, Forward, Kind};
use larder_test_origin::{Image, ImageSpec, Origin};
use larder_test_parts::{Debian, Parts};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{ANSWER, ask, metric, pull};
use crate::programs::{settings, until_kept, until_serving};
use crate::world::{Case, World, sha256, until};

/// For which URLs of Google's are signed: whoever follows must reach the server by this name, which nodes and tools of a test do not.
const GOOGLE: &str = "storage.googleapis.com";

pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    let mut cases: Vec<Case> = vec![
        ("who_follows_and_is_known_is_sent_to_the_bucket_for_a_whole_blob_and_may_only_read_it", |world| {
            Box::pin(signed(world))
        }),
        ("a_signed_url_ends", |world| Box::pin(ends(world))),
    ];
    let followed: [Case; 4] = [
        ("a_node_pulls_from_the_bucket_that_the_cache_names", |world| Box::pin(node(world))),
        ("a_bucket_that_fails_after_it_was_named_fails_no_pull", |world| Box::pin(failing(world))),
        ("who_follows_by_himself_and_is_given_wrong_bytes_is_given_right_ones_when_he_comes_back", |world| {
            Box::pin(coming_back(world))
        }),
        ("curl_skopeo_and_crane_follow_to_the_bucket", |world| Box::pin(tools(world))),
    ];
    if kind != Kind::FakeGcs {
        cases.extend(followed);
    }
    cases
}

const TOKEN: &str = "a-token-of-many-letters";
const NAME: &str = "reg.example.com";

/// What is where, before anybody is sent anywhere.
struct Stage {
    world: World,
    origin: Origin,
    image: Image,
    /// Tokens, for those who are told files.
    folder: TempDir,
}

impl Stage {
    /// The bucket has an image, and the registry is there.
    async fn set(world: World) -> Self {
        let world = world.fresh();
        let origin = Origin::start();
        let layers = vec![2_000, 2 << 20, 3 << 20, 4 << 20];
        let image = Image::build(&ImageSpec { layers, seed: 2600, ..ImageSpec::default() });
        origin.push("team/app", "v1", &image);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokens"), format!("nodes {TOKEN}\n")).unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let stage = Self { world, origin, image, folder };
        let first = stage.cache("none", |settings| settings.arguments.clear());
        until_serving(&first).await;
        pull(first.address, &registry(), "team/app", "v1", &stage.image).await.unwrap();
        until_kept(first.admin).await;
        stage
    }

    fn registries(&self) -> String {
        format!("[registries.\"{NAME}\"]\nendpoints = [\"{}\"]\ninsecure = true\n", self.origin.url())
    }

    /// A replica with nothing in its folder.
    fn cache(&self, redirect: &str, change: impl FnOnce(&mut CacheSettings)) -> Cache {
        let tokens = self.folder.path().join("tokens").display().to_string();
        let mut settings = CacheSettings { registries: self.registries(), ..settings(&self.world, "one", &registry()) };
        settings.arguments = ["--token-file", &tokens, "--redirect", redirect].map(str::to_owned).to_vec();
        if redirect != "none" {
            settings.arguments.extend(["--redirect-from", "1MiB"].map(str::to_owned));
        }
        // All that it could say of what nobody should read.
        if redirect != "none" && self.world.kind() == Kind::FakeGcs {
            // The name leads to the server by a corporate proxy.
            let proxy = Forward::to(GOOGLE, self.world.server().address()).unwrap();
            settings.endpoint = format!("http://{GOOGLE}");
            let variables = [("HTTP_PROXY", proxy.url()), ("NO_PROXY", "127.0.0.1".to_owned())];
            settings.environment.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        }
        settings.environment.push(("LARDER_LOG".to_owned(), "trace".to_owned()));
        change(&mut settings);
        Cache::start(settings).unwrap()
    }

    /// A node's proxy, in this process, with a store that has room for so many bytes.
    fn node(&self, cache: &Cache, limit: u64) -> Node {
        let registries = self.folder.path().join("registries.toml");
        std::fs::write(&registries, self.registries()).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let opened = program::open(ProxyConfig {
            listen: vec![here],
            admin: here,
            metrics: None,
            store: StoreConfig::Memory { limit },
            run_folder: None,
            registries: Some(registries),
            settings_beside: None,
            proxies: ProxyVariables::default(),
            upstream_ca: None,
            cluster_cache: Some(ClusterCacheConfig {
                url: format!("http://{}", cache.address).parse().unwrap(),
                ca: None,
                token: Some(self.folder.path().join("token")),
                addresses: Vec::new(),
                copies: None,
            }),
            service: None,
            limits: ProxyLimits::default(),
        })
        .unwrap();
        let (address, admin, shutdown) = (opened.addresses()[0], opened.admin_address(), CancellationToken::new());
        tokio::spawn(opened.run(shutdown.clone()));
        Node { address, admin, _running: shutdown.drop_guard() }
    }

    /// Layers that are worth a redirect, the smallest first, and one that is not.
    fn layers(&self) -> (Vec<Digest>, Digest) {
        let length = |digest: &Digest| self.image.blobs[digest].len();
        let (mut large, small): (Vec<_>, Vec<_>) =
            self.image.host_platform().blobs.iter().cloned().partition(|digest| length(digest) >= 1 << 20);
        large.sort_by_key(length);
        (large, small[0].clone())
    }

    fn end(self) {
        block_in_place(|| drop(self.origin));
    }
}

struct Node {
    address: SocketAddr,
    admin: SocketAddr,
    _running: DropGuard,
}

fn registry() -> Registry {
    Registry::parse(NAME).unwrap()
}

/// Where a URL leads, and the name that stands in it.
#[derive(Clone)]
struct Host {
    name: String,
    address: SocketAddr,
}

/// Status, head and body of an exchange on a connection of its own.
async fn exchange(address: SocketAddr, method: &str, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
    exchange_with(&Host { name: address.to_string(), address }, method, target, headers).await
}

async fn exchange_with(host: &Host, method: &str, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let name = &host.name;
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let read = timeout(ANSWER, stream.read_to_end(&mut all)).await;
    read.unwrap_or_else(|_| panic!("waited in vain for the end of the answer to {method}")).unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = all.split_off(end + 4);
    let head = String::from_utf8(all).unwrap();
    (head[9..12].parse().unwrap(), head, body)
}

fn target(digest: &Digest) -> String {
    format!("/v2/team/app/blobs/{digest}?ns={NAME}")
}

/// What a node of ours says.
fn following() -> String {
    format!("Authorization: Bearer {TOKEN}\r\nLarder-Redirect: yes\r\n")
}

/// Where the cache sends a node for this blob: host and target. `None`: it gives it itself.
async fn place(stage: &Stage, cache: &Cache, digest: &Digest) -> Option<(Host, String)> {
    let (status, head, body) = exchange(cache.address, "GET", &target(digest), &following()).await;
    if status == 200 {
        assert_eq!(sha256(&body), *digest);
        return None;
    }
    assert!(status == 307 && body.is_empty(), "{head}");
    let location = head.lines().find_map(|line| line.strip_prefix("location: http://")).unwrap();
    let (name, target) = location.split_once('/').unwrap();
    let address = if name == GOOGLE { stage.world.server().address() } else { name.parse().unwrap() };
    Some((Host { name: name.to_owned(), address }, format!("/{target}")))
}

/// How many were sent to the bucket.
async fn redirected(admin: SocketAddr) -> u64 {
    sum(admin, "larder_requests_total{", "outcome=\"redirected\"").await
}

async fn questions(node: &Node, outcome: &str) -> u64 {
    sum(node.admin, "larder_cluster_cache_questions_total{", &format!("outcome=\"{outcome}\"")).await
}

/// Of the numbers of `/metrics` with this name and label.
async fn sum(admin: SocketAddr, name: &str, label: &str) -> u64 {
    let (_, text) = ask(admin, "/metrics", 0).await;
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("Signature") && !text.contains("&sig="), "{text}");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn tells_no_url(log: &str) {
    assert!(log.contains("redirected"), "{log}");
    for secret in ["X-Amz", "x-amz-sig", "Signature=", "&sig="] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}

async fn signed(world: World) {
    let stage = Stage::set(world).await;
    let cache = stage.cache("nodes", |settings| {
        settings.arguments.extend(["--anonymous-networks", "127.0.0.0/8"].map(str::to_owned));
    });
    until_serving(&cache).await;
    let (large, small) = stage.layers();
    let digest = &large[0];
    let served = async || metric(cache.admin, "larder_response_bytes_total{source=\"store\"}").await.unwrap_or(0);

    let (bucket, url) = place(&stage, &cache, digest).await.expect("it is sent on");
    let (status, _, body) = exchange_with(&bucket, "GET", &url, "").await;
    assert_eq!((status, sha256(&body)), (200, digest.clone()));
    let (status, _, part) = exchange_with(&bucket, "GET", &url, "Range: bytes=5-9\r\n").await;
    assert!(status == 206 && part == body[5..10], "a client may read it in parts");
    // The same URL is good for nothing else, and no other one is.
    // As Azure wants it.
    let headers = "Content-Length: 0\r\nx-ms-blob-type: BlockBlob\r\n";
    for (method, headers) in [("PUT", headers), ("DELETE", "")] {
        assert_eq!(exchange_with(&bucket, method, &url, headers).await.0, 403, "{method}");
    }
    let other = url.replace(digest.hex(), large[1].hex());
    assert_eq!(exchange_with(&bucket, "GET", &other, "").await.0, 403);
    assert_eq!(
        exchange_with(&bucket, "GET", url.split_once('?').unwrap().0, "").await.0,
        403,
        "nobody reads without it"
    );

    // Again, since nothing of it came here; and no byte counts as served.
    assert!(place(&stage, &cache, digest).await.is_some());
    assert_eq!((redirected(cache.admin).await, served().await), (2, 0));

    // Of the rest, each is given what it asks for here.
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let (status, head, _) = exchange(cache.address, "HEAD", &target(digest), &following()).await;
    assert!(status == 200 && head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(place(&stage, &cache, &small).await.is_none());
    let given = async |digest: &Digest, headers: &str| {
        let (status, head, body) = exchange(cache.address, "GET", &target(digest), headers).await;
        assert_eq!((status, sha256(&body)), (200, digest.clone()), "{head}");
    };
    given(&large[0], &format!("{token}Larder-Redirect: no\r\n")).await;
    given(&large[1], &token).await;
    given(&large[2], "Larder-Redirect: yes\r\n").await;
    let (status, _, part) =
        exchange(cache.address, "GET", &target(digest), &format!("{}Range: bytes=5-9\r\n", following())).await;
    assert!(status == 206 && part == body[5..10]);
    // What was brought here by that is given from here.
    let is_here = async || place(&stage, &cache, digest).await.is_none();
    assert!(until(Duration::from_mins(1), is_here).await);
    tells_no_url(&cache.log());
    stage.end();
}

async fn ends(world: World) {
    let stage = Stage::set(world).await;
    // What is condemned stays for 16 s, so a URL holds for two.
    let cache = stage.cache("nodes", |settings| {
        settings.arguments.extend(["--removal-spans", "16,3600,3600,3600,3600,3600,600,3600"].map(str::to_owned));
    });
    until_serving(&cache).await;
    let digest = &stage.layers().0[0];
    let (bucket, url) = place(&stage, &cache, digest).await.unwrap();
    let status = async || exchange_with(&bucket, "GET", &url, "").await.0;
    assert_eq!(status().await, 200);
    assert!(until(Duration::from_mins(1), async || status().await == 403).await);
    stage.end();
}

async fn node(world: World) {
    let stage = Stage::set(world).await;
    let cache = stage.cache("nodes", |_| {});
    until_serving(&cache).await;
    block_in_place(|| stage.origin.stop());
    let (large, _) = stage.layers();
    let mut before = 0;
    // The second one has a store that gives way in the middle of each layer, and goes on without.
    for limit in [64 << 20, 1 << 20] {
        let node = stage.node(&cache, limit);
        pull(node.address, &registry(), "team/app", "v1", &stage.image).await.unwrap();
        let sent = redirected(cache.admin).await - before;
        assert!(sent >= large.len() as u64 && questions(&node, "redirected").await == sent, "{}", cache.log());
        assert_eq!(questions(&node, "unfollowed").await, 0);
        before += sent;
    }
    // The cache read none of them itself.
    let served = metric(cache.admin, "larder_response_bytes_total{source=\"store\"}").await.unwrap();
    assert!(served < 1 << 20, "{served} bytes");
    tells_no_url(&cache.log());
    stage.end();
}

async fn failing(world: World) {
    for fault in [Fault::Away, Fault::Silent, Fault::Unavailable, Fault::Cut(1 << 20), Fault::Corrupt(1 << 20)] {
        let stage = Stage::set(world.clone()).await;
        let faults = stage.world.faults();
        let cache = stage.cache("nodes", |settings| settings.endpoint = stage.world.behind(&faults));
        until_serving(&cache).await;
        let (large, _) = stage.layers();
        // The cache knows where they are, and learns of the fault only when it asks again.
        for digest in &large {
            assert!(place(&stage, &cache, digest).await.is_some());
        }
        let node = stage.node(&cache, 64 << 20);
        faults.set(fault);
        for digest in &large {
            let mut bytes = Vec::new();
            for tries in 0.. {
                let (status, part) = ask(node.address, &target(digest), bytes.len()).await;
                assert!(
                    matches!(status, 200 | 206) && tries < 4,
                    "{fault:?}: {status} at try {tries}\n{}",
                    cache.log()
                );
                bytes.extend(part);
                if sha256(&bytes) == *digest {
                    break;
                }
                if bytes.len() >= stage.image.blobs[digest].len() {
                    // What was given was wrong: an engine begins anew.
                    bytes.clear();
                }
            }
        }
        assert!(questions(&node, "redirected").await > 0, "{fault:?}");
        stage.end();
    }
}

async fn coming_back(world: World) {
    let stage = Stage::set(world).await;
    let curl = Parts::from_environment().unwrap().debian(Debian::Curl).unwrap();
    let faults = stage.world.faults();
    // To an address nobody is sent who does not say that he follows.
    let at_name = stage.world.behind(&faults).replace("127.0.0.1", "localhost");
    let cache = stage.cache("everyone", |settings| settings.endpoint = at_name);
    until_serving(&cache).await;
    let (large, _) = stage.layers();
    let user = format!("me:{TOKEN}");
    // What it has, all or not.
    let ask = async |digest: &Digest| {
        let url = format!("http://{}/v2/{NAME}/team/app/blobs/{digest}", cache.address);
        let words = ["--fail", "--silent", "--show-error", "--location", "-u", &user, &url];
        sha256(&output(stage.folder.path(), &curl, &words).await.stdout)
    };
    // Where nothing is wrong a second client of this machine is given it here, and others are sent on as before.
    for _ in 0..2 {
        assert_eq!((ask(&large[0]).await, redirected(cache.admin).await), (large[0].clone(), 1), "{}", cache.log());
    }

    faults.set(Fault::Corrupt(1 << 20));
    assert!(ask(&large[1]).await != large[1] && redirected(cache.admin).await == 2, "it is sent to damaged bytes");
    // The cache finds that out when it reads it: what is wrong does not leave, and the next one is given what the registry has.
    let mut last = ask(&large[1]).await;
    if last != large[1] {
        last = ask(&large[1]).await;
    }
    assert_eq!((last, redirected(cache.admin).await), (large[1].clone(), 2), "{}", cache.log());
    stage.end();
}

async fn tools(world: World) {
    let stage = Stage::set(world).await;
    let parts = Parts::from_environment().unwrap();
    let (crane, curl) = (parts.crane().unwrap(), parts.debian(Debian::Curl).unwrap());
    let skopeo = parts.debian(Debian::Skopeo).unwrap();
    let home = stage.folder.path();
    let (large, _) = stage.layers();
    let blob = &large[0];
    let user = format!("me:{TOKEN}");
    let name = |cache: &Cache, host: &str| format!("{host}:{}", cache.address.port());

    // The bucket is `localhost`, on another port: whoever asks the cache by that name would show the bucket the token.
    let at_name = stage.world.kind().endpoint("http", format!("localhost:{}", world_port(&stage)));
    // Each has a cache of its own, which has not sent this machine on yet.
    let fresh = async || {
        let cache = stage.cache("everyone", |settings| settings.endpoint.clone_from(&at_name));
        until_serving(&cache).await;
        cache
    };
    let cache = fresh().await;
    let url = format!("http://{}/v2/{NAME}/team/app/blobs/{blob}", name(&cache, "127.0.0.1"));
    let got = run(home, &curl, &["--fail", "--silent", "--show-error", "--location", "-u", &user, &url]).await;
    assert_eq!((sha256(&got), redirected(cache.admin).await), (blob.clone(), 1));
    tells_no_url(&cache.log());

    let cache = fresh().await;
    let (other, same) = (name(&cache, "127.0.0.1"), name(&cache, "localhost"));
    for host in [&other, &same] {
        run(home, &crane, &["auth", "login", host, "-u", "me", "-p", TOKEN]).await;
    }
    let got = run(home, &crane, &["blob", &format!("{other}/{NAME}/team/app@{blob}")]).await;
    assert_eq!((sha256(&got), redirected(cache.admin).await), (blob.clone(), 1));
    let got = run(home, &crane, &["blob", &format!("{same}/{NAME}/team/app@{}", large[1])]).await;
    assert_eq!((sha256(&got), redirected(cache.admin).await), (large[1].clone(), 1), "given here");
    tells_no_url(&cache.log());

    let cache = fresh().await;
    let into = format!("dir:{}", home.join("copied").display());
    let image = format!("docker://{}/{NAME}/team/app:v1", name(&cache, "127.0.0.1"));
    run(home, &skopeo, &["copy", "--src-tls-verify=false", "--src-creds", &user, &image, &into]).await;
    assert_eq!(redirected(cache.admin).await, large.len() as u64);
    for digest in &large {
        assert_eq!(sha256(&std::fs::read(home.join("copied").join(digest.hex())).unwrap()), *digest);
    }
    tells_no_url(&cache.log());

    // To a private address crane does not follow.
    let cache = stage.cache("everyone", |_| {});
    until_serving(&cache).await;
    run(home, &crane, &["auth", "login", &name(&cache, "localhost"), "-u", "me", "-p", TOKEN]).await;
    let got = run(home, &crane, &["blob", &format!("{}/{NAME}/team/app@{blob}", name(&cache, "localhost"))]).await;
    assert_eq!((sha256(&got), redirected(cache.admin).await), (blob.clone(), 0), "given here");
    stage.end();
}

fn world_port(stage: &Stage) -> u16 {
    stage.world.server().address().port()
}

/// Longer than any of the tools takes.
const TYPED: Duration = Duration::from_mins(1);

/// What a person types; what it prints.
async fn run(home: &Path, program: &Path, words: &[&str]) -> Vec<u8> {
    let output = output(home, program, words).await;
    assert!(output.status.success(), "{words:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

async fn output(home: &Path, program: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words).env("HOME", home).env_remove("DOCKER_CONFIG").env_remove("REGISTRY_AUTH_FILE");
    let output = timeout(TYPED, command.kill_on_drop(true).output()).await;
    output.unwrap_or_else(|_| panic!("waited in vain for the end of {words:?}")).unwrap()
}
