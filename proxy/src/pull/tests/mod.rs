//! What `pull` answers, seen from a request.

mod blobs;
mod lists;
mod manifests;
mod promised;
mod tags;
mod uses;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use larder_oci::{Digest, ManifestReference, Tag};

use super::{Limits, Puller};
use crate::fetch::testing::{FaultyStore, ScriptedSource, limits, name, read};
use crate::metrics::Metrics;
use crate::reply::{Body, Reply};
use crate::settings::Settings;

struct Stage {
    source: Arc<ScriptedSource>,
    store: Arc<FaultyStore>,
    puller: Puller,
}

impl Stage {
    fn new() -> Self {
        Self::with(Settings::default(), Limits { fetch: limits(), ..Limits::default() })
    }

    fn with(settings: Settings, limits: Limits) -> Self {
        let (source, store) = (Arc::new(ScriptedSource::default()), Arc::new(FaultyStore::default()));
        let puller = Puller::new(store.clone(), source.clone(), settings.shared(), Arc::new(Metrics::new()), limits);
        Self { source, store, puller }
    }

    async fn tag(&self, method: Method) -> Reply {
        self.puller.manifest(&name("team/app"), &ManifestReference::Tag(tag()), method).await
    }

    async fn manifest(&self, digest: &Digest, method: Method) -> Reply {
        self.puller.manifest(&name("team/app"), &ManifestReference::Digest(digest.clone()), method).await
    }

    async fn blob(&self, repository: &str, digest: &Digest) -> Reply {
        self.puller.blob(&name(repository), digest, None, Method::GET).await
    }
}

fn tag() -> Tag {
    Tag::parse("v1").unwrap()
}

/// Settings that a person would write.
fn settings(toml: &str) -> Settings {
    Settings::parse_toml(toml, std::path::Path::new("/")).unwrap()
}

/// The bytes of a reply, and whether they came to their end. A file is read as the wire would.
async fn bytes(reply: Reply) -> (Bytes, bool) {
    match reply.body {
        Body::Empty => (Bytes::new(), true),
        Body::Bytes(bytes) => (bytes, true),
        Body::Live(body) => read(body).await,
        Body::File(mut range) => {
            let mut all = Vec::new();
            loop {
                match std::future::poll_fn(|context| range.poll_next(context)).await {
                    Some(Ok(part)) => all.extend_from_slice(&part),
                    Some(Err(_)) => break (all.into(), false),
                    None => break (all.into(), true),
                }
            }
        }
    }
}

/// Nothing but a status that sends the engine on to the origin.
fn assert_refused(reply: &Reply, status: StatusCode) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.headers["content-length"], "0");
    assert!(matches!(reply.body, Body::Empty));
}
