//! Events, which are rare: what a person should hear of who does not look.
//!
//! They wait in a short [`queue`] and are written one after the other, as everything else that a leader writes ([`Work`](crate::work)). One that cannot be
//! written is not tried again, for the object's conditions say the same; it is counted.

mod queue;

use std::future::Future;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use larder_api::{CachedImage, UpstreamRegistry};
use tokio::time::Instant;

use crate::metrics::Metrics;
use queue::{Kind, Queue};

/// The longest note, in characters; the API takes 1 kB.
const LONGEST: usize = 900;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    kind: Kind,
    reason: &'static str,
    message: String,
}

impl Note {
    /// Somebody should look.
    pub fn warning(reason: &'static str, message: String) -> Self {
        Self { kind: Kind::Warning, reason, message }
    }

    /// Nobody need look.
    pub fn news(reason: &'static str, message: String) -> Self {
        Self { kind: Kind::News, reason, message }
    }

    /// What happened, in a word.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// What waits to be written, and who writes it.
pub struct Events {
    recorder: Recorder,
    queue: Queue<(ObjectReference, Note)>,
    is_writing: bool,
    metrics: Arc<Metrics>,
}

impl Events {
    /// In the name of this controller.
    pub fn new(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: crate::FIELD_MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        let queue = Queue::new(Instant::now());
        Self { recorder: Recorder::new(client, reporter), queue, is_writing: false, metrics }
    }

    /// Of an image's object.
    pub fn of_image(&mut self, name: &str, uid: &str, note: Note) {
        self.add(reference::<CachedImage>(name, uid), note);
    }

    /// Of a registry's object.
    pub fn of_registry(&mut self, name: &str, uid: &str, note: Note) {
        self.add(reference::<UpstreamRegistry>(name, uid), note);
    }

    /// Of a namespace, whose people see it among its own events.
    pub fn of_namespace(&mut self, name: &str, note: Note) {
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.add(reference, note);
    }

    /// Of the brake, which no single object has.
    pub fn of_brake(&mut self, message: &str) {
        let reference = ObjectReference {
            api_version: Some("apiextensions.k8s.io/v1".to_owned()),
            kind: Some("CustomResourceDefinition".to_owned()),
            name: Some("cachedimages.larder.dev".to_owned()),
            ..ObjectReference::default()
        };
        self.add(reference, Note::warning("RemovalHeldBack", message.to_owned()));
    }

    fn add(&mut self, reference: ObjectReference, note: Note) {
        self.metrics.event(note.reason);
        if let Err((_, note)) = self.queue.push(note.kind, (reference, note)) {
            self.metrics.event_dropped(note.reason);
        }
    }

    /// When the next one may be written.
    pub fn wakes_at(&self) -> Option<Instant> {
        if self.is_writing { None } else { self.queue.wakes_at() }
    }

    /// Writes the next one, if one waits and none is being written: its reason, and the write, whose end is to be [told](Self::written).
    pub fn next(
        &mut self,
        now: Instant,
    ) -> Option<(&'static str, impl Future<Output = Result<(), kube::Error>> + Send + 'static)> {
        if self.is_writing {
            return None;
        }
        let (reference, note) = self.queue.next(now)?;
        self.is_writing = true;
        let recorder = self.recorder.clone();
        let event = Event {
            type_: match note.kind {
                Kind::News => EventType::Normal,
                Kind::Warning => EventType::Warning,
            },
            reason: note.reason.to_owned(),
            note: Some(note.message.chars().take(LONGEST).collect()),
            action: "Cache".to_owned(),
            secondary: None,
        };
        Some((note.reason, async move { recorder.publish(&event, &reference).await }))
    }

    /// How the write of one of this reason ended.
    pub fn written(&mut self, reason: &'static str, result: Result<(), kube::Error>) {
        self.is_writing = false;
        if let Err(error) = result {
            self.metrics.event_dropped(reason);
            tracing::debug!(reason, "an event was not written: {}", crate::api_server::words(&error));
        }
    }
}

fn reference<K: Resource<DynamicType = ()>>(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
