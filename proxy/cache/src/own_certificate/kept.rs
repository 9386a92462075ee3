//! What the Secret holds, read and understood: authorities, the key of the one that signs, the certificate that is shown.
//!
//! Invariant: a [`Kept`] is ours and whole. What is somebody else's, or was damaged, is an error that says so, and nothing is written over it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use larder_proxy::server_certificate::Validity;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::kubernetes::api_server::Bytes;

/// The keys of the Secret; the first of the ConfigMap, too.
pub(super) const AUTHORITIES: &str = "ca.crt";
pub(super) const AUTHORITY_KEYS: &str = "ca.key";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const CERTIFICATE_KEY: &str = "tls.key";
const ALL: [&str; 4] = [AUTHORITIES, AUTHORITY_KEYS, CERTIFICATE, CERTIFICATE_KEY];

/// How our authorities are known from others.
pub(super) const ORGANIZATION: &str = "Larder";

/// Why a Secret is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unusable {
    /// It is in use for something else.
    #[error(
        "it holds {0}: it is somebody else's and is left alone; name another Secret with --own-certificate, or show that \
         certificate with --tls-certificate and --tls-key"
    )]
    Foreign(String),
    /// It was ours.
    #[error(
        "it was damaged: {0}; restore it, or empty it for a new authority to be made (nodes learn of it by the ConfigMap)"
    )]
    Damaged(String),
}

/// An authority that nodes trust.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    pub(super) certificate: String,
    pub(super) lasts: Validity,
    /// Of those that sign, or will.
    pub(super) key: Option<Secret>,
}

/// The certificate that is shown.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) certificate: String,
    pub(super) key: Secret,
    pub(super) lasts: Validity,
    pub(super) names: BTreeSet<String>,
    /// The certificate of the authority that signed it, if it is one of those that are known.
    pub(super) signed_by: Option<String>,
}

/// A key in PEM, not to be shown.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Everything of it. The first authority signs.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) authorities: Vec<Authority>,
    pub(super) serving: Serving,
}

impl Kept {
    /// Reads what a Secret holds; `None`: nothing yet.
    pub(super) fn read(data: &BTreeMap<String, Bytes>) -> Result<Option<Self>, Unusable> {
        let filled: BTreeSet<&str> =
            data.iter().filter(|(_, bytes)| !bytes.expose().is_empty()).map(|(key, _)| key.as_str()).collect();
        if let Some(other) = filled.iter().find(|key| !ALL.contains(key)) {
            return Err(Unusable::Foreign(format!("an entry {other:?}")));
        }
        if filled.is_empty() {
            return Ok(None);
        }
        let text = |key: &str| {
            let bytes = data.get(key).map(Bytes::expose).unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| Unusable::Damaged(format!("{key} is no text")))
        };
        // Whose it is comes first: a certificate of somebody else's is not a damaged one of ours.
        for key in [AUTHORITIES, CERTIFICATE] {
            if let Some(issuer) = foreign(text(key)?) {
                return Err(Unusable::Foreign(format!("a certificate in {key} that {issuer:?} vouches for")));
            }
        }
        let missing: Vec<&str> = ALL.into_iter().filter(|key| !filled.contains(key)).collect();
        if !missing.is_empty() {
            return Err(Unusable::Damaged(format!("{} is missing", missing.join(", "))));
        }
        let authorities = authorities(text(AUTHORITIES)?, text(AUTHORITY_KEYS)?)?;
        let serving = serving(text(CERTIFICATE)?, text(CERTIFICATE_KEY)?, &authorities)?;
        Ok(Some(Self { authorities, serving }))
    }

    /// As the Secret holds it.
    pub(super) fn data(&self) -> BTreeMap<String, Bytes> {
        let keys = self.authorities.iter().filter_map(|authority| authority.key.as_ref());
        let keys = Zeroizing::new(keys.map(Secret::expose).collect::<String>());
        BTreeMap::from([
            (AUTHORITIES.to_owned(), Bytes::new(self.published())),
            (AUTHORITY_KEYS.to_owned(), Bytes::new(keys.as_bytes())),
            (CERTIFICATE.to_owned(), Bytes::new(self.serving.certificate.as_bytes())),
            (CERTIFICATE_KEY.to_owned(), Bytes::new(self.serving.key.expose().as_bytes())),
        ])
    }

    /// What nodes are to trust.
    pub(super) fn published(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }
}

/// The issuer of the first certificate of a text that is not ours.
pub(super) fn foreign(text: &str) -> Option<String> {
    CertificateDer::pem_slice_iter(text.as_bytes()).flatten().find_map(|der| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let issuer = certificate.issuer();
        let ours = issuer.iter_organization().any(|name| name.as_str() == Ok(ORGANIZATION));
        (!ours).then(|| issuer.to_string())
    })
}

/// The blocks of a PEM text, each with its line ends.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        let line = line.trim_end();
        if line.starts_with("-----BEGIN ") {
            block.clear();
        }
        block.push_str(line);
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}

fn der(place: &str, pem: &str) -> Result<CertificateDer<'static>, Unusable> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| Unusable::Damaged(format!("{place}: {error}")))
}

fn authorities(certificates: &str, keys: &str) -> Result<Vec<Authority>, Unusable> {
    let mut pairs = Vec::new();
    for pem in blocks(keys).into_iter().map(Secret::new) {
        // What the parser says might show a piece of it.
        let pair = KeyPair::from_pem(pem.expose());
        let pair = pair.map_err(|_| Unusable::Damaged(format!("{AUTHORITY_KEYS} holds what is no key")))?;
        pairs.push((pair, pem));
    }
    let mut authorities = Vec::new();
    for pem in blocks(certificates) {
        let der = der(AUTHORITIES, &pem)?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|error| Unusable::Damaged(format!("{AUTHORITIES}: {error}")))?;
        let public = &certificate.public_key().subject_public_key.data;
        let key = pairs.iter().find(|(pair, _)| pair.der_bytes() == public.as_ref()).map(|(_, pem)| pem.clone());
        authorities.push(Authority { lasts: Validity::of(&certificate), key, certificate: pem });
    }
    match authorities.first() {
        Some(Authority { key: Some(_), .. }) => Ok(authorities),
        Some(_) => Err(Unusable::Damaged(format!("no key of {AUTHORITY_KEYS} is that of the first in {AUTHORITIES}"))),
        None => Err(Unusable::Damaged(format!("{AUTHORITIES} holds no certificate"))),
    }
}

fn serving(certificate: &str, key: &str, authorities: &[Authority]) -> Result<Serving, Unusable> {
    let first = blocks(certificate).into_iter().next();
    let first = first.ok_or_else(|| Unusable::Damaged(format!("{CERTIFICATE} holds no certificate")))?;
    let der = der(CERTIFICATE, &first)?;
    let (_, parsed) =
        X509Certificate::from_der(&der).map_err(|error| Unusable::Damaged(format!("{CERTIFICATE}: {error}")))?;
    let pair = KeyPair::from_pem(key);
    let pair = pair.map_err(|_| Unusable::Damaged(format!("{CERTIFICATE_KEY} holds no key")))?;
    if pair.der_bytes() != parsed.public_key().subject_public_key.data.as_ref() {
        return Err(Unusable::Damaged(format!("{CERTIFICATE_KEY} is not the key of {CERTIFICATE}")));
    }
    let mut names = BTreeSet::new();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => drop(names.insert((*name).to_owned())),
                GeneralName::IPAddress(bytes) => drop(address(bytes).map(|address| names.insert(address.to_string()))),
                _ => {}
            }
        }
    }
    let signed_by = authorities.iter().find(|authority| signs(&authority.certificate, &parsed));
    let signed_by = signed_by.map(|authority| authority.certificate.clone());
    let (certificate, key) = (certificate.to_owned(), Secret::new(key.to_owned()));
    Ok(Serving { certificate, key, lasts: Validity::of(&parsed), names, signed_by })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn signs(authority: &str, certificate: &X509Certificate<'_>) -> bool {
    let Ok(der) = der(AUTHORITIES, authority) else { return false };
    X509Certificate::from_der(&der)
        .is_ok_and(|(_, authority)| certificate.verify_signature(Some(authority.public_key())).is_ok())
}
