//! Blobs: stored, arriving, damaged.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use larder_oci::ByteRange;
use tokio::sync::Semaphore;

use super::{Stage, assert_refused, bytes};
use crate::fetch::testing::{Act, Asked, content, digest, name, until};
use crate::reply::Body;
use crate::source::SourceError;
use crate::store::{CHUNK, Store as _};

#[tokio::test]
async fn a_miss_a_hit_and_their_headers() {
    let stage = Stage::new();
    let expected = content(300_000);
    let digest = stage.source.add_blob(&expected);
    let miss = stage.blob("team/app", &digest).await;
    assert_eq!((miss.status, miss.outcome.result), (StatusCode::OK, "miss"));
    let headers = miss.headers.clone();
    assert_eq!(bytes(miss).await, (expected.clone(), true));
    until(|| stage.store.has(&digest)).await;
    let hit = stage.blob("team/app", &digest).await;
    assert_eq!((hit.outcome.result, &hit.headers), ("hit", &headers));
    assert!(matches!(hit.body, Body::File(_)));
    assert_eq!(bytes(hit).await, (expected.clone(), true));
    let head = stage.puller.blob(&name("team/app"), &digest, None, Method::HEAD).await;
    assert_eq!((&head.headers, head.headers["content-length"].as_bytes()), (&headers, &b"300000"[..]));
    assert!(matches!(head.body, Body::Empty));
    assert_eq!(stage.source.blob_gets(), 1);
}

#[tokio::test]
async fn ranges_on_a_hit_are_exact() {
    let stage = Stage::new();
    let expected = content(300_000);
    let digest = stage.source.add_blob(&expected);
    bytes(stage.blob("team/app", &digest).await).await;
    until(|| stage.store.has(&digest)).await;
    for (range, slice) in [
        (ByteRange::From(299_000), 299_000..300_000),
        (ByteRange::FromTo { first: 10, last: 19 }, 10..20),
        (ByteRange::Last(5), 299_995..300_000),
    ] {
        let reply = stage.puller.blob(&name("team/app"), &digest, Some(range), Method::GET).await;
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
        let content_range = format!("bytes {}-{}/300000", slice.start, slice.end - 1);
        assert_eq!(reply.headers["content-range"], content_range);
        assert_eq!(bytes(reply).await, (expected.slice(slice), true));
    }
    let outside = stage.puller.blob(&name("team/app"), &digest, Some(ByteRange::From(300_000)), Method::GET).await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.headers["content-range"], "bytes */300000");
}

#[tokio::test]
async fn through_another_repository_a_head_is_the_evidence_stored_or_arriving() {
    let stage = Stage::new();
    let expected = content(300_000);
    let digest = stage.source.add_blob(&expected);
    let gate = Arc::new(Semaphore::new(1));
    stage.source.act(Act { gate: Some(Arc::clone(&gate)), ..Act::default() });
    let first = stage.blob("team/app", &digest).await;
    let joined = stage.blob("team/other", &digest).await;
    assert_eq!(joined.outcome.result, "joined");
    gate.add_permits(1_000);
    assert_eq!(bytes(joined).await, (expected.clone(), true));
    assert_eq!(bytes(first).await, (expected.clone(), true));
    until(|| stage.store.has(&digest)).await;
    assert_eq!(bytes(stage.blob("team/third", &digest).await).await, (expected, true));
    assert_eq!(
        stage.source.asked(),
        [
            Asked::GetBlob { repository: "team/app".to_owned(), from: 0 },
            Asked::HeadBlob("team/other".to_owned()),
            Asked::HeadBlob("team/third".to_owned()),
        ]
    );
    stage.source.fail(Some(SourceError::NotFound));
    assert_refused(&stage.blob("team/fourth", &digest).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn where_a_head_does_not_speak_of_the_blob_the_bytes_decide() {
    let stage = Stage::new();
    let expected = content(300_000);
    let digest = stage.source.add_blob(&expected);
    bytes(stage.blob("team/app", &digest).await).await;
    until(|| stage.store.has(&digest)).await;
    // A page answers whatever is asked: to a HEAD with or without a length, and then to a GET.
    for said in [Some(1_234), None] {
        stage.source.say_length(said);
        stage.source.act(Act { lie: Some(content(4_321)), ..Act::default() });
        assert_refused(&stage.blob("team/page", &digest).await, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(stage.store.link(&name("team/page"), &digest).await.unwrap(), None);
    // Registries that know half of HEAD, whose GET says a length or does not.
    for (repository, said, hide_total) in [("team/a", Some(0), false), ("team/b", None, true), ("team/c", None, false)]
    {
        stage.source.say_length(said);
        stage.source.act(Act { hide_total, ..Act::default() });
        assert_eq!(bytes(stage.blob(repository, &digest).await).await, (expected.clone(), true), "{repository}");
        // From now on it is known.
        stage.source.fail(Some(SourceError::Timeout));
        assert_eq!(bytes(stage.blob(repository, &digest).await).await, (expected.clone(), true), "{repository}");
        stage.source.fail(None);
    }
}

#[tokio::test]
async fn storage_that_refuses_a_head_is_asked_for_the_bytes() {
    let stage = Stage::new();
    let expected = content(300_000);
    let digest = stage.source.add_blob(&expected);
    bytes(stage.blob("team/app", &digest).await).await;
    until(|| stage.store.has(&digest)).await;
    stage.source.fail(Some(SourceError::Server { status: 403 }));
    assert_eq!(bytes(stage.blob("team/other", &digest).await).await, (expected, true));
}

#[tokio::test]
async fn a_page_joins_no_fetch_whose_length_is_not_known_yet() {
    let stage = Stage::new();
    let digest = stage.source.add_blob(&content(300_000));
    let headers = Arc::new(Semaphore::new(0));
    stage.source.act(Act { headers: Some(Arc::clone(&headers)), ..Act::default() });
    stage.source.say_length(Some(1_234));
    let running = tokio::spawn({
        let (puller, digest) = (stage.puller.clone(), digest.clone());
        async move { puller.blob(&name("team/app"), &digest, None, Method::GET).await }
    });
    until(async || stage.source.blob_gets() == 1).await;
    stage.source.act(Act { lie: Some(content(4_321)), ..Act::default() });
    let (page, ()) = tokio::join!(stage.blob("team/page", &digest), async { headers.add_permits(1) });
    assert_refused(&page, StatusCode::BAD_GATEWAY);
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(stage.store.link(&name("team/page"), &digest).await.unwrap(), None);
}

#[tokio::test]
async fn a_disk_that_does_not_take_a_link_holds_up_no_answer() {
    let stage = Stage::new();
    let expected = content(300_000);
    let digest = stage.source.add_blob(&expected);
    bytes(stage.blob("team/app", &digest).await).await;
    until(|| stage.store.has(&digest)).await;
    stage.store.hang_on_links();
    let answer = tokio::time::timeout(Duration::from_secs(5), stage.blob("team/other", &digest)).await;
    assert_eq!(bytes(answer.expect("it waits for the disk")).await, (expected, true));
}

#[tokio::test]
async fn a_head_for_what_is_not_here_leaves_no_evidence() {
    let stage = Stage::new();
    let digest = stage.source.add_blob(&content(300_000));
    let head = stage.puller.blob(&name("team/app"), &digest, None, Method::HEAD).await;
    assert_eq!((head.status, head.headers["content-length"].as_bytes()), (StatusCode::OK, &b"300000"[..]));
    assert_eq!(stage.store.link(&name("team/app"), &digest).await.unwrap(), None);
}

#[tokio::test]
async fn after_a_cut_the_engine_is_sent_to_the_origin() {
    let stage = Stage::new();
    let digest = stage.source.add_blob(&content(300_000));
    stage.source.act(Act { lie: Some(content(300_001).slice(1..)), ..Act::default() });
    assert!(!bytes(stage.blob("team/app", &digest).await).await.1);
    let again = stage.puller.blob(&name("team/app"), &digest, Some(ByteRange::From(1_000)), Method::GET).await;
    assert_refused(&again, StatusCode::BAD_GATEWAY);
    assert_eq!(stage.source.blob_gets(), 1);
}

#[tokio::test]
async fn an_origin_that_fails_is_no_reason_to_wait() {
    for (error, status) in [
        (SourceError::NotFound, StatusCode::NOT_FOUND),
        (SourceError::NeedsCredentials { status: 401 }, StatusCode::NOT_FOUND),
        (SourceError::Unreachable { reason: String::new() }, StatusCode::BAD_GATEWAY),
    ] {
        let stage = Stage::new();
        stage.source.act(Act { error: Some(error), ..Act::default() });
        assert_refused(&stage.blob("team/app", &digest(b"x")).await, status);
    }
}

/// A stage whose store holds a blob of three chunks, with damage at `offset`.
async fn damaged(offset: usize) -> (Stage, larder_oci::Digest, bytes::Bytes) {
    let stage = Stage::new();
    let expected = content(2 * CHUNK + 1000);
    let digest = stage.source.add_blob(&expected);
    bytes(stage.blob("team/app", &digest).await).await;
    until(|| stage.store.has(&digest)).await;
    stage.store.damage(&digest, offset as u64).await;
    (stage, digest, expected)
}

#[tokio::test]
async fn damage_where_the_reply_begins_makes_it_a_miss() {
    for (range, offset) in [(None, 20), (Some(ByteRange::From(CHUNK as u64 + 70_000)), CHUNK + 20)] {
        let (stage, digest, expected) = damaged(offset).await;
        let reply = stage.puller.blob(&name("team/app"), &digest, range, Method::GET).await;
        assert_eq!(reply.outcome.result, "miss");
        let first = if range.is_some() { CHUNK + 70_000 } else { 0 };
        assert_eq!(bytes(reply).await, (expected.slice(first..), true));
        assert_eq!(stage.source.blob_gets(), 2);
    }
}

#[tokio::test]
async fn damage_further_on_cuts_the_reply_before_it_and_the_rest_is_a_miss() {
    for offset in [CHUNK + 20, 2 * CHUNK + 900] {
        let (stage, digest, expected) = damaged(offset).await;
        let reply = stage.blob("team/app", &digest).await;
        assert_eq!(reply.outcome.result, "hit");
        let (first, ended_well) = bytes(reply).await;
        assert_eq!((&first, ended_well), (&expected.slice(..offset - offset % CHUNK), false));
        let rest = ByteRange::From(first.len() as u64);
        let rest = stage.puller.blob(&name("team/app"), &digest, Some(rest), Method::GET).await;
        assert_eq!((rest.status, rest.outcome.result), (StatusCode::PARTIAL_CONTENT, "miss"));
        assert_eq!(bytes(rest).await, (expected.slice(first.len()..), true));
        until(|| stage.store.has(&digest)).await;
        assert_eq!(bytes(stage.blob("team/app", &digest).await).await, (expected, true));
        assert_eq!(stage.source.blob_gets(), 2);
    }
}

#[tokio::test]
async fn after_damage_an_origin_that_is_away_is_no_reason_to_refuse_for_longer_than_it_is() {
    let (stage, digest, expected) = damaged(20).await;
    stage.source.act(Act { error: Some(SourceError::Unreachable { reason: String::new() }), ..Act::default() });
    assert_refused(&stage.blob("team/app", &digest).await, StatusCode::BAD_GATEWAY);
    assert_eq!(bytes(stage.blob("team/app", &digest).await).await, (expected, true));
}
