//! First this source, then that one: the cluster cache, and the registry itself where the cache cannot say.
//!
//! Which failures are whose is the point (decision 17). What the registry said is handed through: asking it again would get the same
//! answer, at a price. Anything else is the first source's own trouble, or its failure to reach the registry, and never a reason to fail
//! a pull that would succeed without it. So it goes for a body that breaks, or is not what it should be (`doubts`): the rest, or all of it
//! again, is then asked of the other one.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use larder_oci::{Digest, ManifestReference};
use tokio::time::Instant;

use super::doubts::{Doubts, Order};
use super::{BlobHead, BlobStream, Listing, ManifestBody, ManifestHead, Source, SourceError};
use crate::store::Name;

/// Two sources, asked in order.
#[derive(Clone)]
pub struct Chain {
    first: Arc<dyn Source>,
    then: Arc<dyn Source>,
    doubts: Arc<Doubts>,
}

impl Chain {
    /// `then` is asked what `first` does not answer.
    pub fn new(first: Arc<dyn Source>, then: Arc<dyn Source>) -> Self {
        Self { first, then, doubts: Arc::default() }
    }
}

/// Whether this is what the registry said, whoever told us.
pub(crate) fn is_the_registrys_word(error: &SourceError) -> bool {
    match error {
        SourceError::NotFound
        | SourceError::NeedsCredentials { .. }
        | SourceError::RateLimited { .. }
        | SourceError::Server { .. } => true,
        SourceError::Timeout
        | SourceError::Unreachable { .. }
        | SourceError::CircuitOpen
        | SourceError::Refused { .. }
        | SourceError::Protocol { .. }
        | SourceError::Mismatch { .. }
        | SourceError::Broken { .. } => false,
    }
}

/// The answer of `first` if that is one, else that of `then`, which is not begun before.
async fn either<T>(
    name: &Name,
    first: impl Future<Output = Result<T, SourceError>>,
    then: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    match first.await {
        Err(error) if !is_the_registrys_word(&error) => {
            tracing::debug!(registry = %name.registry, repository = %name.repository, %error, "not answered; asking the registry itself");
            then.await
        }
        answer => answer,
    }
}

/// The same for a list. One that `first` only remembers may lack most of what there is, so it is second to what `then` says; and as it
/// is nobody's waiting for freshness, there is time to ask.
async fn either_list(
    name: &Name,
    first: impl Future<Output = Result<Listing, SourceError>>,
    then: impl Future<Output = Result<Listing, SourceError>>,
) -> Result<Listing, SourceError> {
    match first.await {
        Ok(remembered) if remembered.unconfirmed.is_some() => Ok(then.await.unwrap_or(remembered)),
        first => either(name, std::future::ready(first), then).await,
    }
}

impl Chain {
    /// The stream of `first`; how it ends is remembered.
    fn listened_to(&self, name: &Name, digest: &Digest, stream: BlobStream) -> BlobStream {
        let (doubts, name, digest) = (Arc::clone(&self.doubts), name.clone(), digest.clone());
        let body = stream.body.inspect(move |piece| {
            if let Err(error) = piece {
                tracing::debug!(%digest, %error, "the cluster cache broke off");
                doubts.broke(&name, &digest, Instant::now());
            }
        });
        BlobStream { body: body.boxed(), ..stream }
    }
}

impl Source for Chain {
    fn head_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        self.head_manifest_in_time(name, reference, deadline, deadline)
    }

    fn head_manifest_in_time(
        &self,
        name: &Name,
        reference: &ManifestReference,
        waiting: Instant,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestHead, SourceError>> {
        let (name, reference) = (name.clone(), reference.clone());
        Box::pin(async move {
            let first = self.first.head_manifest_in_time(&name, &reference, waiting, deadline);
            let then = async { self.then.head_manifest_in_time(&name, &reference, waiting, deadline).await };
            either(&name, first, then).await
        })
    }

    fn get_manifest(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ManifestBody, SourceError>> {
        let (name, reference) = (name.clone(), reference.clone());
        Box::pin(async move {
            let first = self.first.get_manifest(&name, &reference, deadline);
            let then = async { self.then.get_manifest(&name, &reference, deadline).await };
            either(&name, first, then).await
        })
    }

    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>> {
        let (name, digest) = (name.clone(), digest.clone());
        Box::pin(async move {
            let first = self.first.head_blob(&name, &digest, deadline);
            let then = async { self.then.head_blob(&name, &digest, deadline).await };
            either(&name, first, then).await
        })
    }

    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        etag: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>> {
        let (name, digest) = (name.clone(), digest.clone());
        let etag = etag.map(ToOwned::to_owned);
        Box::pin(async move {
            // An ETag is of the one who gave it; which of the two that was does not matter, since one of them gives none.
            let first = async {
                let stream = self.first.get_blob(&name, &digest, from, etag.as_deref(), deadline).await?;
                self.doubts.gives(&name, &digest, Instant::now());
                Ok(self.listened_to(&name, &digest, stream))
            };
            let then = async { self.then.get_blob(&name, &digest, from, etag.as_deref(), deadline).await };
            match self.doubts.order(&name, &digest, Instant::now()) {
                Order::Usual => either(&name, first, then).await,
                Order::OtherOnly => then.await,
                Order::Reversed => match then.await {
                    Ok(stream) => Ok(stream),
                    Err(error) => first.await.map_err(|_| error),
                },
            }
        })
    }

    fn distrust(&self, name: &Name, digest: &Digest) -> bool {
        // It may have had it from two places itself, and go on with the other one.
        if self.first.distrust(name, digest) {
            return true;
        }
        let is_first_s = self.doubts.wrong(name, digest, Instant::now());
        if is_first_s {
            tracing::warn!(registry = %name.registry, repository = %name.repository, %digest,
                "the cluster cache gave something else; this is the registry's to give for a while");
        }
        is_first_s || self.then.distrust(name, digest)
    }

    fn tags(&self, name: &Name, query: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let (name, query) = (name.clone(), query.map(ToOwned::to_owned));
        Box::pin(async move {
            let first = self.first.tags(&name, query.as_deref(), deadline);
            let then = async { self.then.tags(&name, query.as_deref(), deadline).await };
            either_list(&name, first, then).await
        })
    }

    fn referrers(
        &self,
        name: &Name,
        digest: &Digest,
        query: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let (name, digest, query) = (name.clone(), digest.clone(), query.map(ToOwned::to_owned));
        Box::pin(async move {
            let first = self.first.referrers(&name, &digest, query.as_deref(), deadline);
            let then = async { self.then.referrers(&name, &digest, query.as_deref(), deadline).await };
            either_list(&name, first, then).await
        })
    }
}

#[cfg(test)]
mod tests;
