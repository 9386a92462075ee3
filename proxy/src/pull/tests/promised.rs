//! What a client that stays is promised, and for how long it is refused.

use std::time::Duration;

use http::{Method, StatusCode};
use larder_oci::{Digest, ManifestReference};
use tokio::time::Instant;

use super::{Limits, Stage, assert_refused, bytes, settings, tag};
use crate::fetch::testing::{Act, Asked, content, digest, limits, name, until};
use crate::reply::Reply;
use crate::source::SourceError;

impl Stage {
    async fn promised(&self, reference: &ManifestReference) -> Reply {
        self.puller.promised_manifest(&name("team/app"), reference, Method::GET).await
    }

    /// To the last byte, as the wire sees it.
    async fn promised_blob(&self, digest: &Digest) -> StatusCode {
        let mut reply = self.puller.promised_blob(&name("team/app"), digest, None, Method::GET).await;
        let (status, observer) = (reply.status, reply.observer.take());
        let is_complete = bytes(reply).await.1;
        if let Some(mut observer) = observer {
            if is_complete { observer.delivered() } else { observer.cut() }
        }
        status
    }
}

fn v1() -> ManifestReference {
    ManifestReference::Tag(tag())
}

#[tokio::test(start_paused = true)]
async fn the_window_ends_by_itself_and_the_next_try_may_succeed() {
    let stage = Stage::new();
    let layer = stage.source.add_blob(&content(1000));
    stage.source.tag_image(&name("team/app"), "v1", &[&layer]);
    assert_eq!(stage.promised(&v1()).await.status, StatusCode::OK);
    stage.source.act(Act { error: Some(SourceError::NotFound), ..Act::default() });
    assert_eq!(stage.promised_blob(&layer).await, StatusCode::NOT_FOUND);
    let (window, second) = (Limits::default().broken, Duration::from_secs(1));
    tokio::time::advance(window.saturating_sub(second)).await;
    stage.source.forget();
    assert_refused(&stage.promised(&v1()).await, StatusCode::BAD_GATEWAY);
    assert!(stage.source.asked().is_empty());
    assert_eq!(stage.puller.images_refused(), 1);
    tokio::time::advance(second).await;
    assert_eq!(stage.puller.images_refused(), 0, "without anybody asking");
    assert_eq!(stage.promised(&v1()).await.status, StatusCode::OK);
    assert_eq!(stage.promised_blob(&layer).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_holds_nobody_up_for_longer_than_a_tag_may() {
    let stage = Stage::new();
    let [layer, missing] = [1000, 2000].map(|length| stage.source.add_blob(&content(length)));
    let image = ManifestReference::Digest(stage.source.tag_image(&name("team/app"), "v1", &[&layer, &missing]));
    assert_eq!(stage.promised(&v1()).await.status, StatusCode::OK);
    assert_eq!(stage.promised_blob(&layer).await, StatusCode::OK);
    until(|| stage.store.has(&layer)).await;
    stage.source.delay(Duration::from_mins(1));
    for (reference, most) in [(&image, 3), (&image, 1), (&v1(), 1)] {
        let began = Instant::now();
        assert_refused(&stage.promised(reference).await, StatusCode::BAD_GATEWAY);
        assert!(began.elapsed() <= Duration::from_secs(most), "{reference} {:?}", began.elapsed());
        // Not quoted any more.
        tokio::time::advance(Duration::from_secs(4)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_takes_its_time_a_client_has_its_answer_within_ten_seconds() {
    let settings = || settings("[registries.\"reg.example.com\"]\non-origin-404 = \"refuse\"\n");
    // A registry that gets the most time, and is asked for its policy's sake, too; a disk of which every look takes long.
    for (origin_takes, disk_takes) in [(60_000, 0), (7000, 0), (60_000, 1500), (0, 60_000), (2500, 3000), (9900, 1900)]
    {
        for is_tag in [true, false] {
            let limits = Limits { freshness: Duration::from_secs(8), fetch: limits(), ..Limits::default() };
            let stage = Stage::with(settings(), limits);
            let [layer, missing] = [1000, 2000].map(|length| stage.source.add_blob(&content(length)));
            let image = ManifestReference::Digest(stage.source.tag_image(&name("team/app"), "v1", &[&layer, &missing]));
            assert_eq!(stage.promised(&v1()).await.status, StatusCode::OK);
            assert_eq!(stage.promised_blob(&layer).await, StatusCode::OK);
            until(|| stage.store.has(&layer)).await;
            tokio::time::advance(Duration::from_secs(4)).await;
            stage.source.delay(Duration::from_millis(origin_takes));
            stage.store.delay(Duration::from_millis(disk_takes));
            let began = Instant::now();
            let reference = if is_tag { v1() } else { image };
            let reply = stage.promised(&reference).await;
            let took = began.elapsed();
            assert!(took <= Duration::from_secs(10), "{reference}, {origin_takes} and {disk_takes} ms: {took:?}");
            if origin_takes > 10_000 || disk_takes > 10_000 {
                assert_refused(&reply, StatusCode::BAD_GATEWAY);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_registry_has_confirmed_for_its_policy_is_not_asked_again() {
    let settings = settings("[registries.\"reg.example.com\"]\non-origin-404 = \"refuse\"\n");
    let stage = Stage::with(settings, Limits { fetch: limits(), ..Limits::default() });
    let layer = stage.source.add_blob(&content(1000));
    let image = ManifestReference::Digest(stage.source.tag_image(&name("team/app"), "v1", &[&layer]));
    assert_eq!(stage.promised(&image).await.status, StatusCode::OK);
    // Not quoted any more.
    tokio::time::advance(Duration::from_secs(4)).await;
    stage.source.forget();
    assert_eq!(stage.promised(&image).await.status, StatusCode::OK);
    assert_eq!(stage.source.asked(), [Asked::HeadManifest(image.to_string())]);
}

#[tokio::test(start_paused = true)]
async fn what_is_here_is_given_by_digest_without_a_question() {
    let stage = Stage::new();
    let layer = stage.source.add_blob(&content(1000));
    let image = ManifestReference::Digest(stage.source.tag_image(&name("team/app"), "v1", &[&layer]));
    assert_eq!(stage.promised(&image).await.status, StatusCode::OK);
    assert_eq!(stage.promised_blob(&layer).await, StatusCode::OK);
    until(|| stage.store.has(&layer)).await;
    stage.source.fail(Some(SourceError::Timeout));
    stage.source.forget();
    assert_eq!(stage.promised(&image).await.status, StatusCode::OK);
    assert_eq!(stage.source.asked(), []);
    // The same layer through a repository that was never seen to deliver it does not count.
    stage.source.fail(None);
    stage.source.tag_image(&name("team/other"), "v1", &[&layer]);
    let other = name("team/other");
    assert_eq!(stage.puller.promised_manifest(&other, &v1(), Method::GET).await.status, StatusCode::OK);
    stage.source.fail(Some(SourceError::CircuitOpen));
    // Not quoted any more.
    tokio::time::advance(Duration::from_secs(4)).await;
    let reply = stage.puller.promised_manifest(&other, &image, Method::GET).await;
    assert_refused(&reply, StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn an_old_manifest_names_its_layers_too() {
    let stage = Stage::new();
    let layer = digest(b"never pulled");
    let bytes = format!(r#"{{"schemaVersion":1,"name":"app","fsLayers":[{{"blobSum":"{layer}"}}]}}"#);
    let image = ManifestReference::Digest(stage.source.add_manifest(bytes.into()));
    assert_eq!(stage.promised(&image).await.status, StatusCode::OK);
    assert_eq!(stage.source.asked(), [Asked::GetManifest(image.to_string())]);
    // Not quoted any more.
    tokio::time::advance(Duration::from_secs(4)).await;
    stage.source.fail(Some(SourceError::CircuitOpen));
    assert_refused(&stage.promised(&image).await, StatusCode::BAD_GATEWAY);
}
