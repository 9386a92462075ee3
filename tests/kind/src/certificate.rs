//! The private authority that the nodes trust, and the certificate of the registry beside the cluster. Made once, for ten years or so,
//! because the nodes' images hold the authority.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::{Key, once};
use crate::machine::Machine;

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The folder, whose name ends in a key over the names.
    pub folder: PathBuf,
    /// The authority's certificate: what a client has to trust.
    pub authority: PathBuf,
}

/// The name of the server's certificate in the folder.
pub const CERTIFICATE: &str = "server.pem";
/// The name of its key.
pub const KEY: &str = "server.key";

/// A certificate for these names, found in the cache or made.
pub fn certificate(machine: &Machine, names: &[&str]) -> Result<Certificate> {
    let key = names.iter().fold(Key::default().with("1"), Key::with).finish();
    let folder = once(&machine.folder, "certificate", &key, |folder| make(names, folder))?;
    Ok(Certificate { authority: folder.join("authority.pem"), folder })
}

fn make(names: &[&str], folder: &Path) -> Result<()> {
    let authority_key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Larder test authority");
    let authority = parameters.self_signed(&authority_key)?;
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    for (name, text) in
        [("authority.pem", authority.pem()), (CERTIFICATE, certificate.pem()), (KEY, key.serialize_pem())]
    {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}
