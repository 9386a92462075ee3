//! The whole proxy, against a registry over real sockets.

mod attacks;
mod cluster;
mod conformance;
mod intercepted;
mod odd_origins;
mod promised;
mod pulled;
mod scale_up;

use std::fs;
use std::path::Path;

use larder_test_origin::{Image, ImageSpec, Origin as TestOrigin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::cluster_cache::ClusterCacheConfig;
use crate::store::CHUNK;
use crate::store::directory::{DirectoryConfig, Reserve};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn config(store: StoreConfig, run_folder: Option<&Path>) -> ProxyConfig {
    ProxyConfig {
        listen: vec![LOOPBACK],
        admin: LOOPBACK,
        metrics: None,
        store,
        run_folder: run_folder.map(Path::to_owned),
        registries: None,
        settings_beside: None,
        proxies: ProxyVariables::default(),
        upstream_ca: None,
        cluster_cache: None,
        service: None,
        limits: ProxyLimits::default(),
    }
}

/// A whole exchange on a connection of its own.
async fn ask(address: SocketAddr, method: &str, target: &str) -> (u16, Vec<u8>) {
    ask_with(address, method, target, "").await
}

/// The same with more header lines; a body that is cut is given as far as it came, and it ends with FIN.
async fn ask_with(address: SocketAddr, method: &str, target: &str, headers: &str) -> (u16, Vec<u8>) {
    let Exchanged { status, body, .. } = exchange(address, method, target, headers).await;
    (status, body)
}

/// An answer as it came.
struct Exchanged {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Exchanged {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

async fn exchange(address: SocketAddr, method: &str, target: &str, headers: &str) -> Exchanged {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    let mut all = raw(address, request.as_bytes()).await;
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = all.split_off(end + 4);
    let head = String::from_utf8(all).unwrap();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Exchanged { status: head[9..12].parse().unwrap(), headers, body }
}

/// Everything that is answered to these bytes, until the other side closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut all)).await;
    let first = || String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    read.unwrap_or_else(|_| panic!("waited in vain for the end of the answer to {}", first())).unwrap();
    all
}

/// Longer than anything takes that happens at all: a stop has the most time.
const LONG: Duration = Duration::from_mins(1);

/// Waits for a condition, and says which one it was if it does not come.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, met).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// What was answered is in the store from now on.
async fn until_fetched(admin: SocketAddr) {
    until("nothing is fetched any more", async || {
        page(admin, "/metrics").await.contains("\nlarder_fetches_running 0\n")
    })
    .await;
}

/// The end of a proxy that was told to stop.
async fn ended(running: tokio::task::JoinHandle<Result<(), RunError>>) {
    let ended = tokio::time::timeout(LONG, running).await;
    ended.expect("waited in vain: a proxy that was told to stop ends").unwrap().unwrap();
}

async fn page(address: SocketAddr, path: &str) -> String {
    String::from_utf8(ask(address, "GET", path).await.1).unwrap()
}

/// Without a word about the disk that the test runs on.
fn directory(folder: &Path) -> DirectoryConfig {
    let none = Reserve::Bytes(0);
    DirectoryConfig { reserve: none, reserve_files: none, ..DirectoryConfig::new(folder.join("store")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_passes_through_and_stays_when_its_registry_is_gone() {
    let origin = TestOrigin::start();
    let image = Image::build(&ImageSpec::default());
    origin.push("team/app", "v1", &image);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(KEY), "5a".repeat(32)).unwrap();
    let settings = format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry());
    fs::write(folder.path().join(REGISTRIES), settings).unwrap();

    let store = StoreConfig::Directory(directory(folder.path()));
    let opened = open(config(store, Some(folder.path()))).unwrap();
    let (address, admin) = (opened.addresses()[0], opened.admin_address());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(opened.run(shutdown.clone()));

    let target = |what: &str| format!("/v2/team/app/{what}?ns={}", origin.registry());
    let digest = image.largest_layer();
    let (status, manifest) = ask(address, "GET", &target("manifests/v1")).await;
    assert_eq!(status, 200);
    let (status, blob) = ask(address, "GET", &target(&format!("blobs/{digest}"))).await;
    assert_eq!((status, larder_oci::Digest::of(digest.algorithm(), &blob)), (200, digest.clone()));
    assert_eq!(page(admin, "/readyz").await, "ready\n");

    // The store has it once the fetch is over.
    until_fetched(admin).await;
    tokio::task::block_in_place(|| origin.stop());
    assert_eq!(ask(address, "GET", &target("manifests/v1")).await, (200, manifest));
    assert!(ask(address, "GET", &target(&format!("blobs/{digest}"))).await == (200, blob));
    let metrics = page(admin, "/metrics").await;
    let bytes = format!("larder_origin_received_bytes_total{{registry=\"{}\"}}", origin.registry());
    assert!(metrics.contains(&bytes) && metrics.contains("source=\"store\""), "{metrics}");

    shutdown.cancel();
    ended(running).await;
    assert!(TcpStream::connect(address).await.is_err());
    tokio::task::block_in_place(|| drop(origin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_has_damaged_never_leaves_and_the_origin_gives_the_rest() {
    let origin = TestOrigin::start();
    let settings = format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(KEY), "5a".repeat(32)).unwrap();
    fs::write(folder.path().join(REGISTRIES), settings).unwrap();
    let store = StoreConfig::Directory(directory(folder.path()));
    let opened = open(config(store, Some(folder.path()))).unwrap();
    let (address, admin) = (opened.addresses()[0], opened.admin_address());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(opened.run(shutdown.clone()));

    let mut damaged_blobs = 0;
    for (number, length, damage) in [
        (0, 3 * CHUNK + 5, Damage::Flip(7)),
        (1, 3 * CHUNK + 5, Damage::Flip(CHUNK + 1)),
        (2, 3 * CHUNK + 5, Damage::Flip(3 * CHUNK + 4)),
        (3, 3 * CHUNK + 5, Damage::Shorten(2 * CHUNK)),
        (4, 5000, Damage::Flip(4999)),
        (5, 5000, Damage::Shorten(100)),
    ] {
        let bytes: Vec<u8> = (0..length).map(|index| u8::try_from((index + number) % 251).unwrap()).collect();
        let digest = origin.push_blob("team/app", bytes.clone().into());
        let target = format!("/v2/team/app/blobs/{digest}?ns={}", origin.registry());
        assert!(ask(address, "GET", &target).await == (200, bytes.clone()));
        until_fetched(admin).await;
        let path = folder.path().join("store/blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
        let mut file = fs::read(&path).unwrap();
        let sound = match damage {
            Damage::Flip(at) => {
                file[at] ^= 0x80;
                at - at % CHUNK
            }
            Damage::Shorten(left) => {
                file.truncate(left);
                0
            }
        };
        fs::write(&path, file).unwrap();
        assert_eq!(origin.blob_gets(&digest), 1);
        // What lies before the damage comes, then an end that an engine goes on after; it begins where it was cut.
        let (status, got) = ask(address, "GET", &target).await;
        assert_eq!(status, 200);
        if sound > 0 {
            assert!(got == bytes[..sound], "{} bytes of {damage:?}", got.len());
            let range = format!("Range: bytes={sound}-\r\n");
            let (status, rest) = ask_with(address, "GET", &target, &range).await;
            assert!((status, &rest[..]) == (206, &bytes[sound..]), "{status}, {} bytes of {damage:?}", rest.len());
        } else {
            assert!(got == bytes, "{} bytes of {damage:?}", got.len());
        }
        assert_eq!(origin.blob_gets(&digest), 2);
        until_fetched(admin).await;
        assert!(ask(address, "GET", &target).await == (200, bytes));
        assert_eq!(origin.blob_gets(&digest), 2, "it is stored again");
        damaged_blobs += 1;
    }
    // The store's own numbers reach the page every now and then.
    let counted = format!("\nlarder_store_damaged_total {damaged_blobs}\n");
    until("damaged blobs are counted", async || page(admin, "/metrics").await.contains(&counted)).await;
    shutdown.cancel();
    ended(running).await;
    tokio::task::block_in_place(|| drop(origin));
}

/// What a disk does to a file.
#[derive(Debug)]
enum Damage {
    Flip(usize),
    Shorten(usize),
}

#[test]
fn what_a_person_has_to_mend_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let memory = || StoreConfig::Memory { limit: 1 << 20 };
    let error = |config| open(config).unwrap_err().to_string();
    let without_key = error(config(memory(), Some(folder.path())));
    assert!(without_key.starts_with("read probe key ") && without_key.contains("/key: "), "{without_key}");

    let missing = folder.path().join("missing.toml");
    let config_with_file = ProxyConfig { registries: Some(missing), ..config(memory(), None) };
    assert!(error(config_with_file).contains("missing.toml: No such file"));

    let damaged = folder.path().join("ca.crt");
    for (text, words) in [(None, "No such file"), (Some("nothing"), "it holds no certificate")] {
        if let Some(text) = text {
            fs::write(&damaged, text).unwrap();
        }
        let said = error(ProxyConfig { upstream_ca: Some(damaged.clone()), ..config(memory(), None) });
        assert!(said.contains("--upstream-ca") && said.contains("ca.crt: ") && said.contains(words), "{said}");
    }

    let first = open(config(memory(), None)).unwrap();
    let taken = ProxyConfig { listen: first.addresses(), ..config(memory(), None) };
    assert!(error(taken).contains(&format!("(pid {})", std::process::id())));
    let taken = ProxyConfig { admin: first.admin_address(), ..config(memory(), None) };
    assert!(error(taken).starts_with("listen for admin requests on "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_cannot_be_served_keep_nobody_from_pulling() {
    let other = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let memory = StoreConfig::Memory { limit: 1 << 20 };
    let opened = open(ProxyConfig { metrics: other.local_addr().ok(), ..config(memory, None) }).unwrap();
    let (address, admin) = (opened.addresses()[0], opened.admin_address());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(opened.run(shutdown.clone()));
    assert_eq!(ask(address, "GET", "/v2/").await.0, 200);
    until("what is wrong with the metrics is told", async || {
        page(admin, "/readyz").await.starts_with("ready\ndegraded: metrics: ")
    })
    .await;
    shutdown.cancel();
    ended(running).await;
}
