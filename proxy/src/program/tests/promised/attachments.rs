//! Signatures: kept with the image, and never missing because somebody is in trouble.

use super::*;

const UNAVAILABLE: Behaviour = Behaviour::Status(503, Vec::new());

fn signature_of(image: &Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

/// Old clients read a 404 that does not say what is missing as a failure.
fn assert_absent((status, body): &(u16, Vec<u8>)) {
    assert!(*status == 404 && String::from_utf8_lossy(body).contains("MANIFEST_UNKNOWN"), "{status} {body:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_kept_with_its_image() {
    let stage = Stage::start();
    let (tag, signature) = (signature_of(&stage.image.index), artifact("a signature"));
    stage.origin.push("team/app", &tag, &signature);
    // Nobody who verifies asks for the config.
    let layers = larder_oci::children(&signature.manifests[&signature.index].1).unwrap().without_config().blobs;
    assert!(!layers.is_empty() && layers.len() < signature.blobs.len());
    let pull = async || {
        stage.pull().await;
        assert_eq!(stage.manifest(&tag).await, (200, signature.manifests[&signature.index].1.to_vec()));
        for layer in &layers {
            assert_eq!(stage.blob(&layer.digest).await, (200, signature.blobs[&layer.digest].to_vec()));
        }
        stage.stored().await;
    };
    pull().await;
    stage.origin.behave(Matcher::path(&tag), UNAVAILABLE);
    pull().await;
    stage.origin.behave_well();
    // All of it is gone at the registry, the signature with it.
    stage.origin.delete("team/app");
    pull().await;
    stage.stop_origin();
    pull().await;
    // Its owner has taken back the signature alone: the image is not to be trusted any more.
    stage.origin.start_again();
    stage.origin.push("team/app", "v1", &stage.image);
    stage.pull().await;
    assert_absent(&stage.manifest(&tag).await);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_there_is_none_is_said_only_where_the_registry_said_so() {
    let mut stage = Stage::start();
    let tag = signature_of(&stage.image.index);
    let child = signature_of(&stage.image.host_platform().manifest);
    stage.pull().await;
    for behaviour in [UNAVAILABLE, Behaviour::Status(403, Vec::new()), Behaviour::Status(429, Vec::new())] {
        stage.origin.behave(Matcher::path(".sig"), behaviour.clone());
        assert_eq!(stage.manifest(&child).await, (502, Vec::new()), "{behaviour:?}");
        // It was not given, and so the image is refused: the next try goes to the registry.
        assert_eq!(stage.manifest("v1").await, (502, Vec::new()), "{behaviour:?}");
        stage.origin.behave_well();
        stage.restart().await;
        stage.pull().await;
    }
    assert_absent(&stage.manifest(&tag).await);
    assert_absent(&stage.manifest(&tag).await);
    stage.stop_origin();
    // Known, also by the next proxy; of the other nobody has asked.
    stage.restart().await;
    stage.pull().await;
    assert_absent(&stage.manifest(&tag).await);
    assert_eq!(stage.manifest(&child).await, (502, Vec::new()));
    // And it is no tag that anybody ever pushed.
    let list = String::from_utf8(ask(stage.address, "GET", &stage.target("tags/list")).await.1).unwrap();
    assert!(list.contains("\"v1\"") && !list.contains(".sig"), "{list}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_signed_later_is_seen_as_signed() {
    let stage = Stage::start();
    let (tag, signature) = (signature_of(&stage.image.index), artifact("a signature"));
    stage.pull().await;
    assert_eq!(stage.manifest(&tag).await.0, 404);
    stage.origin.push("team/app", &tag, &signature);
    stage.pull().await;
    assert_eq!(stage.manifest(&tag).await, (200, signature.manifests[&signature.index].1.to_vec()));
    stage.end().await;
}
