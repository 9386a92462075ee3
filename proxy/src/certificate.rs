//! The certificate that a proxy shows to those whom it serves over TLS, from files that may change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a certificate is not used.
#[derive(Debug, Error)]
pub enum CertificateError {
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

/// Certificate and key, read again when they change.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the files (PEM; the certificate first, then those that vouch for it). An error is one to stop for.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let current = ArcSwap::from_pointee(read(certificate, key)?);
        Ok(Arc::new(Self { chain: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Reads the files again. Blocks. Both are of one pair, or nothing changes.
    pub fn load(&self) -> Result<(), CertificateError> {
        let read = read(&self.chain, &self.key)?;
        if self.current.load().cert != read.cert {
            tracing::info!(path = %self.chain.display(), "certificate read");
            self.current.store(Arc::new(read));
        }
        Ok(())
    }

    /// For connections: HTTP/1.1 over TLS 1.2 and 1.3.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| CertificateError::Read { path, error }
    };
    let wrong = |path: &Path, reason: String| CertificateError::Wrong { path: path.to_owned(), reason };
    let pem = std::fs::read(certificate).map_err(io(certificate))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .map(|one| one.map(CertificateDer::into_owned))
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(certificate, format!("it is no certificate in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "it holds no certificate in PEM".to_owned()));
    }
    let pem = Zeroizing::new(std::fs::read(key).map_err(io(key))?);
    // What the parser says might show a piece of it.
    let parsed =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong(key, "it holds no private key in PEM".to_owned()))?;
    let read = CertifiedKey::from_der(chain, parsed, &aws_lc_rs::default_provider());
    let read = read.map_err(|error| wrong(key, format!("it does not go with {}: {error}", certificate.display())))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use larder_test_origin::private_certificate;

    use super::*;

    #[test]
    fn a_pair_is_taken_as_one_and_a_file_that_turns_bad_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (first, second) = (private_certificate(&["127.0.0.1"]), private_certificate(&["127.0.0.1"]));
        std::fs::write(&certificate, &first.certificate).unwrap();
        assert!(Certificate::open(&certificate, &key).unwrap_err().to_string().contains("tls.key: No such file"));
        std::fs::write(&key, &first.key).unwrap();
        let served = Certificate::open(&certificate, &key).unwrap();
        let shown = served.current.load().cert.clone();
        // Between the two writes of a change.
        std::fs::write(&certificate, &second.certificate).unwrap();
        assert!(served.load().unwrap_err().to_string().contains("it does not go with"));
        assert_eq!(served.current.load().cert, shown);
        std::fs::write(&key, &second.key).unwrap();
        served.load().unwrap();
        assert_ne!(served.current.load().cert, shown);
        for (path, text) in [(&certificate, ""), (&key, "nonsense")] {
            let before = std::fs::read(path).unwrap();
            std::fs::write(path, text).unwrap();
            assert!(served.load().unwrap_err().to_string().contains("in PEM"), "{}", path.display());
            std::fs::write(path, before).unwrap();
        }
    }
}
