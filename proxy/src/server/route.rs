//! What a request asks for: method, path and query, parsed once into types.
//!
//! Pure, and total: any text gives a [`Route`] or a [`Refusal`]. Both addressings mean the same: `?ns=registry` (containerd)
//! and the registry as the first segment of the path (CRI-O, people), where a port is written `__5000`. Each segment is
//! percent-decoded once; one that then holds a slash is no name. Whatever would write is refused, whatever it names.

use http::{Method, StatusCode};
use larder_oci::{Digest, ErrorCode, ManifestReference, Registry, Repository};

use crate::store::Name;

/// The repository prefix of a canary: asked for by the agent through the engine, to see that the engine asks us.
pub const CANARY: &str = "larder-probe";

/// Something that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry?
    Base,
    /// The keyed challenge, on a connection that the front thread has handed over already.
    Probe,
    /// Anything in `larder-probe/<nonce>`.
    Canary {
        /// Chosen by the agent.
        nonce: String,
    },
    /// A manifest or index.
    Manifest {
        /// Where.
        name: Name,
        /// Which.
        reference: ManifestReference,
    },
    /// A blob.
    Blob {
        /// Where.
        name: Name,
        /// Which.
        digest: Digest,
    },
    /// The list of tags.
    Tags {
        /// Where.
        name: Name,
    },
    /// The repositories that there is something of.
    Catalog,
    /// The manifests that refer to one.
    Referrers {
        /// Where.
        name: Name,
        /// To which.
        digest: Digest,
    },
}

impl Route {
    /// The registry that it is about.
    pub fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => Some(&name.registry),
            Self::Base | Self::Probe | Self::Canary { .. } | Self::Catalog => None,
        }
    }

    /// The word for metrics and the span.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Probe => "probe",
            Self::Canary { .. } => "canary",
            Self::Manifest { .. } => "manifest",
            Self::Blob { .. } => "blob",
            Self::Tags { .. } => "tags",
            Self::Catalog => "catalog",
            Self::Referrers { .. } => "referrers",
        }
    }

    /// The repository that is asked.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Base | Self::Probe | Self::Canary { .. } | Self::Catalog => None,
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => Some(name),
        }
    }

    /// The tag or digest that is asked for, empty where there is none.
    pub fn reference(&self) -> String {
        match self {
            Self::Base | Self::Probe | Self::Catalog | Self::Tags { .. } => String::new(),
            Self::Canary { nonce } => nonce.clone(),
            Self::Manifest { reference, .. } => reference.to_string(),
            Self::Blob { digest, .. } | Self::Referrers { digest, .. } => digest.to_string(),
        }
    }
}

/// Why a request is not answered. The client has to ask differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 404 or 405.
    pub status: StatusCode,
    /// The code of the distribution specification.
    pub code: ErrorCode,
    /// What is wrong, for a person.
    pub message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn name_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, message)
    }

    fn writes() -> Self {
        let message = "this is a cache that only reads: push to the registry itself";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message)
    }

    fn unknown_path() -> Self {
        let message = "there is /v2/, and below it <name>/manifests/<reference>, <name>/blobs/<digest>, <name>/tags/list and \
            <name>/referrers/<digest>, and /v2/_catalog";
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
    }
}

/// What `method path?query` asks for. `path` and `query` are as they came, percent-encoded.
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Refusal::writes());
    }
    if path == super::probe::PATH {
        return Ok(Route::Probe);
    }
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Route::Base),
        Some(rest) => rest.strip_prefix('/').ok_or_else(Refusal::unknown_path)?,
        None => return Err(Refusal::unknown_path()),
    };
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let segments = rest.split('/').map(decode_segment).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if matches!(segments.as_slice(), [_, .., "blobs", "uploads"] | [_, .., "blobs", "uploads", _]) {
        return Err(Refusal::writes());
    }
    let (names, operation, argument) = match segments.as_slice() {
        [names @ .., operation, argument] if !names.is_empty() => (names, *operation, *argument),
        _ => return Err(Refusal::unknown_path()),
    };
    // Checked before the name, so that a path of another API is called that and not a bad name.
    if !matches!((operation, argument), ("manifests" | "blobs" | "referrers", _) | ("tags", "list")) {
        return Err(Refusal::unknown_path());
    }
    let name = repository(names, query)?;
    if let Some(nonce) = canary(&name.repository) {
        return Ok(Route::Canary { nonce: nonce.to_owned() });
    }
    match operation {
        "manifests" => {
            let reference = ManifestReference::parse(argument).map_err(|error| {
                // A text with a colon can only have been meant as a digest.
                let code = if argument.contains(':') { ErrorCode::DigestInvalid } else { ErrorCode::NameInvalid };
                Refusal::new(StatusCode::BAD_REQUEST, code, error.to_string())
            })?;
            Ok(Route::Manifest { name, reference })
        }
        "blobs" => Ok(Route::Blob { name, digest: digest(argument)? }),
        "referrers" => Ok(Route::Referrers { name, digest: digest(argument)? }),
        _ => Ok(Route::Tags { name }),
    }
}

/// The client's query without `ns`, which is between the engine and us.
pub fn query_without_namespace(query: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = query?.split('&').filter(|pair| !pair.is_empty() && namespace_of(pair).is_none()).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The client's `ns` as it wrote it: `ns=docker.io`.
pub(super) fn namespace_parameter(query: &str) -> Option<&str> {
    query.split('&').find(|pair| namespace_of(pair).is_some())
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    Digest::parse(text)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, error.to_string()))
}

fn repository(segments: &[&str], query: Option<&str>) -> Result<Name, Refusal> {
    let (registry, repository) = match namespace(query)? {
        Some(registry) => (registry, segments),
        None => match segments {
            [first, rest @ ..] if looks_like_registry(first) && !rest.is_empty() => {
                (Registry::from_path_segment(first).map_err(|error| Refusal::name_invalid(error.to_string()))?, rest)
            }
            _ => {
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    ErrorCode::NameUnknown,
                    "the registry is missing: ask for /v2/docker.io/library/nginx/… or add ?ns=docker.io",
                ));
            }
        },
    };
    let repository = Repository::parse(&repository.join("/"))
        .and_then(|repository| if registry.is_docker_hub() { repository.in_docker_hub() } else { Ok(repository) })
        .map_err(|error| Refusal::name_invalid(error.to_string()))?;
    Ok(Name { registry, repository })
}

/// Docker's rule for the first part of a reference: a dot or a port, or `localhost`.
fn looks_like_registry(segment: &str) -> bool {
    let with_port = segment.rsplit_once("__").is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    segment.contains(['.', ':']) || with_port || segment == "localhost"
}

fn canary(repository: &Repository) -> Option<&str> {
    let nonce = repository.as_str().strip_prefix(CANARY)?.strip_prefix('/')?;
    (!nonce.contains('/') && (1..=128).contains(&nonce.len())).then_some(nonce)
}

fn namespace(query: Option<&str>) -> Result<Option<Registry>, Refusal> {
    let mut found: Option<Registry> = None;
    for value in query.unwrap_or_default().split('&').filter_map(namespace_of) {
        let text = percent_decode(value).ok_or_else(|| Refusal::name_invalid("ns is not percent-encoded UTF-8"))?;
        let registry = Registry::parse(&text).map_err(|error| Refusal::name_invalid(error.to_string()))?;
        if found.as_ref().is_some_and(|other| *other != registry) {
            return Err(Refusal::name_invalid("there is more than one ns"));
        }
        found = Some(registry);
    }
    Ok(found)
}

fn namespace_of(pair: &str) -> Option<&str> {
    match pair.split_once('=') {
        Some(("ns", value)) => Some(value),
        None if pair == "ns" => Some(""),
        _ => None,
    }
}

fn decode_segment(segment: &str) -> Result<String, Refusal> {
    match percent_decode(segment) {
        Some(text) if !text.contains('/') => Ok(text),
        _ => Err(Refusal::name_invalid("the path holds an encoded slash or is not percent-encoded UTF-8")),
    }
}

/// Decodes once; `None` for a broken escape or bytes that are no UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
