//! The right answer to a request, and how a behaviour bends it.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_oci::{ByteRange, ContentRange, Digest, ErrorBody, ErrorCode, media_type};

use crate::request::Request;

/// What the registry holds.
#[derive(Default)]
pub(crate) struct Content {
    /// Repository → tag → digest.
    pub(crate) tags: BTreeMap<String, BTreeMap<String, Digest>>,
    /// Repository → digest → media type and bytes; blobs have no media type of their own.
    pub(crate) objects: BTreeMap<String, BTreeMap<Digest, (Option<String>, Bytes)>>,
}

/// Who may pull.
#[derive(Clone, Debug)]
pub(crate) struct TokenPolicy {
    /// Where tokens are to be had.
    pub(crate) realm: String,
    /// Whether anybody gets one, or only who knows this user and password (base64 of `user:password`).
    pub(crate) basic: Option<String>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn error(status: u16, code: ErrorCode) -> Self {
        let body = ErrorBody::new(code, "as the test origin says").to_json();
        Self { status, headers: vec![("content-type".into(), "application/json".into())], body: body.into() }
    }
}

const TOKEN: &str = "the-token-of-the-test-origin";

/// The answer of a registry that has a good day.
pub(crate) fn answer(request: &Request, content: &Content, tokens: Option<&TokenPolicy>) -> Answer {
    if !matches!(request.method.as_str(), "GET" | "HEAD" | "POST") {
        return Answer::error(405, ErrorCode::Unsupported);
    }
    if request.path == "/token" {
        return token(request, tokens);
    }
    let Some(path) = request.path.strip_prefix("/v2/") else { return Answer::new(404) };
    if let Some(policy) = tokens
        && request.header("authorization") != Some(&format!("Bearer {TOKEN}"))
    {
        let repository =
            path.split("/manifests/").next().and_then(|path| path.split("/blobs/").next()).unwrap_or_default();
        let challenge =
            format!("Bearer realm=\"{}\",service=\"test\",scope=\"repository:{repository}:pull\"", policy.realm);
        return Answer::error(401, ErrorCode::Unauthorized).header("www-authenticate", challenge);
    }
    if path.is_empty() {
        return Answer::new(200).header("docker-distribution-api-version", "registry/2.0");
    }
    if let Some((repository, reference)) = path.split_once("/manifests/") {
        return manifest(content, repository, reference);
    }
    if let Some((repository, digest)) = path.split_once("/blobs/") {
        return blob(content, repository, digest, request.header("range"));
    }
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return tags(content, repository, request);
    }
    if let Some((repository, digest)) = path.split_once("/referrers/") {
        return referrers(content, repository, digest, request);
    }
    Answer::error(404, ErrorCode::Unsupported)
}

fn token(request: &Request, tokens: Option<&TokenPolicy>) -> Answer {
    let wanted = tokens.and_then(|policy| policy.basic.as_ref()).map(|basic| format!("Basic {basic}"));
    if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
        return Answer::error(401, ErrorCode::Unauthorized);
    }
    let mut answer = Answer::new(200).header("content-type", "application/json");
    answer.body = serde_json::json!({"token": TOKEN, "expires_in": 300}).to_string().into();
    answer
}

/// Distribution specification, "Listing Tags": `n` at the most, after `last`, in lexical order, with a link to what follows.
fn tags(content: &Content, repository: &str, request: &Request) -> Answer {
    let Some(tags) = content.tags.get(repository) else { return Answer::error(404, ErrorCode::NameUnknown) };
    let (most, last) = (request.parameter("n").and_then(|n| n.parse().ok()), request.parameter("last"));
    let all: Vec<_> = tags.keys().filter(|tag| last.is_none_or(|last| tag.as_str() > last)).collect();
    let page: Vec<_> = all.iter().take(most.unwrap_or(usize::MAX)).collect();
    let mut answer = Answer::new(200).header("content-type", "application/json");
    if let (Some(most), Some(end)) = (most, page.last())
        && page.len() < all.len()
    {
        let next = format!("</v2/{repository}/tags/list?n={most}&last={end}>; rel=\"next\"");
        answer = answer.header("link", next);
    }
    answer.body = serde_json::json!({"name": repository, "tags": page}).to_string().into();
    answer
}

/// Distribution specification, "Listing Referrers": an index, also of nothing.
fn referrers(content: &Content, repository: &str, digest: &str, request: &Request) -> Answer {
    let wanted = request.parameter("artifactType").map(|value| value.replace("%2F", "/"));
    let mut found = Vec::new();
    for (manifest, (media_type, bytes)) in content.objects.get(repository).into_iter().flatten() {
        let (Some(media_type), Ok(document)) = (media_type, serde_json::from_slice::<serde_json::Value>(bytes)) else {
            continue;
        };
        let kind = &document["artifactType"];
        if document["subject"]["digest"] == digest && wanted.as_ref().is_none_or(|wanted| kind == wanted) {
            let (size, manifest) = (bytes.len(), manifest.to_string());
            found.push(
                serde_json::json!({"mediaType": media_type, "digest": manifest, "size": size, "artifactType": kind}),
            );
        }
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": found});
    let mut answer = Answer::new(200).header("content-type", media_type::OCI_INDEX);
    if wanted.is_some() {
        answer = answer.header("oci-filters-applied", "artifactType");
    }
    answer.body = index.to_string().into();
    answer
}

fn manifest(content: &Content, repository: &str, reference: &str) -> Answer {
    let unknown = || Answer::error(404, ErrorCode::ManifestUnknown);
    let digest = match Digest::parse(reference) {
        Ok(digest) => Some(digest),
        Err(_) => content.tags.get(repository).and_then(|tags| tags.get(reference)).cloned(),
    };
    let Some(digest) = digest else { return unknown() };
    let Some((Some(media_type), bytes)) = content.objects.get(repository).and_then(|objects| objects.get(&digest))
    else {
        return unknown();
    };
    let mut answer = Answer::new(200)
        .header("content-type", media_type)
        .header("docker-content-digest", &digest)
        .header("etag", format!("\"{digest}\""));
    answer.body = bytes.clone();
    answer
}

fn blob(content: &Content, repository: &str, digest: &str, range: Option<&str>) -> Answer {
    let found =
        Digest::parse(digest).ok().and_then(|digest| Some((content.objects.get(repository)?.get(&digest)?, digest)));
    let Some(((None, bytes), digest)) = found else { return Answer::error(404, ErrorCode::BlobUnknown) };
    let total = bytes.len() as u64;
    let headers = |answer: Answer| {
        answer
            .header("content-type", "application/octet-stream")
            .header("docker-content-digest", &digest)
            .header("etag", format!("\"{digest}\""))
            .header("accept-ranges", "bytes")
    };
    let Some(range) = range.and_then(|range| ByteRange::parse_header(range).ok()) else {
        let mut answer = headers(Answer::new(200));
        answer.body = bytes.clone();
        return answer;
    };
    let Some(range) = range.resolve(total) else {
        return Answer::new(416).header("content-range", format!("bytes */{total}"));
    };
    let sent = ContentRange { first: range.start, last: range.end - 1, total: Some(total) };
    let mut answer = headers(Answer::new(206)).header("content-range", sent);
    answer.body = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
    answer
}
