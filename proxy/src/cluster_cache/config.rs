//! Where the cluster cache is and how it is spoken to, as a person says it, and the files of that: read once before privileges go, and
//! again when they change.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

use crate::origin::{platform_roots, tls};
use crate::secret::{Token, may_go_in_the_clear};
use crate::small_file;

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCacheConfig {
    /// `https://larder-cache.larder.svc:7443`; plain http only without a token, or on this machine.
    pub url: Url,
    /// Certificates that its own is checked against; without it, the platform's.
    pub ca: Option<PathBuf>,
    /// Holds the token that it knows us by.
    pub token: Option<PathBuf>,
    /// Where it is asked while the name of `url` has no address.
    pub addresses: Vec<SocketAddr>,
    /// Where whoever started us leaves copies of the files ([`CA_COPY`], [`TOKEN_COPY`]): they may be his alone, and we are nobody once they change.
    pub copies: Option<PathBuf>,
}

/// Of [`ClusterCacheConfig::ca`].
pub const CA_COPY: &str = "cache-ca.pem";

/// Of [`ClusterCacheConfig::token`].
pub const TOKEN_COPY: &str = "cache-token";

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
    /// A file is not there yet, or nobody has filled it.
    #[error("{} {what}", path.display())]
    NotYet {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        what: &'static str,
    },
    /// TLS as such.
    #[error("TLS cannot be spoken: {reason}")]
    Tls {
        /// What is wrong with it.
        reason: String,
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
            "http" if self.token.is_none() || may_go_in_the_clear(&host) => Ok(()),
            "http" => wrong("the token would cross the network in the clear: use https"),
            _ => wrong("write https://HOST:PORT"),
        }
    }

    /// Blocks.
    pub(super) fn read(&self) -> Result<Read, ClusterCacheError> {
        let not_yet = |path: &Path, what| ClusterCacheError::NotYet { path: path.to_owned(), what };
        let unread = |path: &Path, error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => not_yet(path, "is not there yet"),
            _ => ClusterCacheError::Read { path: path.to_owned(), error },
        };
        let ca_pem = self.ca.as_ref().map(|path| {
            let mut text = self.text(path, CA_COPY).map_err(|error| unread(path, error))?;
            if text.trim().is_empty() {
                Err(not_yet(path, "holds no certificate yet"))
            } else {
                Ok(std::mem::take(&mut *text))
            }
        });
        let ca_pem = ca_pem.transpose()?;
        let token = match &self.token {
            Some(path) => {
                let text = self.text(path, TOKEN_COPY).map_err(|error| unread(path, error))?;
                if text.trim().is_empty() {
                    return Err(not_yet(path, "holds no token yet"));
                }
                let token = Token::new(Zeroizing::new(text.trim().to_owned()));
                if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(ClusterCacheError::Wrong {
                        path: path.clone(),
                        reason: "it holds no token: write the token alone, on one line".to_owned(),
                    });
                }
                Some(token)
            }
            None => None,
        };
        Ok(Read { ca_pem, token })
    }

    /// A file, or the copy of one that we may not read.
    fn text(&self, path: &Path, copy: &str) -> io::Result<Zeroizing<String>> {
        small_file::read_text(path).or_else(|error| match &self.copies {
            Some(copies) if error.kind() == io::ErrorKind::PermissionDenied => {
                // Who cannot read the file has to be told of the file.
                small_file::read_text(&copies.join(copy)).map_err(|_| error)
            }
            _ => Err(error),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_crosses_the_network_in_the_clear() {
        let check = |url: &str, token: bool| {
            let token = token.then(|| PathBuf::from("/token"));
            ClusterCacheConfig { url: Url::parse(url).unwrap(), ca: None, token, addresses: Vec::new(), copies: None }
                .check()
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
    fn a_token_is_one_line_and_one_that_is_not_there_yet_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let url = Url::parse("https://larder-cache:7443").unwrap();
        let config =
            ClusterCacheConfig { url, ca: None, token: Some(path.clone()), addresses: Vec::new(), copies: None };
        let said = |config: &ClusterCacheConfig| match config.read() {
            Ok(read) => read.token.unwrap().expose().to_owned(),
            Err(error) => error.to_string().replace(folder.path().to_str().unwrap(), ""),
        };
        assert_eq!(said(&config), "/token is not there yet");
        for (text, expected) in [
            ("", "/token holds no token yet"),
            ("\r\n", "/token holds no token yet"),
            ("a\nb", "/token: it holds no token: write the token alone, on one line"),
            ("\u{feff}token", "/token: it holds no token: write the token alone, on one line"),
            ("secret-token\n", "secret-token"),
            ("secret-token\r\n", "secret-token"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(said(&config), expected, "{text:?}");
        }
        // As kubelet replaces it: the link to the folder of the moment is renamed over.
        let link = folder.path().join("..data");
        for moment in ["one", "two"] {
            std::fs::create_dir(folder.path().join(moment)).unwrap();
            std::fs::write(folder.path().join(moment).join("token"), moment).unwrap();
            std::os::unix::fs::symlink(moment, folder.path().join("..new")).unwrap();
            std::fs::rename(folder.path().join("..new"), &link).unwrap();
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink("..data/token", &path).unwrap();
            assert_eq!(said(&config), moment);
        }
        let ca = ClusterCacheConfig { ca: Some(folder.path().join("ca.crt")), ..config.clone() };
        assert_eq!(said(&ca), "/ca.crt is not there yet");
        std::fs::write(folder.path().join("ca.crt"), "").unwrap();
        assert_eq!(said(&ca), "/ca.crt holds no certificate yet");
        assert_eq!(config.base().as_str(), "https://larder-cache:7443/v2/");
    }
}
