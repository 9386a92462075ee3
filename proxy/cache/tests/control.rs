//! The control API of a real `larder-cache` process, against a registry over real sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use larder_oci::Digest;
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher, Origin};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "the-controllers-own-token";

/// What the control API gives everybody for a head.
const STRANGERS_TIME: Duration = Duration::from_secs(10);

/// A process and what it has.
struct Cache {
    child: Option<Child>,
    address: SocketAddr,
    control: SocketAddr,
    /// `--control-holders`
    holders: Vec<String>,
    folder: TempDir,
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Cache {
    fn start(registries: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("registries.toml"), registries).unwrap();
        std::fs::write(folder.path().join("tokens"), "node the-nodes-token-is-another\n").unwrap();
        std::fs::write(folder.path().join("control-tokens"), format!("controller {TOKEN}\n")).unwrap();
        let mut cache = Self { child: None, address: free(), control: free(), holders: Vec::new(), folder };
        cache.start_again();
        cache
    }

    fn of(origin: &Origin) -> Self {
        Self::start(&format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry()))
    }

    fn start_again(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_larder-cache"))
            .args(["run", "--listen", &self.address.to_string(), "--admin", &free().to_string()])
            .args(["--control", &self.control.to_string(), "--control-token-file"])
            .arg(path("control-tokens"))
            .arg("--token-file")
            .arg(path("tokens"))
            .arg("--registries")
            .arg(path("registries.toml"))
            // Nothing depends on how full the machine's own disk is.
            .args(["--store-reserve", "0"])
            .arg("--store")
            .arg(format!("directory:{}", path("store").display()))
            .args(["--anonymous-networks", "127.0.0.0/8"])
            .args(self.holders.iter().flat_map(|bound| ["--control-holders", bound]))
            .env("LARDER_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let control = self.control;
        until("the cache serves", || TcpStream::connect(control).is_ok());
    }

    /// SIGKILL, as the kernel does it when memory is short.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        ask(self.control, method, target, Some(TOKEN), body)
    }

    fn pin(&self, name: &str) -> Value {
        self.ask("GET", &format!("/v1/pins/{name}"), "").1
    }

    fn until_complete(&self, name: &str) -> Value {
        until(&format!("{name} is complete"), || self.pin(name)["state"] == "complete");
        self.pin(name)
    }

    /// Where a blob lies on the disk.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let folder = self.folder.path().join("store/blobs/sha256").join(&digest.hex()[..2]);
        folder.join(digest.hex())
    }

    /// What a client gets: status and bytes.
    fn pull(&self, origin: &Origin, what: &str) -> (u16, Vec<u8>) {
        exchange(self.address, "GET", &format!("/v2/team/app/{what}?ns={}", origin.registry()), "", "")
    }

    /// Whether all of a platform can be pulled.
    fn gives(&self, origin: &Origin, image: &Image, architecture: &str) -> bool {
        let platform = image.platforms.iter().find(|platform| platform.architecture == architecture).unwrap();
        let manifest = self.pull(origin, &format!("manifests/{}", platform.manifest));
        manifest.0 == 200
            && platform.blobs.iter().all(|digest| {
                let (status, bytes) = self.pull(origin, &format!("blobs/{digest}"));
                status == 200 && Digest::of(digest.algorithm(), &bytes) == *digest
            })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn exchange(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    // Longer than any request waits by itself.
    stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    // Whoever is turned away may be so before all of this is read.
    let _ = stream.write_all(request.as_bytes());
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer");
    let status = std::str::from_utf8(&all[9..12]).unwrap().parse().unwrap();
    (status, all.split_off(end + 4))
}

fn ask(address: SocketAddr, method: &str, target: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let headers = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let (status, bytes) = exchange(address, method, target, &headers, body);
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn image(seed: u64) -> Image {
    Image::build(&ImageSpec { layers: vec![3_000_000, 1000], seed, ..ImageSpec::default() })
}

fn amd64(image: &Image) -> &larder_test_origin::Platform {
    image.platforms.iter().find(|platform| platform.architecture == "amd64").unwrap()
}

fn pinned(origin: &Origin, tag: &str) -> String {
    format!("me/{}/team/app:{tag}", origin.registry())
}

#[test]
fn a_pinned_image_is_there_when_its_registry_is_gone_and_another_platform_is_fetched_while_it_is_not() {
    let origin = Origin::start();
    let image = image(1);
    origin.push("team/app", "v1", &image);
    let cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    let (status, pin) = cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), r#"{"platforms":["linux/amd64"]}"#);
    assert_eq!((status, &pin["state"]), (200, &json!("complete")), "{pin}");
    assert_eq!(pin["digest"], image.index.as_str());
    let blobs = amd64(&image).blobs.len() as u64 + 2;
    assert_eq!(pin["blobs"], json!({"known": blobs, "fetched": blobs}), "index, manifest, configuration and layers");
    assert_eq!(pin["bytes"]["known"], pin["bytes"]["fetched"]);
    let fetched = || origin.log().iter().filter(|access| access.is_blob_get()).count();
    assert_eq!(fetched(), amd64(&image).blobs.len(), "nothing of the other platform");
    // Idempotent: nothing crosses twice.
    let again = cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), r#"{"platforms":["linux/amd64"]}"#);
    assert_eq!((again.0, &again.1["put_at"]), (200, &pin["put_at"]));
    assert_eq!(fetched(), amd64(&image).blobs.len());
    // The index is whole, and what is not kept is fetched for who asks.
    let (status, index) = cache.pull(&origin, "manifests/v1");
    assert_eq!((status, Digest::of(image.index.algorithm(), &index)), (200, image.index.clone()));
    assert!(cache.gives(&origin, &image, "arm64"));
    origin.stop();
    assert_eq!(cache.pull(&origin, "manifests/v1"), (200, index));
    assert!(cache.gives(&origin, &image, "amd64"));
}

#[test]
fn a_pin_says_when_a_client_pulled_what_it_is_of() {
    let origin = Origin::start();
    let images = [image(31), image(32)];
    origin.push("team/app", "v1", &images[0]);
    origin.push("team/app", "v2", &images[1]);
    let mut cache = Cache::of(&origin);
    let names = [pinned(&origin, "v1"), pinned(&origin, "v2")];
    for name in &names {
        assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").0, 200);
    }
    let image = names[0].strip_prefix("me/").unwrap();
    assert_eq!(cache.ask("POST", &format!("/v1/revalidations/{image}"), "").0, 200);
    assert!(cache.pin(&names[0])["last_pull"].is_null(), "what the cache does by itself is no pull");
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    // As an engine pulls: the tag, and then by its digest. That other tags mean the same makes no difference.
    assert_eq!(cache.pull(&origin, &format!("manifests/{}", images[0].index)).0, 200);
    let pulled = cache.pin(&names[0])["last_pull"].as_u64().unwrap();
    assert!((before..=now()).contains(&pulled));
    let listed = cache.ask("GET", "/v1/pins?holder=me", "").1;
    let times =
        listed["pins"].as_array().unwrap().iter().map(|pin| (pin["image"].as_str().unwrap(), &pin["last_pull"]));
    let mut times: Vec<_> = times.collect();
    times.sort_unstable_by_key(|(image, _)| *image);
    assert_eq!((times[0], times[1].1), ((image, &json!(pulled)), &Value::Null));
    // Nobody writes it down for a restart: whoever wants it kept keeps it.
    cache.kill();
    cache.start_again();
    assert!(cache.until_complete(&names[0])["last_pull"].is_null());
}

/// What is given while the registry is away is not its word.
#[test]
fn a_pin_says_when_its_registry_last_confirmed_it() {
    let origin = Origin::start();
    let image = image(33);
    origin.push("team/app", "v1", &image);
    let cache = Cache::of(&origin);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (before, tag) = (now(), pinned(&origin, "v1"));
    let by_digest = format!("{}@{}", tag.rsplit_once(':').unwrap().0, image.index);
    let mut said = Vec::new();
    for name in [&tag, &by_digest] {
        let (status, pin) = cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "");
        assert_eq!(status, 200, "{pin}");
        let confirmed = pin["confirmed_at"].as_u64().unwrap();
        assert!((before..=now()).contains(&confirmed), "{pin}");
        assert_eq!(cache.pin(name)["confirmed_at"], confirmed);
        said.push(confirmed);
    }
    let listed = cache.ask("GET", "/v1/pins?holder=me", "").1;
    assert!(listed["pins"].as_array().unwrap().iter().all(|pin| pin["confirmed_at"].is_null()), "{listed}");
    origin.stop();
    let again = cache.ask("PUT", &format!("/v1/pins/{tag}?wait=60"), r#"{"platforms":["linux/amd64"]}"#).1;
    assert_eq!((&again["state"], &again["confirmed_at"]), (&json!("complete"), &json!(said[0])), "{again}");
}

#[test]
fn what_is_kept_of_some_platforms_stays_while_more_of_them_cannot_be_had() {
    let origin = Origin::start();
    let image = image(24);
    origin.push("team/app", "v1", &image);
    let cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    let put = |platforms: &str| cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), platforms).1;
    assert_eq!(put(r#"{"platforms":["linux/amd64"]}"#)["state"], "complete");
    let arm = image.platforms.iter().find(|platform| platform.architecture == "arm64").unwrap();
    let layer = arm.blobs.iter().find(|digest| !amd64(&image).blobs.contains(digest)).unwrap();
    origin.behave(Matcher::path(layer.as_str()), Behaviour::Status(503, vec![]));
    let pin = put(r#"{"platforms":["linux/amd64","linux/arm64"]}"#);
    assert_eq!(pin["state"], "waiting", "{pin}");
    let index = json!(image.index.as_str());
    assert_eq!((&pin["digest"], &pin["until_then"]), (&index, &index), "{pin}");
}

#[test]
fn what_a_pinned_image_has_lost_is_seen_said_and_fetched_again() {
    let origin = Origin::start();
    let images = [image(21), image(22)];
    for (image, tag) in images.iter().zip(["v1", "v2"]) {
        origin.push("team/app", tag, image);
    }
    let mut cache = Cache::of(&origin);
    let names = [pinned(&origin, "v1"), pinned(&origin, "v2")];
    for name in &names {
        assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").0, 200);
    }
    let layer = amd64(&images[1]).blobs.iter().max_by_key(|digest| images[1].blobs[*digest].len()).unwrap().clone();
    let away = || origin.behave(Matcher::all(), Behaviour::Status(503, vec![]));
    // While it does not run, and it sees that at its start.
    cache.kill();
    std::fs::remove_file(cache.blob(&images[0].index)).unwrap();
    std::fs::write(cache.blob(&layer), b"").unwrap();
    away();
    cache.start_again();
    for name in &names {
        let mut pin = Value::Null;
        until("it is not complete, and says why", || {
            pin = cache.pin(name);
            pin["state"] == "waiting"
        });
        assert!(pin["error"].is_string() && pin["digest"].is_string() && pin["until_then"].is_null(), "{pin}");
    }
    // Nobody pulls it.
    origin.behave_well();
    for (name, image) in names.iter().zip(&images) {
        assert_eq!(cache.until_complete(name)["digest"], image.index.as_str());
    }
    // While it runs, and somebody finds out.
    away();
    for digest in [&images[0].index, &layer] {
        std::fs::remove_file(cache.blob(digest)).unwrap();
    }
    assert_ne!(cache.pull(&origin, &format!("manifests/{}", images[0].index)).0, 200);
    assert_ne!(cache.pull(&origin, &format!("blobs/{layer}")).0, 200);
    for name in &names {
        until("it is not complete", || cache.pin(name)["state"] == "waiting");
    }
    origin.behave_well();
    for name in &names {
        cache.until_complete(name);
    }
    // It becomes what it was: nothing follows a tag by itself, also where its registry says nothing of that for a while, and the process dies meanwhile.
    cache.kill();
    std::fs::remove_file(cache.blob(&images[0].index)).unwrap();
    origin.push("team/app", "v1", &image(23));
    let what_it_was = || Matcher::path(images[0].index.as_str());
    origin.behave(what_it_was(), Behaviour::Status(503, vec![]));
    cache.start_again();
    until("it waits for that", || cache.pin(&names[0])["state"] == "waiting");
    cache.kill();
    cache.start_again();
    until("it waits for that again", || cache.pin(&names[0])["state"] == "waiting");
    assert_eq!(cache.pin(&names[0])["digest"], images[0].index.as_str());
    origin.behave_well();
    until("it is fetched again", || cache.blob(&images[0].index).exists());
    assert_eq!(cache.until_complete(&names[0])["digest"], images[0].index.as_str());
    origin.stop();
    for image in &images {
        let (status, index) = cache.pull(&origin, &format!("manifests/{}", image.index));
        assert_eq!((status, Digest::of(image.index.algorithm(), &index)), (200, image.index.clone()));
        assert!(cache.gives(&origin, image, "amd64"));
    }
    // What its registry has no more can be had by its tag only.
    cache.kill();
    std::fs::remove_file(cache.blob(&images[0].index)).unwrap();
    origin.start_again();
    origin.behave(what_it_was(), Behaviour::Status(404, vec![]));
    cache.start_again();
    until("it is what its tag means", || cache.pin(&names[0])["digest"] == image(23).index.as_str());
    cache.until_complete(&names[0]);
}

#[test]
fn a_fetch_that_was_killed_goes_on_by_itself_and_shows_how_far_it_is() {
    let origin = Origin::start();
    let image = image(2);
    origin.push("team/app", "v1", &image);
    let layer = amd64(&image).blobs.iter().max_by_key(|digest| image.blobs[*digest].len()).unwrap().clone();
    origin.behave(Matcher::path(layer.as_str()), Behaviour::Stall(1_000_000));
    let mut cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    let (status, _) = cache.ask("PUT", &format!("/v1/pins/{name}"), r#"{"platforms":["linux/amd64"]}"#);
    assert_eq!(status, 202);
    until("something has arrived", || cache.pin(&name)["bytes"]["fetched"].as_u64().unwrap() > 500_000);
    let pin = cache.pin(&name);
    assert_eq!(pin["state"], "fetching");
    let (known, fetched) = (pin["bytes"]["known"].as_u64().unwrap(), pin["bytes"]["fetched"].as_u64().unwrap());
    assert!(known > 3_000_000 && fetched < known, "{pin}");
    // A holder does not say that all is well meanwhile.
    let (_, begun) = cache.ask("POST", "/v1/holders/me/declarations", "");
    let declaration = format!("/v1/holders/me/declarations/{}", begun["as_of"]);
    let (status, refused) = cache.ask("PUT", &declaration, "");
    assert!(status == 409 && refused["error"].as_str().unwrap().contains("not complete"), "{refused}");
    cache.kill();
    origin.behave_well();
    cache.start_again();
    cache.until_complete(&name);
    assert!(origin.blob_bytes(&layer) < 2 * image.blobs[&layer].len() as u64, "what had arrived is not fetched again");
    assert_eq!(cache.ask("PUT", &declaration, "").0, 200);
    assert_eq!(cache.ask("GET", "/v1/holders/me", "").1["declared"], begun["as_of"]);
    cache.kill();
    cache.start_again();
    assert_eq!(cache.pin(&name)["state"], "complete");
    origin.stop();
    assert!(cache.gives(&origin, &image, "amd64"));
}

#[test]
fn whoever_has_no_token_is_turned_away_before_anything_is_read() {
    let origin = Origin::start();
    origin.push("team/app", "v1", &image(3));
    let cache = Cache::of(&origin);
    let target = format!("/v1/pins/{}", pinned(&origin, "v1"));
    // Not even those who may pull, from this network or with a node's token.
    for token in [None, Some("wrong-token-of-many-letters"), Some("the-nodes-token-is-another")] {
        for (method, target, body) in [
            ("PUT", target.as_str(), ""),
            ("PUT", target.as_str(), "no json at all"),
            ("GET", "/v1/pins", ""),
            ("GET", "/nonsense", ""),
            ("POST", &format!("/v1/revalidations/{}/team/app:v1", origin.registry()), ""),
        ] {
            let (status, said) = ask(cache.control, method, target, token, body);
            assert_eq!(status, 401, "{method} {target} {token:?}");
            assert!(said["error"].as_str().is_some_and(|error| error.contains("token")), "{said}");
        }
        // A body that never comes is not waited for.
        let mut stream = TcpStream::connect(cache.control).unwrap();
        let head = format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 401");
    }
    assert!(origin.log().is_empty(), "{:?}", origin.log());
    assert_eq!(ask(cache.address, "GET", &target, Some(TOKEN), "").0, 401, "nor does this token pull");
}

#[test]
fn what_is_wrong_is_said_and_does_nothing() {
    let origin = Origin::start();
    let cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    let large = " ".repeat(100 << 10);
    for (method, target, body, status) in [
        ("PUT", format!("/v1/pins/{name}"), r#"{"platform":"linux/amd64"}"#, 400),
        ("PUT", format!("/v1/pins/{name}"), r#"{"platforms":["amd64"]}"#, 400),
        ("PUT", format!("/v1/pins/{name}"), large.as_str(), 413),
        ("PUT", "/v1/pins/pull/alpine".to_owned(), "", 400),
        ("PUT", "/v1/pins/me/http://169.254.169.254/latest".to_owned(), "", 400),
        ("GET", format!("/v1/pins/{name}"), "", 404),
        ("GET", "/v1/pins".to_owned(), "{}", 400),
        ("PATCH", format!("/v1/pins/{name}"), "", 405),
    ] {
        let (answered, error) = cache.ask(method, &target, body);
        assert_eq!(answered, status, "{method} {target}: {error}");
        assert!(error["error"].as_str().unwrap().len() > 10, "{error}");
    }
    assert_eq!(cache.ask("GET", "/v1/pins", "").1, json!({"pins": [], "next": null}));
    assert_eq!(cache.ask("DELETE", &format!("/v1/pins/{name}"), "").0, 204, "as often as one likes");
}

#[test]
fn private_images_and_addresses_that_a_pull_would_not_reach_are_refused() {
    let origin = Origin::start();
    origin.push("team/app", "v1", &image(4));
    origin.behave(Matcher::path("/v2/team/app/"), Behaviour::Status(401, vec![]));
    let cache = Cache::of(&origin);
    let (status, pin) = cache.ask("PUT", &format!("/v1/pins/{}?wait=30", pinned(&origin, "v1")), "");
    assert_eq!((status, &pin["state"]), (202, &json!("refused")), "{pin}");
    assert!(pin["error"].as_str().unwrap().contains("private images") && pin["code"] == "private", "{pin}");
    // A registry on this machine that no settings name, and one at the address of a cloud's metadata.
    let other = Origin::start();
    other.push("team/app", "v1", &image(5));
    for registry in [other.registry().to_string(), "169.254.169.254".to_owned()] {
        let target = format!("/v1/pins/me/{registry}/team/app:v1?wait=30");
        let (status, pin) = cache.ask("PUT", &target, "");
        assert!(status == 202 && matches!(pin["state"].as_str(), Some("refused" | "waiting")), "{pin}");
        // Which rule, and what a person can do.
        let words = pin["error"].as_str().unwrap();
        let is_said = words.contains("127.0.0.1 is this machine") && words.contains("make an UpstreamRegistry of it");
        assert!(registry != other.registry().to_string() || is_said && pin["code"] == "not_permitted", "{pin}");
        let (status, _) = cache.ask("POST", &format!("/v1/revalidations/{registry}/team/app:v1"), "");
        assert!(matches!(status, 200 | 403 | 503), "{status}");
    }
    assert!(other.log().is_empty(), "{:?}", other.log());
}

#[test]
fn a_tag_that_moved_is_seen_and_the_old_image_stays_until_the_new_one_is_there() {
    let origin = Origin::start();
    let (old, new) = (image(6), image(7));
    origin.push("team/app", "v1", &old);
    let cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    let revalidate = || cache.ask("POST", &format!("/v1/revalidations/{}/team/app:v1", origin.registry()), "").1;
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").0, 200);
    let said = revalidate();
    assert_eq!((&said["upstream"], &said["same"]), (&json!(old.index.as_str()), &json!(true)), "{said}");
    origin.push("team/app", "v1", &new);
    origin.clear_log();
    let said = revalidate();
    assert_eq!(
        (&said["upstream"], &said["held"], &said["same"]),
        (&json!(new.index.as_str()), &json!(old.index.as_str()), &json!(false))
    );
    assert!(origin.log().iter().all(|access| access.method == "HEAD"), "it costs no pull quota: {:?}", origin.log());
    // The new one cannot be fetched: the pin says so, and holds the old one.
    let layer = amd64(&new).blobs.last().unwrap().clone();
    origin.behave(Matcher::path(layer.as_str()), Behaviour::Status(503, vec![]));
    cache.ask("PUT", &format!("/v1/pins/{name}?wait=30"), "");
    until("it waits", || cache.pin(&name)["state"] == "waiting");
    let pin = cache.pin(&name);
    assert_eq!((&pin["digest"], &pin["until_then"]), (&json!(new.index.as_str()), &json!(old.index.as_str())), "{pin}");
    assert!(pin["error"].as_str().unwrap().contains(layer.as_str()), "{pin}");
    origin.behave_well();
    let pin = cache.until_complete(&name);
    assert_eq!(pin["until_then"], Value::Null);
    origin.stop();
    assert_eq!(revalidate()["upstream"], Value::Null);
    assert!(cache.gives(&origin, &new, "amd64") && cache.gives(&origin, &new, "arm64"));
}

/// What says which repository a blob is of and what a tag meant is small, and lies elsewhere than the blobs.
#[test]
fn a_pinned_image_whose_records_are_lost_is_given_while_its_registry_is_away() {
    let origin = Origin::start();
    let image = image(41);
    origin.push("team/app", "v1", &image);
    let mut cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").0, 200);
    cache.kill();
    std::fs::remove_dir_all(cache.folder.path().join("store/names")).unwrap();
    origin.stop();
    cache.start_again();
    until("what the tag means is given", || {
        TcpStream::connect(cache.address).is_ok() && cache.pull(&origin, "manifests/v1").0 == 200
    });
    let (_, index) = cache.pull(&origin, "manifests/v1");
    assert_eq!(Digest::of(image.index.algorithm(), &index), image.index);
    for architecture in ["amd64", "arm64"] {
        assert!(cache.gives(&origin, &image, architecture), "{architecture}");
    }
    assert_eq!(cache.pin(&name)["state"], "complete");
    // Nobody else was ever seen to deliver it.
    let layer = &amd64(&image).blobs[0];
    let other = format!("/v2/team/other/blobs/{layer}?ns={}", origin.registry());
    assert_ne!(exchange(cache.address, "GET", &other, "", "").0, 200);
}

/// That the blobs are here, from another one, proves nothing.
#[test]
fn a_pin_is_complete_only_once_its_own_repository_was_seen_to_deliver_all_of_it() {
    let origin = Origin::start();
    let image = image(44);
    for repository in ["team/app", "team/other"] {
        origin.push(repository, "v1", &image);
    }
    let cache = Cache::of(&origin);
    let other = format!("me/{}/team/other:v1", origin.registry());
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{other}?wait=60"), "").1["state"], "complete");
    origin.behave(Matcher::path("team/app/blobs"), Behaviour::Status(404, vec![]));
    let name = pinned(&origin, "v1");
    for _ in 0..2 {
        let pin = cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").1;
        assert_eq!((&pin["state"], &pin["code"]), (&json!("waiting"), &json!("not_found")), "{pin}");
    }
    origin.behave_well();
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").1["state"], "complete");
}

#[test]
fn what_is_lost_of_an_older_image_is_fetched_again_while_the_new_one_waits() {
    let origin = Origin::start();
    let (old, new) = (image(42), image(43));
    origin.push("team/app", "v1", &old);
    let cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    let put = |wait: u32| cache.ask("PUT", &format!("/v1/pins/{name}?wait={wait}"), "").1;
    assert_eq!(put(60)["state"], "complete");
    origin.push("team/app", "v1", &new);
    let only_in = |one: &Image, other: &Image| {
        let layers = amd64(one).blobs.iter();
        layers
            .filter(|digest| !amd64(other).blobs.contains(digest))
            .max_by_key(|digest| one.blobs[*digest].len())
            .unwrap()
            .clone()
    };
    let (kept, coming) = (only_in(&old, &new), only_in(&new, &old));
    // An answer: after enough 5xx nobody is asked for a while.
    let refuse = |digest: &Digest| origin.behave(Matcher::path(digest.as_str()), Behaviour::Status(404, vec![]));
    refuse(&coming);
    let pin = put(60);
    assert_eq!((&pin["state"], &pin["until_then"]), (&json!("waiting"), &json!(old.index.as_str())), "{pin}");
    assert!(pin["until_then_error"].is_null(), "{pin}");
    // Somebody finds out, and its registry has it no more.
    refuse(&kept);
    std::fs::remove_file(cache.blob(&kept)).unwrap();
    assert_ne!(cache.pull(&origin, &format!("blobs/{kept}")).0, 200);
    until("it is said", || {
        cache.pin(&name)["until_then_error"].as_str().is_some_and(|words| words.contains(kept.as_str()))
    });
    assert_eq!(cache.pin(&name)["until_then"], old.index.as_str());
    origin.behave_well();
    refuse(&coming);
    until("it is there again", || put(60)["until_then_error"].is_null());
    assert_eq!(cache.pin(&name)["state"], "waiting");
    assert!(cache.blob(&kept).exists());
    origin.stop();
    assert!(cache.gives(&origin, &old, "amd64"));
}

#[test]
fn a_digest_that_its_registry_has_deleted_is_seen_and_kept() {
    let origin = Origin::start();
    let image = image(13);
    origin.push("team/app", "v1", &image);
    let cache = Cache::of(&origin);
    let by_digest = format!("{}/team/app@{}", origin.registry(), image.index);
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/me/{by_digest}?wait=60"), "").0, 200);
    let revalidate = || cache.ask("POST", &format!("/v1/revalidations/{by_digest}"), "");
    origin.clear_log();
    let (status, said) = revalidate();
    let digest = json!(image.index.as_str());
    assert_eq!(
        (status, &said["upstream"], &said["held"], &said["same"]),
        (200, &digest, &digest, &json!(true)),
        "{said}"
    );
    let asked = origin.log();
    assert!(!asked.is_empty() && asked.iter().all(|access| access.method == "HEAD"), "no pull quota: {asked:?}");
    // One that does not know HEAD.
    origin.behave(Matcher::path("manifests").method("HEAD"), Behaviour::Status(405, vec![]));
    assert_eq!(revalidate().1["upstream"], digest);
    origin.behave_well();
    origin.delete("team/app");
    let (status, said) = revalidate();
    assert_eq!((status, &said["upstream"], &said["verdict"]), (200, &Value::Null, &json!("not_found")), "{said}");
    assert!(cache.gives(&origin, &image, "amd64"));
    // Nobody has it, and it was never here.
    let (_, pin) = cache.ask("PUT", &format!("/v1/pins/me/{}/team/none:v1?wait=30", origin.registry()), "");
    assert_eq!((&pin["state"], &pin["code"]), (&json!("waiting"), &json!("not_found")), "{pin}");
}

#[test]
fn how_registries_are_is_what_was_seen_of_them() {
    let origin = Origin::start();
    let image = image(14);
    origin.push("team/app", "v1", &image);
    let cache = Cache::of(&origin);
    let registries = |after: &str| cache.ask("GET", &format!("/v1/registries{after}"), "").1;
    assert_eq!(registries("")["registries"], json!([]), "nobody was asked");
    let said = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{}?wait=60", pinned(&origin, "v1")), "").0, 200);
    let page = registries("");
    let seen = &page["registries"][0];
    assert_eq!(seen["registry"], json!(origin.registry().to_string()));
    assert!(seen["answered"]["in_a_row"].as_u64().unwrap() > 2 && seen["failed"]["in_a_row"] == json!(0), "{page}");
    assert!(seen["latency"].is_u64() && seen["failure"].is_null() && seen["peace"].is_null(), "{page}");
    // Only what is new.
    let after = format!("?after={}", page["next"].as_str().unwrap());
    assert_eq!(registries(&after)["registries"], json!([]));
    let headers = vec![
        said("ratelimit-limit", "100;w=21600"),
        said("ratelimit-remaining", "0;w=21600"),
        said("ratelimit-reset", "900"),
        said("retry-after", "60"),
    ];
    origin.behave(Matcher::all(), Behaviour::Status(429, headers));
    let revalidate = || cache.ask("POST", &format!("/v1/revalidations/{}/team/app:v1", origin.registry()), "");
    assert_eq!(revalidate().1["verdict"], json!("rate_limited"));
    let seen = &registries(&after)["registries"][0];
    assert_eq!((&seen["quota"]["remaining"], &seen["quota"]["limit"]), (&json!(0), &json!(100)), "{seen}");
    assert!(seen["peace"].as_u64().unwrap() > 30_000, "{seen}");
    assert!((600_000..=900_000).contains(&seen["quota"]["reset"].as_u64().unwrap()), "{seen}");
    // Away: another one, which is not left in peace.
    let other = Origin::start();
    let cache = Cache::of(&other);
    other.stop();
    let (status, _) = cache.ask("POST", &format!("/v1/revalidations/{}/team/app:v1", other.registry()), "");
    assert_eq!(status, 200);
    let (_, page) = cache.ask("GET", "/v1/registries", "");
    let seen = &page["registries"][0];
    assert_eq!((&seen["answered"]["times"], &seen["failure"]["why"]), (&json!(0), &json!("unreachable")), "{page}");
    assert!(seen["failed"]["in_a_row"].as_u64().unwrap() > 0 && seen["failure"]["error"].is_string(), "{page}");
}

#[test]
fn pins_are_listed_in_pages_and_a_deleted_one_does_not_come_back() {
    let origin = Origin::start();
    let image = image(8);
    for tag in 0..7 {
        origin.push("team/app", &format!("v{tag}"), &image);
    }
    let cache = Cache::of(&origin);
    for tag in 0..7 {
        cache.ask("PUT", &format!("/v1/pins/{}", pinned(&origin, &format!("v{tag}"))), "");
    }
    let list = |query: &str| {
        let (mut images, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = cache.ask("GET", &format!("/v1/pins?limit=3{query}{after}"), "");
            assert_eq!(status, 200, "{page}");
            images.extend(page["pins"].as_array().unwrap().iter().map(|pin| pin["image"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { return images };
            after = format!("&after={next}");
        }
    };
    let mut images = list("");
    images.sort();
    let expected: Vec<String> = (0..7).map(|tag| format!("{}/team/app:v{tag}", origin.registry())).collect();
    assert_eq!(images, expected);
    assert_eq!(list("&holder=me").len(), 7);
    assert_eq!(list("&holder=you"), Vec::<String>::new());
    for tag in 0..7 {
        assert_eq!(cache.ask("DELETE", &format!("/v1/pins/{}", pinned(&origin, &format!("v{tag}"))), "").0, 204);
    }
    let mut cache = cache;
    cache.kill();
    cache.start_again();
    assert_eq!(cache.ask("GET", "/v1/pins", "").1["pins"], json!([]));
}

#[test]
fn a_holder_that_is_no_more_is_forgotten_with_its_pins() {
    let origin = Origin::start();
    origin.push("team/app", "v1", &image(9));
    let cache = Cache::of(&origin);
    let name = pinned(&origin, "v1");
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}?wait=60"), "").0, 200);
    let (_, begun) = cache.ask("POST", "/v1/holders/me/declarations", "");
    assert_eq!(cache.ask("PUT", &format!("/v1/holders/me/declarations/{}", begun["as_of"]), "").0, 200);
    assert_eq!(ask(cache.control, "DELETE", "/v1/holders/me", None, "").0, 401);
    assert_eq!(cache.ask("DELETE", "/v1/holders/pull", "").0, 400);
    assert_eq!(cache.ask("GET", "/v1/holders/me", "").1["declared"], begun["as_of"]);
    // Who types it wrong is not left in the belief that it is done.
    let (status, said) = cache.ask("DELETE", "/v1/holders/mee", "");
    assert!(status == 404 && said["error"].as_str().unwrap().ends_with("there are: me"), "{status} {said}");
    for status in [204, 404] {
        assert_eq!(cache.ask("DELETE", "/v1/holders/me", "").0, status);
        assert_eq!(cache.ask("GET", "/v1/holders/me", "").1["declared"], Value::Null);
        assert_eq!(cache.ask("GET", "/v1/pins?holder=me", "").1["pins"], json!([]));
    }
}

#[test]
fn a_holder_that_is_somebodys_is_written_by_nobody_else() {
    const OTHER: &str = "another-token-of-many-letters";
    let origin = Origin::start();
    origin.push("team/app", "v1", &image(12));
    let mut cache = Cache::of(&origin);
    cache.kill();
    let tokens = format!("controller {TOKEN}\nme {OTHER}\n");
    std::fs::write(cache.folder.path().join("control-tokens"), tokens).unwrap();
    cache.holders = vec!["controller=me".to_owned()];
    cache.start_again();
    let name = pinned(&origin, "v1");
    let pin = format!("/v1/pins/{name}");
    assert_eq!(cache.ask("PUT", &format!("{pin}?wait=60"), "").0, 200);
    let other = |method: &str, target: &str| ask(cache.control, method, target, Some(OTHER), "");
    for (method, target) in [
        ("PUT", pin.as_str()),
        ("DELETE", &pin),
        ("POST", "/v1/holders/me/declarations"),
        ("PUT", "/v1/holders/me/declarations/1"),
        ("DELETE", "/v1/holders/me"),
    ] {
        let (status, said) = other(method, target);
        assert!(
            status == 403 && said["error"].as_str().unwrap().contains("that of controller"),
            "{method} {target} {said}"
        );
    }
    assert_eq!(other("GET", &pin).0, 200, "it may be read");
    assert_eq!(other("POST", "/v1/holders/you/declarations").0, 200, "what is nobody's is everybody's");
    let (status, said) = cache.ask("POST", "/v1/holders/you/declarations", "");
    assert!(status == 403 && said["error"].as_str().unwrap().contains("writes for the holder me only"), "{said}");
    assert_eq!(cache.pin(&name)["state"], "complete");
}

#[test]
fn strangers_take_no_place_from_whoever_has_a_token() {
    let origin = Origin::start();
    let cache = Cache::of(&origin);
    // A slow machine may take longer for a round, in which a stranger's time may be over by itself: then another one says more. Where none gives way whoever
    // comes waits for that time, in every round.
    until("whoever has a token is served before any stranger's time is over", || {
        let began = Instant::now();
        // Each says something, and never all of it.
        let strangers: Vec<TcpStream> = (0..350)
            .map(|_| {
                let mut stream = TcpStream::connect(cache.control).unwrap();
                let _ = stream.write_all(b"GET /v1/pins HTTP/1.1\r\n");
                stream
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(cache.ask("GET", "/v1/pins", "").0, 200);
        }
        let took = began.elapsed();
        drop(strangers);
        took < STRANGERS_TIME
    });
}

#[test]
fn a_registry_that_drips_keeps_no_other_one_waiting_and_a_pin_that_is_deleted_gives_its_place_up() {
    let (drips, well) = (Origin::start(), Origin::start());
    let push = |origin: &Origin, number: u64| {
        let image = Image::build(&ImageSpec { layers: vec![200_000], seed: number, ..ImageSpec::default() });
        origin.push(&format!("team/app{number}"), "v1", &image);
        format!("me/{}/team/app{number}:v1", origin.registry())
    };
    let slow: Vec<String> = (0..5).map(|number| push(&drips, number)).collect();
    // A layer takes a day, and never stands still.
    drips.behave(Matcher::path("/blobs/"), Behaviour::Shape(2));
    let quick = push(&well, 9);
    let settings = [&drips, &well].map(|origin| format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry()));
    let cache = Cache::start(&settings.concat());
    for name in &slow {
        assert_eq!(cache.ask("PUT", &format!("/v1/pins/{name}"), "").0, 202);
    }
    let fetched = || slow.iter().filter(|name| cache.pin(name)["state"] == "fetching").count();
    until("all of its places are taken", || fetched() == 4);
    assert_eq!(cache.ask("PUT", &format!("/v1/pins/{quick}"), "").0, 202);
    cache.until_complete(&quick);
    assert_eq!(fetched(), 4, "it did not wait for them");
    let waits = slow.iter().find(|name| cache.pin(name)["state"] == "queued").unwrap();
    let gone = slow.iter().find(|name| *name != waits).unwrap();
    assert_eq!(cache.ask("DELETE", &format!("/v1/pins/{gone}"), "").0, 204);
    until("another one has its place", || cache.pin(waits)["state"] == "fetching");
}
