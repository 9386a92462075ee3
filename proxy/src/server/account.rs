//! What is written down about one request: its span and its metrics.
//!
//! Made when the request's head is there, filled as the body goes out, and written down once, when it is dropped: after the
//! last byte was handed to the socket, or when the client left, or when the body was cut.

use std::sync::Arc;
use std::time::Instant;

use larder_oci::Registry;
use tracing::Span;

use super::route::Route;
use crate::metrics::{Metrics, RequestLabels, SourceLabels};
use crate::reply::{Outcome, ReplyObserver, ReplySource};

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left, or the connection broke.
    Left,
    /// We cut it, because the body could not be completed.
    Cut,
    /// The last byte was handed to the socket.
    Delivered,
}

/// The account of one request.
#[derive(Debug)]
pub(super) struct Account {
    metrics: Arc<Metrics>,
    span: Span,
    began: Instant,
    kind: &'static str,
    registry: Option<Registry>,
    outcome: Outcome,
    bytes: u64,
    first_byte_seen: bool,
    end: End,
    observer: Option<Box<dyn ReplyObserver>>,
}

impl Account {
    /// Opens the account and the span of a request. The names of the span's fields are stable: people search for them.
    pub(super) fn open(metrics: Arc<Metrics>, method: &http::Method, route: Option<&Route>) -> Self {
        let name = route.and_then(Route::name);
        let kind = route.map_or("none", Route::kind);
        let span = tracing::info_span!(
            "request",
            method = method.as_str(),
            kind,
            registry = name.map(|name| name.registry.as_str()),
            repository = name.map(|name| name.repository.as_str()),
            reference = route.map(Route::reference),
            status = tracing::field::Empty,
            source = tracing::field::Empty,
            result = tracing::field::Empty,
            bytes = tracing::field::Empty,
            ttfb_ms = tracing::field::Empty,
        );
        Self {
            span,
            began: Instant::now(),
            kind,
            registry: name.map(|name| name.registry.clone()),
            outcome: Outcome::new(ReplySource::None, "unanswered"),
            bytes: 0,
            first_byte_seen: false,
            end: End::Left,
            observer: None,
            metrics,
        }
    }

    /// The request's span.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// What is answered, and who wants to know how that ends.
    pub(super) fn answered(
        &mut self,
        status: http::StatusCode,
        outcome: Outcome,
        observer: Option<Box<dyn ReplyObserver>>,
    ) {
        self.span.record("status", status.as_u16());
        self.span.record("source", outcome.source.as_str());
        self.span.record("result", outcome.result);
        self.outcome = outcome;
        self.observer = observer;
    }

    /// So many more bytes of the body were handed over.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.first_byte();
        self.bytes += bytes as u64;
    }

    /// The body could not be completed.
    pub(super) fn cut(&mut self) {
        self.end = End::Cut;
        if let Some(observer) = &mut self.observer {
            observer.cut();
        }
    }

    /// The last byte was handed to the socket.
    pub(super) fn delivered(mut self) {
        self.end = End::Delivered;
        if let Some(observer) = &mut self.observer {
            observer.delivered();
        }
        self.first_byte();
    }

    fn first_byte(&mut self) {
        if !self.first_byte_seen {
            self.first_byte_seen = true;
            let elapsed = self.began.elapsed();
            self.metrics.observe_first_byte(self.kind, self.outcome.source.as_str(), elapsed);
            self.span.record("ttfb_ms", u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let source = self.outcome.source.as_str();
        if let Some(registry) = self.registry.as_ref().filter(|_| self.outcome.source == ReplySource::Store) {
            // It answered before, or nothing of it would be there.
            self.metrics.note_registry(registry);
        }
        let registry = self.registry.as_ref().map(|registry| self.metrics.registry_label(registry));
        let (registry, outcome) = (registry.unwrap_or_default(), self.outcome.result);
        self.metrics.count_request(&RequestLabels { registry, kind: self.kind, source, outcome });
        self.metrics.response_bytes.get_or_create(&SourceLabels { source }).inc_by(self.bytes);
        if self.end == End::Cut {
            self.metrics.response_cuts.get_or_create(&SourceLabels { source }).inc();
        }
        self.span.record("bytes", self.bytes);
        let took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.span.in_scope(|| match self.end {
            End::Delivered if matches!(self.kind, "base" | "probe" | "none") => tracing::debug!(took_ms, "answered"),
            End::Delivered => tracing::info!(took_ms, "answered"),
            End::Left => tracing::info!(took_ms, "the client left"),
            End::Cut => tracing::warn!(took_ms, "cut short"),
        });
    }
}
