//! What was pulled through is pinned by itself.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_was_pulled_through_is_pinned_once_it_is_whole() {
    let origin = TestOrigin::start();
    let image = Image::build(&ImageSpec::default());
    origin.push("team/app", "v1", &image);
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry());
    fs::write(folder.path().join(REGISTRIES), settings).unwrap();
    let store = DirectoryConfig { pull_settles: Duration::from_millis(50), ..directory(folder.path()) };
    let mut config = config(StoreConfig::Directory(store), None);
    config.registries = Some(folder.path().join(REGISTRIES));
    let anonymous = vec!["127.0.0.0/8".parse().unwrap()];
    config.service = Some(ServiceConfig { tls: None, tokens: None, callers: None, anonymous, control: None });
    let opened = open(config).unwrap();
    let (address, shutdown) = (opened.addresses()[0], CancellationToken::new());
    let running = tokio::spawn(opened.run(shutdown.clone()));

    let target = |what: &str| format!("/v2/team/app/{what}?ns={}", origin.registry());
    let platform = image.host_platform().clone();
    assert_eq!(ask(address, "GET", &target("manifests/v1")).await.0, 200);
    assert_eq!(ask(address, "GET", &target(&format!("manifests/{}", platform.manifest))).await.0, 200);
    let pins = || {
        let mut found = Vec::new();
        let mut folders = vec![folder.path().join("store/pins/pull")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.extend(fs::read_to_string(path)) }
            }
        }
        found
    };
    for digest in &platform.blobs {
        assert!(pins().is_empty(), "not before it is whole");
        assert_eq!(ask(address, "GET", &target(&format!("blobs/{digest}"))).await.0, 200);
    }
    // As the next one who pulls it does.
    assert_eq!(ask(address, "GET", &target("manifests/v1")).await.0, 200);
    let of_index = format!("team/app@{}", image.index);
    let end = Instant::now() + Duration::from_secs(20);
    let pin = loop {
        if let Some(pin) = pins().into_iter().find(|pin| pin.contains(&of_index)) {
            break pin;
        }
        assert!(Instant::now() < end, "{:?}", pins());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let is_whole = platform.blobs.iter().all(|digest| pin.contains(digest.as_str()));
    assert!(is_whole && pin.contains(platform.manifest.as_str()) && pin.contains("\"complete\":true"), "{pin}");
    shutdown.cancel();
    ended(running).await;
    tokio::task::block_in_place(|| drop(origin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_is_listed_with_its_registry_while_the_registry_is_away() {
    let origin = TestOrigin::start();
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry());
    fs::write(folder.path().join(REGISTRIES), settings).unwrap();
    let mut config = config(StoreConfig::Directory(directory(folder.path())), None);
    config.registries = Some(folder.path().join(REGISTRIES));
    let opened = open(config).unwrap();
    let (address, shutdown) = (opened.addresses()[0], CancellationToken::new());
    let running = tokio::spawn(opened.run(shutdown.clone()));
    let mut expected = Vec::new();
    let segment = origin.registry().path_segment();
    for number in 0..5 {
        let repository = format!("team/app-{number}");
        origin.push(&repository, "v1", &Image::build(&ImageSpec { seed: number, ..ImageSpec::default() }));
        let target = format!("/v2/{repository}/manifests/v1?ns={}", origin.registry());
        assert_eq!(ask(address, "GET", &target).await.0, 200);
        expected.push(format!("{segment}/{repository}"));
    }
    tokio::task::block_in_place(|| origin.stop());
    // As a client does it: page by page, where the Link says.
    let (mut listed, mut next) = (Vec::new(), Some("/v2/_catalog?n=2".to_owned()));
    while let Some(target) = next {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let page: serde_json::Value = serde_json::from_str(body).unwrap();
        listed.extend(page["repositories"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
        next = head.lines().find_map(|line| Some(line.strip_prefix("link: <")?.split_once('>')?.0.to_owned()));
    }
    assert_eq!(listed, expected);
    let (status, tags) = ask(address, "GET", &format!("/v2/{}/tags/list", expected[0])).await;
    assert_eq!((status, String::from_utf8(tags).unwrap().contains("\"v1\"")), (200, true));
    shutdown.cancel();
    ended(running).await;
    tokio::task::block_in_place(|| drop(origin));
}
