//! Registries that fail: in how much time that is noticed, and how soon they are back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_test_origin::{Behaviour, Matcher};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::bodies::parrot;
use super::{Setting, TestRegistry, at, later, name, pushed, requests, started, stop, v1};
use crate::origin::{Origin, RateLimit};
use crate::source::{Source as _, SourceError};
use crate::store::Name;

/// Asks until there is an answer; a test ends by its own limit.
async fn until_it_answers(origin: &Origin, name: &Name) {
    let limit = later();
    loop {
        match origin.head_manifest(name, &v1(), later()).await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < limit, "still {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn stopped_and_back() {
    let (registry, _) = pushed(TestRegistry::start());
    let setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    let seen = Arc::clone(&setting.seen);
    let (origin, _) = setting.origin();
    let name = name(registry.registry().as_str());
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    stop(&registry);
    let began = Instant::now();
    let mut errors = Vec::new();
    for _ in 0..8 {
        errors.push(origin.head_manifest(&name, &v1(), later()).await.unwrap_err());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "a refused connection costs nothing");
    assert!(errors[..6].iter().all(|error| matches!(error, SourceError::Unreachable { .. })), "{errors:?}");
    assert_eq!(errors[6..], [SourceError::CircuitOpen, SourceError::CircuitOpen]);
    registry.start_again();
    until_it_answers(&origin, &name).await;
    assert_eq!(*seen.circuits.lock().unwrap(), [true, false]);
}

#[tokio::test]
async fn hanging_costs_one_deadline_and_then_nothing() {
    let (registry, _, origin) = started();
    let name = name(registry.registry().as_str());
    registry.behave(Matcher::all(), Behaviour::Hang);
    let began = Instant::now();
    let hung = origin.head_manifest(&name, &v1(), began + Duration::from_millis(2500)).await;
    assert_eq!(hung, Err(SourceError::Timeout));
    assert!(began.elapsed() < Duration::from_secs(4));
    let began = Instant::now();
    for _ in 0..30 {
        assert_eq!(origin.head_manifest(&name, &v1(), later()).await, Err(SourceError::CircuitOpen));
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    registry.behave_well();
    until_it_answers(&origin, &name).await;
}

#[tokio::test]
async fn a_short_deadline_is_no_failure_and_a_slow_success_neither() {
    let (registry, _, origin) = started();
    let name = name(registry.registry().as_str());
    registry.behave(Matcher::path("/manifests/"), Behaviour::Delay(Duration::from_millis(2300)));
    for _ in 0..3 {
        let soon = Instant::now() + Duration::from_millis(100);
        assert_eq!(origin.head_manifest(&name, &v1(), soon).await, Err(SourceError::Timeout));
    }
    for _ in 0..2 {
        origin.head_manifest(&name, &v1(), later()).await.unwrap();
    }
}

#[tokio::test]
async fn three_server_errors_open_the_circuit_and_a_probe_closes_it() {
    let (registry, _, origin) = started();
    let name = name(registry.registry().as_str());
    registry.behave(Matcher::path("/manifests/"), Behaviour::Status(503, vec![]));
    for _ in 0..3 {
        assert_eq!(origin.head_manifest(&name, &v1(), later()).await, Err(SourceError::Server { status: 503 }));
    }
    assert_eq!(origin.head_manifest(&name, &v1(), later()).await, Err(SourceError::CircuitOpen));
    assert_eq!(requests(&registry, "/manifests/"), 3);
    registry.behave_well();
    // What is asked for in the background needs no token and no image.
    registry.require_token();
    until_it_answers(&origin, &name).await;
    assert!(registry.log().iter().any(|access| access.method == "GET" && access.path == "/v2/"));
}

#[tokio::test]
async fn a_registry_that_limits_is_left_in_peace() {
    let (registry, _) = pushed(TestRegistry::start());
    let setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    let seen = Arc::clone(&setting.seen);
    let (origin, _) = setting.origin();
    let name = name(registry.registry().as_str());
    registry.behave_times(1, Matcher::all(), Behaviour::With("ratelimit-remaining", "7;w=21600".into()));
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    let window = Some(Duration::from_hours(6));
    assert_eq!(*seen.quotas.lock().unwrap(), [RateLimit { limit: None, remaining: Some(7), window, reset: None }]);

    let limits = vec![("retry-after".to_owned(), "2".to_owned())];
    registry.behave_times(1, Matcher::all(), Behaviour::Status(429, limits));
    let limited = origin.head_manifest(&name, &v1(), later()).await;
    assert_eq!(limited, Err(SourceError::RateLimited { retry_after: Some(Duration::from_secs(2)) }));
    let limited = origin.head_manifest(&name, &v1(), later()).await;
    assert!(
        matches!(limited, Err(SourceError::RateLimited { retry_after: Some(left) }) if left < Duration::from_secs(2))
    );
    assert_eq!(registry.log().len(), 2, "it was not asked again");
    until_it_answers(&origin, &name).await;
}

#[tokio::test]
async fn endpoints_in_order_of_preference() {
    let (mirror, _) = pushed(TestRegistry::start());
    let (registry, _) = pushed(TestRegistry::start());
    let settings = at(&[&format!("{}/v2/", mirror.url()), &registry.url()]);
    let (origin, _) = Setting::listing("reg.example.com", settings).origin();
    let name = name("reg.example.com");
    let asked = || (requests(&mirror, "/manifests/"), requests(&registry, "/manifests/"));

    origin.get_manifest(&name, &v1(), later()).await.unwrap();
    assert_eq!(asked(), (1, 0));
    // Whatever is wrong with the first, the second is asked; a lie is as good as no answer.
    for behaviour in [Behaviour::Status(404, vec![]), Behaviour::Status(403, vec![]), Behaviour::Lie(3)] {
        mirror.clear_log();
        registry.clear_log();
        mirror.behave_times(1, Matcher::path("/manifests/"), behaviour);
        origin.get_manifest(&name, &v1(), later()).await.unwrap();
        assert_eq!(asked(), (1, 1));
    }
    stop(&mirror);
    origin.get_manifest(&name, &v1(), later()).await.unwrap();
    // The last one's word is what counts.
    registry.delete(super::REPOSITORY);
    assert_eq!(origin.get_manifest(&name, &v1(), later()).await, Err(SourceError::NotFound));
    mirror.start_again();
    stop(&registry);
    mirror.delete(super::REPOSITORY);
    let result = origin.get_manifest(&name, &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Unreachable { .. })), "{result:?}");
}

#[tokio::test]
async fn an_endpoint_that_hangs_leaves_time_for_the_next() {
    let (mirror, _) = pushed(TestRegistry::start());
    let (registry, _) = pushed(TestRegistry::start());
    mirror.behave(Matcher::all(), Behaviour::Hang);
    let (origin, _) = Setting::listing("reg.example.com", at(&[&mirror.url(), &registry.url()])).origin();
    let began = Instant::now();
    origin.get_manifest(&name("reg.example.com"), &v1(), began + Duration::from_secs(2)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_connection_that_ends_when_it_is_used_again_is_no_failure() {
    const ANSWER: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    // Every connection is good for one answer, and is closed by the second request.
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            for answer in [ANSWER, b""] {
                if socket.read(&mut request).await.unwrap() == 0 {
                    break;
                }
                seen.fetch_add(1, Ordering::Relaxed);
                socket.write_all(answer).await.unwrap();
            }
        }
    });
    let (origin, _) = Setting::listing(&address, at(&[&format!("http://{address}")])).origin();
    for _ in 0..10 {
        assert_eq!(origin.head_manifest(&name(&address), &v1(), later()).await, Err(SourceError::NotFound));
    }
    assert_eq!(requests.load(Ordering::Relaxed), 19, "each connection but the last was used twice");
}

#[tokio::test]
async fn a_new_connection_that_ends_without_an_answer_is_a_failure() {
    let address = parrot(Vec::new()).await.to_string();
    let (origin, _) = Setting::listing(&address, at(&[&format!("http://{address}")])).origin();
    let result = origin.head_manifest(&name(&address), &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Unreachable { .. })), "{result:?}");
}
