//! A private certificate authority and a certificate of it, also for programs that read them from files.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;

/// A certificate of an authority that nobody knows.
#[derive(Clone, Debug)]
pub struct PrivateCertificate {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

/// For these names, which may be addresses.
pub fn private_certificate(names: &[&str]) -> PrivateCertificate {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let (authority, certificate, key) = certify(&names);
    PrivateCertificate { authority, certificate: certificate.pem(), key: key.serialize_pem() }
}

/// A server configuration for `names`, and the authority's certificate in PEM.
pub(crate) fn private_authority(names: &[String]) -> (Arc<ServerConfig>, String) {
    let (authority, certificate, key) = certify(names);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (Arc::new(config), authority)
}

fn certify(names: &[String]) -> (String, rcgen::Certificate, rcgen::KeyPair) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names.to_vec()).unwrap().signed_by(&key, &issuer).unwrap();
    (authority.pem(), certificate, key)
}
