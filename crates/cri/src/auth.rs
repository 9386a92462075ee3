//! Credentials that go along with a pull. They are shown nowhere, and what is kept here is zeroed when dropped.
//!
//! The engine hands them to whoever asks for them with a 401, the first mirror included (`ServerAddress` is empty, as kubelet leaves
//! it), so a caller passes what it would pass to that mirror.

use std::fmt;

use zeroize::Zeroizing;

use crate::runtime_v1;

/// A user name and password for one pull.
#[derive(Clone)]
pub struct Auth {
    username: String,
    password: Zeroizing<String>,
}

impl Auth {
    /// Credentials as an image pull secret has them.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: Zeroizing::new(password.into()) }
    }

    pub(crate) fn message(&self) -> runtime_v1::AuthConfig {
        runtime_v1::AuthConfig {
            username: self.username.clone(),
            password: self.password.to_string(),
            ..runtime_v1::AuthConfig::default()
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Debug for runtime_v1::AuthConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let auth = Auth::new("someone", "hunter2");
        let shown = format!("{auth:?} {:?}", auth.message());
        assert!(shown.contains("someone") && !shown.contains("hunter2"), "{shown}");
    }
}
