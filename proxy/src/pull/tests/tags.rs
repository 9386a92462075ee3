//! Tags: fresh while the origin answers, stale when it does not.

use std::time::Duration;

use http::{Method, StatusCode};
use larder_oci::{ManifestReference, Tag};
use tokio::time::Instant;

use super::{Limits, Stage, assert_refused, bytes, settings, tag};
use crate::fetch::testing::{Act, Asked, limits, name, until};
use crate::reply::{Outcome, ReplySource};
use crate::source::{SourceError, Unconfirmed, Verdict};
use crate::store::Store;

const HIT: Outcome = Outcome::new(ReplySource::Store, "hit");
const STALE: Outcome = Outcome::new(ReplySource::Store, "stale");
const MISS: Outcome = Outcome::new(ReplySource::Origin, "miss");

/// A stage on which `v1` was pulled once.
async fn pulled() -> (Stage, bytes::Bytes) {
    let stage = Stage::new();
    let manifest = pull_once(&stage).await;
    (stage, manifest)
}

async fn pull_once(stage: &Stage) -> bytes::Bytes {
    let (_, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    let reply = stage.tag(Method::GET).await;
    assert_eq!(reply.outcome, MISS);
    assert_eq!(bytes(reply).await.0, manifest);
    until(|| async { stage.store.tag(&name("team/app"), &tag()).await.unwrap().is_some() }).await;
    stage.source.forget();
    manifest
}

#[tokio::test]
async fn the_first_pull_asks_once_and_the_next_only_whether_the_tag_still_means_that() {
    let (stage, manifest) = pulled().await;
    let reply = stage.tag(Method::GET).await;
    assert_eq!((reply.status, reply.outcome), (StatusCode::OK, HIT));
    assert_eq!(bytes(reply).await.0, manifest);
    assert_eq!(stage.source.asked(), [Asked::HeadManifest("v1".to_owned())]);
}

#[tokio::test]
async fn head_has_the_headers_of_get_before_and_after() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    let before = stage.tag(Method::HEAD).await;
    // What the origin says in its HEAD is all that is needed.
    assert_eq!(stage.source.asked(), [Asked::HeadManifest("v1".to_owned())]);
    let first = stage.tag(Method::GET).await;
    let again = stage.tag(Method::GET).await;
    let after = stage.tag(Method::HEAD).await;
    assert_eq!(before.headers["docker-content-digest"], digest.as_str());
    assert_eq!(before.headers["content-length"], manifest.len().to_string());
    for reply in [&first, &again, &after] {
        assert_eq!(reply.headers, before.headers);
    }
    assert!(bytes(before).await.0.is_empty() && bytes(after).await.0.is_empty());
}

#[tokio::test]
async fn a_herd_on_a_new_tag_costs_one_head_and_one_get() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    stage.source.delay(Duration::from_millis(20));
    let pulls = (0..64).map(|_| async { bytes(stage.tag(Method::GET).await).await.0 });
    for got in futures_util::future::join_all(pulls).await {
        assert_eq!(got, manifest);
    }
    let asked = [Asked::HeadManifest("v1".to_owned()), Asked::GetManifest(digest.to_string())];
    assert_eq!(stage.source.asked(), asked);
}

#[tokio::test]
async fn a_tag_that_moved_is_followed_and_remembered_once_its_manifest_is_there() {
    let (stage, _) = pulled().await;
    let (digest, new) = stage.source.tag(&name("team/app"), "v1", "two");
    let head = stage.tag(Method::HEAD).await;
    assert_eq!((head.outcome, &head.headers["docker-content-digest"]), (MISS, &digest.to_string().parse().unwrap()));
    // An outage now: the engine was told and did not come back, so what we hold is still the old one.
    let record = stage.store.tag(&name("team/app"), &tag()).await.unwrap().unwrap();
    assert_ne!(record.digest, digest);
    // It comes back, by digest as containerd does.
    assert_eq!(bytes(stage.manifest(&digest, Method::GET).await).await.0, new);
    until(|| async { stage.store.tag(&name("team/app"), &tag()).await.unwrap().unwrap().digest == digest }).await;
    let asked = [Asked::HeadManifest("v1".to_owned()), Asked::GetManifest(digest.to_string())];
    assert_eq!(stage.source.asked(), asked);
    stage.source.fail(Some(SourceError::Unreachable { reason: "scripted".to_owned() }));
    let reply = stage.tag(Method::GET).await;
    assert_eq!(reply.outcome, STALE);
    assert_eq!(bytes(reply).await.0, new);
}

#[tokio::test]
async fn whatever_the_origin_fails_with_the_last_answer_is_served_and_says_that_it_is_stale() {
    let (stage, manifest) = pulled().await;
    for error in [
        SourceError::NotFound,
        SourceError::RateLimited { retry_after: None },
        SourceError::Server { status: 500 },
        SourceError::Timeout,
        SourceError::CircuitOpen,
        SourceError::Broken { reason: String::new() },
        SourceError::NeedsCredentials { status: 401 },
    ] {
        stage.source.fail(Some(error.clone()));
        let reply = stage.tag(Method::GET).await;
        assert_eq!((reply.status, reply.outcome), (StatusCode::OK, STALE), "{error}");
        assert!(reply.headers.contains_key("warning"));
        assert_eq!(bytes(reply).await.0, manifest);
    }
}

#[tokio::test]
async fn without_an_answer_from_before_the_engine_is_sent_on() {
    for (error, status) in [
        (SourceError::NotFound, StatusCode::NOT_FOUND),
        (SourceError::NeedsCredentials { status: 401 }, StatusCode::NOT_FOUND),
        (SourceError::Refused { reason: String::new() }, StatusCode::NOT_FOUND),
        (SourceError::RateLimited { retry_after: None }, StatusCode::BAD_GATEWAY),
        (SourceError::Server { status: 500 }, StatusCode::BAD_GATEWAY),
    ] {
        let stage = Stage::new();
        stage.source.fail(Some(error));
        assert_refused(&stage.tag(Method::GET).await, status);
        assert_refused(&stage.tag(Method::HEAD).await, status);
    }
}

#[tokio::test]
async fn policies_and_lists_refuse_what_the_origin_refuses_and_what_must_not_run() {
    let with = |toml: &str| Stage::with(settings(toml), Limits { fetch: limits(), ..Limits::default() });
    let stage = with("[registries.\"reg.example.com\"]\non-origin-404 = \"refuse\"\non-origin-denied = \"refuse\"\n");
    pull_once(&stage).await;
    for error in [SourceError::NotFound, SourceError::NeedsCredentials { status: 403 }] {
        stage.source.fail(Some(error));
        assert_refused(&stage.tag(Method::GET).await, StatusCode::NOT_FOUND);
    }
    for toml in ["deny = [\"reg.example.com/team/*\"]\n", "[registries.\"reg.example.com\"]\nskip = true\n"] {
        let stage = with(toml);
        stage.source.tag(&name("team/app"), "v1", "one");
        assert_refused(&stage.tag(Method::GET).await, StatusCode::NOT_FOUND);
        assert!(stage.source.asked().is_empty());
    }
}

#[tokio::test]
async fn needs_credentials_is_remembered_and_costs_the_origin_nothing_more() {
    let stage = Stage::new();
    stage.source.fail(Some(SourceError::NeedsCredentials { status: 401 }));
    assert_refused(&stage.tag(Method::GET).await, StatusCode::NOT_FOUND);
    let digest = crate::fetch::testing::digest(b"private");
    assert_refused(&stage.tag(Method::HEAD).await, StatusCode::NOT_FOUND);
    assert_refused(&stage.manifest(&digest, Method::GET).await, StatusCode::NOT_FOUND);
    assert_refused(&stage.blob("team/app", &digest).await, StatusCode::NOT_FOUND);
    assert_eq!(stage.source.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_hangs_costs_the_budget_once() {
    let (stage, manifest) = pulled().await;
    let second = ManifestReference::Tag(Tag::parse("v2").unwrap());
    let (digest, _) = stage.source.tag(&name("team/app"), "v2", "two");
    assert_eq!(stage.puller.manifest(&name("team/app"), &second, Method::GET).await.status, StatusCode::OK);
    until(|| stage.store.has(&digest)).await;
    until(|| async { stage.store.tags(&name("team/app")).await.unwrap().len() == 2 }).await;
    stage.source.delay(Duration::from_mins(10));
    let since = Instant::now();
    let reply = stage.tag(Method::GET).await;
    assert_eq!((reply.outcome, bytes(reply).await.0), (STALE, manifest));
    assert_eq!(since.elapsed().as_secs(), 3);
    for _ in 0..30 {
        assert_eq!(stage.tag(Method::HEAD).await.outcome, STALE);
        assert_eq!(stage.puller.manifest(&name("team/app"), &second, Method::GET).await.outcome, STALE);
    }
    // A question more beside the one that is stuck, and the second tag's own, were given a moment, once; then all knew.
    assert!(since.elapsed() < Duration::from_millis(3_750), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_late_still_moves_the_tag_and_earns_the_registry_more_time() {
    let (stage, old) = pulled().await;
    let (digest, new) = stage.source.tag(&name("team/app"), "v1", "two");
    stage.source.delay(Duration::from_secs(4));
    let reply = stage.tag(Method::GET).await;
    assert_eq!((reply.outcome, bytes(reply).await.0), (STALE, old));
    until(|| async { stage.store.tag(&name("team/app"), &tag()).await.unwrap().unwrap().digest == digest }).await;
    // It always needs 4 s: now it gets them.
    let since = Instant::now();
    let reply = stage.tag(Method::GET).await;
    assert_eq!((reply.outcome, bytes(reply).await.0), (HIT, new));
    assert_eq!(since.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_from_before_an_origin_that_hangs_costs_ten_seconds_and_the_store_profits() {
    let stage = Stage::new();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    stage.source.delay(Duration::from_secs(12));
    let since = Instant::now();
    assert_refused(&stage.manifest(&digest, Method::GET).await, StatusCode::BAD_GATEWAY);
    assert_eq!(since.elapsed().as_secs(), 10);
    until(|| stage.store.has(&digest)).await;
    assert_eq!(bytes(stage.manifest(&digest, Method::GET).await).await.0, manifest);
    assert_eq!(stage.source.asked(), [Asked::GetManifest(digest.to_string())]);
}

#[tokio::test]
async fn a_registry_that_does_not_say_the_digest_is_asked_for_the_bytes() {
    let stage = Stage::new();
    stage.source.hide_digest();
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v1", "one");
    let head = stage.tag(Method::HEAD).await;
    assert_eq!(head.headers["docker-content-digest"], digest.as_str());
    assert_eq!(bytes(stage.tag(Method::GET).await).await.0, manifest);
    let by_tag = Asked::GetManifest(ManifestReference::Tag(tag()).to_string());
    assert!(stage.source.asked().contains(&by_tag));
}

#[tokio::test]
async fn a_refusal_is_no_reason_to_take_what_we_hold_as_it_was() {
    let (stage, old) = pulled().await;
    for denied in ["tag", "blob"] {
        stage.source.fail(Some(SourceError::NeedsCredentials { status: 403 }));
        if denied == "tag" {
            assert_eq!(bytes(stage.tag(Method::GET).await).await.0, old);
        } else {
            stage.source.act(Act { error: Some(SourceError::NeedsCredentials { status: 403 }), ..Act::default() });
        }
        let unknown = crate::fetch::testing::digest(denied.as_bytes());
        assert_refused(&stage.blob("team/app", &unknown).await, StatusCode::NOT_FOUND);
        stage.source.fail(None);
        let (_, new) = stage.source.tag(&name("team/app"), "v1", denied);
        let reply = stage.tag(Method::GET).await;
        assert_eq!(bytes(reply).await.0, new, "after a refused {denied}");
        // And it is known to be public again: new content of it is asked for.
        let content = bytes::Bytes::from(format!("layer of {denied}"));
        let digest = stage.source.add_blob(&content);
        assert_eq!(bytes(stage.blob("team/app", &digest).await).await.0, content);
    }
}

#[tokio::test]
async fn a_refused_blob_says_something_of_its_repository_only_where_nothing_speaks_against_it() {
    let refuse = |stage: &Stage| {
        stage.source.act(Act { error: Some(SourceError::NeedsCredentials { status: 403 }), ..Act::default() });
    };
    let unknown = crate::fetch::testing::digest(b"unknown");
    let stage = Stage::new();
    stage.source.tag(&name("team/app"), "v1", "one");
    refuse(&stage);
    assert_refused(&stage.blob("team/app", &unknown).await, StatusCode::NOT_FOUND);
    assert_refused(&stage.tag(Method::GET).await, StatusCode::NOT_FOUND);
    let (stage, _) = pulled().await;
    refuse(&stage);
    assert_refused(&stage.blob("team/app", &unknown).await, StatusCode::NOT_FOUND);
    let (digest, manifest) = stage.source.tag(&name("team/app"), "v2", "two");
    assert_eq!(bytes(stage.manifest(&digest, Method::GET).await).await.0, manifest);
}

#[tokio::test(start_paused = true)]
async fn one_question_that_is_stuck_pins_no_tag() {
    let (stage, _) = pulled().await;
    stage.source.delay(Duration::from_mins(10));
    assert_eq!(stage.tag(Method::GET).await.outcome, STALE);
    stage.source.delay(Duration::ZERO);
    let (_, new) = stage.source.tag(&name("team/app"), "v1", "two");
    let since = Instant::now();
    assert_eq!(bytes(stage.tag(Method::GET).await).await.0, new);
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn what_the_cluster_cache_last_heard_is_given_as_stale_and_older_than_ours_it_is_not_followed() {
    let heard = |seconds| Some(Unconfirmed { said: Verdict::Timeout, age: Some(Duration::from_secs(seconds)) });
    let stage = Stage::new();
    let (digest, first) = stage.source.tag(&name("team/app"), "v1", "one");
    stage.source.unconfirmed(heard(3600));
    let reply = stage.tag(Method::GET).await;
    assert_eq!(
        (reply.status, reply.outcome.result, &reply.headers["larder-origin"]),
        (StatusCode::OK, "stale", &"timeout".parse().unwrap())
    );
    assert_eq!(bytes(reply).await.0, first);
    // It is written down as old as it is.
    let record = || async { stage.store.tag(&name("team/app"), &tag()).await.unwrap() };
    until(|| async { record().await.is_some() }).await;
    let age = record().await.unwrap().checked_at.elapsed().unwrap();
    assert!(age >= Duration::from_secs(3500), "{age:?}");

    // Something that was heard before is no news, something that was heard since then is.
    let (newer, second) = stage.source.tag(&name("team/app"), "v1", "two");
    stage.source.unconfirmed(heard(7200));
    assert_eq!(bytes(stage.tag(Method::GET).await).await.0, first);
    assert_eq!(record().await.unwrap().digest, digest);
    stage.source.unconfirmed(heard(60));
    let reply = stage.tag(Method::GET).await;
    assert_eq!(reply.outcome.result, "stale");
    assert_eq!(bytes(reply).await.0, second);
    until(|| async { record().await.unwrap().digest == newer }).await;
}

#[tokio::test]
async fn what_our_own_policy_refuses_the_cluster_cache_cannot_serve() {
    let refuse = settings("[registries.\"reg.example.com\"]\non-origin-404 = \"refuse\"\n");
    let stage = Stage::with(refuse, Limits { fetch: limits(), ..Limits::default() });
    stage.source.tag(&name("team/app"), "v1", "one");
    stage.source.unconfirmed(Some(Unconfirmed { said: Verdict::NotFound, age: None }));
    assert_refused(&stage.tag(Method::GET).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_somebody_last_heard_does_not_make_evidence_younger() {
    let stage = Stage::new();
    let (digest, _) = stage.source.tag(&name("team/other"), "v1", "one");
    let other = ManifestReference::Tag(tag());
    bytes(stage.puller.manifest(&name("team/other"), &other, Method::GET).await).await;
    until(|| async { stage.store.blob(&digest).await.unwrap().is_some() }).await;
    stage.source.tag(&name("team/app"), "v1", "one");
    let age = Some(Duration::from_hours(1));
    stage.source.unconfirmed(Some(Unconfirmed { said: Verdict::Timeout, age }));
    assert_eq!(stage.tag(Method::GET).await.outcome.result, "stale");
    let link = || async { stage.store.link(&name("team/app"), &digest).await.unwrap() };
    until(|| async { link().await.is_some() }).await;
    let age = link().await.unwrap().confirmed_at.elapsed().unwrap();
    assert!(age >= Duration::from_secs(3500), "{age:?}");
    // What the registry itself says later counts, and what was heard before it does not undo that.
    for unconfirmed in [None, Some(Unconfirmed { said: Verdict::Timeout, age: Some(Duration::from_mins(30)) })] {
        stage.source.unconfirmed(unconfirmed);
        bytes(stage.tag(Method::GET).await).await;
        until(|| async { link().await.unwrap().confirmed_at.elapsed().unwrap() < Duration::from_mins(1) }).await;
    }
}

#[tokio::test]
async fn that_there_is_no_signature_is_never_given_as_if_it_were_one() {
    let (stage, _) = pulled().await;
    let record = stage.store.tag(&name("team/app"), &tag()).await.unwrap().unwrap();
    let signature = Tag::parse(&format!("sha256-{}.sig", record.digest.hex())).unwrap();
    let reference = ManifestReference::Tag(signature.clone());
    let absent = stage.puller.promised_manifest(&name("team/app"), &reference, Method::GET).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    until(|| async { stage.store.tag(&name("team/app"), &signature).await.unwrap().is_some() }).await;
    stage.source.fail(Some(SourceError::Timeout));
    let reply = stage.puller.manifest(&name("team/app"), &reference, Method::GET).await;
    assert_refused(&reply, StatusCode::BAD_GATEWAY);
}
