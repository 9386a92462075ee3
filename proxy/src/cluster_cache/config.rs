//! Where the cluster cache is and how it is spoken to, as a person says it, and the files of that: read once before privileges go, and
//! again when they change.

use std::io;
use std::path::{Path, PathBuf};

use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::authorities;
use crate::origin::{platform_roots, tls};
use crate::secret::{self, Token};

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCacheConfig {
    /// `https://larder-cache.larder.svc:7443`; plain http only without a token, or on this machine.
    pub url: Url,
    /// Certificates that its own is checked against; without it, the platform's.
    pub ca: Option<PathBuf>,
    /// Holds the token that it knows us by.
    pub token: Option<PathBuf>,
}

/// Why it cannot be used. Each of them is for a person to mend.
#[derive(Debug, Error)]
pub enum ClusterCacheError {
    /// The URL.
    #[error("--cache {url}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file cannot be read.
    #[error("read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) ca_pem: Option<String>,
    pub(super) token: Option<Token>,
}

impl ClusterCacheConfig {
    /// Checks what was said. The path below which it answers may be given; everything else of a URL makes no sense.
    pub fn check(&self) -> Result<(), ClusterCacheError> {
        let wrong = |reason| Err(ClusterCacheError::Url { url: self.url.to_string(), reason });
        let Some(host) = self.url.host() else { return wrong("write https://HOST:PORT") };
        if !self.url.username().is_empty() || self.url.password().is_some() || self.url.query().is_some() {
            return wrong("write https://HOST:PORT; the token goes into a file (--cache-token-file)");
        }
        match self.url.scheme() {
            "https" => Ok(()),
            "http" if self.token.is_none() || is_this_machine(&host) => Ok(()),
            "http" => wrong("the token would cross the network in the clear: use https"),
            _ => wrong("write https://HOST:PORT"),
        }
    }

    /// Blocks.
    pub(super) fn read(&self) -> Result<Read, ClusterCacheError> {
        let unread = |path: &Path, error| ClusterCacheError::Read { path: path.to_owned(), error };
        let ca_pem = self.ca.as_ref().map(|path| authorities::read(path).map_err(|error| unread(path, error)));
        let ca_pem = ca_pem.transpose()?;
        let token = match &self.token {
            Some(path) => {
                let text = secret::read(path).map_err(|error| unread(path, error))?;
                let token = Token::new(Zeroizing::new(text.trim().to_owned()));
                if token.expose().is_empty() || token.header().is_none() {
                    return Err(ClusterCacheError::Wrong {
                        path: path.clone(),
                        reason: "it holds no token".to_owned(),
                    });
                }
                Some(token)
            }
            None => None,
        };
        Ok(Read { ca_pem, token })
    }

    /// How connections are checked.
    pub(super) fn tls(&self, ca_pem: Option<&str>) -> Result<ClientConfig, ClusterCacheError> {
        let roots = if ca_pem.is_some() { RootCertStore::empty() } else { platform_roots() };
        tls::client_config(&roots, ca_pem, false).map_err(|error| ClusterCacheError::Wrong {
            path: self.ca.clone().unwrap_or_default(),
            reason: error.to_string(),
        })
    }

    /// What requests begin with.
    pub(super) fn base(&self) -> Url {
        let mut base = self.url.clone();
        base.set_path(&format!("{}/v2/", self.url.path().trim_end_matches('/')));
        base.set_fragment(None);
        base
    }
}

fn is_this_machine(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(name) => *name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_crosses_the_network_in_the_clear() {
        let check = |url: &str, token: bool| {
            let token = token.then(|| PathBuf::from("/token"));
            ClusterCacheConfig { url: Url::parse(url).unwrap(), ca: None, token }.check()
        };
        for (url, with_token, without) in [
            ("https://larder-cache.larder.svc:7443", true, true),
            ("https://10.0.0.1:7443/below", true, true),
            ("http://127.0.0.1:7443", true, true),
            ("http://[::1]:7443", true, true),
            ("http://larder-cache.larder.svc:7443", false, true),
            ("ftp://larder-cache", false, false),
            ("https://name:password@larder-cache", false, false),
        ] {
            assert_eq!((check(url, true).is_ok(), check(url, false).is_ok()), (with_token, without), "{url}");
        }
    }

    #[test]
    fn an_empty_token_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let url = Url::parse("https://larder-cache:7443").unwrap();
        let config = ClusterCacheConfig { url, ca: None, token: Some(path.clone()) };
        assert!(config.read().err().unwrap().to_string().contains("token: No such file"));
        for (text, is_one) in [("", false), ("\n", false), ("a\nb", false), ("secret-token\n", true)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(config.read().is_ok(), is_one, "{text:?}");
        }
        assert_eq!(config.base().as_str(), "https://larder-cache:7443/v2/");
    }
}
