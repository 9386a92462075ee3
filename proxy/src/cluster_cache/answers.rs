//! The cluster cache as a [`Source`].

use futures_util::future::BoxFuture;
use larder_oci::{Digest, ManifestReference};
use tokio::time::Instant;

use super::ClusterCache;
use super::asking::Given;
use crate::origin::blob::{GetBlob, HeadBlob};
use crate::origin::listing::GetListing;
use crate::origin::manifest::{GetManifest, HeadManifest};
use crate::source::{BlobHead, BlobStream, Listing, ManifestBody, ManifestHead, Source, SourceError};
use crate::store::Name;

impl Source for ClusterCache {
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
            let key = manifests_of(&name);
            let given = self.ask(name, key, HeadManifest(reference), waiting.min(deadline)).await?;
            Ok(ManifestHead { unconfirmed: given.unconfirmed, ..given.answer })
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
            let is_tag = matches!(reference, ManifestReference::Tag(_));
            let key = manifests_of(&name);
            let given = self.ask(name, key, GetManifest(reference), deadline).await?;
            if is_tag && given.unconfirmed.is_some() {
                // There is no place for it in this answer, and for the registry's word of now it must not be taken.
                let reason = "the cluster cache has heard nothing of the registry".to_owned();
                return Err(SourceError::Unreachable { reason });
            }
            Ok(given.answer)
        })
    }

    fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobHead, SourceError>> {
        let (name, digest) = (name.clone(), digest.clone());
        Box::pin(async move { Ok(self.ask(name, digest.to_string(), HeadBlob(digest), deadline).await?.answer) })
    }

    fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        _etag: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<BlobStream, SourceError>> {
        let (name, digest, silence) = (name.clone(), digest.clone(), self.limits.silence);
        Box::pin(async move {
            let (key, asked_for) = (digest.to_string(), digest.clone());
            // What it has under a digest does not change. An ETag that we were given may be the registry's.
            let given = self.ask(name, key, GetBlob { digest, from, etag: None, silence }, deadline).await?;
            if given.answer.total == Some(0) && asked_for != Digest::of(asked_for.algorithm(), b"") {
                let reason = "the cluster cache gave nothing for a blob that is not empty".to_owned();
                return Err(SourceError::Protocol { reason });
            }
            let body = given.replica.watched(given.answer.body);
            Ok(BlobStream { etag: None, body, ..given.answer })
        })
    }

    fn tags(&self, name: &Name, query: Option<&str>, deadline: Instant) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let (name, question) = (name.clone(), GetListing::new("tags/list".into(), query));
        Box::pin(async move {
            let key = manifests_of(&name);
            Ok(self.ask(name, key, question, deadline).await?.listing())
        })
    }

    fn referrers(
        &self,
        name: &Name,
        digest: &Digest,
        query: Option<&str>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listing, SourceError>> {
        let (name, key) = (name.clone(), digest.to_string());
        let question = GetListing::new(format!("referrers/{digest}"), query);
        Box::pin(async move { Ok(self.ask(name, key, question, deadline).await?.listing()) })
    }
}

impl Given<Listing> {
    fn listing(self) -> Listing {
        Listing { unconfirmed: self.unconfirmed, ..self.answer }
    }
}

/// What decides the replica for manifests: the repository. Who is told what a tag means asks for that manifest next, and the tag is
/// written down by the replica that has heard of both.
fn manifests_of(name: &Name) -> String {
    format!("{}/{}", name.registry, name.repository)
}
