//! Many at once: whose turn it is, and what a registry's quota and its 429 hold back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use larder_oci::{Digest, Repository};
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher};
use tokio::time::Instant;

use super::{REPOSITORY, Seen, Setting, TestRegistry, at, later, name, pushed, requests, v1};
use crate::origin::{Lane, Origin, QueueLimits};
use crate::source::{BlobStream, Source as _, SourceError};
use crate::store::Name;

/// A layer of 5000 bytes as an archive.
const LAYER: usize = 6656;

/// Eight blobs at a time, six of one repository, and patience that no test waits out unless it means to.
const FEW: QueueLimits =
    QueueLimits { documents: 2, blobs: 8, patience: Duration::from_mins(1), longest: Duration::from_mins(1) };

fn limited(registry: &TestRegistry, queue: QueueLimits) -> (Origin, Arc<Seen>) {
    let mut setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    setting.limits.queue = queue;
    setting.limits.silence = Duration::from_mins(1);
    let seen = Arc::clone(&setting.seen);
    (setting.origin().0, seen)
}

/// A repository with so many layers.
fn many(registry: &TestRegistry, repository: &str, layers: usize) -> (Name, Vec<Digest>) {
    let image = Image::build(&ImageSpec { layers: vec![5000; layers], ..ImageSpec::default() });
    registry.push(repository, "v1", &image);
    // The first is the configuration.
    let digests = image.host_platform().blobs[1..].to_vec();
    let name = Name { repository: Repository::parse(repository).unwrap(), ..name(registry.registry().as_str()) };
    (name, digests)
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_mins(5)
}

async fn blob(origin: &Origin, name: &Name, digest: &Digest) -> Result<BlobStream, SourceError> {
    origin.get_blob(name, digest, 0, None, deadline()).await
}

async fn length(stream: BlobStream) -> usize {
    stream.body.map(|piece| piece.unwrap().len()).fold(0, |all, piece| async move { all + piece }).await
}

#[tokio::test]
async fn one_repository_s_many_layers_leave_room_for_another_s_first() {
    let registry = TestRegistry::start();
    let (big, layers) = many(&registry, "team/big", 40);
    let (small, other_layers) = many(&registry, "team/small", 1);
    registry.behave(Matcher::path("/team/big/blobs/"), Behaviour::Stall(100));
    let (origin, seen) = limited(&registry, FEW);
    let origin = Arc::new(origin);
    let waiting: Vec<_> = layers
        .iter()
        .map(|digest| {
            let (origin, name, digest) = (Arc::clone(&origin), big.clone(), digest.clone());
            tokio::spawn(async move { blob(&origin, &name, &digest).await.unwrap() })
        })
        .collect();
    while !seen.queues.lock().unwrap().contains(&(Lane::Blob, 34)) || requests(&registry, "/team/big/blobs/") < 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nobody waits behind them: neither what has no bytes, nor another repository's.
    let began = Instant::now();
    origin.head_manifest(&big, &v1(), later()).await.unwrap();
    origin.get_manifest(&small, &v1(), later()).await.unwrap();
    origin.head_blob(&big, &layers[39], later()).await.unwrap();
    assert_eq!(length(blob(&origin, &small, &other_layers[0]).await.unwrap()).await, LAYER);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(registry.log().iter().filter(|it| it.is_blob_get() && it.path.contains("/team/big/")).count(), 6);
    assert_eq!(seen.hurried.load(Ordering::Relaxed), 0);
    // And whoever goes makes room.
    registry.behave_well();
    for task in waiting {
        task.abort();
        let _ = task.await;
    }
    assert_eq!(seen.queues.lock().unwrap().last(), Some(&(Lane::Blob, 0)));
    let all =
        join_all(layers.iter().map(async |digest| length(blob(&origin, &big, digest).await.unwrap()).await)).await;
    assert_eq!(all, vec![LAYER; layers.len()]);
}

#[tokio::test]
async fn who_has_waited_long_enough_asks_all_the_same() {
    let registry = TestRegistry::start();
    let (big, layers) = many(&registry, "team/big", 9);
    registry.behave(Matcher::path("/blobs/"), Behaviour::Stall(100));
    let (origin, seen) = limited(&registry, QueueLimits { patience: Duration::from_millis(300), ..FEW });
    let streams = join_all(layers.iter().map(|digest| blob(&origin, &big, digest))).await;
    assert!(streams.iter().all(Result::is_ok), "{streams:?}");
    assert_eq!(seen.hurried.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_quota_that_is_used_up_stops_no_layer_and_no_layer_stops_a_manifest() {
    let registry = TestRegistry::start();
    let (name, layers) = many(&registry, REPOSITORY, 2);
    let (origin, _) = limited(&registry, FEW);
    let limits = || Behaviour::Status(429, vec![("retry-after".to_owned(), "60".to_owned())]);
    registry.behave_times(1, Matcher::path("/manifests/"), limits());
    let limited = origin.get_manifest(&name, &v1(), later()).await;
    assert!(matches!(limited, Err(SourceError::RateLimited { .. })), "{limited:?}");
    assert_eq!(length(blob(&origin, &name, &layers[0]).await.unwrap()).await, LAYER);
    let limited = origin.head_manifest(&name, &v1(), later()).await;
    assert!(matches!(limited, Err(SourceError::RateLimited { .. })), "{limited:?}");
    assert_eq!(requests(&registry, "/manifests/"), 1, "it was not asked again");

    let (origin, _) = self::limited(&registry, FEW);
    registry.behave_times(1, Matcher::path("/blobs/"), limits());
    assert!(matches!(blob(&origin, &name, &layers[0]).await, Err(SourceError::RateLimited { .. })));
    assert!(matches!(blob(&origin, &name, &layers[1]).await, Err(SourceError::RateLimited { .. })));
    origin.get_manifest(&name, &v1(), later()).await.unwrap();
}

#[tokio::test]
async fn a_date_is_as_good_as_seconds() {
    let (registry, _) = pushed(TestRegistry::start());
    let (origin, _) = limited(&registry, FEW);
    let name = name(registry.registry().as_str());
    let soon = std::time::SystemTime::now() + Duration::from_secs(100);
    let date = vec![("retry-after".to_owned(), httpdate::fmt_http_date(soon))];
    registry.behave_times(1, Matcher::all(), Behaviour::Status(429, date));
    let limited = origin.head_manifest(&name, &v1(), later()).await;
    assert!(
        matches!(limited, Err(SourceError::RateLimited { retry_after: Some(left) }) if (90..=100).contains(&left.as_secs())),
        "{limited:?}"
    );
}

#[tokio::test]
async fn pulls_are_spread_when_the_quota_runs_low_and_questions_that_cost_nothing_are_not() {
    let (registry, _) = pushed(TestRegistry::start());
    let (origin, _) = limited(&registry, FEW);
    let name = name(registry.registry().as_str());
    // One comes back in 400 ms.
    registry.behave(Matcher::all(), Behaviour::With("ratelimit-limit", "25;w=10".into()));
    registry.behave(Matcher::all(), Behaviour::With("ratelimit-remaining", "5;w=10".into()));
    origin.get_manifest(&name, &v1(), later()).await.unwrap();
    let began = Instant::now();
    for _ in 0..3 {
        origin.get_manifest(&name, &v1(), later()).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    let (last, began) = (registry.log().len(), Instant::now());
    for _ in 0..3 {
        origin.head_manifest(&name, &v1(), later()).await.unwrap();
    }
    assert_eq!(registry.log().len(), last + 3);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn pulls_that_wait_for_the_quota_keep_no_question_waiting_that_costs_nothing() {
    let (registry, _) = pushed(TestRegistry::start());
    let (origin, _) = limited(&registry, FEW);
    let name = name(registry.registry().as_str());
    // One comes back in 100 s, and nobody is made to wait for more than two.
    registry.behave(Matcher::all(), Behaviour::With("ratelimit-limit", "25;w=2500".into()));
    registry.behave(Matcher::all(), Behaviour::With("ratelimit-remaining", "5;w=2500".into()));
    origin.get_manifest(&name, &v1(), later()).await.unwrap();
    let before = registry.log().len();
    // The first goes at once.
    let pulls = join_all((0..=FEW.documents).map(|_| origin.get_manifest(&name, &v1(), deadline())));
    let question = async {
        origin.head_manifest(&name, &v1(), later()).await.unwrap();
        registry.log().len()
    };
    let (pulls, asked) = tokio::join!(pulls, question);
    assert!(pulls.iter().all(Result::is_ok));
    assert!(asked <= before + 2, "the pulls had the turns");
}
