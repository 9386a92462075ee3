//! Sections "Pulling manifests", "Pulling blobs", "Checking if content exists in the registry", "Error Codes", "Determining Support".

use larder_oci::{Algorithm, Digest, media_type};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn determining_support_v2_is_answered_with_200() {
    let stage = Stage::start();
    for way in stage.ways() {
        for target in ["/v2/", "/v2"] {
            assert_eq!(way.ask_for("GET", target, "").await.status, 200, "{way:?}");
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulling_manifests_200_with_the_expected_manifest_its_type_and_its_digest() {
    let stage = Stage::start();
    let index = stage.image.index.clone();
    let manifest = stage.image.host_platform().manifest.clone();
    // The second time it is stored.
    for _ in 0..2 {
        for way in stage.ways() {
            for (reference, digest) in [("v1", &index), (index.as_str(), &index), (manifest.as_str(), &manifest)] {
                let (media_type, bytes) = &stage.image.manifests[digest];
                let head = way.ask("HEAD", &format!("manifests/{reference}")).await;
                let get = way.ask("GET", &format!("manifests/{reference}")).await;
                assert_eq!((head.status, get.status), (200, 200), "{way:?} {reference}");
                assert!(get.body == bytes[..] && head.body.is_empty(), "{way:?} {reference}");
                for answer in [&get, &head] {
                    // Without parameters: "SHOULD NOT include parameters on the Content-Type header".
                    assert_eq!(answer.header("content-type"), Some(media_type.as_str()), "{way:?}");
                    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{way:?}");
                    assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()), "{way:?}");
                }
            }
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulling_manifests_a_reference_is_a_tag_or_a_digest_and_404_is_what_does_not_exist() {
    let stage = Stage::start();
    let nothing = Digest::of(Algorithm::Sha256, b"nothing");
    for way in stage.ways() {
        for method in ["GET", "HEAD"] {
            for reference in ["absent", nothing.as_str()] {
                assert_error(&way.ask(method, &format!("manifests/{reference}")).await, 404, None);
            }
            let elsewhere = way.target("team/absent", "manifests/v1");
            assert_error(&way.ask_for(method, &elsewhere, "").await, 404, None);
        }
        for (reference, code) in [
            ("sha256:short", "DIGEST_INVALID"),
            (&"x".repeat(129), "NAME_INVALID"),
            ("-v1", "NAME_INVALID"),
            (&format!("sha256:{}", "G".repeat(64)), "DIGEST_INVALID"),
        ] {
            assert_error(&way.ask("GET", &format!("manifests/{reference}")).await, 400, Some(code));
        }
        let upper_case = way.target("Team/App", "manifests/v1");
        assert_error(&way.ask_for("GET", &upper_case, "").await, 400, Some("NAME_INVALID"));
    }
    assert!(stage.origin.log().iter().all(|access| !access.path.contains("short")));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulling_blobs_200_with_the_expected_blob_and_checking_that_it_exists() {
    let stage = Stage::start();
    let nothing = Digest::of(Algorithm::Sha256, b"nothing");
    for digest in &stage.image.host_platform().blobs {
        let blob = &stage.image.blobs[digest];
        let length = blob.len().to_string();
        for way in stage.ways() {
            // Arriving, and then stored.
            for _ in 0..2 {
                let head = way.ask("HEAD", &format!("blobs/{digest}")).await;
                let get = way.ask("GET", &format!("blobs/{digest}")).await;
                assert_eq!((head.status, get.status), (200, 200), "{way:?}");
                assert!(get.body == blob[..] && head.body.is_empty(), "{way:?}");
                for answer in [&head, &get] {
                    assert_eq!(answer.header("content-length"), Some(length.as_str()), "{way:?}");
                    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{way:?}");
                }
                way.until_stored().await;
            }
        }
    }
    for way in stage.ways() {
        for method in ["GET", "HEAD"] {
            let code = (way.by_path && method == "GET").then_some("BLOB_UNKNOWN");
            assert_error(&way.ask(method, &format!("blobs/{nothing}")).await, 404, code);
            let elsewhere = way.target("team/other", &format!("blobs/{}", stage.image.largest_layer()));
            assert_error(&way.ask_for(method, &elsewhere, "").await, 404, code);
        }
        assert_error(&way.ask("GET", "blobs/sha256:short").await, 400, Some("DIGEST_INVALID"));
        assert_error(&way.ask("GET", "blobs/v1").await, 400, Some("DIGEST_INVALID"));
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulling_blobs_ranges_as_in_rfc_9110() {
    let stage = Stage::start();
    let digest = stage.image.largest_layer();
    let blob = &stage.image.blobs[&digest];
    let total = blob.len();
    for way in stage.ways() {
        let target = way.target(REPOSITORY, &format!("blobs/{digest}"));
        for _ in 0..2 {
            for (range, expected) in [
                ("bytes=0-9", 0..10),
                ("bytes=100-", 100..total),
                ("bytes=-100", total - 100..total),
                ("bytes=1000-99999999", 1000..total),
            ] {
                let part = way.ask_for("GET", &target, &format!("Range: {range}\r\n")).await;
                assert_eq!(part.status, 206, "{way:?} {range}");
                let content_range = format!("bytes {}-{}/{total}", expected.start, expected.end - 1);
                assert_eq!(part.header("content-range"), Some(content_range.as_str()), "{way:?}");
                assert!(part.body == blob[expected.clone()], "{way:?} {range}");
            }
            let beyond = way.ask_for("GET", &target, &format!("Range: bytes={total}-\r\n")).await;
            assert_eq!(
                (beyond.status, beyond.header("content-range")),
                (416, Some(format!("bytes */{total}").as_str()))
            );
            // What is not understood is no range.
            let whole = way.ask_for("GET", &target, "Range: lines=1-2\r\n").await;
            assert!(whole.status == 200 && whole.body == blob[..], "{way:?}");
            way.until_stored().await;
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_codes_what_would_write_is_unsupported_and_no_registry_is_an_unknown_name() {
    let stage = Stage::start();
    let digest = stage.image.largest_layer();
    for way in stage.ways() {
        for (method, what) in [
            ("PUT", "manifests/v1".to_owned()),
            ("POST", "blobs/uploads/".to_owned()),
            ("DELETE", format!("blobs/{digest}")),
            ("DELETE", "manifests/v1".to_owned()),
            ("PATCH", "blobs/uploads/1".to_owned()),
        ] {
            let answer = way.ask(method, &what).await;
            assert_error(&answer, 405, Some("UNSUPPORTED"));
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
        assert_error(&way.ask_for("GET", "/v2/team/app/manifests/v1", "").await, 404, Some("NAME_UNKNOWN"));
    }
    assert!(stage.origin.log().is_empty(), "{:#?}", stage.origin.log());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_code_299_and_agent_dash_and_whoever_cannot_be_asked_is_no_404() {
    let stage = Stage::start();
    for way in stage.ways() {
        // All of it: to who names the registry in the path nothing less is given while the registry is away (decision 13).
        assert_eq!(way.ask("GET", "manifests/v1").await.status, 200);
        let platform = stage.image.host_platform();
        assert_eq!(way.ask("GET", &format!("manifests/{}", platform.manifest)).await.status, 200);
        for blob in &platform.blobs {
            assert_eq!(way.ask("GET", &format!("blobs/{blob}")).await.status, 200);
        }
        way.until_stored().await;
    }
    let limits = vec![("retry-after".to_owned(), "30".to_owned())];
    stage.origin.behave(larder_test_origin::Matcher::all(), larder_test_origin::Behaviour::Status(429, limits));
    for way in stage.ways() {
        // What was said a moment ago is said once more to who names the registry in the path (decision 13).
        let mut remembered = way.ask("GET", "manifests/v1").await;
        if remembered.header("warning").is_none() {
            remembered = way.ask("GET", "manifests/v1").await;
        }
        assert_eq!(remembered.status, 200, "{way:?}");
        let warning = remembered.header("warning").unwrap();
        assert!(warning.starts_with("299 - \"") && warning.ends_with('"') && warning.len() < 200, "{warning}");
        assert_eq!(remembered.header("content-type"), Some(media_type::OCI_INDEX));
        // When the registry wants to be asked again is for us to heed: an engine would sleep, or ask us again and again.
        let unknown = way.ask("GET", "manifests/v2").await;
        assert_eq!((unknown.status, unknown.header("retry-after"), unknown.body.len()), (502, None, 0), "{way:?}");
        assert_eq!(remembered.header("retry-after"), None);
    }
    stage.end().await;
}
