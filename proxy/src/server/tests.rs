//! The server over real sockets, with replies made up on the spot.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::probe::{Probe, ProbeKey};
use super::route::Route;
use super::{Answer, Asked, Server, ServerParts};
use crate::metrics::{Metrics, ReasonLabels, SourceLabels};
use crate::reply::{Body, LiveBody, Outcome, Reply, ReplySource};
use crate::store::{CheckedRange, StoredBlob};

const VIA: &str = "larder-0123";
const BIG: usize = 3 * 1024 * 1024 + 17;
const HUGE: usize = 256 * 1024 * 1024;

/// Answers by tag: each tag is another kind of day.
struct Days {
    file: Arc<std::fs::File>,
    release: tokio::sync::Semaphore,
}

impl Days {
    fn new() -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content(0..BIG)).unwrap();
        // A hole at its end, for the body that no socket buffer can hold.
        file.set_len(HUGE as u64).unwrap();
        Self { file: Arc::new(file), release: tokio::sync::Semaphore::new(0) }
    }

    fn file(&self, length: usize, range: Range<u64>) -> Reply {
        let blob = StoredBlob::unchecked(Arc::clone(&self.file), length as u64);
        let announced = usize::try_from(range.end - range.start).unwrap();
        reply(Body::File(CheckedRange::new(blob, range)), announced)
    }
}

fn content(range: Range<usize>) -> Vec<u8> {
    range.map(|index| u8::try_from(index % 251).unwrap()).collect()
}

fn reply(body: Body, length: usize) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert("content-length", length.into());
    headers.insert("content-type", "application/octet-stream".parse().unwrap());
    Reply::new(StatusCode::OK, headers, body, Outcome::new(ReplySource::Store, "hit"))
}

/// `chunks` of 64 KiB, then an error, although twice as much was announced.
fn broken(chunks: usize) -> Body {
    const CHUNK: usize = 64 * 1024;
    let good = stream::iter(0..chunks).map(|index| Ok(Bytes::from(content(index * CHUNK..(index + 1) * CHUNK))));
    let all = good.chain(stream::iter([Err(io::Error::other("the origin broke off"))]));
    Body::Live(LiveBody::new(Some((2 * chunks.max(1) * CHUNK) as u64), all.boxed()))
}

impl Answer for Days {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            match asked.route.reference().as_str() {
                "small" => reply(Body::Bytes(Bytes::from_static(b"{\"small\":1}")), 11),
                "file" => {
                    let range = asked.range.map_or(0..BIG as u64, |range| range.resolve(BIG as u64).unwrap());
                    self.file(BIG, range)
                }
                "huge-file" => self.file(HUGE, 0..HUGE as u64),
                // The disk lost the end of the file.
                "short-file" => self.file(2 * HUGE, HUGE as u64 - 5..2 * HUGE as u64),
                "unknown-length" => {
                    let chunks = [Ok(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"cd"))];
                    let mut reply = reply(Body::Live(LiveBody::new(None, stream::iter(chunks).boxed())), 0);
                    reply.headers.remove("content-length");
                    reply
                }
                "too-long" => {
                    let chunks = stream::iter([Ok(Bytes::from_static(b"abcdef"))]).boxed();
                    reply(Body::Live(LiveBody::new(Some(4), chunks)), 4)
                }
                "breaks-at-once" => reply(broken(0), 0),
                "breaks-late" => reply(broken(40), 0),
                "waits" => {
                    self.release.acquire().await.unwrap().forget();
                    reply(Body::Bytes(Bytes::from_static(b"at last")), 7)
                }
                "query" => reply(Body::Bytes(Bytes::from(asked.query.unwrap_or_default())), 0),
                "panics" => panic!("of course"),
                other => panic!("no such day: {other}"),
            }
        })
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    days: Arc<Days>,
    probe: Arc<Probe>,
    metrics: Arc<Metrics>,
    serving: JoinHandle<io::Result<()>>,
}

fn parts(days: &Arc<Days>, probe: &Arc<Probe>, metrics: &Arc<Metrics>, connections: usize) -> ServerParts {
    ServerParts {
        service: None,
        answer: Arc::clone(days) as Arc<dyn Answer>,
        probe: Arc::clone(probe),
        metrics: Arc::clone(metrics),
        via: VIA.to_owned(),
        connections,
        drain: Duration::from_secs(5),
    }
}

fn start(connections: usize) -> Running {
    let server = Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
    let address = server.addresses()[0];
    let (days, stop) = (Arc::new(Days::new()), CancellationToken::new());
    let (probe, metrics) = (Arc::new(Probe::new(ProbeKey::random().unwrap())), Arc::new(Metrics::new()));
    let serving = tokio::spawn(server.serve(parts(&days, &probe, &metrics, connections), stop.clone()));
    Running { address, stop, days, probe, metrics, serving }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that comes back on a connection of its own; an error (a reset) fails the test.
    async fn ask(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(stream).await
    }

    async fn get(&self, tag: &str, more: &str) -> (String, Vec<u8>) {
        self.ask(&get(tag, &format!("Connection: close\r\n{more}"))).await
    }
}

fn get(tag: &str, headers: &str) -> String {
    format!("GET /v2/a/manifests/{tag}?ns=quay.io HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

async fn read_to_end(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("the connection ends with FIN, not RST");
    split(all)
}

fn split(mut all: Vec<u8>) -> (String, Vec<u8>) {
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").expect("there is a whole head");
    let body = all.split_off(end + 4);
    (String::from_utf8(all).unwrap(), body)
}

/// Reads one reply off a connection that stays open.
async fn read_one(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(all).unwrap();
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, body)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What headers say, without the time of day.
fn without_date(head: &str) -> Vec<&str> {
    head.lines().filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test]
async fn a_tls_client_is_told_at_once() {
    let server = start(8);
    let mut hello = vec![0x16, 3, 1, 2, 0, 1];
    hello.resize(517, 0);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all(&hello).await.unwrap();
        let (head, body) = read_to_end(stream).await;
        best = best.min(began.elapsed());
        assert_eq!((status(&head), header(&head, "content-length"), body.len()), (400, Some("0"), 0));
    }
    assert!(best < Duration::from_millis(50), "{best:?}");
    assert_eq!(server.metrics.connections_refused.get_or_create(&ReasonLabels { reason: "tls" }).get(), 5);
}

/// The runtime that serves pulls is blocked by a thread that waits: the probe answers all the same and says for how long.
#[tokio::test]
async fn the_probe_is_answered_while_the_runtime_is_blocked() {
    let server = Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
    let address = server.addresses()[0];
    let (days, metrics) = (Arc::new(Days::new()), Arc::new(Metrics::new()));
    let probe = Arc::new(Probe::new(ProbeKey::random().unwrap()));
    let (release, released) = mpsc::channel::<()>();
    let (blocked, is_blocked) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    let (parts, stopped) = (parts(&days, &probe, &metrics, 8), stop.clone());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let serving = tokio::spawn(server.serve(parts, stopped));
            // Serving has begun when the front thread answers.
            while TcpStream::connect(address).await.is_err() {}
            tokio::task::yield_now().await;
            blocked.send(()).unwrap();
            released.recv().unwrap();
            serving.await.unwrap().unwrap();
        });
    });
    is_blocked.await.unwrap();
    let ask = async |challenge: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /larder/probe?challenge={challenge}&seen=n HTTP/1.1\r\nHost: x\r\n\r\n");
        // In pieces: the front thread must wait for the rest.
        let (first, rest) = request.split_at(9);
        stream.write_all(first.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        read_to_end(stream).await
    };
    let stalled = loop {
        let (head, body) = ask(&"a1".repeat(16)).await;
        assert_eq!(status(&head), 200);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((json["seen"].as_bool(), json["mac"].as_str().map(str::len)), (Some(false), Some(64)));
        let stalled = json["stalled_ms"].as_u64().unwrap();
        if stalled > 300 {
            break stalled;
        }
    };
    assert!(stalled > 300);
    assert_eq!(status(&ask("short").await.0), 400);
    stop.cancel();
    release.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn the_canary_is_seen_and_bothers_nobody() {
    let server = start(8);
    let ask = async || {
        let request = format!("GET /larder/probe?challenge={}&seen=c4nary HTTP/1.1\r\n\r\n", "0".repeat(32));
        String::from_utf8(server.ask(&request).await.1).unwrap()
    };
    assert!(ask().await.contains(r#""seen":false"#));
    let request =
        "HEAD /v2/larder-probe/c4nary/manifests/x?ns=larder.invalid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (head, body) = server.ask(request).await;
    assert_eq!((status(&head), body.len()), (304, 0));
    assert!(ask().await.contains(r#""seen":true"#));
}

#[tokio::test]
async fn the_probe_is_answered_on_a_connection_that_is_kept_too() {
    let server = start(8);
    let mut stream = server.connect().await;
    stream.write_all(get("small", "").as_bytes()).await.unwrap();
    read_one(&mut stream).await;
    let request = format!("GET /larder/probe?challenge={} HTTP/1.1\r\nHost: x\r\n\r\n", "0".repeat(32));
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = read_one(&mut stream).await;
    assert_eq!(status(&head), 200);
    assert!(String::from_utf8(body).unwrap().starts_with(r#"{"mac":""#));
}

#[tokio::test]
async fn what_would_write_gets_a_clear_refusal() {
    let server = start(8);
    // More than anything buffers, so that what is not read would turn the close into a reset.
    let body = "x".repeat(300_000);
    let request = format!(
        "PUT /v2/a/manifests/v1?ns=quay.io HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (head, body) = server.ask(&request).await;
    assert_eq!((status(&head), header(&head, "allow")), (405, Some("GET, HEAD")));
    insta::assert_snapshot!(String::from_utf8(body).unwrap(), @r#"{"errors":[{"code":"UNSUPPORTED","message":"this is a cache that only reads: push to the registry itself"}]}"#);
}

#[tokio::test]
async fn bad_requests_get_the_error_format_of_registries() {
    let server = start(8);
    for (target, expected, code) in [
        ("/v2/A/manifests/v1?ns=quay.io", 400, "NAME_INVALID"),
        ("/v2/a/blobs/sha256:1?ns=quay.io", 400, "DIGEST_INVALID"),
        ("/v1/_ping", 404, "NAME_UNKNOWN"),
    ] {
        let (head, body) = server.ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status(&head), json["errors"][0]["code"].as_str()), (expected, Some(code)), "{target}");
    }
    let (head, body) = server.ask("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&head), body.as_slice()), (200, b"{}".as_slice()));
    let huge = format!("X-Huge: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(status(&server.get("small", &huge).await.0), 431);
}

#[tokio::test]
async fn a_request_of_our_own_that_comes_back_is_refused() {
    let server = start(8);
    let (head, body) = server.get("small", &format!("Via: 1.1 other, 1.1 {VIA}\r\n")).await;
    assert_eq!((status(&head), header(&head, "content-length"), body.len()), (502, Some("0"), 0));
}

#[tokio::test]
async fn head_and_get_have_the_same_headers() {
    let server = start(8);
    for tag in ["small", "file", "-bad-"] {
        let (get_head, get_body) = server.get(tag, "").await;
        let request = get(tag, "Connection: close\r\n").replacen("GET", "HEAD", 1);
        let (head_head, head_body) = server.ask(&request).await;
        assert_eq!(without_date(&get_head), without_date(&head_head));
        assert!(header(&get_head, "content-length").is_some());
        assert!(!get_body.is_empty() && head_body.is_empty());
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests_also_pipelined() {
    let server = start(1);
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(get("small", "").as_bytes()).await.unwrap();
        assert_eq!(read_one(&mut stream).await.1, b"{\"small\":1}");
    }
    let pipelined = [get("small", ""), get("file", ""), get("query", "")]
        .concat()
        .replace("query?ns=quay.io", "query?n=5&ns=quay.io");
    stream.write_all(pipelined.as_bytes()).await.unwrap();
    assert_eq!(read_one(&mut stream).await.1, b"{\"small\":1}");
    assert_eq!(read_one(&mut stream).await.1, content(0..BIG));
    assert_eq!(read_one(&mut stream).await.1, b"n=5");
}

#[tokio::test]
async fn a_file_is_sent_whole_and_in_ranges() {
    let server = start(8);
    let (head, body) = server.get("file", "").await;
    assert_eq!(header(&head, "content-length"), Some(BIG.to_string().as_str()));
    assert!(body == content(0..BIG));
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=262143-262145", 262_143..262_146),
        ("bytes=1000000-", 1_000_000..BIG),
        ("bytes=-5", BIG - 5..BIG),
    ] {
        let (_, body) = server.get("file", &format!("Range: {range}\r\n")).await;
        assert!(body == content(expected), "{range}");
    }
    // A reader that leaves after the head was not cut by us.
    let mut stream = server.connect().await;
    stream.write_all(get("huge-file", "").as_bytes()).await.unwrap();
    stream.read_u8().await.unwrap();
    drop(stream);
    server.stop.cancel();
    server.serving.await.unwrap().unwrap();
    assert_eq!(server.metrics.response_cuts.get_or_create(&SourceLabels { source: "store" }).get(), 0);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_chunked_and_one_that_is_too_long_is_shortened() {
    let server = start(8);
    let (head, body) = server.get("unknown-length", "").await;
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(body, b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n");
    assert_eq!(server.get("too-long", "").await.1, b"abcd");
}

/// Every byte before the break arrives, then the end: with requests that were never read, too, and with a reader who is slow.
#[tokio::test]
async fn a_cut_is_an_end_and_loses_nothing_of_what_came_before() {
    let server = start(8);
    for pipelined in [String::new(), get("small", "").repeat(2000)] {
        for (tag, expected) in [("breaks-at-once", 0), ("breaks-late", 40 * 64 * 1024)] {
            let mut stream = server.connect().await;
            let request = format!("{}{pipelined}", get(tag, ""));
            let (mut reader, mut writer) = stream.split();
            let writing = async { writer.write_all(request.as_bytes()).await };
            let reading = async {
                let mut all = Vec::new();
                let mut part = vec![0; 8192];
                loop {
                    match reader.read(&mut part).await.expect("the connection ends with FIN, not RST") {
                        0 => break split(all),
                        read => all.extend_from_slice(&part[..read]),
                    }
                    tokio::task::yield_now().await;
                }
            };
            let ((head, body), _) = tokio::join!(reading, writing);
            assert_eq!(status(&head), 200);
            assert!(body == content(0..expected), "{tag}: {} bytes of {expected}", body.len());
        }
    }
    assert_eq!(server.get("short-file", "").await.1, [0; 5]);
    server.stop.cancel();
    server.serving.await.unwrap().unwrap();
    assert_eq!(server.metrics.response_cuts.get_or_create(&SourceLabels { source: "store" }).get(), 5);
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_refused_at_once_and_the_probe_still_answers() {
    let server = start(1);
    let mut first = server.connect().await;
    first.write_all(get("small", "").as_bytes()).await.unwrap();
    read_one(&mut first).await;
    let (head, body) = server.get("small", "").await;
    // Which every engine takes for "ask the origin".
    assert_eq!((status(&head), header(&head, "content-length"), body.len()), (502, Some("0"), 0));
    let request = format!("GET /larder/probe?challenge={} HTTP/1.1\r\n\r\n", "0".repeat(32));
    assert_eq!(status(&server.ask(&request).await.0), 200);
    drop(first);
    // Its place is free as soon as its end was noticed.
    while status(&server.get("small", "").await.0) != 200 {}
}

#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    let server = start(8);
    let mut stream = server.connect().await;
    stream.write_all(get("panics", "").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    assert_eq!(server.get("small", "").await.1, b"{\"small\":1}");
    assert!(!server.serving.is_finished());
}

#[tokio::test]
async fn a_stop_refuses_new_connections_and_finishes_what_is_under_way() {
    let server = start(8);
    let mut stream = server.connect().await;
    stream.write_all(get("waits", "").as_bytes()).await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(get("small", "").as_bytes()).await.unwrap();
    read_one(&mut idle).await;
    while server.metrics.connections.get() < 2 {
        tokio::task::yield_now().await;
    }
    server.stop.cancel();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
    while TcpStream::connect(server.address).await.is_ok() {}
    server.days.release.add_permits(1);
    assert_eq!(read_to_end(stream).await.1, b"at last");
    server.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn routes_reach_whoever_answers_with_their_words() {
    let server = start(8);
    let before = server.probe.answer(&format!("challenge={}", "0".repeat(32)));
    assert_eq!(before.status, StatusCode::OK);
    let route = super::route::route(&http::Method::GET, "/v2/a/tags/list", Some("ns=quay.io")).unwrap();
    assert!(matches!(&route, Route::Tags { name } if name.to_string() == "quay.io/a"));
    let request = get("query", "Connection: close\r\n").replace("?ns=quay.io", "?n=1&ns=quay.io&last=b");
    assert_eq!(server.ask(&request).await.1, b"n=1&last=b");
}
