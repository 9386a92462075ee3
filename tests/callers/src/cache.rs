//! `larder-cache run`, as it was just built, in the place of a Pod: with a kubeconfig whose token is of its account.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_test_node::http::{self, free_address};
use larder_test_node::process::Process;
use larder_test_parts::own::larder_cache;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;

use crate::wait::until;

/// The name that nodes know it by.
pub const NAME: &str = "larder-cache.larder.svc";
/// Where its certificate is.
pub const SECRET: &str = "larder-cache-certificate";
/// Where nodes find who vouches for it.
pub const CONFIGMAP: &str = "larder-cache-authority";

/// What nodes have tokens for.
pub const AUDIENCE: &str = "larder-cache";

/// What whoever says what is kept has tokens for.
pub const CONTROL_AUDIENCE: &str = "larder-cache-control";

/// A running process with a folder of its own.
pub struct Cache {
    process: Option<Process>,
    kubeconfig: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    control: SocketAddr,
    words: Vec<String>,
    folder: TempDir,
}

impl Cache {
    /// Starts one. It need not answer yet.
    pub fn start(kubeconfig: &Path, words: &[&str]) -> Result<Self> {
        let mut cache = Self {
            process: None,
            kubeconfig: kubeconfig.to_owned(),
            address: free_address()?,
            admin: free_address()?,
            control: free_address()?,
            words: words.iter().map(|&word| word.to_owned()).collect(),
            folder: tempfile::tempdir()?,
        };
        cache.start_again()?;
        Ok(cache)
    }

    /// As kubelet does: the same folder.
    pub fn start_again(&mut self) -> Result<()> {
        let path = self.folder.path();
        let mut command = Command::new(larder_cache()?);
        command.arg("run").arg("--store").arg(format!("directory:{}", path.join("store").display()));
        command.args(["--listen", &self.address.to_string(), "--admin", &self.admin.to_string()]);
        command.args(["--token-audience", AUDIENCE, "--accounts", "larder/node", "--saved-keys"]);
        command.arg(path.join("saved")).args(["--own-certificate", &format!("larder/{SECRET}")]);
        command.args(["--own-certificate-names", NAME, "--authority-configmap", &format!("larder/{CONFIGMAP}")]);
        command.args(["--control", &self.control.to_string(), "--control-audience", CONTROL_AUDIENCE]);
        command.args(["--control-accounts", "larder/controller"]);
        command.args(&self.words).env("KUBECONFIG", &self.kubeconfig);
        self.process = Some(Process::start("larder-cache", path, &mut command)?);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What it said until now, all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("larder-cache.log")).unwrap_or_default()
    }

    /// Where it keeps what it needs without the API server.
    pub fn saved(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    /// A page for operators.
    pub fn page(&self, path: &str) -> Result<String> {
        Ok(http::get(self.admin, path, &[])?.text())
    }

    /// Waits until `/readyz` holds a text.
    pub fn until_it_says(&self, text: &str) -> Result<String> {
        until(&format!("/readyz says {text:?}"), || {
            let page = self.page("/readyz")?;
            anyhow::ensure!(page.contains(text), "{page}{}", self.log());
            Ok(page)
        })
    }

    /// Waits until everything is as it should be.
    pub fn until_ready(&self) -> Result<()> {
        until("the cache is ready", || {
            let page = self.page("/readyz")?;
            // How much room the disk of this machine has is of no interest here.
            let wrong = page.lines().skip(1).any(|line| !line.starts_with("degraded: store:"));
            anyhow::ensure!(page.starts_with("ready\n") && !wrong, "{page}{}", self.log());
            Ok(())
        })
    }

    /// The status of an answer to whoever has this token, trusts this authority, and asks by name; and the certificate that was shown.
    pub fn ask(&self, authority: &str, token: &str) -> Result<(u16, Vec<u8>)> {
        ask_as(NAME, self.address, "/v2/", authority, token)
    }

    /// The status of an answer to a question for content.
    pub fn ask_for(&self, path: &str, authority: &str, token: &str) -> Result<u16> {
        Ok(ask_as(NAME, self.address, path, authority, token)?.0)
    }

    /// The status of an answer of the control API.
    pub fn ask_control(&self, authority: &str, token: &str) -> Result<u16> {
        Ok(ask_as(NAME, self.control, "/v1/pins", authority, token)?.0)
    }
}

/// The status of an answer to a GET of whoever has this token, trusts this authority, and asks by this name; and the certificate that was shown.
pub fn ask_as(
    name: &'static str,
    address: SocketAddr,
    path: &str,
    authority: &str,
    token: &str,
) -> Result<(u16, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
    let mut stream = StreamOwned::new(connection, stream);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = std::str::from_utf8(answer.get(9..12).context("an answer without a status")?)?.parse()?;
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).context("no certificate")?.to_vec();
    Ok((status, shown))
}
