//! What the origin tells whoever counts: requests on the wire, quotas, circuits.

use std::time::Duration;

use larder_oci::Registry;

use super::pacing::RateLimit;

/// What a request to the outside was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    /// A manifest or index.
    Manifest,
    /// A blob.
    Blob,
    /// `tags/list` or `referrers`.
    Listing,
    /// An anonymous token.
    Token,
    /// Whether an endpoint answers again.
    Probe,
}

impl RequestKind {
    /// For a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Listing => "listing",
            Self::Token => "token",
            Self::Probe => "probe",
        }
    }
}

/// What waits for one another at a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Manifests, HEADs and lists.
    Document,
    /// The bytes of blobs.
    Blob,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Document, Self::Blob];

    /// For a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Blob => "blob",
        }
    }
}

/// How a request to the outside ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestOutcome {
    /// It was answered with this status.
    Status(u16),
    /// No connection, or it was cut before an answer.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Our own rules forbade it before it was sent.
    Refused,
}

/// What a question to a registry met, for whoever wants to know how that registry is doing. What storage behind it does, and what our own rules forbid,
/// says nothing about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Where it was asked: scheme, host and port.
    pub endpoint: String,
    /// It was the server that gives tokens for it.
    pub is_token_server: bool,
    /// How that ended.
    pub word: Word,
}

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It answered, whatever it was but 429 and 5xx.
    Answered {
        /// After so long, if nothing else was waited for.
        took: Option<Duration>,
        /// It took the token that was sent along: whoever gives those has given a good one.
        with_token: bool,
    },
    /// 429: it wants to be left in peace for so long.
    Limited(Duration),
    /// It did not.
    Failed(Trouble, String),
}

/// How a registry fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Nobody answers there, or not in time.
    Unreachable,
    /// Its certificate is not trusted.
    Untrusted,
    /// It answers with errors.
    Failing,
}

impl Trouble {
    /// The word for it in the control API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Failing => "failing",
        }
    }
}

/// Is told what happens on the wire. Called from within requests: must not block.
pub trait Observer: Send + Sync + 'static {
    /// One HTTP request ended, at the registry or wherever it led: redirects and tokens count as requests of their own.
    fn request(&self, registry: &Registry, kind: RequestKind, outcome: RequestOutcome) {
        let _ = (registry, kind, outcome);
    }

    /// A registry was asked at one of its endpoints, and this is what came of it.
    fn heard(&self, registry: &Registry, heard: Heard) {
        let _ = (registry, heard);
    }

    /// A registry told its quota.
    fn rate_limit(&self, registry: &Registry, quota: RateLimit) {
        let _ = (registry, quota);
    }

    /// So many wait for their turn at a registry.
    fn queue(&self, registry: &Registry, lane: Lane, waiting: usize) {
        let _ = (registry, lane, waiting);
    }

    /// Somebody has waited so long for a turn; `hurried`: and went without one.
    fn waited(&self, registry: &Registry, lane: Lane, waited: Duration, hurried: bool) {
        let _ = (registry, lane, waited, hurried);
    }

    /// A pull was held back so long for the sake of the registry's quota.
    fn held_back(&self, registry: &Registry, held: Duration) {
        let _ = (registry, held);
    }

    /// An endpoint of a registry is given up for now, or asked again.
    fn circuit(&self, registry: &Registry, open: bool) {
        let _ = (registry, open);
    }
}

/// Nobody counts.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {}
