//! Where the cluster cache's control API is and who we are there, as a person says it.

use std::path::PathBuf;

use larder_process::secret::may_go_in_the_clear;
use thiserror::Error;
use url::Url;

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCacheConfig {
    /// `https://larder-cache.larder.svc:7445`; plain http only on this machine.
    pub url: Url,
    /// A name whose addresses are those of its replicas, where the URL's is that of a Service in front of them.
    pub replicas: Option<String>,
    /// Certificates that its own is checked against.
    pub ca: Option<PathBuf>,
    /// Holds the token that it knows us by.
    pub token: PathBuf,
    /// In whose name images are kept: 1 to 63 of `a-z`, `0-9`, `.`, `-`.
    pub holder: String,
}

/// What makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The URL.
    #[error("--cache {url}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The holder.
    #[error("--holder {holder:?}: write 1 to 63 of a-z, 0-9, '.' and '-'; pull is taken")]
    Holder {
        /// What was given.
        holder: String,
    },
}

impl ClusterCacheConfig {
    /// Checks what was said.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |reason| Err(ConfigError::Url { url: self.url.to_string(), reason });
        let Some(host) = self.url.host() else { return wrong("write https://HOST:7445") };
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return wrong("write https://HOST:7445; the token goes into a file (--cache-token-file)");
        }
        if self.url.query().is_some() || self.url.fragment().is_some() {
            return wrong("write https://HOST:7445 without '?' and '#'");
        }
        match self.url.scheme() {
            "https" if self.ca.is_none() => {
                return wrong(
                    "say who vouches for its certificate: --cache-ca FILE (ca.crt of the ConfigMap larder-cache-authority)",
                );
            }
            "https" => {}
            "http" if may_go_in_the_clear(&host) => {}
            "http" => return wrong("the token would cross the network in the clear: use https"),
            _ => return wrong("write https://HOST:7445"),
        }
        let fits = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        if !(1..=63).contains(&self.holder.len()) || !fits(&self.holder) || self.holder == "pull" {
            return Err(ConfigError::Holder { holder: self.holder.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(url: &str, ca: bool, holder: &str) -> Result<(), String> {
        let ca = ca.then(|| "/ca.pem".into());
        let config = ClusterCacheConfig {
            url: url.parse().unwrap(),
            replicas: None,
            ca,
            token: "/token".into(),
            holder: holder.to_owned(),
        };
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_crosses_no_network_in_the_clear_and_every_error_says_what_to_write() {
        assert_eq!(said("https://larder-cache.larder.svc:7445", true, "larder-controller"), Ok(()));
        assert_eq!(said("http://127.0.0.1:7445/below", false, "me"), Ok(()));
        assert_eq!(said("http://[::1]:7445", false, "me"), Ok(()));
        for (url, ca, holder, part) in [
            ("http://larder-cache:7445", false, "me", "in the clear"),
            ("https://larder-cache:7445", false, "me", "--cache-ca"),
            ("https://me:secret@larder-cache:7445", true, "me", "--cache-token-file"),
            ("https://larder-cache:7445/?a=b", true, "me", "without '?'"),
            ("ftp://larder-cache", true, "me", "https://HOST:7445"),
            ("unix:/run/cache", true, "me", "https://HOST:7445"),
            ("https://larder-cache:7445", true, "pull", "--holder"),
            ("https://larder-cache:7445", true, "", "--holder"),
            ("https://larder-cache:7445", true, "a/b", "--holder"),
        ] {
            let error = said(url, ca, holder).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
