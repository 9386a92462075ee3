//! Certificates of private authorities as people write them (PEM) → what a TLS connection can trust.
//!
//! Invariant: what comes out was parsed as rustls will use it, so nothing that a person wrote can fail later, at a pull.

use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use thiserror::Error;

use crate::small_file;

/// Why a text vouches for nobody. Whoever wrote it has to mend it.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A block that is none.
    #[error("its certificate {number} is no PEM: {error}")]
    Pem {
        /// Counted from 1.
        number: usize,
        /// What the parser said.
        error: pem::Error,
    },
    /// PEM around something that is no certificate.
    #[error("its certificate {number} is damaged: {reason}")]
    Damaged {
        /// Counted from 1.
        number: usize,
        /// What the parser said.
        reason: String,
    },
    /// Nothing at all.
    #[error("it holds no certificate (-----BEGIN CERTIFICATE-----)")]
    None,
}

/// All certificates of `pem`, of which there has to be one at least.
pub fn authorities(pem: &str) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem.as_bytes())) {
        let certificate = certificate.map_err(|error| CertificateError::Pem { number, error })?;
        roots.add(certificate).map_err(|error| CertificateError::Damaged { number, reason: reason(&error) })?;
    }
    if roots.is_empty() { Err(CertificateError::None) } else { Ok(roots) }
}

/// rustls speaks of a peer, which there is none of here.
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => format!("{error:?}"),
        other => other.to_string(),
    }
}

/// Why a file vouches for nobody.
#[derive(Debug, Error)]
pub enum CertificateFileError {
    /// It is not there, not readable, or no text.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// It was read.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
}

/// All certificates of a file, of which there has to be one at least.
pub fn authorities_of(path: &Path) -> Result<RootCertStore, CertificateFileError> {
    Ok(authorities(&read(path).map_err(CertificateFileError::Read)?)?)
}

/// The text of a file of certificates.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    small_file::read_text(path).map(|mut text| std::mem::take(&mut *text))
}

/// One that is sound, for tests.
#[cfg(test)]
pub(crate) const SOUND: &str = include_str!("authorities/sound.pem");

#[cfg(test)]
mod tests {
    use super::{CertificateError, SOUND, authorities};

    #[test]
    fn a_text_is_certificates_or_it_is_said_which_is_wrong() {
        assert_eq!(authorities(&format!("a comment\n{SOUND}{SOUND}")).unwrap().len(), 2);
        let block = |inside: &str| format!("{SOUND}-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n");
        assert!(matches!(authorities(&block("!!!")), Err(CertificateError::Pem { number: 2, .. })));
        assert!(matches!(authorities(&block("AAAA")), Err(CertificateError::Damaged { number: 2, .. })));
        assert!(matches!(authorities("nothing"), Err(CertificateError::None)));
        let cut = &SOUND[..SOUND.len() / 2];
        assert!(authorities(cut).is_err(), "a file that was cut");
    }
}
