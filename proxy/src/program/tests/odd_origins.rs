//! The whole proxy against registries that do what the specification allows, and some that do not.

use larder_test_origin::{Behaviour, Matcher};

use super::*;

struct Proxy {
    origin: TestOrigin,
    address: SocketAddr,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), RunError>>,
    _folder: tempfile::TempDir,
}

fn start() -> Proxy {
    let origin = TestOrigin::start();
    let folder = tempfile::tempdir().unwrap();
    let registries = folder.path().join("own.toml");
    fs::write(&registries, format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry())).unwrap();
    let config = config(StoreConfig::Memory { limit: 1 << 24 }, None);
    let opened = open(ProxyConfig { registries: Some(registries), ..config }).unwrap();
    let (address, shutdown) = (opened.addresses()[0], CancellationToken::new());
    let running = tokio::spawn(opened.run(shutdown.clone()));
    Proxy { origin, address, shutdown, running, _folder: folder }
}

impl Proxy {
    /// The `Link` of a successful answer.
    async fn link(&self, target: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 200 "), "{all}");
        all.lines().find_map(|line| line.strip_prefix("link: ")).map(ToOwned::to_owned)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        tokio::task::block_in_place(|| drop(self.origin));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_page_of_a_list_is_asked_for_through_us() {
    let proxy = start();
    proxy.origin.push("team/app", "v1", &Image::build(&ImageSpec::default()));
    let next = format!("<{}/v2/team/app/tags/list?n=1&last=v1>; rel=\"next\"", proxy.origin.url());
    proxy.origin.behave_times(2, "/tags/list".into(), Behaviour::With("link", next));
    let registry = proxy.origin.registry();
    let by_path = format!("/v2/{}/team/app/tags/list", registry.path_segment());
    let by_namespace = "/v2/team/app/tags/list".to_owned();
    for (target, expected) in [
        (format!("{by_path}?n=1"), format!("{by_path}?n=1&last=v1")),
        (format!("{by_namespace}?ns={registry}&n=1"), format!("{by_namespace}?n=1&last=v1&ns={registry}")),
    ] {
        let link = proxy.link(&target).await.unwrap();
        assert_eq!(link, format!("<{expected}>; rel=\"next\""));
    }
    for target in [format!("{by_path}?n=1&last=v1"), format!("{by_namespace}?n=1&last=v1&ns={registry}")] {
        assert_eq!(proxy.link(&target).await, None);
        assert_eq!(proxy.origin.log().last().unwrap().query, "n=1&last=v1");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_knows_no_head_is_asked_with_get() {
    // 405 is how registries say it, 501 how plain web servers do.
    for status in [405, 501] {
        knows_no_head(status).await;
    }
}

async fn knows_no_head(status: u16) {
    let proxy = start();
    let image = Image::build(&ImageSpec::default());
    proxy.origin.push("team/app", "v1", &image);
    proxy.origin.push("other/app", "v1", &image);
    proxy.origin.behave(Matcher::all().method("HEAD"), Behaviour::Status(status, Vec::new()));
    let registry = proxy.origin.registry();
    let layer = image.largest_layer();
    // The second repository's content is there already, but not the evidence that it has it.
    for repository in ["team/app", "other/app"] {
        for (method, what) in [
            ("HEAD", "manifests/v1".to_owned()),
            ("GET", "manifests/v1".to_owned()),
            ("HEAD", format!("manifests/{}", image.index)),
            ("GET", format!("manifests/{}", image.index)),
            ("HEAD", format!("blobs/{layer}")),
            ("GET", format!("blobs/{layer}")),
        ] {
            let target = format!("/v2/{repository}/{what}?ns={registry}");
            assert_eq!(ask(proxy.address, method, &target).await.0, 200, "{method} {target}");
        }
    }
    let other = format!("/v2/third/app/manifests/{}?ns={registry}", image.index);
    assert_eq!(ask(proxy.address, "GET", &other).await.0, 404);
    let other = format!("/v2/third/app/blobs/{layer}?ns={registry}");
    assert_eq!(ask(proxy.address, "GET", &other).await.0, 404);
    proxy.stop().await;
}
