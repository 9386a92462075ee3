//! Anonymous tokens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_oci::Repository;
use larder_test_origin::Behaviour;

use super::bodies::parrot;
use super::{Seen, Setting, TestRegistry, at, later, name, pushed, requests, started, stop, v1};
use crate::origin::{RequestKind, RequestOutcome, Word};
use crate::source::{Source as _, SourceError};
use crate::store::Name;

fn challenge(url: &str) -> Vec<(String, String)> {
    let value = format!("Bearer realm=\"{url}/token\",service=\"test\"");
    vec![("www-authenticate".into(), value)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_at_once_cost_one_token_and_the_next_ones_none() {
    let (registry, image, origin) = started();
    registry.require_token();
    registry.behave("/token".into(), Behaviour::Delay(Duration::from_millis(200)));
    let name = name(registry.registry().as_str());
    for round in 0..2 {
        registry.clear_log();
        let heads = (0..30).map(|_| async { origin.head_manifest(&name, &v1(), later()).await });
        for head in join_all(heads).await {
            assert_eq!(head.unwrap().digest, Some(image.index.clone()));
        }
        assert_eq!(requests(&registry, "/token"), 1 - round);
    }
    assert_eq!(requests(&registry, "/manifests/"), 30, "a kept token is sent at once");
    let query = {
        registry.clear_log();
        let other = Name { repository: Repository::parse("team/other").unwrap(), ..name };
        assert_eq!(origin.head_manifest(&other, &v1(), later()).await, Err(SourceError::NotFound));
        registry.log().iter().find(|access| access.path == "/token").unwrap().query.clone()
    };
    assert_eq!(query, "service=test&scope=repository%3Ateam%2Fother%3Apull");
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_renewed_once() {
    let (registry, _, origin) = started();
    registry.require_token();
    let name = name(registry.registry().as_str());
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    for status in [401, 403] {
        registry.clear_log();
        registry.behave_times(1, "/manifests/".into(), Behaviour::Status(status, challenge(&registry.url())));
        origin.head_manifest(&name, &v1(), later()).await.unwrap();
        assert_eq!((requests(&registry, "/token"), requests(&registry, "/manifests/")), (1, 2), "{status}");
    }
    registry.clear_log();
    registry.behave("/manifests/".into(), Behaviour::Status(401, challenge(&registry.url())));
    let denied = origin.head_manifest(&name, &v1(), later()).await;
    assert_eq!(denied, Err(SourceError::NeedsCredentials { status: 401 }));
    assert_eq!((requests(&registry, "/token"), requests(&registry, "/manifests/")), (1, 2));
}

/// Of each answer of the registry's own, whether it took a token.
fn with_tokens(seen: &Seen) -> Vec<bool> {
    let heard = std::mem::take(&mut *seen.heard.lock().unwrap());
    let of_registry = heard.into_iter().filter(|heard| !heard.is_token_server);
    of_registry.map(|heard| matches!(heard.word, Word::Answered { with_token: true, .. })).collect()
}

#[tokio::test]
async fn whoever_counts_hears_of_a_token_that_was_taken() {
    let (registry, _) = pushed(TestRegistry::start());
    registry.require_token();
    let setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    let seen = Arc::clone(&setting.seen);
    let (origin, _) = setting.origin();
    let name = name(registry.registry().as_str());
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    assert_eq!(with_tokens(&seen), [false, true]);
    // The one at hand, while there would be no other one.
    registry.behave("/token".into(), Behaviour::Status(503, vec![]));
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    assert_eq!(with_tokens(&seen), [true]);
    let other = Name { repository: Repository::parse("team/other").unwrap(), ..name.clone() };
    assert_eq!(origin.head_manifest(&other, &v1(), later()).await, Err(SourceError::Server { status: 503 }));
    assert_eq!(with_tokens(&seen), [false]);
    for status in [401, 403] {
        registry.behave_times(1, "/manifests/".into(), Behaviour::Status(status, challenge(&registry.url())));
        assert_eq!(origin.head_manifest(&name, &v1(), later()).await, Err(SourceError::Server { status: 503 }));
        assert_eq!(with_tokens(&seen), [false], "{status}");
        registry.behave_well();
        origin.head_manifest(&name, &v1(), later()).await.unwrap();
        with_tokens(&seen);
        registry.behave("/token".into(), Behaviour::Status(503, vec![]));
    }
}

#[tokio::test]
async fn what_needs_credentials() {
    let (registry, _, origin) = started();
    let name = name(registry.registry().as_str());
    let basic = vec![("www-authenticate".to_owned(), "Basic realm=\"x\"".to_owned())];
    for (status, headers) in [(401, basic), (401, vec![]), (403, vec![])] {
        registry.behave_times(1, "/manifests/".into(), Behaviour::Status(status, headers));
        let denied = origin.head_manifest(&name, &v1(), later()).await;
        assert_eq!(denied, Err(SourceError::NeedsCredentials { status }));
    }
    assert_eq!(requests(&registry, "/token"), 0);

    registry.require_token_from(&format!("{}/token", registry.url()), Some("dXNlcjpwYXNz"));
    let denied = origin.head_manifest(&name, &v1(), later()).await;
    assert_eq!(denied, Err(SourceError::NeedsCredentials { status: 401 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_token_server_fails_everyone_who_waits_at_once() {
    let (registry, _, origin) = started();
    registry.require_token();
    registry.behave("/token".into(), Behaviour::Delay(Duration::from_millis(300)));
    registry.behave("/token".into(), Behaviour::Status(503, vec![]));
    let name = name(registry.registry().as_str());
    let heads = (0..10).map(|_| async { origin.head_manifest(&name, &v1(), later()).await });
    for head in join_all(heads).await {
        assert_eq!(head, Err(SourceError::Server { status: 503 }));
    }
    assert_eq!(requests(&registry, "/token"), 1);
}

#[tokio::test]
async fn the_one_who_leaves_takes_nothing_from_the_others() {
    let (registry, _, origin) = started();
    registry.require_token();
    registry.behave("/token".into(), Behaviour::Delay(Duration::from_millis(1500)));
    let name = name(registry.registry().as_str());
    let token_was_asked_for = async {
        while requests(&registry, "/token") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        head = origin.head_manifest(&name, &v1(), later()) => panic!("answered before the token: {head:?}"),
        () = token_was_asked_for => {}
    }
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    assert_eq!(requests(&registry, "/token"), 1);
}

#[tokio::test]
async fn a_token_server_that_is_down_is_probed_like_a_registry() {
    let (registry, _) = pushed(TestRegistry::start());
    let token_server = TestRegistry::start();
    registry.require_token_from(&format!("{}/token", token_server.url()), None);
    let setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    let seen = Arc::clone(&setting.seen);
    let (origin, _) = setting.origin();
    let name = name(registry.registry().as_str());
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    let status = |status| RequestOutcome::Status(status);
    assert_eq!(
        *seen.requests.lock().unwrap(),
        [(RequestKind::Manifest, status(401)), (RequestKind::Token, status(200)), (RequestKind::Manifest, status(200))]
    );

    stop(&token_server);
    let other = Name { repository: Repository::parse("team/other").unwrap(), ..name };
    for _ in 0..6 {
        let result = origin.head_manifest(&other, &v1(), later()).await;
        assert!(matches!(result, Err(SourceError::Unreachable { .. })), "{result:?}");
    }
    assert_eq!(origin.head_manifest(&other, &v1(), later()).await, Err(SourceError::CircuitOpen));
    token_server.start_again();
    let limit = later();
    while origin.head_manifest(&other, &v1(), later()).await != Err(SourceError::NotFound) {
        assert!(tokio::time::Instant::now() < limit, "still not asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_realm_may_not_lead_to_a_forbidden_address() {
    let (registry, _, origin) = started();
    let name = name(registry.registry().as_str());
    registry.require_token_from("http://169.254.169.254/token", None);
    let refused = origin.head_manifest(&name, &v1(), later()).await;
    super::assert_refused(&refused, "169.254.169.254 is a cloud's metadata service");
    registry.require_token_from("ftp://127.0.0.1/token", None);
    super::assert_refused(&origin.head_manifest(&name, &v1(), later()).await, "not http");
}

#[tokio::test]
async fn answers_of_token_servers_are_bounded() {
    let (registry, _, origin) = started();
    let name = name(registry.registry().as_str());
    let token = r#"{"token":"the-token-of-the-test-origin"}"#;
    for (padding, taken) in [(0, true), (64 * 1024, false)] {
        let length = token.len() + padding;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{token}{}", " ".repeat(padding));
        registry.require_token_from(&format!("http://{}/", parrot(answer.into_bytes()).await), None);
        let other = Name { repository: Repository::parse(&format!("padded/{padding}")).unwrap(), ..name.clone() };
        match origin.head_manifest(&other, &v1(), later()).await {
            Err(SourceError::NotFound) => assert!(taken),
            Err(SourceError::Protocol { .. }) => assert!(!taken),
            other => panic!("{other:?}"),
        }
    }
}
