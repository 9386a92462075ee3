//! The origin against a registry that can have a bad day, over real sockets.

mod bodies;
mod dance;
mod hops;
mod network;
mod outage;
mod turns;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use larder_oci::{ManifestReference, Registry, Repository};
use larder_test_origin::{Image, ImageSpec, Origin as TestRegistry, OriginBuilder};
use rustls::RootCertStore;
use tokio::time::Instant;

use super::{
    Heard, Lane, Limits, Observer, Origin, OriginConfig, ProxyEnvironment, RateLimit, RequestKind, RequestOutcome,
    Resolve,
};
use crate::settings::{RegistrySettings, Settings, SharedSettings};
use crate::source::SourceError;
use crate::store::Name;

/// The repository that the tests push to.
const REPOSITORY: &str = "team/app";

/// Names as the test has them, and what was asked.
#[derive(Default)]
struct Names {
    known: HashMap<&'static str, Vec<IpAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn of(names: &[(&'static str, &str)]) -> Arc<Self> {
        let known =
            names.iter().map(|(name, addresses)| (*name, addresses.split(' ').map(address).collect())).collect();
        Arc::new(Self { known, asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Resolve for Names {
    fn resolve(&self, host: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let found = self.known.get(host).cloned().ok_or_else(|| io::Error::other("no such name"));
        Box::pin(async { found })
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<(RequestKind, RequestOutcome)>>,
    quotas: Mutex<Vec<RateLimit>>,
    queues: Mutex<Vec<(Lane, usize)>>,
    hurried: AtomicUsize,
    circuits: Mutex<Vec<bool>>,
    heard: Mutex<Vec<Heard>>,
}

impl Observer for Seen {
    fn request(&self, _: &Registry, kind: RequestKind, outcome: RequestOutcome) {
        self.requests.lock().unwrap().push((kind, outcome));
    }

    fn heard(&self, _: &Registry, heard: Heard) {
        self.heard.lock().unwrap().push(heard);
    }

    fn rate_limit(&self, _: &Registry, quota: RateLimit) {
        self.quotas.lock().unwrap().push(quota);
    }

    fn queue(&self, _: &Registry, lane: Lane, waiting: usize) {
        self.queues.lock().unwrap().push((lane, waiting));
    }

    fn waited(&self, _: &Registry, _: Lane, _: Duration, hurried: bool) {
        self.hurried.fetch_add(usize::from(hurried), Ordering::Relaxed);
    }

    fn circuit(&self, _: &Registry, open: bool) {
        self.circuits.lock().unwrap().push(open);
    }
}

/// What a test usually needs of the origin, with what it may want to change first.
struct Setting {
    settings: Settings,
    names: Arc<Names>,
    proxies: ProxyEnvironment,
    seen: Arc<Seen>,
    limits: Limits,
}

impl Setting {
    fn new() -> Self {
        Self {
            settings: Settings::default(),
            names: Arc::default(),
            proxies: ProxyEnvironment::none(),
            seen: Arc::default(),
            limits: Limits { silence: Duration::from_millis(300), ..Limits::default() },
        }
    }

    /// With a registry that the registries file names.
    fn listing(registry: &str, settings: RegistrySettings) -> Self {
        let mut setting = Self::new();
        setting.settings.registries.insert(Registry::parse(registry).unwrap(), settings);
        setting
    }

    fn origin(self) -> (Origin, SharedSettings) {
        let settings = self.settings.shared();
        let config = OriginConfig {
            settings: Arc::clone(&settings),
            resolver: self.names,
            proxies: self.proxies,
            roots: RootCertStore::empty(),
            observer: self.seen,
            limits: self.limits,
        };
        (Origin::new(config).unwrap(), settings)
    }
}

/// Plain http at these endpoints.
fn at(endpoints: &[&str]) -> RegistrySettings {
    let endpoints = endpoints.iter().map(|url| url.parse().unwrap()).collect();
    RegistrySettings { endpoints, insecure: true, ..RegistrySettings::default() }
}

/// A registry with an image, and the origin that may ask it.
fn started() -> (TestRegistry, Image, Origin) {
    let (registry, image) = pushed(TestRegistry::start());
    let setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    (registry, image, setting.origin().0)
}

fn pushed(registry: TestRegistry) -> (TestRegistry, Image) {
    let image = Image::build(&ImageSpec::default());
    registry.push(REPOSITORY, "v1", &image);
    (registry, image)
}

fn tls(name: &str) -> (TestRegistry, Image) {
    pushed(OriginBuilder::default().tls(&[name]).start())
}

fn name(registry: &str) -> Name {
    Name { registry: Registry::parse(registry).unwrap(), repository: Repository::parse(REPOSITORY).unwrap() }
}

fn v1() -> ManifestReference {
    ManifestReference::parse("v1").unwrap()
}

/// A deadline that a test on a busy machine does not reach by itself.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A runtime cannot be stopped from within another one's thread.
fn stop(registry: &TestRegistry) {
    std::thread::scope(|scope| scope.spawn(|| registry.stop()).join().unwrap());
}

fn requests(registry: &TestRegistry, path: &str) -> usize {
    registry.log().iter().filter(|access| access.path.contains(path)).count()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: &Result<T, SourceError>, reason: &str) {
    match result {
        Err(SourceError::Refused { reason: actual }) if actual.contains(reason) => {}
        other => panic!("not refused because of {reason:?}: {other:?}"),
    }
}
