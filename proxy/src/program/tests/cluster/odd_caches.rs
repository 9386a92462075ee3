//! Clusters whose cache is full, about to stop, not there yet, mad or malicious: a pull that succeeds without it succeeds with it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream as Plain};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// How a fake cache answers: it is given the head of a request and the connection, which ends with it.
type Answering = dyn Fn(&str, &mut Plain) + Send + Sync;

/// Something that is no cache, at an address of its own; plain HTTP, so that every byte is its own.
pub(super) struct Fake {
    pub(super) url: String,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub(super) fn start(answering: impl Fn(&str, &mut Plain) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answering) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answering) as Arc<Answering>);
        let heads = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answering, heads) = (Arc::clone(&answering), Arc::clone(&heads));
                std::thread::spawn(move || converse(stream, &*answering, &heads));
            }
        });
        Self { url, asked }
    }

    pub(super) fn was_asked_for(&self, what: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|head| head.contains(what))
    }
}

fn converse(mut stream: Plain, answering: &Answering, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    heads.lock().unwrap().push(head.clone());
    answering(&head, &mut stream);
}

pub(super) fn say(stream: &mut Plain, text: &str) {
    // Whoever asked may have gone: that is his right.
    let _ = stream.write_all(text.as_bytes());
}

/// Until the one who asked has gone.
pub(super) fn hang(stream: &mut Plain) {
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

const OWN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

fn is_pulse(head: &str) -> bool {
    head.starts_with("GET /v2/ ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_with_no_room_is_busy_and_not_dead() {
    let mut cluster = Cluster::start();
    cluster.cache.take().unwrap().stop().await;
    let full =
        ProxyConfig { limits: ProxyLimits { connections: 2, ..ProxyLimits::default() }, ..cluster.cache_config() };
    let cache = Running::start(full);
    cluster.url = format!("https://{}", cache.address);
    // Two that were let in have the places, and say no more; strangers would give way. A node needs both: for its questions, and for the
    // connection that it keeps.
    let tls = scale_up::tls(&fs::read_to_string(cluster.path("ca.pem")).unwrap());
    let mut holding =
        [scale_up::Node::connect(cache.address, &tls).await, scale_up::Node::connect(cache.address, &tls).await];
    for one in &mut holding {
        one.ask("HEAD", "manifests/v1").await;
    }
    until("the places are taken", async || page(cache.admin, "/metrics").await.contains("\nlarder_connections 2\n"))
        .await;
    let node = cluster.node();
    for _ in 0..10 {
        assert_eq!(node.pull(&cluster.image).await, (200, true));
    }
    assert!(question(&node, "unanswered").await);
    assert!(!page(node.admin, "/readyz").await.contains("does not answer"));
    drop(holding);
    until("it is asked again", async || {
        assert_eq!(node.pull(&cluster.image).await, (200, true));
        question(&node, "ok").await
    })
    .await;
    cluster.end(vec![node, cache]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_about_to_stop_is_asked_again_as_soon_as_it_is_not_any_more() {
    let cluster = Cluster::start();
    let draining = Arc::new(AtomicBool::new(true));
    let stops = Arc::clone(&draining);
    let fake = Fake::start(move |_, stream| {
        let mark = if stops.load(Ordering::Relaxed) { "Larder-Draining: 1\r\n" } else { "" };
        say(stream, &format!("HTTP/1.1 502 Bad Gateway\r\n{mark}Content-Length: 0\r\nConnection: close\r\n\r\n"));
    });
    let node = cluster.node_asking(&fake.url);
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(fake.was_asked_for("manifests"));
    draining.store(false, Ordering::Relaxed);
    fake.asked.lock().unwrap().clear();
    let began = Instant::now();
    until("it is asked again", async || {
        node.pull(&cluster.image).await;
        fake.was_asked_for("manifests")
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_about_the_token_ends_with_its_cause_although_nobody_pulls() {
    let cluster = Cluster::start();
    let knows = Arc::new(AtomicBool::new(false));
    let knows_us = Arc::clone(&knows);
    let fake = Fake::start(move |_, stream| {
        let stranger = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        say(stream, if knows_us.load(Ordering::Relaxed) { WELL } else { stranger });
    });
    let node = cluster.node_asking(&fake.url);
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    until("said", async || page(node.admin, "/readyz").await.contains("does not know this node's token")).await;
    knows.store(true, Ordering::Relaxed);
    until("unsaid", async || page(node.admin, "/readyz").await == "ready\n").await;
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_yet_is_waited_for_and_an_address_stands_in_for_the_name() {
    let mut cluster = Cluster::start();
    fs::rename(cluster.path("token"), cluster.path("later")).unwrap();
    fs::write(cluster.path("empty.pem"), "").unwrap();
    let config = ClusterCacheConfig {
        url: "https://larder-cache.invalid:9".parse().unwrap(),
        ca: Some(cluster.path("empty.pem")),
        token: Some(cluster.path("token")),
        addresses: vec![cluster.cache().address],
        copies: None,
    };
    let node = cluster.node_with(config);
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(question(&node, "unanswered").await);
    until("the certificates are missed", async || page(node.admin, "/readyz").await.contains("no certificate yet"))
        .await;
    fs::copy(cluster.path("ca.pem"), cluster.path("empty.pem")).unwrap();
    until("the token is missed", async || page(node.admin, "/readyz").await.contains("token is not there yet")).await;
    fs::rename(cluster.path("later"), cluster.path("token")).unwrap();
    until("it is asked", async || {
        assert_eq!(node.pull(&cluster.image).await, (200, true));
        question(&node, "ok").await
    })
    .await;
    until("nothing is wrong", async || !page(node.admin, "/readyz").await.contains("cluster cache")).await;
    // That the name is none was never the matter, and is not said in place of what is.
    cluster.cache.take().unwrap().stop().await;
    until("it is missed", async || {
        assert_eq!(node.pull(&cluster.image).await, (200, true));
        let said = page(node.admin, "/readyz").await;
        assert!(!said.contains("cannot be resolved"), "{said}");
        said.contains("larder-cache.invalid:9/ does not answer")
    })
    .await;
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_the_node_was_told_are_not_gone_round() {
    let cluster = Cluster::start();
    assert_eq!(cluster.node().pull(&cluster.image).await, (200, true));
    let vetted = TestOrigin::start();
    let image = Image::build(&ImageSpec { layers: vec![70_000, 200], ..ImageSpec::default() });
    vetted.push("team/app", "v1", &image);
    let settings = format!("[registries.\"{NAME}\"]\nendpoints = [\"{}\"]\ninsecure = true\n", vetted.url());
    let same = fs::read_to_string(cluster.path(REGISTRIES)).unwrap();
    fs::write(cluster.path("node.toml"), settings).unwrap();
    let node = cluster.node_of(ProxyConfig { registries: Some(cluster.path("node.toml")), ..cluster.node_config() });
    assert_eq!(node.pull(&image).await, (200, true));
    assert!(question(&node, "settings").await && !question(&node, "ok").await);
    // The cache has the same, and is asked.
    fs::write(cluster.path("node.toml"), same).unwrap();
    until("it is asked", async || {
        node.pull(&cluster.image).await;
        question(&node, "ok").await
    })
    .await;
    cluster.end(vec![node]).await;
    tokio::task::block_in_place(|| drop(vetted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_stopped_in_the_middle_of_a_layer_is_left_for_the_registry_from_that_byte() {
    let cluster = Cluster::start();
    let digest = cluster.image.largest_layer();
    let layer = cluster.image.blobs[&digest].clone();
    let stopped = AtomicBool::new(false);
    let fake = Fake::start(move |head, stream| {
        // As SIGSTOP leaves it: the kernel still takes connections.
        if stopped.load(Ordering::Relaxed) {
            return hang(stream);
        }
        if !head.contains("GET /v2/team/app/blobs/") {
            return say(stream, if is_pulse(head) { WELL } else { OWN });
        }
        stopped.store(true, Ordering::Relaxed);
        let fingerprint = head.lines().find(|line| line.starts_with("larder-settings")).unwrap();
        say(stream, &format!("HTTP/1.1 200 OK\r\n{fingerprint}\r\nContent-Length: {}\r\n\r\n", layer.len()));
        let _ = stream.write_all(&layer[..1_000_000]);
        hang(stream);
    });
    let node = cluster.node_asking(&fake.url);
    let began = Instant::now();
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let range =
        cluster.origin.log().into_iter().map(|entry| format!("{entry:?}")).find(|entry| entry.contains("blobs"));
    assert!(range.as_ref().is_some_and(|entry| entry.contains("1000000-")), "{range:?}");
    until("it is said", async || page(node.admin, "/readyz").await.contains("does not answer")).await;
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_somebody_malicious_says_in_its_place_fails_a_pull() {
    let endless =
        |line: &'static str| move |_: &str, stream: &mut Plain| while stream.write_all(line.as_bytes()).is_ok() {};
    let only = |text: String| move |_: &str, stream: &mut Plain| say(stream, &text);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Header: of some length, and again\r\n".repeat(5000));
    let after_head = |head: &'static str, line: &'static str| {
        move |_: &str, stream: &mut Plain| {
            say(stream, head);
            while stream.write_all(line.as_bytes()).is_ok() {}
        }
    };
    let slowly = |text: &'static str| {
        move |_: &str, stream: &mut Plain| {
            for byte in text.bytes() {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(300));
            }
            hang(stream);
        }
    };
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let two_lengths = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3000000\r\n\r\nabcde";
    let answers: [(&str, Box<Answering>); 10] = [
        ("nothing but 1xx", Box::new(endless("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"))),
        ("headers without an end", Box::new(after_head("HTTP/1.1 200 OK\r\n", "X-Header: of some length\r\n"))),
        ("many headers", Box::new(only(many))),
        ("both lengths", Box::new(only(both.to_owned()))),
        ("two lengths", Box::new(only(two_lengths.to_owned()))),
        ("no HTTP", Box::new(only("SSH-2.0-OpenSSH_9.2\r\n".to_owned()))),
        ("nothing", Box::new(|_: &str, _: &mut Plain| {})),
        ("slowly", Box::new(slowly(WELL))),
        ("an empty answer", Box::new(only("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()))),
        (
            "a redirect to itself",
            Box::new(only("HTTP/1.1 307 X\r\nLocation: /v2/\r\nContent-Length: 0\r\n\r\n".to_owned())),
        ),
    ];
    let cluster = Cluster::start();
    for (case, answering) in answers {
        let fake = Fake::start(answering);
        let node = cluster.node_asking(&fake.url);
        let began = Instant::now();
        assert_eq!(node.pull(&cluster.image).await, (200, true), "{case}");
        assert!(began.elapsed() < Duration::from_secs(12), "{case}: {:?}", began.elapsed());
        assert!(fake.was_asked_for("manifests"), "{case}");
        node.stop().await;
    }
    cluster.end(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_back_to_itself_is_gone_round() {
    let cluster = Cluster::start();
    let address = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let url = format!("http://{address}").parse().unwrap();
    let itself = ClusterCacheConfig { url, ca: None, token: None, addresses: Vec::new(), copies: None };
    let config = ProxyConfig { listen: vec![address], cluster_cache: Some(itself), ..cluster.node_config() };
    let node = cluster.node_of(config);
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    node.stop().await;

    // A cache whose registry is itself says that the registry is in trouble, at once: the engine asks that by itself.
    let address = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let settings = format!("[registries.\"{NAME}\"]\nendpoints = [\"https://{address}\"]\ninsecure = true\n");
    fs::write(cluster.path("circle.toml"), settings).unwrap();
    let circle = ProxyConfig {
        listen: vec![address],
        registries: Some(cluster.path("circle.toml")),
        store: StoreConfig::Memory { limit: 64 << 20 },
        ..cluster.cache_config()
    };
    let circle = Running::start(circle);
    let cluster_cache = ClusterCacheConfig {
        url: format!("https://{address}").parse().unwrap(),
        ca: Some(cluster.path("ca.pem")),
        token: Some(cluster.path("token")),
        addresses: Vec::new(),
        copies: None,
    };
    let config = ProxyConfig { registries: Some(cluster.path("circle.toml")), ..cluster.node_config() };
    let node = cluster.node_of(ProxyConfig { cluster_cache: Some(cluster_cache), ..config });
    let began = Instant::now();
    let (status, _) = node.pull(&cluster.image).await;
    assert!(matches!(status, 404 | 502) && began.elapsed() < Duration::from_secs(3), "{status} {:?}", began.elapsed());
    cluster.end(vec![node, circle]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_keep_no_node_from_its_cache() {
    let cluster = Cluster::start();
    let idle: Vec<_> = (0..200).map(|_| Plain::connect(cluster.cache().address).unwrap()).collect();
    let node = cluster.node();
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(question(&node, "ok").await && !question(&node, "unanswered").await);
    drop(idle);
    cluster.end(vec![node]).await;
}
