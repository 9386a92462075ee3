//! `larder-cache run`, as it was just built, with a certificate from files and a control API with tokens from a file.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use larder_oci::{Algorithm, Digest, ImageReference};
use larder_test_callers::cache::ask_as;
use larder_test_callers::wait::until;
use larder_test_node::http::free_address;
use larder_test_node::process::Process;
use larder_test_origin::private_certificate;
use larder_test_parts::own::larder_cache;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The token of nodes.
const NODE: &str = "the-nodes-token-is-another";

/// A running process with a folder of its own.
pub struct Cache {
    process: Option<Process>,
    control: SocketAddr,
    /// Where nodes pull.
    listen: SocketAddr,
    /// More of its command line.
    words: Vec<String>,
    program: PathBuf,
    folder: TempDir,
}

impl Cache {
    /// Starts one that may ask these registries without TLS.
    pub fn start(registries: &[String]) -> Result<Self> {
        Self::start_program(larder_cache()?, registries)
    }

    /// The same with another program than the one that was just built.
    pub fn start_program(program: PathBuf, registries: &[String]) -> Result<Self> {
        let settings = registries.iter().map(|registry| format!("[registries.\"{registry}\"]\ninsecure = true\n"));
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("registries.toml"), settings.collect::<String>())?;
        std::fs::write(folder.path().join("tokens"), format!("node {NODE}\n"))?;
        let (control, listen) = (free_address()?, free_address()?);
        let mut cache = Self { process: None, control, listen, words: Vec::new(), program, folder };
        cache.set_token("the-controllers-own-token")?;
        cache.set_certificate()?;
        cache.start_again()?;
        Ok(cache)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The controller's token from now on: the cache knows it, and it is in [`Self::token_file`].
    pub fn set_token(&self, token: &str) -> Result<()> {
        replace(&self.path("control-tokens"), &format!("controller {token}\n"))?;
        replace(&self.path("token"), token)
    }

    /// A certificate of a new authority, which is in [`Self::authority_file`].
    pub fn set_certificate(&self) -> Result<()> {
        let certificate = private_certificate(&["localhost", "127.0.0.1"]);
        replace(&self.path("tls.key"), &certificate.key)?;
        replace(&self.path("tls.crt"), &certificate.certificate)?;
        replace(&self.path("ca.crt"), &certificate.authority)
    }

    /// Starts it with what it had.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--store").arg(format!("directory:{}", self.path("store").display()));
        // Nothing depends on how full the machine's own disk is.
        command.args(["--store-reserve", "0"]);
        command.args(["--listen", &self.listen.to_string(), "--admin", &free_address()?.to_string()]);
        command.args(["--control", &self.control.to_string()]);
        for (flag, file) in [
            ("--control-token-file", "control-tokens"),
            ("--token-file", "tokens"),
            ("--registries", "registries.toml"),
            ("--tls-certificate", "tls.crt"),
            ("--tls-key", "tls.key"),
        ] {
            command.arg(flag).arg(self.path(file));
        }
        command.args(&self.words);
        let mut process = Process::start("larder-cache", self.folder.path(), &mut command)?;
        until("the cache serves", || {
            process.check_running()?;
            TcpStream::connect(self.control).context("no connection")
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Whose holders are whose, from the next start on: `CALLER=HOLDER`.
    pub fn set_holders(&mut self, holders: &str) {
        self.words = vec!["--control-holders".to_owned(), holders.to_owned()];
    }

    /// Has it keep each of these as it keeps `image`, as far as its pins say: the record is copied. So there are 100,000 without a fetch each.
    pub fn keep_like(&self, image: &str, others: &[String]) -> Result<()> {
        let pins = std::fs::read_dir(self.path("store/pins"))?.next().context("nobody has pinned anything")??.path();
        let path = |image: &str| {
            let hash = Digest::of(Algorithm::Sha256, image.as_bytes()).hex().to_owned();
            (pins.join(hash.get(..2).unwrap_or_default()), format!("{hash}.json"))
        };
        let (folder, name) = path(image);
        let file = folder.join(name);
        let record = std::fs::read(&file).with_context(|| format!("no pin at {}", file.display()))?;
        let mut record: Value = serde_json::from_slice(&record)?;
        for other in others {
            let (folder, name) = path(other);
            std::fs::create_dir_all(&folder)?;
            *record.get_mut("image").context("a pin names its image")? = json!(other);
            std::fs::write(folder.join(name), serde_json::to_vec(&record)?)?;
        }
        Ok(())
    }

    /// Takes a blob out of its store, as a bad disk does.
    pub fn lose(&self, blob: &Digest) -> Result<()> {
        let hex = blob.hex();
        let file = self.path("store/blobs/sha256").join(hex.get(..2).unwrap_or_default()).join(hex);
        std::fs::remove_file(&file).with_context(|| format!("no blob at {}", file.display()))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks for a manifest as a node does.
    pub fn pull(&self, image: &ImageReference) -> Result<()> {
        let host = image.registry.to_string().replace(':', "__");
        let path = format!("/v2/{host}/{}/manifests/{}", image.repository, image.manifest_reference());
        let authority = std::fs::read_to_string(self.authority_file())?;
        // The control API's port is open before this one.
        until("a node pulls from the cache", || {
            let (status, _) = ask_as("localhost", self.listen, &path, &authority, NODE)?;
            ensure!(status == 200, "{path}: {status} {}", self.log());
            Ok(())
        })
    }

    /// Where the control API is.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.control.port())
    }

    /// What vouches for it.
    pub fn authority_file(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// The controller's token.
    pub fn token_file(&self) -> PathBuf {
        self.path("token")
    }

    /// What it said until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("larder-cache.log")).unwrap_or_default()
    }
}

/// As kubelet replaces a projected file: never half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path).map_err(Into::into)
}
