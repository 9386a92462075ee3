//! Callers by a file of tokens, one a line: for use outside of Kubernetes.
//!
//! `NAME TOKEN`, blank lines and what follows `#` at the beginning of a line left out. What is kept of a token is a keyed hash (the key is
//! random and this process's own), so comparing tells nobody how much of a guess was right, and all lines are compared each time.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use hmac::Mac as _;
use thiserror::Error;

use crate::secret::{Token, TokenHasher};
use crate::server::gate::{Caller, Callers, Unaccepted};
use crate::small_file;

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Why a file of tokens is not used.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("read token file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line is wrong. What it holds is not said.
    #[error("token file {}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no caller in it.
    #[error("token file {} names nobody: write NAME TOKEN, one a line", path.display())]
    Nobody {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// Callers of a file.
pub struct StaticTokens {
    path: PathBuf,
    hasher: TokenHasher,
    known: ArcSwap<Vec<Known>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    hash: [u8; 32],
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StaticTokens {
    /// Reads the file; an error is one to stop for.
    pub fn open(path: &Path) -> Result<Arc<Self>, TokenFileError> {
        let hasher = TokenHasher::random().ok_or(TokenFileError::Random)?;
        let tokens = Self { path: path.to_owned(), hasher, known: ArcSwap::default() };
        tokens.load()?;
        Ok(Arc::new(tokens))
    }

    /// Reads the file again. Blocks.
    pub fn load(&self) -> Result<(), TokenFileError> {
        let path = || self.path.clone();
        let text = small_file::read_text(&self.path).map_err(|error| TokenFileError::Read { path: path(), error })?;
        let mut known = Vec::new();
        let mut names = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |reason| TokenFileError::Line { path: path(), line: number + 1, reason };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("write NAME TOKEN"));
            };
            if token.len() < SHORTEST {
                return Err(wrong("a token has at least 16 characters, for example of `openssl rand -hex 32`"));
            }
            if !names.insert(name) {
                return Err(wrong("this caller has a line already"));
            }
            let hash = self.hasher.hash(token).ok_or_else(|| wrong("it cannot be used"))?;
            known.push(Known { name: name.to_owned(), hash });
        }
        if known.is_empty() {
            return Err(TokenFileError::Nobody { path: path() });
        }
        if **self.known.load() != known {
            tracing::info!(path = %self.path.display(), callers = known.len(), "tokens read");
            self.known.store(Arc::new(known));
        }
        Ok(())
    }

    fn find(&self, token: &Token) -> Option<Caller> {
        let given = self.hasher.keyed(token.expose())?;
        let mut found = None;
        for known in self.known.load().iter() {
            // In constant time, and to the end of the list.
            if given.clone().verify_slice(&known.hash).is_ok() {
                found = Some(Caller { name: known.name.clone() });
            }
        }
        found
    }
}

impl Callers for StaticTokens {
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Unaccepted>> {
        Box::pin(std::future::ready(self.find(token).ok_or(Unaccepted::Unknown)))
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn caller(tokens: &StaticTokens, token: &str) -> Option<String> {
        tokens.find(&Token::new(Zeroizing::new(token.to_owned()))).map(|caller| caller.name)
    }

    #[test]
    fn who_has_which_token_and_a_file_that_turns_bad_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, "# nodes\nnode-1 0123456789abcdef\n\n node-2\tfedcba9876543210 \n").unwrap();
        let tokens = StaticTokens::open(&path).unwrap();
        assert_eq!(caller(&tokens, "0123456789abcdef").as_deref(), Some("node-1"));
        assert_eq!(caller(&tokens, "fedcba9876543210").as_deref(), Some("node-2"));
        for wrong in ["", "0123456789abcdeF", "0123456789abcdef ", "node-1", "# nodes"] {
            assert_eq!(caller(&tokens, wrong), None, "{wrong}");
        }
        for (text, part) in [
            ("node-1", "line 1: write NAME TOKEN"),
            ("node-1 0123456789abcdef more", "line 1: write NAME TOKEN"),
            ("\nnode-1 short", "line 2: a token has at least 16"),
            ("a 0123456789abcdef\na 0123456789abcdef", "line 2: this caller has a line already"),
            ("# nobody", "names nobody"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = tokens.load().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("0123456789"), "{error}");
        }
        assert_eq!(caller(&tokens, "0123456789abcdef").as_deref(), Some("node-1"));
        std::fs::write(&path, "node-1 another-token-of-it").unwrap();
        tokens.load().unwrap();
        assert_eq!(caller(&tokens, "0123456789abcdef"), None);
        assert_eq!(caller(&tokens, "another-token-of-it").as_deref(), Some("node-1"));
        assert!(!format!("{tokens:?}").contains("another"));
    }
}
