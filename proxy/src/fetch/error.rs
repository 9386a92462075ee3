//! Why a fetch gives nothing, or not all.

use larder_oci::Digest;

use crate::source::SourceError;

/// Why a blob could not be fetched. Cheap to clone: all readers of an assembly get the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The origin's fault, or its right: it does not give the blob, or broke off too often.
    #[error("{digest}: {error}")]
    Source {
        /// What was asked for.
        digest: Digest,
        /// What the origin said last.
        error: SourceError,
    },
    /// The origin's fault: what it sent is something else. Nothing was stored.
    #[error("{digest}: the origin sent content with the digest {got}")]
    Mismatch {
        /// What was asked for.
        digest: Digest,
        /// What came.
        got: Digest,
        /// The next try goes to somebody else.
        elsewhere: bool,
    },
    /// The origin's fault: continuing after a break it offered another entity, or another length.
    #[error("{digest}: the origin changed its mind between two requests: {what}")]
    Changed {
        /// What was asked for.
        digest: Digest,
        /// What differs.
        what: &'static str,
        /// The next try goes to somebody else.
        elsewhere: bool,
    },
    /// Larger than we fetch.
    #[error("{digest}: larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        digest: Digest,
        /// [`super::FetchLimits::blob`].
        limit: u64,
    },
    /// The origin's headers did not come in time for this request; the fetch goes on for the store.
    #[error("{digest}: no answer from the origin in time")]
    Late {
        /// What was asked for.
        digest: Digest,
    },
    /// It failed a short while ago.
    #[error("{digest}: refused for a while, since it failed a short time ago")]
    Refused {
        /// What was asked for.
        digest: Digest,
    },
    /// Nobody read it for too long, or the program stops.
    #[error("{digest}: the fetch was given up")]
    GivenUp {
        /// What was asked for.
        digest: Digest,
    },
}

impl FetchError {
    /// Whether what has arrived until then is known to be wrong, so that not another byte of it may leave.
    pub(super) fn taints(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Changed { .. })
    }

    /// Whether the next try goes to somebody else, who may do better: then there is no reason to refuse it.
    pub(super) fn is_for_somebody_else(&self) -> bool {
        matches!(self, Self::Mismatch { elsewhere: true, .. } | Self::Changed { elsewhere: true, .. })
    }

    /// What the origin said, where it was the origin.
    pub fn source_error(&self) -> Option<&SourceError> {
        match self {
            Self::Source { error, .. } => Some(error),
            _ => None,
        }
    }
}
