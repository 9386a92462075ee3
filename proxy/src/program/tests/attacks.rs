//! The service under attack by whoever reaches its port: what costs nobody else an answer, what is never asked of anybody, and what has
//! an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_test_origin::{Behaviour, Matcher, private_certificate};

use super::cluster::Running;
use super::*;
use crate::pull::Limits as PullLimits;

const TOKEN: &str = "a-token-of-many-letters";
const NAME: &str = "reg.example.com";

/// A service with a folder for its files.
struct Service {
    running: Running,
    folder: tempfile::TempDir,
}

#[derive(Default)]
struct Wish {
    /// The registries file.
    registries: String,
    tls: bool,
    anonymous: bool,
    connections: Option<usize>,
    pull: Option<PullLimits>,
    listen: Option<SocketAddr>,
}

impl Service {
    fn start(wish: Wish) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path(REGISTRIES), wish.registries).unwrap();
        fs::write(path("tokens"), format!("somebody {TOKEN}\n")).unwrap();
        let certificate = private_certificate(&["127.0.0.1"]);
        fs::write(path("tls.crt"), &certificate.certificate).unwrap();
        fs::write(path("tls.key"), &certificate.key).unwrap();
        let service = ServiceConfig {
            tls: wish.tls.then(|| CertificateConfig::Files { certificate: path("tls.crt"), key: path("tls.key") }),
            tokens: Some(path("tokens")),
            callers: None,
            anonymous: if wish.anonymous { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() },
            control: None,
        };
        let usual = ProxyLimits::default();
        let limits = ProxyLimits {
            connections: wish.connections.unwrap_or(usual.connections),
            pull: wish.pull.unwrap_or_default(),
            drain: Duration::from_secs(1),
            ..usual
        };
        let running = Running::start(ProxyConfig {
            listen: vec![wish.listen.unwrap_or(LOOPBACK)],
            registries: Some(path(REGISTRIES)),
            service: Some(service),
            limits,
            ..config(StoreConfig::Memory { limit: 64 << 20 }, None)
        });
        Self { running, folder }
    }

    async fn ask(&self, method: &str, target: &str) -> Exchanged {
        exchange(self.running.address, method, target, &format!("Authorization: Bearer {TOKEN}\r\n")).await
    }

    async fn metrics(&self) -> String {
        page(self.running.admin, "/metrics").await
    }

    async fn end(self) {
        self.running.stop().await;
        drop(self.folder);
    }
}

fn at(origin: &TestOrigin) -> String {
    format!("[registries.\"{NAME}\"]\nendpoints = [\"{}\"]\ninsecure = true\n", origin.url())
}

/// An address that nobody has had yet.
fn free() -> SocketAddr {
    std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap()
}

/// Counts who connects to it.
struct Trap {
    address: SocketAddr,
    caught: Arc<AtomicUsize>,
}

impl Trap {
    fn set(address: &str) -> Option<Self> {
        let listener = std::net::TcpListener::bind(address).ok()?;
        let (address, caught) = (listener.local_addr().ok()?, Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&caught);
        // Ends with the test's process.
        std::thread::spawn(move || listener.incoming().for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst)));
        Some(Self { address, caught })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_little_or_slowly_cost_nobody_an_answer() {
    for tls in [false, true] {
        let service = Service::start(Wish { tls, connections: Some(32), ..Wish::default() });
        let mut held = Vec::new();
        for beginning in [&b""[..], b"G", b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\x16\x03\x01\x02\x00\x01\x00"]
        {
            for _ in 0..50 {
                let mut stream = TcpStream::connect(service.running.address).await.unwrap();
                stream.write_all(beginning).await.unwrap();
                held.push(stream);
            }
        }
        // All that may be served at once are taken by strangers, who are not let in for it.
        let began = Instant::now();
        for _ in 0..20 {
            let answer = if tls {
                let refused = exchange(service.running.address, "GET", "/v2/", "").await;
                assert_eq!(refused.status, 400, "it is told to speak TLS");
                continue;
            } else {
                service.ask("GET", "/v2/").await
            };
            assert_eq!(answer.status, 200, "tls: {tls}");
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        drop(held);
        service.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_give_way_and_whoever_was_let_in_does_not() {
    let origin = TestOrigin::start();
    let image = Image::build(&ImageSpec { layers: vec![400_000], ..ImageSpec::default() });
    origin.push("team/app", "v1", &image);
    let digest = image.largest_layer();
    origin.behave_times(1, Matcher::path(digest.as_str()), Behaviour::Shape(200_000));
    let service = Service::start(Wish { registries: at(&origin), connections: Some(16), ..Wish::default() });
    let address = service.running.address;
    let pulling = {
        let target = format!("/v2/{NAME}/team/app/blobs/{digest}");
        tokio::spawn(
            async move { exchange(address, "GET", &target, &format!("Authorization: Bearer {TOKEN}\r\n")).await },
        )
    };
    until("the layer is fetched", async || origin.blob_gets(&digest) > 0).await;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nX: ").await.unwrap();
        strangers.push(stream);
    }
    // Fewer than there are places: those that are answered may not have ended yet.
    for _ in 0..10 {
        assert_eq!(service.ask("GET", "/v2/").await.status, 200);
    }
    let pulled = tokio::time::timeout(LONG, pulling).await.expect("waited in vain: the pull ends").unwrap();
    assert!(pulled.status == 200 && pulled.body == image.blobs[&digest][..]);
    drop(strangers);
    service.end().await;
    tokio::task::block_in_place(|| drop(origin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_smuggled_past_somebody_in_between() {
    let service = Service::start(Wish { anonymous: true, ..Wish::default() });
    let inner = "GET /v2/ HTTP/1.1\r\nHost: inner\r\n\r\n";
    let length = inner.len();
    let chunk = format!("{length:x}\r\n{inner}\r\n0\r\n\r\n");
    for (what, framing, body) in [
        (
            "CL.TE",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", 5 + length),
            format!("0\r\n\r\n{inner}"),
        ),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(), chunk),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), inner.to_owned()),
        ("a length of two", format!("Content-Length: 0, {length}\r\n"), inner.to_owned()),
        ("a signed length", format!("Content-Length: +{length}\r\n"), inner.to_owned()),
        ("an odd coding", format!("Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n"), inner.to_owned()),
        (
            "a space before the colon",
            format!("Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n"),
            inner.to_owned(),
        ),
        (
            "a folded line",
            format!("X: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            inner.to_owned(),
        ),
        ("a bare CR", format!("X: 1\rTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n"), inner.to_owned()),
        ("a bare LF", format!("X: 1\nContent-Length: {length}\r\n"), inner.to_owned()),
        ("a body", format!("Content-Length: {length}\r\n"), inner.to_owned()),
    ] {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n{body}");
        // It is closed by us, or this would wait.
        let answered = tokio::time::timeout(Duration::from_secs(10), raw(service.running.address, request.as_bytes()));
        let answered = answered.await.unwrap_or_else(|_| panic!("{what}: kept open"));
        let answered = String::from_utf8(answered).unwrap();
        assert_eq!(answered.matches("HTTP/1.1 ").count(), 1, "{what}: {answered}");
    }
    // And a connection without any of it is kept.
    let two = format!("{inner}{}", inner.replace("inner\r\n", "inner\r\nConnection: close\r\n"));
    let answered = String::from_utf8(raw(service.running.address, two.as_bytes()).await).unwrap();
    assert_eq!(answered.matches("HTTP/1.1 200").count(), 2, "{answered}");
    service.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end_are_refused() {
    let service = Service::start(Wish { anonymous: true, ..Wish::default() });
    let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
    for (what, head) in [
        ("one long line", format!("X: {}\r\n", "x".repeat(100_000))),
        ("many lines", line.repeat(90)),
        ("very many lines", "A: b\r\n".repeat(500)),
    ] {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        let answered = String::from_utf8(raw(service.running.address, request.as_bytes()).await).unwrap();
        assert!(answered.starts_with("HTTP/1.1 431 "), "{what}: {answered}");
    }
    let request = format!("GET /v2/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let answered = String::from_utf8(raw(service.running.address, request.as_bytes()).await).unwrap();
    assert!(answered.starts_with("HTTP/1.1 414 ") || answered.starts_with("HTTP/1.1 431 "), "{answered}");
    service.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_token_is_answered_before_his_body_is_read() {
    let service = Service::start(Wish::default());
    let request = "PUT /v2/reg.example.com/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\
        Expect: 100-continue\r\n\r\n";
    let answered = String::from_utf8(raw(service.running.address, request.as_bytes()).await).unwrap();
    assert!(answered.starts_with("HTTP/1.1 401 ") && !answered.contains("100 Continue"), "{answered}");
    assert_eq!(answered.matches("HTTP/1.1 ").count(), 1);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reference_leads_to_this_machine_or_to_a_cloud_s_metadata() {
    let service = Service::start(Wish::default());
    let trap = Trap::set("127.0.0.1:0").unwrap();
    let port = trap.address.port();
    let inner = Trap::set(&format!("[::1]:{port}"));
    for host in ["127.0.0.1", "127.1", "0.0.0.0", "0x7f.0.0.1", "2130706433", "localhost", "localhost.localdomain"] {
        for target in
            [format!("/v2/{host}__{port}/team/app/manifests/v1"), format!("/v2/team/app/manifests/v1?ns={host}:{port}")]
        {
            let answer = service.ask("GET", &target).await;
            assert!(matches!(answer.status, 400 | 404 | 502), "{target}: {}", answer.status);
        }
    }
    for host in ["[::1]", "[::ffff:127.0.0.1]", "[::]", "[64:ff9b::7f00:1]"] {
        let answer = service.ask("GET", &format!("/v2/team/app/manifests/v1?ns={host}:{port}")).await;
        assert!(matches!(answer.status, 400 | 404 | 502), "{host}: {}", answer.status);
    }
    for host in ["169.254.169.254", "168.63.129.16", "100.100.100.200", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]"] {
        let began = Instant::now();
        let answer = service.ask("GET", &format!("/v2/team/app/manifests/v1?ns={host}")).await;
        assert!(matches!(answer.status, 400 | 404), "{host}: {}", answer.status);
        assert!(began.elapsed() < Duration::from_secs(1), "{host}: {:?}", began.elapsed());
    }
    assert_eq!(trap.caught.load(Ordering::SeqCst), 0);
    assert!(inner.is_none_or(|trap| trap.caught.load(Ordering::SeqCst) == 0));
    let metrics = service.metrics().await;
    for outcome in ["ok", "unreachable", "timeout"] {
        let sent =
            format!("larder_origin_requests_total{{registry=\"other\",kind=\"manifest\",outcome=\"{outcome}\"}}");
        // A name that no server knows is the one thing that may have been looked up.
        assert!(outcome == "unreachable" || !metrics.contains(&sent), "{metrics}");
    }
    service.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redirect_leads_there_either() {
    let origin = TestOrigin::start();
    let service = Service::start(Wish { registries: at(&origin), ..Wish::default() });
    for to in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://0xa9fea9fe/",
        "http://100.100.100.200/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
    ] {
        origin.behave(Matcher::all(), Behaviour::Redirect(to.to_owned()));
        let began = Instant::now();
        let digest = larder_oci::Digest::of(larder_oci::Algorithm::Sha256, to.as_bytes());
        for what in [format!("manifests/{digest}"), format!("blobs/{digest}"), "tags/list".to_owned()] {
            let answer = service.ask("GET", &format!("/v2/{NAME}/team/app/{what}")).await;
            assert!(matches!(answer.status, 404 | 502) && answer.body.is_empty(), "{to} {what}: {}", answer.status);
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{to}: {:?}", began.elapsed());
    }
    service.end().await;
    tokio::task::block_in_place(|| drop(origin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_its_own_upstream_says_so_at_once() {
    for host in ["127.0.0.1", "localhost"] {
        for anonymous in [true, false] {
            let address = free();
            let registries = format!(
                "[registries.\"{NAME}\"]\nendpoints = [\"http://{host}:{0}\", \"http://{host}:{0}/v2/{NAME}\"]\ninsecure = true\n",
                address.port()
            );
            let service = Service::start(Wish { registries, anonymous, listen: Some(address), ..Wish::default() });
            let began = Instant::now();
            let answer = service.ask("GET", &format!("/v2/{NAME}/team/app/manifests/v1")).await;
            assert!(matches!(answer.status, 404 | 502), "{}", answer.status);
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            let metrics = service.metrics().await;
            let served = metrics.lines().filter(|line| line.starts_with("larder_requests_total"));
            let served: u64 = served.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
            assert!(served < 8, "{host} {anonymous}: {metrics}");
            service.end().await;
        }
    }
}

/// Decision 17: a circle of several is not seen; it has an end all the same, since each waits for its own question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_that_are_each_other_s_upstream_end_after_one_round() {
    let addresses = [free(), free()];
    let start = |own: SocketAddr, other: SocketAddr| {
        let registries =
            format!("[registries.\"{NAME}\"]\nendpoints = [\"http://{other}/v2/{NAME}\"]\ninsecure = true\n");
        let short = Duration::from_secs(1);
        let pull = PullLimits { answer: short, background: short, freshness: short, ..PullLimits::default() };
        Service::start(Wish { registries, anonymous: true, listen: Some(own), pull: Some(pull), ..Wish::default() })
    };
    let services = [start(addresses[0], addresses[1]), start(addresses[1], addresses[0])];
    let began = Instant::now();
    let answer = services[0].ask("GET", &format!("/v2/{NAME}/team/app/manifests/v1")).await;
    assert_eq!(answer.status, 502);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for service in services {
        let metrics = service.metrics().await;
        let sent = metrics.lines().filter(|line| line.starts_with("larder_origin_requests_total"));
        let sent: u64 = sent.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        assert!(sent < 10, "{metrics}");
        service.end().await;
    }
}
