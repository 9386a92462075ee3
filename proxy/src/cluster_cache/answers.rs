//! The cluster cache as a [`Source`].

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use larder_oci::{Digest, ManifestReference};
use tokio::time::Instant;
use url::Url;

use super::ClusterCache;
use super::asking::Given;
use super::bucket::Place;
use super::replica::Replica;
use crate::hop;
use crate::origin::blob::{GetBlob, HeadBlob};
use crate::origin::body;
use crate::origin::client::Answer;
use crate::origin::listing::GetListing;
use crate::origin::manifest::{GetManifest, HeadManifest};
use crate::origin::question::Question;
use crate::origin::{Lane, RequestKind};
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
        let (name, digest) = (name.clone(), digest.clone());
        Box::pin(async move {
            let follows = self.bucket.may_be_asked_for(&name, &digest, Instant::now());
            let given = self.ask_for_blob(&name, &digest, from, follows, deadline).await?;
            let place = match given.answer {
                Found::Here(stream) => return checked(stream, &digest, &given.replica),
                Found::Elsewhere(place) => place,
            };
            match self.bucket.get(&given.replica.base, place, (&name, &digest), from, deadline).await {
                Ok(stream) => Ok(stream),
                Err(error) => {
                    tracing::debug!(%digest, %error, "not given where the cluster cache led to; asking it for the bytes");
                    (self.told)("unfollowed");
                    let given = self.ask_for_blob(&name, &digest, from, false, deadline).await?;
                    match given.answer {
                        Found::Here(stream) => checked(stream, &digest, &given.replica),
                        Found::Elsewhere(_) => Err(error),
                    }
                }
            }
        })
    }

    fn distrust(&self, name: &Name, digest: &Digest) -> bool {
        self.bucket.distrust(name, digest, Instant::now())
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

impl ClusterCache {
    async fn ask_for_blob(
        &self,
        name: &Name,
        digest: &Digest,
        from: u64,
        follows: bool,
        deadline: Instant,
    ) -> Result<Given<Found>, SourceError> {
        // What it has under a digest does not change. An ETag that we were given may be the registry's.
        let blob = GetBlob { digest: digest.clone(), from, etag: None, silence: self.limits.silence };
        self.ask(name.clone(), digest.to_string(), BlobOrPlace { blob, follows }, deadline).await
    }
}

/// What a replica gives.
fn checked(stream: BlobStream, digest: &Digest, replica: &Arc<Replica>) -> Result<BlobStream, SourceError> {
    if stream.total == Some(0) && *digest != Digest::of(digest.algorithm(), b"") {
        let reason = "the cluster cache gave nothing for a blob that is not empty".to_owned();
        return Err(SourceError::Protocol { reason });
    }
    let body = replica.watched(stream.body);
    Ok(BlobStream { etag: None, body, ..stream })
}

/// GET of a blob, or of where it is.
struct BlobOrPlace {
    blob: GetBlob,
    follows: bool,
}

/// A blob, or where it is.
enum Found {
    Here(BlobStream),
    /// `None`: at no URL, or of a length that nobody says.
    Elsewhere(Option<Place>),
}

impl Question for BlobOrPlace {
    type Answer = Found;
    const KIND: RequestKind = GetBlob::KIND;
    const LANE: Lane = GetBlob::LANE;

    fn method(&self) -> Method {
        self.blob.method()
    }

    fn path(&self) -> String {
        self.blob.path()
    }

    fn headers(&self) -> Result<HeaderMap, SourceError> {
        let mut headers = self.blob.headers()?;
        headers.insert(hop::REDIRECT, if self.follows { hop::FOLLOWS } else { hop::FOLLOWS_NOT });
        Ok(headers)
    }

    async fn understand(&self, answer: Answer, until: Instant) -> Result<Found, SourceError> {
        if answer.status != StatusCode::TEMPORARY_REDIRECT {
            return Ok(Found::Here(self.blob.understand(answer, until).await?));
        }
        let url = answer.headers.get(LOCATION).and_then(|place| Url::parse(place.to_str().ok()?).ok());
        let length = answer.headers.get(hop::LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        body::drain(answer.body).await;
        Ok(Found::Elsewhere(url.zip(length).map(|(url, length)| Place { url, length })))
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
