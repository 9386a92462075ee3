//! The certificate that a proxy shows to those whom it serves over TLS: of files that may change, or of whoever makes it.
//!
//! Invariant: certificate and key are of one pair, or nothing changes. While there is none at all, every handshake is refused at once, so
//! that nobody waits and nothing is said in the clear.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::small_file;

/// Why a certificate is not used.
#[derive(Debug, Error)]
pub enum ServerCertificateError {
    /// A file cannot be read.
    #[error("read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{place}: {reason}")]
    Wrong {
        /// The file, or what else it is of.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Certificate and key, replaced when they change.
#[derive(Debug)]
pub struct ServerCertificate {
    files: Option<Files>,
    current: ArcSwapOption<Shown>,
}

#[derive(Debug)]
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// One pair.
#[derive(Debug)]
struct Shown {
    pair: Arc<CertifiedKey>,
    validity: Validity,
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before that.
    pub from: SystemTime,
    /// Not after that.
    pub until: SystemTime,
}

impl Validity {
    /// What it says of itself; seconds before 1970 count as 1970.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let time = |seconds: i64| {
            let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let given = certificate.validity();
        Self { from: time(given.not_before.timestamp()), until: time(given.not_after.timestamp()) }
    }

    /// Whether it holds now.
    pub fn holds(self, now: SystemTime) -> bool {
        self.from <= now && now < self.until
    }

    /// Whether so many thirds of its time have gone.
    pub fn past(self, thirds: u32, now: SystemTime) -> bool {
        let whole = self.until.duration_since(self.from).unwrap_or(Duration::ZERO);
        self.from.checked_add(whole / 3 * thirds).is_none_or(|then| then <= now)
    }

    /// What a person should know about it: it does not hold now, or a tenth of its time is all that is left.
    pub fn trouble(self, now: SystemTime) -> Option<String> {
        let Self { from, until } = self;
        if now < from {
            return Some(format!(
                "the certificate is not valid before {}; does the clock of this machine go right?",
                date(from)
            ));
        }
        let Ok(left) = until.duration_since(now) else {
            return Some(format!("the certificate expired on {}", date(until)));
        };
        let whole = until.duration_since(from).unwrap_or(Duration::ZERO);
        (left < whole / 10).then(|| format!("the certificate expires on {}", date(until)))
    }
}

/// As people and logs read it.
fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

impl ServerCertificate {
    /// Reads the files (PEM; the certificate first, then those that vouch for it). An error is one to stop for.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, ServerCertificateError> {
        let current = ArcSwapOption::from_pointee(read(certificate, key)?);
        let files = Some(Files { chain: certificate.to_owned(), key: key.to_owned() });
        Ok(Arc::new(Self { files, current }))
    }

    /// None yet: somebody hands it over later ([`ServerCertificate::show`]).
    pub fn none_yet() -> Arc<Self> {
        Arc::new(Self { files: None, current: ArcSwapOption::empty() })
    }

    /// Reads the files again, if it is of files. Blocks.
    pub fn load(&self) -> Result<(), ServerCertificateError> {
        let Some(Files { chain, key }) = &self.files else { return Ok(()) };
        if self.replace(read(chain, key)?) {
            tracing::info!(path = %chain.display(), "certificate read");
        }
        Ok(())
    }

    /// From now on this pair is shown (PEM); connections that are open go on. True if it is another one than before. `place` is where it
    /// is from, for the error.
    pub fn show(&self, place: &str, certificate: &[u8], key: &[u8]) -> Result<bool, ServerCertificateError> {
        Ok(self.replace(parsed((place, certificate), (place, key))?))
    }

    fn replace(&self, new: Shown) -> bool {
        let same = self.current.load().as_ref().is_some_and(|current| current.pair.cert == new.pair.cert);
        if !same {
            self.current.store(Some(Arc::new(new)));
        }
        !same
    }

    /// From when until when the one holds that is shown; `None` while there is none.
    pub fn validity(&self) -> Option<Validity> {
        self.current.load().as_ref().map(|shown| shown.validity)
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

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|shown| Arc::clone(&shown.pair))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Shown, ServerCertificateError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| ServerCertificateError::Read { path, error }
    };
    let (chain, secret) =
        (small_file::read(certificate).map_err(io(certificate))?, small_file::read(key).map_err(io(key))?);
    parsed((&certificate.display().to_string(), &chain), (&key.display().to_string(), &secret))
}

/// Each with the place that it is from.
fn parsed(chain: (&str, &[u8]), key: (&str, &[u8])) -> Result<Shown, ServerCertificateError> {
    let ((certificate, chain), (key, secret)) = (chain, key);
    let wrong = |place: &str, reason: String| ServerCertificateError::Wrong { place: place.to_owned(), reason };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .map(|one| one.map(CertificateDer::into_owned))
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(certificate, format!("it is no certificate in PEM: {error}")))?;
    let first = chain.first().ok_or_else(|| wrong(certificate, "it holds no certificate in PEM".to_owned()))?;
    let validity = validity(first).map_err(|reason| wrong(certificate, reason))?;
    // What the parser says might show a piece of it.
    let secret =
        PrivateKeyDer::from_pem_slice(secret).map_err(|_| wrong(key, "it holds no private key in PEM".to_owned()))?;
    let pair = CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider());
    let pair = pair.map_err(|error| wrong(key, format!("it does not go with {certificate}: {error}")))?;
    Ok(Shown { pair: Arc::new(pair), validity })
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| format!("its certificate is damaged: {error}"))?;
    Ok(Validity::of(&parsed))
}

#[cfg(test)]
mod tests {
    use larder_test_origin::private_certificate;

    use super::*;

    fn shown_by(served: &ServerCertificate) -> Vec<CertificateDer<'static>> {
        served.current.load().as_ref().unwrap().pair.cert.clone()
    }

    #[test]
    fn a_tenth_of_its_time_before_its_end_a_person_is_told() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_hours(24 * days);
        let validity = Validity { from: at(100), until: at(190) };
        assert!(validity.trouble(at(99)).unwrap().contains("not valid before Sat, 11 Apr 1970"));
        assert_eq!(validity.trouble(at(100)), None);
        assert_eq!(validity.trouble(at(181)), None);
        assert_eq!(
            validity.trouble(at(182)).as_deref(),
            Some("the certificate expires on Fri, 10 Jul 1970 00:00:00 GMT")
        );
        assert!(validity.trouble(at(191)).unwrap().starts_with("the certificate expired on"));
    }

    #[test]
    fn what_is_handed_over_is_shown_and_what_is_no_pair_changes_nothing() {
        let (first, second) = (private_certificate(&["a.example"]), private_certificate(&["a.example"]));
        let served = ServerCertificate::none_yet();
        assert_eq!(served.validity(), None);
        assert!(served.show("the Secret", first.certificate.as_ref(), first.key.as_ref()).unwrap());
        let (shown, validity) = (shown_by(&served), served.validity().unwrap());
        assert!(validity.from < SystemTime::now() && SystemTime::now() < validity.until);
        assert!(!served.show("the Secret", first.certificate.as_ref(), first.key.as_ref()).unwrap());
        let error = served.show("the Secret", second.certificate.as_ref(), first.key.as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("the Secret: it does not go with"), "{error}");
        assert_eq!(shown_by(&served), shown);
    }

    #[test]
    fn a_pair_is_taken_as_one_and_a_file_that_turns_bad_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (first, second) = (private_certificate(&["127.0.0.1"]), private_certificate(&["127.0.0.1"]));
        std::fs::write(&certificate, &first.certificate).unwrap();
        assert!(ServerCertificate::open(&certificate, &key).unwrap_err().to_string().contains("tls.key: No such file"));
        std::fs::write(&key, &first.key).unwrap();
        let served = ServerCertificate::open(&certificate, &key).unwrap();
        let shown = shown_by(&served);
        // Between the two writes of a change.
        std::fs::write(&certificate, &second.certificate).unwrap();
        assert!(served.load().unwrap_err().to_string().contains("it does not go with"));
        assert_eq!(shown_by(&served), shown);
        std::fs::write(&key, &second.key).unwrap();
        served.load().unwrap();
        assert_ne!(shown_by(&served), shown);
        for (path, text) in [(&certificate, ""), (&key, "nonsense")] {
            let before = std::fs::read(path).unwrap();
            std::fs::write(path, text).unwrap();
            assert!(served.load().unwrap_err().to_string().contains("in PEM"), "{}", path.display());
            std::fs::write(path, before).unwrap();
        }
    }
}
