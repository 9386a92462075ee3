//! The watches: from the API server's events to the [`World`].
//!
//! Invariants: an object that cannot be read is skipped and said so, and never stops a watch; whatever happens to a watch (a restart of the API server, a
//! version that is too old, a definition that is gone) it begins anew by itself, and what was known stays known until it has. What could not be watched, or
//! was silent for long, is listed before it is watched again: an etcd that was put back to what it was before has versions that were seen already. Pods come
//! after the labels of their namespaces: whatever was counted of an ignored one until then would be kept for as long as any image that was used.

mod guarded;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use larder_api::UpstreamRegistry;
use larder_process::readiness::Readiness;
use larder_process::tasks::Tasks;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api_server::Heard;
use crate::decide::platforms::Platform;
use crate::metrics::Metrics;
use crate::pods::{self, ApiPod};
use crate::registries::Upstream;
use crate::world::{Known, Object, Source, World, now};

use guarded::Guarded;

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// At the latest, and by chance up to twice that.
const AGAIN: Duration = Duration::from_secs(10);

/// What says nothing for so long is listed, and by chance not before twice that. Nodes say something every five minutes, `CachedImages`
/// in use once an hour each. Pods may stand still for longer: thousands of them, in pages, every ten to twenty minutes are what that costs.
const SILENCE: Duration = Duration::from_mins(10);

/// Starts all of them.
pub fn start(
    tasks: &Tasks,
    client: &Client,
    heard: &Heard,
    world: &Arc<World>,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
) {
    let config = || watcher::Config::default().page_size(PAGE);
    let watch = |kind: &'static str| Watch {
        kind,
        is_optional: false,
        is_open: heard.open(&kind.to_lowercase()),
        after: None,
        is_listed: CancellationToken::new(),
        world: Arc::clone(world),
        readiness: readiness.clone(),
        metrics: Arc::clone(metrics),
    };
    let stop = tasks.shutdown();
    let pods = Api::<DeserializeGuard<ApiPod>>::all(client.clone());
    let pods = move || watcher(pods.clone(), config());
    let watch_namespaces = watch("Namespaces");
    let watch_pods = Watch { after: Some(watch_namespaces.is_listed.clone()), ..watch("Pods") };
    tasks.spawn("watch-pods", until(stop, watch_pods.follow(pods, pod)));
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let namespaces = move || watcher(namespaces.clone(), config());
    tasks.spawn("watch-namespaces", until(stop, watch_namespaces.follow(namespaces, Names::of(namespace))));
    let nodes = Api::<PartialObjectMeta<Node>>::all(client.clone());
    let nodes = move || watcher(nodes.clone(), config());
    tasks.spawn("watch-nodes", until(stop, watch("Nodes").follow(nodes, Names::of(node))));
    let images = Api::<Guarded>::all(client.clone());
    let images = move || watcher(images.clone(), config());
    tasks.spawn("watch-images", until(stop, watch("CachedImages").follow(images, Names::of(image))));
    let registries = Api::<DeserializeGuard<UpstreamRegistry>>::all(client.clone());
    let registries = move || watcher(registries.clone(), config());
    let watch_registries = Watch { is_optional: true, ..watch("UpstreamRegistries") };
    tasks.spawn("watch-registries", until(stop, watch_registries.follow(registries, Names::of(registry))));
}

fn until<W: Future<Output = ()> + Send>(
    stop: &CancellationToken,
    watching: W,
) -> impl Future<Output = ()> + Send + use<W> {
    let stop = stop.clone();
    async move {
        stop.run_until_cancelled(watching).await;
    }
}

/// One of them.
struct Watch {
    kind: &'static str,
    /// Told whenever the API server has answered with a watch.
    is_open: Arc<Notify>,
    /// Nothing is asked before this.
    after: Option<CancellationToken>,
    /// All of them were listed for the first time.
    is_listed: CancellationToken,
    /// Without this kind everything else goes on.
    is_optional: bool,
    world: Arc<World>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl Watch {
    /// `begin`: a watch that lists first.
    async fn follow<K, S>(self, begin: impl Fn() -> S + Send, mut apply: impl Apply<K>)
    where
        K: Resource + Clone + Debug + Send + 'static,
        S: futures_util::Stream<Item = watcher::Result<Event<K>>> + Send,
    {
        let mut waits = Some(self.readiness.latch(self.kind));
        let trouble = self.readiness.condition(self.kind);
        if let Some(after) = &self.after {
            after.cancelled().await;
        }
        let mut events = std::pin::pin!(larder_api_server::try_again(begin, AGAIN, SILENCE));
        let goes_on = || {
            if trouble.clear() {
                tracing::info!(kind = self.kind, "the watch goes on");
            }
        };
        loop {
            let event = tokio::select! {
                biased;
                // What is quiet says nothing, however long it is watched again.
                () = self.is_open.notified() => {
                    goes_on();
                    continue;
                }
                event = events.next() => event,
            };
            let Some(event) = event else { break };
            match event {
                Ok(event) => {
                    let is_complete = matches!(event, Event::InitDone);
                    // Whoever begins to list has not been answered yet.
                    if !matches!(event, Event::Init) {
                        goes_on();
                    }
                    self.world.change(|known| apply.apply(known, event));
                    if is_complete {
                        self.is_listed.cancel();
                        waits = None;
                    }
                }
                Err(error) => {
                    self.metrics.watch_error(self.kind);
                    let code = match &error {
                        watcher::Error::InitialListFailed(error)
                        | watcher::Error::WatchStartFailed(error)
                        | watcher::Error::WatchFailed(error) => crate::api_server::code(error),
                        watcher::Error::WatchError(status) => Some(status.code),
                        watcher::Error::NoResourceVersion => None,
                    };
                    if code == Some(404) {
                        // There is no such kind any more, or not yet: nothing follows from not seeing any.
                        self.world.change(|known| apply.lost(known));
                        if self.is_optional {
                            waits = None;
                        }
                    }
                    // A watch that is too old begins anew, and that is all.
                    if code != Some(410) {
                        let words = match &error {
                            watcher::Error::InitialListFailed(error)
                            | watcher::Error::WatchStartFailed(error)
                            | watcher::Error::WatchFailed(error) => crate::api_server::words(error),
                            other => other.to_string(),
                        };
                        if trouble.set(format!("they are not watched now: {words}; it is tried again by itself")) {
                            tracing::warn!(kind = self.kind, "watch: {words}");
                        }
                    }
                }
            }
        }
        drop(waits);
    }
}

/// What an event means for what is known.
trait Apply<K>: Send {
    fn apply(&mut self, known: &mut Known, event: Event<K>);
    /// The kind is gone.
    fn lost(&mut self, _known: &mut Known) {}
}

/// Pods have an order of their own for lists.
impl<F> Apply<DeserializeGuard<ApiPod>> for F
where
    F: FnMut(&mut Known, Event<DeserializeGuard<ApiPod>>) + Send,
{
    fn apply(&mut self, known: &mut Known, event: Event<DeserializeGuard<ApiPod>>) {
        self(known, event);
    }
}

fn pod(known: &mut Known, event: Event<DeserializeGuard<ApiPod>>) {
    let now = now();
    let changed = match event {
        Event::Init => {
            known.index.begin_listing();
            known.unreadable.no_pods();
            return;
        }
        Event::Apply(pod) | Event::InitApply(pod) => {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            match pod.0 {
                Ok(pod) => {
                    known.unreadable.pod_gone(&namespace, &name);
                    pods::pod(&pod).map(|pod| known.index.pod(&pod, now))
                }
                Err(error) => {
                    tracing::warn!(kind = "Pod", namespace, name, "it cannot be read: {}", error.error);
                    known.unreadable.pod(&namespace, &name);
                    // What it used before it uses still, as far as anybody knows.
                    known.index.pod_is_there(&namespace, &name);
                    None
                }
            }
        }
        Event::Delete(pod) => {
            let namespace = pod.namespace().unwrap_or_default();
            known.unreadable.pod_gone(&namespace, &pod.name_any());
            Some(known.index.pod_gone(&namespace, &pod.name_any(), now))
        }
        Event::InitDone => {
            known.listed.pods = true;
            Some(known.index.end_listing(now))
        }
    };
    known.changed.extend(changed.into_iter().flatten());
}

/// Those whose names are kept, so that a new list tells which are gone.
struct Names<K> {
    known: BTreeSet<String>,
    listing: BTreeSet<String>,
    apply: fn(&mut Known, Seen<'_, K>),
}

/// What one of them does.
enum Seen<'a, K> {
    Is(K, Source),
    /// It is gone; the object, if that was told.
    Gone(&'a str, Option<K>),
    Listed(bool),
}

impl<K> Names<K> {
    fn of(apply: fn(&mut Known, Seen<'_, K>)) -> Self {
        Self { known: BTreeSet::new(), listing: BTreeSet::new(), apply }
    }
}

impl<K: Resource + Send> Apply<K> for Names<K> {
    fn apply(&mut self, known: &mut Known, event: Event<K>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                self.listing.insert(object.name_any());
                (self.apply)(known, Seen::Is(object, Source::List));
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                for gone in self.known.difference(&listed) {
                    (self.apply)(known, Seen::Gone(gone, None));
                }
                self.known = listed;
                (self.apply)(known, Seen::Listed(true));
            }
            Event::Apply(object) => {
                self.known.insert(object.name_any());
                (self.apply)(known, Seen::Is(object, Source::Watch));
            }
            Event::Delete(object) => {
                let name = object.name_any();
                self.known.remove(&name);
                (self.apply)(known, Seen::Gone(&name, Some(object)));
            }
        }
    }

    fn lost(&mut self, known: &mut Known) {
        (self.apply)(known, Seen::Listed(false));
    }
}

fn namespace(known: &mut Known, seen: Seen<'_, PartialObjectMeta<Namespace>>) {
    let now = now();
    let changed = match seen {
        Seen::Is(namespace, _) => {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            known.index.namespace(&namespace.name_any(), labels, now)
        }
        Seen::Gone(name, _) => known.index.namespace_gone(name, now),
        Seen::Listed(complete) => {
            known.listed.namespaces = complete;
            return;
        }
    };
    known.changed.extend(changed);
}

fn node(known: &mut Known, seen: Seen<'_, PartialObjectMeta<Node>>) {
    match seen {
        Seen::Is(node, _) => {
            let label = |name| node.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
            let platform = Platform::of_node((label("kubernetes.io/os"), label("kubernetes.io/arch")), (None, None));
            known.node(&node.name_any(), platform);
        }
        Seen::Gone(name, _) => known.node_gone(name),
        Seen::Listed(complete) => known.listed.nodes = complete,
    }
}

fn registry(known: &mut Known, seen: Seen<'_, DeserializeGuard<UpstreamRegistry>>) {
    match seen {
        Seen::Is(object, source) => match object.0 {
            Ok(object) => {
                if let Some(object) = Upstream::of(object) {
                    known.registry(object, source);
                }
            }
            // What was said of it before holds.
            Err(error) => {
                let name = error.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(kind = "UpstreamRegistry", name, "skipped, it cannot be read: {}", error.error);
            }
        },
        Seen::Gone(name, told) => {
            let uid = told.as_ref().and_then(|object| object.meta().uid.clone());
            known.registry_gone(name, uid.as_deref());
        }
        // Where there is no such kind (any more) there is nothing to wait for; what was said of registries holds, also by objects that went a moment before.
        Seen::Listed(is_known) => known.registries_listed(is_known),
    }
}

fn image(known: &mut Known, seen: Seen<'_, Guarded>) {
    match seen {
        Seen::Is(Guarded::Image(object), source) => {
            let name = object.name_any();
            if let Some(object) = Object::of(*object) {
                known.object(object, source);
            } else {
                tracing::warn!(name, "a CachedImage is skipped: its spec.image is no image");
            }
        }
        Seen::Is(Guarded::Unreadable { metadata, image, error }, _) => {
            let name = metadata.name.unwrap_or_default();
            tracing::warn!(kind = "CachedImage", name, "it cannot be read: {error}");
            known.unreadable_object(&name, image.as_deref());
        }
        Seen::Gone(name, told) => {
            let uid = told.as_ref().and_then(|object| object.meta().uid.clone());
            known.object_gone(name, uid.as_deref(), told.is_some());
        }
        Seen::Listed(complete) => known.listed.images = complete,
    }
}

#[cfg(test)]
mod tests;
