//! A server with a bucket, a folder and a port of its own, for as long as the value lives.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use larder_test_parts::Parts;
use tempfile::TempDir;

use crate::kind::{AZURE, BUCKET, CREDENTIALS, Kind, azurite};
use crate::{azure, google};

const START: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    scheme: &'static str,
    folder: TempDir,
}

/// What is not so with every server.
#[derive(Default)]
struct Options<'a> {
    /// Certificate and key (PEM).
    tls: Option<(&'a str, &'a str)>,
    /// Whether it writes down what it is asked.
    logging: bool,
}

impl Server {
    /// Starts one with an empty bucket, and waits until it answers.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, &Options::default())
    }

    /// A gateway over a folder that speaks TLS, with this certificate and key (PEM).
    pub fn start_tls(certificate: &str, key: &str) -> Result<Self> {
        Self::start_with(Kind::Versitygw, &Options { tls: Some((certificate, key)), ..Options::default() })
    }

    /// A gateway over a folder that writes down what it is asked: [`Self::access_log`].
    pub fn start_logging() -> Result<Self> {
        Self::start_with(Kind::Versitygw, &Options { logging: true, ..Options::default() })
    }

    fn start_with(kind: Kind, options: &Options<'_>) -> Result<Self> {
        let folder = tempfile::tempdir().context("could not make a folder for the server")?;
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join(BUCKET)).context("could not make a bucket")?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let program = match kind.part() {
            Some(part) => Parts::from_environment()?.module(part)?.join(kind.name()),
            None => azurite().context("azurite-blob is in none of the folders of PATH")?,
        };
        let [(_, access), (_, secret), ..] = CREDENTIALS;
        let mut command = Command::new(&program);
        match kind {
            Kind::Versitygw => {
                let sidecar = folder.path().join("metadata");
                std::fs::create_dir(&sidecar)?;
                command.args(["--access", access, "--secret", secret, "--quiet", "--keep-alive"]);
                if options.logging {
                    command.arg("--access-log").arg(folder.path().join("access.log"));
                }
                command.args(["--port", &address.to_string(), "posix", "--sidecar"]).arg(sidecar).arg(&data);
            }
            Kind::Minio => {
                command.args(["server", "--quiet", "--address", &address.to_string()]).arg(&data);
                command.env("MINIO_ROOT_USER", access).env("MINIO_ROOT_PASSWORD", secret);
                command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
            }
            Kind::FakeGcs => {
                command.args(["-listen", &address.to_string(), "-bucket", BUCKET, "-account"]);
                command.arg(google::account_file()?);
            }
            Kind::Azurite => {
                let [(_, account), (_, key)] = AZURE;
                command.args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()]);
                command.args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
                command.env("AZURITE_ACCOUNTS", format!("{account}:{key}")).current_dir(folder.path());
            }
        }
        if let Some((certificate, key)) = options.tls {
            let (file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
            std::fs::write(&file, certificate)?;
            std::fs::write(&key_file, key)?;
            command.env("VGW_CERT", file).env("VGW_KEY", key_file);
        }
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("could not start {}", program.display()))?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let mut server = Self { kind, child, address, scheme, folder };
        server.until_it_answers()?;
        if kind == Kind::Azurite {
            azure::create_container(address, BUCKET)?;
        }
        Ok(server)
    }

    fn until_it_answers(&mut self) -> Result<()> {
        let until = Instant::now() + START;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}: {}", self.log());
            }
            if Instant::now() > until {
                bail!("the server does not answer: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What [`Self::start_logging`]'s was asked until now, in the format of S3's own access logs, a line for each request.
    pub fn access_log(&self) -> Result<String> {
        let file = self.folder.path().join("access.log");
        std::fs::read_to_string(&file).with_context(|| format!("{}: what the server was asked", file.display()))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `--endpoint`.
    pub fn endpoint(&self) -> String {
        self.kind.endpoint(self.scheme, self.address)
    }

    /// Whether there is an object whose key begins with this.
    pub fn has(&self, beginning: &str) -> Result<bool> {
        match self.kind {
            Kind::Versitygw | Kind::Minio => {
                let folder = self.objects().join(beginning);
                Ok(std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
            }
            Kind::FakeGcs => google::has(self.address, BUCKET, beginning),
            Kind::Azurite => azure::has(self.address, BUCKET, beginning),
        }
    }

    /// The folder of the bucket, whose files are the objects (with `MinIO`: folders with a file `xl.meta`).
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
