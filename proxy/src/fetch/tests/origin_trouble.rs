//! Origins that break off, change their mind, or lie.

use std::sync::Arc;

use bytes::Bytes;
use larder_oci::ByteRange;
use tokio::sync::Semaphore;

use super::super::testing::{Act, Asked, Stage, content, limits, name, read, until};
use super::super::{FetchError, TAIL};
use super::open;
use crate::source::SourceError;
use crate::store::PartialOrigin;

#[tokio::test]
async fn a_break_is_continued_unseen() {
    let stage = Stage::new(limits());
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    stage.source.act(Act { break_after: Some(123_456), etag: Some("\"e\""), ..Act::default() });
    stage.source.act(Act { error: Some(SourceError::Server { status: 503 }), ..Act::default() });
    // One that does not know ranges sends all of it again.
    stage.source.act(Act { break_after: Some(250_000), ignore_range: true, etag: Some("\"e\""), ..Act::default() });
    assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes, true));
    let gets = stage.source.asked().into_iter().filter_map(|asked| match asked {
        Asked::GetBlob { from, .. } => Some(from),
        _ => None,
    });
    assert_eq!(gets.collect::<Vec<_>>(), [0, 123_456, 123_456, 250_000]);
    until(|| stage.store.has(&digest)).await;
}

#[tokio::test]
async fn one_that_breaks_for_ever_cuts_the_readers_and_is_refused_and_what_came_is_kept() {
    let stage = Stage::new(limits());
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    stage.source.act(Act { break_after: Some(200_000), ..Act::default() });
    for _ in 0..10 {
        stage.source.act(Act { break_after: Some(0), ..Act::default() });
    }
    let (got, ended_well) = read(open(&stage, &digest, None).await.unwrap().body).await;
    assert_eq!((got, ended_well), (bytes.slice(..200_000), false));
    assert!(matches!(open(&stage, &digest, None).await, Err(FetchError::Refused { .. })));
    assert!(!stage.store.has(&digest).await);
    until(|| async { stage.store.left(&digest).await == Some(200_000) }).await;
}

#[tokio::test]
async fn another_entity_after_a_break_is_no_continuation() {
    for second in [
        Act { etag: Some("\"other\""), ..Act::default() },
        Act { lie: Some(content(400_000)), etag: Some("\"e\""), ..Act::default() },
    ] {
        let stage = Stage::new(limits());
        let digest = stage.source.add_blob(&content(500_000));
        stage.source.act(Act { break_after: Some(200_000), etag: Some("\"e\""), ..Act::default() });
        stage.source.act(second);
        let (_, ended_well) = read(open(&stage, &digest, None).await.unwrap().body).await;
        assert!(!ended_well);
        assert!(stage.fetcher.refuses(&name("team/app"), &digest));
        until(|| async { stage.store.left(&digest).await == Some(0) }).await;
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_completed_nor_stored_and_the_next_request_is_refused() {
    for length in [500_000_usize, 1_000] {
        let stage = Stage::new(limits());
        let bytes = content(length);
        let digest = stage.source.add_blob(&bytes);
        let mut wrong = bytes.to_vec();
        wrong[17] ^= 1;
        let gate = Arc::new(Semaphore::new(0));
        stage.source.act(Act { lie: Some(wrong.into()), gate: Some(Arc::clone(&gate)), ..Act::default() });
        let opened = open(&stage, &digest, None).await.unwrap();
        let tail = open(&stage, &digest, Some(ByteRange::Last(10))).await.unwrap();
        gate.add_permits(1_000);
        let (got, ended_well) = read(opened.body).await;
        assert!(!ended_well);
        assert!(got.len() as u64 <= (length as u64).saturating_sub(TAIL), "{} bytes left", got.len());
        assert_eq!(read(tail.body).await, (content(0), false));
        assert!(matches!(open(&stage, &digest, None).await, Err(FetchError::Refused { .. })));
        assert_eq!(stage.source.blob_gets(), 1);
        assert!(!stage.store.has(&digest).await);
    }
}

#[tokio::test]
async fn what_a_restart_left_is_continued_by_range() {
    let stage = Stage::new(limits());
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    let origin = PartialOrigin { name: name("team/app"), etag: Some("\"e\"".to_owned()), total: Some(500_000) };
    stage.store.leave_partial(&digest, &bytes.slice(..300_000), origin).await;
    stage.source.act(Act { etag: Some("\"e\""), ..Act::default() });
    assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes, true));
    assert_eq!(stage.source.asked(), [Asked::GetBlob { repository: "team/app".to_owned(), from: 300_000 }]);
    until(|| stage.store.has(&digest)).await;
}

#[tokio::test]
async fn what_a_restart_left_complete_needs_only_the_origins_word() {
    let stage = Stage::new(limits());
    let bytes = content(100_000);
    let digest = stage.source.add_blob(&bytes);
    let origin = PartialOrigin { name: name("team/app"), etag: None, total: Some(100_000) };
    stage.store.leave_partial(&digest, &bytes, origin).await;
    assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes, true));
    assert_eq!(stage.source.asked(), [Asked::GetBlob { repository: "team/app".to_owned(), from: 99_999 }]);
}

#[tokio::test]
async fn what_a_restart_left_is_thrown_away_where_the_origin_has_something_else() {
    let stage = Stage::new(limits());
    let bytes = content(500_000);
    let digest = stage.source.add_blob(&bytes);
    let origin = PartialOrigin { name: name("team/app"), etag: Some("\"old\"".to_owned()), total: Some(500_000) };
    stage.store.leave_partial(&digest, &content(300_001).slice(1..), origin).await;
    stage.source.act(Act { etag: Some("\"new\""), ..Act::default() });
    assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes, true));
    assert_eq!(stage.source.blob_gets(), 2);
    until(|| stage.store.has(&digest)).await;
}

#[tokio::test]
async fn an_origin_that_does_not_have_it_is_said_to_all_who_wait_and_leaves_nothing() {
    let stage = Stage::new(limits());
    let digest = super::super::testing::digest(b"nobody has this");
    for _ in 0..2 {
        let error = open(&stage, &digest, None).await.unwrap_err();
        assert_eq!(error.source_error(), Some(&SourceError::NotFound));
    }
    until(|| async { stage.fetcher.shared.assemblies().is_empty() }).await;
    assert!(!stage.fetcher.refuses(&name("team/app"), &digest));
}

#[tokio::test]
async fn an_empty_answer_for_what_is_not_empty_is_none_with_and_without_a_store() {
    for is_stored in [true, false] {
        let stage = Stage::new(limits());
        stage.store.refuse(!is_stored);
        let bytes = content(1_000);
        let digest = stage.source.add_blob(&bytes);
        stage.source.act(Act { lie: Some(Bytes::new()), ..Act::default() });
        let refused = open(&stage, &digest, None).await;
        assert!(matches!(&refused, Err(FetchError::Source { error: SourceError::Protocol { .. }, .. })), "{refused:?}");
        assert_eq!(read(open(&stage, &digest, None).await.unwrap().body).await, (bytes, true));
        let empty = stage.source.add_blob(&Bytes::new());
        assert_eq!(read(open(&stage, &empty, None).await.unwrap().body).await, (Bytes::new(), true));
    }
}
