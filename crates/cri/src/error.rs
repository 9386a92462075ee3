//! Why a call to the engine failed: not reached, not answered in time, or refused by the engine itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Code, Status};

/// An engine's message may carry a whole answer of a registry.
const MESSAGE_LIMIT: usize = 4096;

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CriError {
    /// The path cannot be that of a socket.
    #[error("{} cannot be a socket's path: {reason}", socket.display())]
    SocketPath {
        /// As it was given.
        socket: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens on the socket, or the connection broke while the call was under way.
    #[error("no connection to the engine at {} for {call}: {reason}", socket.display())]
    Connection {
        /// The engine's socket.
        socket: PathBuf,
        /// The CRI method.
        call: &'static str,
        /// The innermost cause, as the operating system or HTTP/2 says it.
        reason: String,
    },
    /// The engine gave no answer in time. It was told that nobody waits for one any more.
    #[error("the engine at {} gave no answer to {call} within {after:?}", socket.display())]
    TimedOut {
        /// The engine's socket.
        socket: PathBuf,
        /// The CRI method.
        call: &'static str,
        /// The limit that the call had.
        after: Duration,
    },
    /// The engine's own answer. For a pull the message says what the registries said.
    #[error("the engine at {} answered {call} with {code:?}: {message}", socket.display())]
    Refused {
        /// The engine's socket.
        socket: PathBuf,
        /// The CRI method.
        call: &'static str,
        /// The gRPC status.
        code: Code,
        /// At most 4096 bytes of the engine's message.
        message: String,
    },
}

impl CriError {
    pub(crate) fn from_status(socket: &Path, call: &'static str, status: &Status) -> Self {
        let socket = socket.to_owned();
        match std::error::Error::source(status) {
            // Only what this side noticed has a cause; a status that came over the wire has none.
            Some(mut cause) => {
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                Self::Connection { socket, call, reason: cause.to_string() }
            }
            None => Self::Refused { socket, call, code: status.code(), message: bounded(status.message()) },
        }
    }

    /// Whether the engine answered at all.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

fn bounded(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_LIMIT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        let long = "é".repeat(MESSAGE_LIMIT);
        assert_eq!(bounded(&long).len(), MESSAGE_LIMIT);
        let odd = format!("x{long}");
        assert_eq!(bounded(&odd).len(), MESSAGE_LIMIT - 1);
    }
}
