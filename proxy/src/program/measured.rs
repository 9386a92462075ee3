//! A source that measures another one: time to the head, and bytes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryFutureExt};
use larder_oci::{Digest, ManifestReference, Registry};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::source::{BlobHead, BlobStream, Listing, ManifestBody, ManifestHead, Source, SourceError};
use crate::store::Name;

/// Passes everything on unchanged.
pub(super) struct Measured<S> {
    source: S,
    metrics: Arc<Metrics>,
}

impl<S: Source> Measured<S> {
    pub(super) fn new(source: S, metrics: Arc<Metrics>) -> Self {
        Self { source, metrics }
    }

    /// Only what was answered has a time: how long a failure took says more about our own limits.
    fn timed<'a, T: Send + 'a>(
        &'a self,
        name: &Name,
        question: BoxFuture<'a, Result<T, SourceError>>,
        bytes: impl Fn(&T) -> usize + Send + 'a,
    ) -> BoxFuture<'a, Result<T, SourceError>> {
        let (registry, began) = (name.registry.clone(), Instant::now());
        Box::pin(question.inspect_ok(move |answer| {
            self.metrics.observe_origin(&registry, began.elapsed());
            count(&self.metrics, &registry, bytes(answer));
        }))
    }
}

fn count(metrics: &Metrics, registry: &Registry, bytes: usize) {
    if bytes > 0 {
        metrics.origin_bytes.get_or_create(&metrics.registry_labels(registry)).inc_by(bytes as u64);
    }
}

impl<S: Source> Source for Measured<S> {
    fn head_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        self.timed(name, self.source.head_manifest(name, reference, deadline), |_| 0)
    }

    fn get_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestBody, SourceError>> {
        self.timed(name, self.source.get_manifest(name, reference, deadline), |answer| answer.bytes.len())
    }

    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>> {
        self.timed(name, self.source.head_blob(name, digest, deadline), |_| 0)
    }

    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        etag: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>> {
        let (metrics, registry) = (Arc::clone(&self.metrics), name.registry.clone());
        let question = self.timed(name, self.source.get_blob(name, digest, from, etag, deadline), |_| 0);
        Box::pin(question.map_ok(move |answer| {
            let received = metrics.origin_bytes.get_or_create_owned(&metrics.registry_labels(&registry));
            let body = answer.body.inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    received.inc_by(chunk.len() as u64);
                }
            });
            BlobStream { body: body.boxed(), ..answer }
        }))
    }

    fn tags(&self, name: &Name, query: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>> {
        self.timed(name, self.source.tags(name, query, deadline), |answer| answer.bytes.len())
    }

    fn referrers(
        &self,
        name: &Name,
        digest: &Digest,
        query: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>> {
        self.timed(name, self.source.referrers(name, digest, query, deadline), |answer| answer.bytes.len())
    }
}
