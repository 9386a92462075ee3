//! Events, which are rare: what a person should hear of who does not look.
//!
//! Published beside the work, a few at a time; one that cannot be written is not tried again, for the object's conditions say the same.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use larder_api::CachedImage;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::world::Object;

/// The longest note, in characters; the API takes 1 kB.
const LONGEST: usize = 900;

/// Events that are written at a time.
const AT_A_TIME: usize = 4;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    reason: &'static str,
    message: String,
}

impl Note {
    /// Somebody should look.
    pub fn warning(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Who publishes them.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// In the name of this controller.
    pub fn new(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: crate::FIELD_MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter), places: Arc::new(Semaphore::new(AT_A_TIME)), metrics }
    }

    /// Of an image's object.
    pub fn publish(&self, object: &Object, note: Note) {
        let reference = ObjectReference {
            api_version: Some(CachedImage::api_version(&()).into_owned()),
            kind: Some(CachedImage::kind(&()).into_owned()),
            name: Some(object.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        self.send(reference, note);
    }

    /// Of a namespace, whose people see it among its own events.
    pub fn publish_namespace(&self, name: &str, note: Note) {
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.send(reference, note);
    }

    /// Of the brake, which no single object has.
    pub fn publish_brake(&self, message: &str) {
        let reference = ObjectReference {
            api_version: Some("apiextensions.k8s.io/v1".to_owned()),
            kind: Some("CustomResourceDefinition".to_owned()),
            name: Some("cachedimages.larder.dev".to_owned()),
            ..ObjectReference::default()
        };
        self.send(reference, Note::warning("RemovalHeldBack", message.to_owned()));
    }

    fn send(&self, reference: ObjectReference, note: Note) {
        self.metrics.event(note.reason);
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            let event = Event {
                type_: EventType::Warning,
                reason: note.reason.to_owned(),
                note: Some(note.message.chars().take(LONGEST).collect()),
                action: "Cache".to_owned(),
                secondary: None,
            };
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::debug!("an event was not written: {}", crate::api_server::words(&error));
            }
            drop(place);
        });
    }
}
