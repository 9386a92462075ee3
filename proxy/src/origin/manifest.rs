//! Questions about manifests and indexes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use larder_oci::{Algorithm, Digest, ManifestReference, media_type as types};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::body;
use super::client::Answer;
use super::observe::RequestKind;
use super::question::{Question, expect_whole, media_type};
use crate::source::{MAXIMUM_DOCUMENT, ManifestBody, ManifestHead, SourceError};

const DIGEST_HEADER: &str = "docker-content-digest";

/// HEAD of a manifest.
pub(crate) struct HeadManifest(pub(crate) ManifestReference);

/// GET of a manifest.
pub(crate) struct GetManifest(pub(crate) ManifestReference);

impl Question for HeadManifest {
    type Answer = ManifestHead;
    const KIND: RequestKind = RequestKind::Manifest;

    fn method(&self) -> Method {
        Method::HEAD
    }

    fn path(&self) -> String {
        format!("manifests/{}", self.0)
    }

    fn headers(&self) -> Result<HeaderMap, SourceError> {
        Ok(accept())
    }

    async fn understand(&self, answer: Answer, _: Instant) -> Result<ManifestHead, SourceError> {
        expect_whole(&answer)?;
        let media_type = media_type(&answer.headers);
        if media_type.as_deref().is_some_and(is_page) {
            return Err(no_manifest(media_type.as_deref()));
        }
        let digest = agreed(&self.0, announced(&answer)?)?;
        Ok(ManifestHead { digest, size: body::length(&answer.headers), media_type, unconfirmed: None })
    }
}

impl Question for GetManifest {
    type Answer = ManifestBody;
    const KIND: RequestKind = RequestKind::Manifest;

    fn method(&self) -> Method {
        Method::GET
    }

    fn path(&self) -> String {
        format!("manifests/{}", self.0)
    }

    fn headers(&self) -> Result<HeaderMap, SourceError> {
        Ok(accept())
    }

    async fn understand(&self, answer: Answer, until: Instant) -> Result<ManifestBody, SourceError> {
        expect_whole(&answer)?;
        let announced = agreed(&self.0, announced(&answer)?)?;
        let content_type = media_type(&answer.headers);
        let bytes = body::read(answer.body, MAXIMUM_DOCUMENT, until).await?;
        let digest = verified(announced, &bytes)?;
        let media_type = kind(&self.0, content_type, &bytes)?;
        Ok(ManifestBody { digest, media_type, bytes })
    }
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(types::ACCEPT_MANIFESTS))])
}

/// What the registry says the digest is. It, not the storage behind it, is the one to know.
fn announced(answer: &Answer) -> Result<Option<Digest>, SourceError> {
    let Some(value) = answer.own_headers.get(DIGEST_HEADER).or_else(|| answer.headers.get(DIGEST_HEADER)) else {
        return Ok(None);
    };
    let digest = value.to_str().ok().and_then(|value| Digest::parse(value.trim()).ok());
    digest.map(Some).ok_or_else(|| SourceError::Protocol { reason: "its Docker-Content-Digest is no digest".into() })
}

/// The digest that the bytes must have: what was asked for, else what was announced.
fn agreed(reference: &ManifestReference, announced: Option<Digest>) -> Result<Option<Digest>, SourceError> {
    let ManifestReference::Digest(expected) = reference else { return Ok(announced) };
    match announced {
        // With another algorithm they may well be of the same bytes.
        Some(actual) if actual.algorithm() == expected.algorithm() && actual != *expected => {
            Err(SourceError::Mismatch { expected: expected.clone(), actual })
        }
        _ => Ok(Some(expected.clone())),
    }
}

fn verified(expected: Option<Digest>, bytes: &Bytes) -> Result<Digest, SourceError> {
    let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let actual = Digest::of(algorithm, bytes);
    match expected {
        Some(expected) if expected != actual => Err(SourceError::Mismatch { expected, actual }),
        _ => Ok(actual),
    }
}

/// What says of itself that people read it: a portal, a login, a maintenance page. They come with 200.
fn is_page(content_type: &str) -> bool {
    !content_type.starts_with("application/") || content_type.contains("html")
}

fn no_manifest(content_type: Option<&str>) -> SourceError {
    let reason = format!("what came is no manifest, but {}", content_type.unwrap_or("of no known type"));
    SourceError::Protocol { reason }
}

/// `Content-Type` if it is a manifest's; else what the document says of itself, as simple file servers know no better.
///
/// By tag nothing tells what the bytes should have been, and a page that came with 200 would take the image's place: what has
/// no type of its own must have a manifest's shape. By digest the bytes are what was asked for, whatever they are.
fn kind(reference: &ManifestReference, content_type: Option<String>, bytes: &Bytes) -> Result<String, SourceError> {
    if let Some(content_type) = content_type.as_ref().filter(|it| types::is_manifest(it)) {
        return Ok(content_type.clone());
    }
    let shape = Shape::of(bytes);
    let is_typed = content_type.as_ref().is_some_and(|it| it.starts_with("application/vnd.") && !is_page(it));
    let by_tag = matches!(reference, ManifestReference::Tag(_));
    if by_tag && !is_typed && !shape.as_ref().is_some_and(Shape::is_manifest) {
        return Err(no_manifest(content_type.as_deref()));
    }
    // It becomes a header of ours.
    let own = shape.as_ref().and_then(|shape| shape.media_type.clone()).filter(|it| HeaderValue::from_str(it).is_ok());
    let by_shape = || shape.as_ref().filter(|_| by_tag).map(|shape| shape.kind().to_owned());
    let useful = content_type.clone().filter(|it| !is_page(it));
    let kind = own.or(useful).or_else(by_shape).or(content_type);
    kind.ok_or_else(|| SourceError::Protocol { reason: "the manifest has no media type".into() })
}

/// What is looked at in a document without a type.
struct Shape {
    media_type: Option<String>,
    fields: BTreeSet<String>,
}

impl Shape {
    /// `None` if it is no JSON object.
    fn of(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(rename = "mediaType")]
            media_type: Option<String>,
        }
        // RFC 8259 §8.1: a byte order mark may be ignored.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        #[expect(clippy::zero_sized_map_values, reason = "a set cannot be read from an object")]
        let fields = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(bytes).ok()?;
        let document = serde_json::from_slice::<Document>(bytes).ok();
        Some(Self {
            media_type: document.and_then(|document| document.media_type),
            fields: fields.into_keys().collect(),
        })
    }

    fn is_manifest(&self) -> bool {
        let telling = ["schemaVersion", "manifests", "layers", "fsLayers"];
        telling.iter().any(|field| self.fields.contains(*field))
            || self.media_type.as_ref().is_some_and(|it| it.starts_with("application/vnd."))
    }

    fn kind(&self) -> &'static str {
        if self.fields.contains("fsLayers") {
            "application/vnd.docker.distribution.manifest.v1+prettyjws"
        } else if self.fields.contains("manifests") {
            types::OCI_INDEX
        } else {
            types::OCI_MANIFEST
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    #[test]
    fn which_digest_counts() {
        let by_tag = ManifestReference::parse("latest").unwrap();
        let (one, two) = (digest(b"1"), digest(b"2"));
        let by_digest = ManifestReference::Digest(one.clone());
        assert_eq!(agreed(&by_tag, None), Ok(None));
        assert_eq!(agreed(&by_tag, Some(two.clone())), Ok(Some(two.clone())));
        assert_eq!(agreed(&by_digest, None), Ok(Some(one.clone())));
        assert_eq!(agreed(&by_digest, Some(one.clone())), Ok(Some(one.clone())));
        assert_eq!(agreed(&by_digest, Some(Digest::of(Algorithm::Sha512, b"1"))), Ok(Some(one.clone())));
        assert!(matches!(agreed(&by_digest, Some(two.clone())), Err(SourceError::Mismatch { .. })));

        assert_eq!(verified(None, &Bytes::from_static(b"1")), Ok(one.clone()));
        let longer = Digest::of(Algorithm::Sha512, b"1");
        assert_eq!(verified(Some(longer.clone()), &Bytes::from_static(b"1")), Ok(longer));
        let mismatch = SourceError::Mismatch { expected: one, actual: two };
        assert_eq!(verified(Some(digest(b"1")), &Bytes::from_static(b"2")), Err(mismatch));
    }

    #[test]
    fn which_media_type_counts() {
        let by_tag = ManifestReference::parse("latest").unwrap();
        let kind = |content_type: Option<&str>, body: &'static str| {
            kind(&by_tag, content_type.map(Into::into), &Bytes::from_static(body.as_bytes()))
        };
        let index = r#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        assert_eq!(kind(Some(types::OCI_MANIFEST), index).unwrap(), types::OCI_MANIFEST);
        assert_eq!(kind(Some("application/octet-stream"), index).unwrap(), types::OCI_INDEX);
        assert_eq!(kind(None, index).unwrap(), types::OCI_INDEX);
        assert_eq!(kind(None, "\u{feff}{\"schemaVersion\":2,\"manifests\":[]}\n").unwrap(), types::OCI_INDEX);
        assert_eq!(kind(Some("application/json"), r#"{"schemaVersion":2}"#).unwrap(), "application/json");
        assert_eq!(kind(Some("text/plain"), r#"{"schemaVersion":2,"layers":[]}"#).unwrap(), types::OCI_MANIFEST);
        for body in ["{}", "not json", "{\"mediaType\":\"a\\nb: c\"}", "{\"mediaType\":7}"] {
            assert!(matches!(kind(None, body), Err(SourceError::Protocol { .. })), "{body}");
        }
    }

    #[test]
    fn a_page_that_came_with_200_is_no_manifest() {
        let by_tag = ManifestReference::parse("latest").unwrap();
        for (content_type, body) in [
            (Some("text/html"), "<html>maintenance</html>"),
            (Some("application/xhtml+xml"), "<html/>"),
            (Some("application/json"), r#"{"error":"x"}"#),
            (Some("application/json"), r#"["schemaVersion"]"#),
            (Some("application/octet-stream"), ""),
            (None, "<html>"),
        ] {
            let bytes = Bytes::from_static(body.as_bytes());
            let refused = kind(&by_tag, content_type.map(Into::into), &bytes);
            assert!(matches!(refused, Err(SourceError::Protocol { .. })), "{content_type:?} {body} {refused:?}");
        }
        // What somebody gave a type of its own, and what has the digest that was asked for, is theirs to know.
        let odd = Bytes::from_static(b"not json");
        for content_type in ["application/vnd.example.thing.v3", types::OCI_MANIFEST] {
            assert_eq!(kind(&by_tag, Some(content_type.into()), &odd).unwrap(), content_type);
        }
        let by_digest = ManifestReference::Digest(digest(&odd));
        for content_type in ["text/plain", "application/octet-stream", types::OCI_INDEX] {
            assert_eq!(kind(&by_digest, Some(content_type.into()), &odd).unwrap(), content_type);
        }
    }

    #[test]
    fn what_people_read_is_told_by_its_type() {
        for (content_type, page) in [
            ("text/html", true),
            ("application/xhtml+xml", true),
            ("application/json", false),
            (types::OCI_INDEX, false),
        ] {
            assert_eq!(is_page(content_type), page, "{content_type}");
        }
    }
}
