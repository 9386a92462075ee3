//! Why the cluster cache did not do what it was asked, whose fault that is, and whether asking again helps.

use std::path::PathBuf;

use thiserror::Error;

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The cluster cache, or the way to it.
    Cache,
    /// Whoever set us up: a file, a token, an address.
    Settings,
    /// We asked for what is not given.
    Question,
}

/// Why something is not given or kept, in a word of the control API's (docs/control-api.md). Words that are not known here are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It needs credentials.
    Private,
    /// The registry does not have it.
    NotFound,
    /// Settings or rules of the cache do not allow it.
    NotPermitted,
    /// It is there for none of the platforms.
    NoPlatform,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// Why it did not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CacheError {
    /// No replica answers, or they say that they cannot now.
    #[error("the cluster cache {url} does not answer: {reason}")]
    Away {
        /// As it was given.
        url: String,
        /// Of the last replica that was asked.
        reason: String,
    },
    /// It does not know our token.
    #[error(
        "the cluster cache {url} does not know the token in {} (401): is its account among --control-accounts, and the token for \
         --control-audience? {reason}", token.display()
    )]
    Unknown {
        /// As it was given.
        url: String,
        /// Where the token is.
        token: PathBuf,
        /// Its words.
        reason: String,
    },
    /// A file that says how to speak to it cannot be used, and none was read before.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It understood and does not do it.
    #[error("the cluster cache refuses ({status}): {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why, in a word of the control API's.
        code: Option<Code>,
        /// Its words.
        reason: String,
    },
    /// A pin is not complete, so nothing is declared yet.
    #[error("not all pins are complete yet: {reason}")]
    Incomplete {
        /// Its words.
        reason: String,
    },
    /// It answers what it should not.
    #[error(
        "the cluster cache answers what cannot be understood: {reason}; is it of the same release as this program?"
    )]
    Strange {
        /// What is wrong with it.
        reason: String,
    },
}

impl CacheError {
    /// Who has to do something about it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Away { .. } | Self::Strange { .. } => Fault::Cache,
            Self::Unknown { .. } | Self::File { .. } => Fault::Settings,
            Self::Refused { .. } | Self::Incomplete { .. } => Fault::Question,
        }
    }

    /// Whether the same may be answered another time. A token is renewed, a file is filled, a fetch ends.
    pub fn is_worth_retrying(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// Whether nothing at all can be asked now, of whatever image.
    pub fn is_of_the_whole_cache(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Unknown { .. } | Self::File { .. })
    }
}
