//! When the manifest is given, and what the origin notices of it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_as_cri_o_does_it_once_from_the_registry_and_then_without_it() {
    let stage = Stage::start();
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(ask(stage.address, "GET", "/v2/").await, (200, b"{}".to_vec()));
    stage.pull().await;
    let accepted = stage.origin.log()[0].header("accept").unwrap().to_owned();
    assert!(accepted.contains("image.index.v1+json") && accepted.contains("manifest.list.v2+json"), "{accepted}");
    stage.stop_origin();
    stage.pull().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_twice_in_one_pull_costs_the_registry_one_question() {
    let stage = Stage::start();
    let (index, manifest) = (stage.image.index.to_string(), stage.image.host_platform().manifest.to_string());
    stage.manifests().await;
    stage.pull().await;
    assert_eq!(stage.asked(), ["HEAD v1".to_owned(), format!("GET {index}"), format!("GET {manifest}")]);
    // Another pull sees what the tag means now.
    let newer = Image::build(&ImageSpec { seed: 2, ..ImageSpec::default() });
    stage.origin.push("team/app", "v1", &newer);
    assert_eq!(stage.manifest("v1").await, (200, newer.manifests[&newer.index].1.to_vec()));
    assert_eq!(stage.asked(), ["HEAD v1".to_owned(), format!("GET {}", newer.index)]);
    // A pull that fails is tried once more, as an artifact.
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    for reference in ["missing", missing.as_str()] {
        for _ in 0..2 {
            assert_eq!(stage.manifest(reference).await, (404, Vec::new()));
        }
        assert_eq!(stage.asked().len(), 1, "{reference}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_here_as_a_whole_is_refused_at_the_manifest_while_the_registry_is_away() {
    let stage = Stage::start();
    let manifest = stage.image.host_platform().manifest.to_string();
    stage.manifests().await;
    let [first, rest @ ..] = stage.image.host_platform().blobs.as_slice() else { panic!("it has blobs") };
    assert_eq!(stage.blob(first).await.0, 200);
    stage.stored().await;
    stage.stop_origin();
    let began = std::time::Instant::now();
    for reference in ["v1", stage.image.index.as_str(), &manifest] {
        assert_eq!(stage.manifest(reference).await, (502, Vec::new()), "{reference}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // containerd asks elsewhere for what is missing, so it gets what there is.
    let target = format!("/v2/team/app/manifests/{manifest}?ns={}", stage.origin.registry());
    assert_eq!(ask(stage.address, "GET", &target).await.0, 200);
    assert!(page(stage.admin, "/metrics").await.contains("outcome=\"partial\""));

    stage.origin.start_again();
    for digest in rest {
        let target = format!("/v2/team/app/blobs/{digest}?ns={}", stage.origin.registry());
        assert_eq!(ask(stage.address, "GET", &target).await.0, 200);
    }
    stage.stored().await;
    stage.stop_origin();
    stage.pull().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_could_not_be_given_in_full_is_refused_until_it_can() {
    let stage = Stage::start();
    let layer = stage.image.largest_layer();
    let manifest = stage.image.host_platform().manifest.to_string();
    let other = artifact("another image");
    stage.origin.push("team/app", "other", &other);
    stage.manifests().await;
    stage.origin.behave(Matcher::path(layer.hex()), Behaviour::Status(404, Vec::new()));
    let (status, body) = stage.blob(&layer).await;
    assert!(status == 404 && String::from_utf8_lossy(&body).contains("BLOB_UNKNOWN"), "{status}");
    stage.origin.clear_log();
    for reference in ["v1", stage.image.index.as_str(), &manifest] {
        assert_eq!(stage.manifest(reference).await, (502, Vec::new()), "{reference}");
    }
    assert!(stage.origin.log().is_empty(), "it is not even asked");
    assert_eq!(stage.manifest("other").await.0, 200);
    let metrics = page(stage.admin, "/metrics").await;
    assert!(metrics.contains("\nlarder_images_refused 2\n") && metrics.contains("outcome=\"broken\""), "{metrics}");
    let broken = format!("\nlarder_promises_broken_total{{registry=\"{}\"}} 1\n", stage.origin.registry());
    assert!(metrics.contains(&broken), "{metrics}");

    // Somebody else gets the blob.
    stage.origin.behave_well();
    let target = format!("/v2/team/app/blobs/{layer}?ns={}", stage.origin.registry());
    assert_eq!(ask(stage.address, "GET", &target).await.0, 200);
    stage.stored().await;
    stage.pull().await;
    assert!(page(stage.admin, "/metrics").await.contains("\nlarder_images_refused 0\n"));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_cut_short_breaks_the_promise_too() {
    let stage = Stage::start();
    let layer = stage.image.largest_layer();
    stage.manifests().await;
    stage.origin.behave(Matcher::path(layer.hex()), Behaviour::Lie(1000));
    let (status, got) = stage.blob(&layer).await;
    assert!(status == 200 && got.len() < stage.image.blobs[&layer].len());
    assert_eq!(stage.manifest("v1").await, (502, Vec::new()));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_ranges_are_answered_with_the_whole_which_the_client_takes_apart() {
    let stage = Stage::start();
    let layer = stage.image.largest_layer();
    let (bytes, target) = (stage.image.blobs[&layer].to_vec(), stage.target(&format!("blobs/{layer}")));
    for _ in ["arriving", "stored"] {
        let (status, got) = ask_with(stage.address, "GET", &target, "Range: bytes=0-10,100-199,250000-\r\n").await;
        assert!(status == 200 && got == bytes, "{status}, {} bytes", got.len());
        let (status, got) = ask_with(stage.address, "GET", &target, "Range: bytes=100-199\r\n").await;
        assert!(status == 206 && got == bytes[100..200], "{status}, {} bytes", got.len());
        stage.stored().await;
    }
    assert_eq!(stage.origin.blob_gets(&layer), 1, "the registry notices nothing of ranges");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_of_another_platform_takes_nothing_from_this_one_while_the_registry_is_away() {
    let stage = Stage::start();
    let host = stage.image.host_platform();
    let other = stage.image.platforms.iter().find(|platform| *platform != host).unwrap().manifest.to_string();
    stage.pull().await;
    stage.stop_origin();
    stage.manifests().await;
    // As `podman pull --platform` or `skopeo copy --all` on the node.
    assert_eq!(stage.manifest(&other).await, (502, Vec::new()));
    stage.pull().await;
    assert_eq!(stage.manifest(stage.image.index.as_str()).await.0, 200);
    assert_eq!(stage.manifest(&other).await, (502, Vec::new()));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_of_another_platform_is_had_elsewhere_while_the_registry_answers() {
    let stage = Stage::start();
    let host = stage.image.host_platform();
    let other = stage.image.platforms.iter().find(|platform| *platform != host).unwrap().manifest.clone();
    stage.pull().await;
    stage.origin.behave(Matcher::path(other.as_str()), Behaviour::Status(500, Vec::new()));
    assert_eq!(stage.manifest("v1").await.0, 200);
    assert_eq!(stage.manifest(other.as_str()).await, (502, Vec::new()));
    assert_eq!(stage.manifest("v1").await, (502, Vec::new()));
    stage.end().await;
}

/// `v1` with one more platform: another index of the same manifests.
fn with_one_more_platform(stage: &Stage) -> Image {
    let image = Image::build(&ImageSpec { architectures: vec!["amd64", "arm64", "s390x"], ..ImageSpec::default() });
    assert_eq!(image.platforms[..2], stage.image.platforms);
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_index_of_a_manifest_that_is_refused_is_refused_at_once() {
    let stage = Stage::start();
    stage.origin.push("team/app", "v2", &with_one_more_platform(&stage));
    let layer = stage.image.largest_layer();
    stage.origin.behave(Matcher::path(layer.as_str()), Behaviour::Status(500, Vec::new()));
    stage.manifests().await;
    assert_eq!(stage.blob(&layer).await.0, 502);
    for tag in ["v1", "v2"] {
        assert_eq!(stage.manifest(tag).await, (502, Vec::new()), "{tag}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_index_fails_those_of_another_platform_once_and_not_twice() {
    let stage = Stage::start();
    let host = stage.image.host_platform();
    let other = stage.image.platforms.iter().find(|platform| *platform != host).unwrap();
    stage.origin.push("team/app", "v2", &with_one_more_platform(&stage));
    let config = &other.blobs[0];
    stage.origin.behave(Matcher::path(config.as_str()), Behaviour::Status(500, Vec::new()));
    assert_eq!(stage.manifest("v1").await.0, 200);
    assert_eq!(stage.manifest(other.manifest.as_str()).await.0, 200);
    assert_eq!(stage.blob(config).await.0, 502);
    assert_eq!(stage.manifest("v2").await.0, 200);
    assert_eq!(stage.manifest(other.manifest.as_str()).await, (502, Vec::new()));
    assert_eq!(stage.manifest("v2").await, (502, Vec::new()));
    stage.end().await;
}
