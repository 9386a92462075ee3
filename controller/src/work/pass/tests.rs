use std::convert::Infallible;
use std::sync::Mutex;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use larder_api::condition::set;
use larder_api::{CachedImage, Time, cached_image};
use larder_oci::{Algorithm, Digest, ImageReference};
use larder_process::readiness::Readiness;
use tower::service_fn;

use super::super::{Settings, Shared};
use super::*;
use crate::api_server::Heard;
use crate::cluster_cache::{Amount, ClusterCacheConfig, Limits};
use crate::decide::bounds::Bounds;
use crate::decide::expiry::Rules;
use crate::decide::filter::Filters;
use crate::leader::{Note, unquestioned};
use crate::metrics::Metrics;
use crate::world::{Listed, Object, Source};

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, b"app")
}

fn image(number: usize) -> ImageReference {
    ImageReference::parse(&format!("127.0.0.1:41234/team-of-a-name/its-application:v{number}")).unwrap()
}

/// One that a person made, and that says that it is cached.
fn object(number: usize) -> Object {
    let mut object = CachedImage::of(&image(number));
    object.metadata.uid = Some(format!("c687af60-4373-4417-9d16-{number:012}"));
    object.metadata.resource_version = Some(number.to_string());
    let mut object = Object::of(object).unwrap();
    let time = Time(k8s_openapi::jiff::Timestamp::from_second(1_790_000_000).unwrap());
    let status = &mut object.status;
    status.digest = Some(digest().to_string());
    status.size_bytes = Some(12 << 20);
    status.platforms = vec!["linux/amd64".to_owned()];
    let message = "the tag means at its registry what is cached";
    set(&mut status.conditions, cached_image::Cached::Complete, message, Some(1), &time);
    set(&mut status.conditions, cached_image::UpstreamAvailable::Present, message, Some(1), &time);
    set(&mut status.conditions, cached_image::UpToDate::Same, message, Some(1), &time);
    object
}

fn pin(number: usize) -> Pin {
    let amount = Amount { known: 12 << 20, fetched: 12 << 20 };
    Pin {
        image: Image::of(image(number)),
        platforms: Platforms::of_words(&["linux/amd64".to_owned()]),
        state: PinState::Complete,
        error: None,
        code: None,
        digest: Some(digest()),
        until_then: None,
        bytes: amount,
        blobs: amount,
        put_at: Moment::from_seconds(1_790_000_000),
        last_pull: None,
        confirmed_at: None,
    }
}

/// Among so many objects. Whoever is asked does not answer.
fn work(objects: usize) -> Work {
    let silent = |_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>();
    let cache = ClusterCacheConfig {
        url: "http://127.0.0.1:7445".parse().unwrap(),
        replicas: None,
        ca: None,
        token: "/token".into(),
        holder: "me".to_owned(),
    };
    let world = World::new(Filters::default());
    {
        let mut known = world.known();
        known.node("node", Some(Platform::parse("linux/amd64").unwrap()));
        for number in 0..objects {
            known.object(object(number), Source::List);
        }
        known.listed = Listed { pods: true, namespaces: true, nodes: true, images: true, registries: true };
    }
    let settings = Settings {
        observe: false,
        rules: Rules::default(),
        bounds: Bounds::default(),
        monitoring: Duration::from_hours(6),
        follow: false,
        concurrency: 8,
        how_to_release: "say=".to_owned(),
    };
    let shared = Shared {
        world: Arc::new(world),
        client: Client::new(service_fn(silent), "default"),
        heard: Heard::default(),
        cache: ClusterCache::new(cache, Limits::default()).unwrap(),
        settings,
        metrics: Arc::new(Metrics::default()),
        readiness: Readiness::new(),
        word: Mutex::default(),
        note: Note::default(),
        report: Arc::default(),
        identity: "this".to_owned(),
    };
    Work::new(Arc::new(shared), unquestioned().1)
}

fn visited(work: &Work) -> u64 {
    work.shared.world.known().objects.take_visited()
}

/// With 100,000 of them, which are kept compressed, that is what a pass does most of.
#[tokio::test]
async fn a_pass_reads_each_object_once() {
    let mut work = work(200);
    let pins = || (0..200).map(pin).collect::<Vec<_>>();
    visited(&work);
    work.listed(Ok((Some(AsOf(1)), pins())));
    // The first one, of a leader, wants to know as well which of them name platforms.
    assert!(visited(&work) <= 2 * 200);
    for pass in 2..4 {
        work.listed(Ok((Some(AsOf(pass)), pins())));
        assert_eq!(visited(&work), 200);
    }
    work.count();
    let text = work.shared.metrics.text();
    assert!(text.contains("larder_controller_passes_total{outcome=\"declared\"} 3"), "{text}");
    assert!(text.contains("reason=\"Present\"} 200"), "{text}");
}
