//! The bytes of a blob from its origin, in order and without gaps, however often the origin breaks off.
//!
//! A break is continued by a Range request for the next missing byte, several times, with a jittered pause. Whether the
//! continuation is of the same entity is checked by its `ETag` and total length; whether it is right, by the digest, at the
//! end, by whoever takes the bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use larder_oci::Digest;
use tokio::time::{Instant, sleep};

use super::refused::Refused;
use super::{FetchError, FetchLimits};
use crate::metrics::Metrics;
use crate::source::{BlobStream, Source, SourceError};
use crate::store::Name;

/// Where a blob comes from, and within which bounds.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) source: Arc<dyn Source>,
    pub(super) name: Name,
    pub(super) digest: Digest,
    pub(super) limits: FetchLimits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) refused: Arc<Refused>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Origin").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Origin {
    pub(super) fn error(&self, error: SourceError) -> FetchError {
        FetchError::Source { digest: self.digest.clone(), error }
    }

    /// Content did not have its digest: counted, refused for a while unless somebody else can be asked, and as an error.
    pub(super) fn mismatch(&self, got: Digest) -> FetchError {
        self.metrics.fetch_mismatches.get_or_create(&self.metrics.registry_labels(&self.name.registry)).inc();
        let elsewhere = self.source.distrust(&self.name, &self.digest);
        if !elsewhere {
            self.refused.note(&self.name, &self.digest, self.limits.refuse_mismatch);
        }
        FetchError::Mismatch { digest: self.digest.clone(), got, elsewhere }
    }

    /// What came later does not go with what came before.
    fn changed(&self, what: &'static str) -> FetchError {
        let elsewhere = self.source.distrust(&self.name, &self.digest);
        FetchError::Changed { digest: self.digest.clone(), what, elsewhere }
    }
}

/// A blob on its way.
pub(super) struct Download {
    origin: Origin,
    body: Option<BoxStream<'static, Result<Bytes, SourceError>>>,
    /// Bytes that the origin sends although we have them.
    skip: u64,
    /// The offset of the next byte that is yielded.
    next: u64,
    total: Option<u64>,
    etag: Option<String>,
    pauses: ExponentialBackoff,
    /// Where the attempts were counted anew.
    counted_from: u64,
}

impl Download {
    /// One request for the bytes from `from` on, of the entity that is described if it is known.
    pub(super) async fn start(
        origin: &Origin,
        from: u64,
        etag: Option<String>,
        total: Option<u64>,
        deadline: Instant,
    ) -> Result<Self, FetchError> {
        let pauses = pauses(&origin.limits);
        let mut download =
            Self { origin: origin.clone(), body: None, skip: 0, next: from, total, etag, pauses, counted_from: from };
        download.request(deadline).await?;
        Ok(download)
    }

    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    pub(super) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The next bytes; `None` at the end of the blob.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            if self.total == Some(self.next) {
                return Ok(None);
            }
            let broken = match self.body.as_mut() {
                None => SourceError::Broken { reason: "no body".to_owned() },
                Some(body) => match body.next().await {
                    Some(Ok(mut bytes)) => {
                        let skipped = self.skip.min(bytes.len() as u64);
                        self.skip -= skipped;
                        bytes.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
                        if bytes.is_empty() {
                            continue;
                        }
                        self.count(bytes.len() as u64)?;
                        return Ok(Some(bytes));
                    }
                    None if self.total.is_none() && self.skip == 0 => return Ok(None),
                    None => SourceError::Broken { reason: format!("the body ended at byte {}", self.next) },
                    Some(Err(error)) => error,
                },
            };
            self.body = None;
            self.resume(broken).await?;
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), FetchError> {
        self.next += bytes;
        if self.total.is_some_and(|total| self.next > total) {
            return Err(self.origin.changed("more bytes than it announced"));
        }
        if self.next > self.origin.limits.blob {
            return Err(self.too_large());
        }
        if self.next - self.counted_from >= self.origin.limits.resume_progress {
            self.counted_from = self.next;
            self.pauses = pauses(&self.origin.limits);
        }
        Ok(())
    }

    fn too_large(&self) -> FetchError {
        FetchError::TooLarge { digest: self.origin.digest.clone(), limit: self.origin.limits.blob }
    }

    async fn resume(&mut self, mut broken: SourceError) -> Result<(), FetchError> {
        loop {
            if !is_worth_another_try(&broken) {
                return Err(self.origin.error(broken));
            }
            let Some(pause) = self.pauses.next() else {
                return Err(self.origin.error(broken));
            };
            let Origin { name, digest, metrics, .. } = &self.origin;
            tracing::debug!(registry = %name.registry, repository = %name.repository, %digest, offset = self.next,
                error = %broken, "origin broke off; continuing by range");
            metrics.fetch_resumes.get_or_create(&metrics.registry_labels(&name.registry)).inc();
            sleep(pause.max(asked_pause(&broken)).min(self.origin.limits.resume_pause_longest)).await;
            match self.request(Instant::now() + self.origin.limits.headers).await {
                Err(FetchError::Source { error, .. }) => broken = error,
                other => return other,
            }
        }
    }

    async fn request(&mut self, deadline: Instant) -> Result<(), FetchError> {
        let Origin { source, name, digest, .. } = &self.origin;
        // All bytes may be there, and only the origin's word missing: asking beyond the end would get an error instead.
        let from = if self.total == Some(self.next) { self.next.saturating_sub(1) } else { self.next };
        let stream = source
            .get_blob(name, digest, from, self.etag.as_deref(), deadline)
            .await
            .map_err(|e| self.origin.error(e))?;
        self.take(stream)
    }

    fn take(&mut self, stream: BlobStream) -> Result<(), FetchError> {
        let changed = |what| self.origin.changed(what);
        let BlobStream { first, total, etag, body } = stream;
        let skip = self.next.checked_sub(first).ok_or_else(|| changed("a range that begins too late"))?;
        if differ(self.total.as_ref(), total.as_ref()) {
            return Err(changed("another total length"));
        }
        if differ(self.etag.as_ref(), etag.as_ref()) {
            return Err(changed("another ETag"));
        }
        if total.is_some_and(|total| total > self.origin.limits.blob) {
            return Err(self.too_large());
        }
        // Its verdict needs no bytes, and once its headers have left nobody reads on to where it would be cut.
        if total == Some(0) && self.origin.digest != Digest::of(self.origin.digest.algorithm(), b"") {
            let reason = "an empty answer for a blob that is not empty".to_owned();
            return Err(self.origin.error(SourceError::Protocol { reason }));
        }
        self.total = self.total.or(total);
        self.etag = self.etag.take().or(etag);
        self.skip = skip;
        self.body = Some(body);
        Ok(())
    }
}

/// Whether both are known and not the same.
fn differ<T: PartialEq>(before: Option<&T>, now: Option<&T>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if before != now)
}

fn pauses(limits: &FetchLimits) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(limits.resume_pause)
        .with_max_delay(limits.resume_pause_longest)
        .with_max_times(limits.resume_tries)
        .with_jitter()
        .build()
}

fn is_worth_another_try(error: &SourceError) -> bool {
    match error {
        SourceError::Broken { .. }
        | SourceError::Timeout
        | SourceError::Unreachable { .. }
        | SourceError::Server { .. }
        | SourceError::RateLimited { .. }
        | SourceError::CircuitOpen => true,
        SourceError::NotFound
        | SourceError::NeedsCredentials { .. }
        | SourceError::Refused { .. }
        | SourceError::Protocol { .. }
        | SourceError::Mismatch { .. } => false,
    }
}

fn asked_pause(error: &SourceError) -> Duration {
    match error {
        SourceError::RateLimited { retry_after: Some(pause) } => *pause,
        _ => Duration::ZERO,
    }
}
