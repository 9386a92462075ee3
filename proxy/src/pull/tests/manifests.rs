//! Manifests by digest: content needs no confirmation, but evidence.

use http::{Method, StatusCode};
use larder_oci::ManifestReference;

use super::{Limits, Stage, assert_refused, bytes, settings};
use crate::fetch::testing::{Asked, limits, name, until};
use crate::reply::{Outcome, ReplySource};
use crate::source::SourceError;

#[tokio::test]
async fn once_pulled_it_is_served_without_asking() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    for _ in 0..3 {
        assert_eq!(bytes(stage.manifest(&digest, Method::GET).await).await.0, manifest);
    }
    assert_eq!(stage.source.asked(), [Asked::GetManifest(digest.to_string())]);
    stage.source.fail(Some(SourceError::CircuitOpen));
    let reply = stage.manifest(&digest, Method::GET).await;
    assert_eq!(reply.outcome, Outcome::new(ReplySource::Store, "hit"));
}

#[tokio::test]
async fn a_policy_has_the_origin_asked_first() {
    let settings = settings("[registries.\"reg.example.com\"]\non-origin-404 = \"refuse\"\n");
    let stage = Stage::with(settings, Limits { fetch: limits(), ..Limits::default() });
    let (digest, _) = stage.source.tag(&name("team/app"), "v1", "one");
    assert_eq!(stage.manifest(&digest, Method::GET).await.status, StatusCode::OK);
    assert_eq!(stage.manifest(&digest, Method::GET).await.outcome.result, "hit");
    stage.source.fail(Some(SourceError::Server { status: 500 }));
    assert_eq!(stage.manifest(&digest, Method::GET).await.outcome.result, "stale");
    stage.source.fail(Some(SourceError::NotFound));
    assert_refused(&stage.manifest(&digest, Method::GET).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn through_another_repository_it_needs_the_origins_word() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    assert_eq!(stage.manifest(&digest, Method::GET).await.status, StatusCode::OK);
    stage.source.forget();
    let (other, reference) = (name("team/other"), ManifestReference::Digest(digest.clone()));
    stage.source.fail(Some(SourceError::NotFound));
    assert_refused(&stage.puller.manifest(&other, &reference, Method::GET).await, StatusCode::NOT_FOUND);
    stage.source.fail(Some(SourceError::Timeout));
    assert_refused(&stage.puller.manifest(&other, &reference, Method::GET).await, StatusCode::BAD_GATEWAY);
    stage.source.fail(None);
    for _ in 0..2 {
        assert_eq!(bytes(stage.puller.manifest(&other, &reference, Method::GET).await).await.0, manifest);
    }
    // Three questions, no bytes; the third answer was evidence.
    assert_eq!(stage.source.asked(), vec![Asked::HeadManifest(digest.to_string()); 3]);
}

#[tokio::test]
async fn a_page_that_answers_whatever_is_asked_is_no_evidence() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    assert_eq!(stage.manifest(&digest, Method::GET).await.status, StatusCode::OK);
    stage.source.forget();
    let (other, reference) = (name("team/other"), ManifestReference::Digest(digest.clone()));
    // No digest, and the length of something else: only the bytes tell, and they are verified.
    stage.source.hide_digest();
    stage.source.say_length(Some(1_234));
    assert_eq!(bytes(stage.puller.manifest(&other, &reference, Method::GET).await).await.0, manifest);
    let asked = [Asked::HeadManifest(digest.to_string()), Asked::GetManifest(digest.to_string())];
    assert_eq!(stage.source.asked(), asked);
}

#[tokio::test]
async fn a_damaged_one_is_fetched_anew_in_the_same_request() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    assert_eq!(bytes(stage.manifest(&digest, Method::GET).await).await.0, manifest);
    stage.store.damage(&digest, 3).await;
    assert_eq!(bytes(stage.manifest(&digest, Method::GET).await).await.0, manifest);
    until(|| stage.store.has(&digest)).await;
    assert_eq!(stage.source.asked(), vec![Asked::GetManifest(digest.to_string()); 2]);
}
