//! `larder-cache run` as a user runs it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_bucket::{BUCKET, CREDENTIALS, Server};
use larder_test_origin::private_certificate;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::http;
use crate::process::Process;
use crate::programs::larder_cache;
use crate::wait::until;

/// What nodes and people are known by in these tests.
pub const TOKEN: &str = "a-token-of-many-letters";

/// Who trusts whom in one cluster, as files: the cache's certificate and who vouches for it, tokens and one of them.
#[derive(Clone, Debug)]
pub struct Trust {
    folder: PathBuf,
}

impl Trust {
    /// Makes all of them, with a certificate for these names and addresses.
    pub fn make(folder: &Path, names: &[&str]) -> Result<Self> {
        let folder = folder.join("trust");
        std::fs::create_dir_all(&folder)?;
        let made = private_certificate(names);
        for (name, content) in [
            ("ca.pem", made.authority),
            ("tls.crt", made.certificate),
            ("tls.key", made.key),
            ("tokens", format!("nodes {TOKEN}\n")),
            ("token", TOKEN.to_owned()),
        ] {
            std::fs::write(folder.join(name), content)?;
            // As a person leaves them: the node's proxy, which is nobody, may read none of them.
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(Self { folder })
    }

    /// Vouches for the cache's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Holds the token that nodes are known by.
    pub fn token(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// What `larder-cache` is told of it.
    fn of_the_cache(&self) -> Vec<String> {
        let path = |name| self.folder.join(name).display().to_string();
        ["--tls-certificate", &path("tls.crt"), "--tls-key", &path("tls.key"), "--token-file", &path("tokens")]
            .map(str::to_owned)
            .to_vec()
    }

    /// What `larder-node` is told, so that it asks the cache at `url`.
    pub fn of_a_node(&self, url: &str) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        ["--cache", url, "--cache-ca", &path(self.authority()), "--cache-token-file", &path(self.token())]
            .map(str::to_owned)
            .to_vec()
    }
}

/// How to start.
#[derive(Clone, Debug, Default)]
pub struct CacheOptions {
    /// `--store`, when it is not a folder of its own.
    pub store: Option<String>,
    /// `--store-reserve`, when it is not none.
    pub reserve: Option<&'static str>,
    /// Where it listens, when not on a free port of 127.0.0.1.
    pub listen: Option<SocketAddr>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
    /// The program, when it is not found by [`larder_cache`].
    pub program: Option<PathBuf>,
}

impl CacheOptions {
    /// One of several replicas on `bucket`, with copies in its own `folder`.
    pub fn on_bucket(bucket: &Server, folder: &Path, listen: SocketAddr) -> Self {
        let copies = folder.join("copies").display().to_string();
        let arguments = ["--endpoint", &bucket.endpoint(), "--store-cluster", "test", "--store-folder", &copies];
        Self {
            store: Some(format!("bucket:s3://{BUCKET}/larder")),
            reserve: None,
            listen: Some(listen),
            arguments: arguments.map(str::to_owned).to_vec(),
            variables: CREDENTIALS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            program: None,
        }
    }
}

/// A cluster cache, or one replica of it.
pub struct Cache {
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its admin address.
    pub admin: SocketAddr,
    process: Mutex<Option<Process>>,
}

impl Cache {
    /// Starts it in `folder`, which is its own, and waits until it is ready. `registries` is the registries file.
    pub fn start(folder: &Path, trust: &Trust, registries: &Path, options: &CacheOptions) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let listen = options.listen.map_or_else(http::free_address, Ok)?;
        let admin = http::free_address()?;
        let store = options.store.clone().unwrap_or_else(|| format!("directory:{}", folder.join("store").display()));
        let mut arguments: Vec<String> =
            ["--store", &store, "--listen", &listen.to_string(), "--admin", &admin.to_string(), "--registries"]
                .map(str::to_owned)
                .to_vec();
        arguments.push(registries.display().to_string());
        // Nothing depends on how full the machine's own disk is.
        arguments.extend(["--store-reserve", options.reserve.unwrap_or("0")].map(str::to_owned));
        arguments.extend(trust.of_the_cache());
        arguments.extend(options.arguments.iter().cloned());
        let program = options.program.clone().map_or_else(larder_cache, Ok)?;
        let (folder, variables) = (folder.to_owned(), options.variables.clone());
        let cache = Self { program, folder, arguments, variables, listen, admin, process: Mutex::new(None) };
        cache.start_again()?;
        Ok(cache)
    }

    /// Starts what was stopped or killed, with the same arguments, and waits until it is ready.
    pub fn start_again(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("run").args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let process = Process::start("larder-cache", &self.folder, &mut command)?;
        *self.process.lock().expect("lock") = Some(process);
        until("the cluster cache is ready", Duration::from_secs(20), || {
            self.with_process(Process::check_running)?;
            let reply = http::get(self.admin, "/readyz", &[])?;
            ensure!(reply.status == 200, "/readyz says {}: {}", reply.status, reply.text());
            Ok(())
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.with_process(|process| process.signal(signal))
    }

    /// SIGKILL, and its end.
    pub fn kill(&self) -> Result<()> {
        self.with_process(Process::kill)
    }

    /// Its end by itself.
    pub fn wait(&self) -> Result<ExitStatus> {
        self.with_process(|process| process.wait(Duration::from_secs(40)))
    }

    /// Waits until nothing is on its way into the store.
    pub fn wait_until_stored(&self) -> Result<()> {
        until("everything is in the cache's store", Duration::from_secs(10), || {
            let running = http::metric(&self.metrics()?, "larder_fetches_running")?;
            ensure!(running == 0.0, "{running} fetches run");
            Ok(())
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        self.with_process(|process| Ok(process.pid()))
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<String> {
        Ok(http::get(self.admin, "/metrics", &[])?.text())
    }

    /// How many requests it has answered by sending somebody to the bucket.
    pub fn sent_on(&self) -> Result<f64> {
        let metrics = self.metrics()?;
        let sent = |line: &&str| line.starts_with("larder_requests_total{") && line.contains("outcome=\"redirected\"");
        Ok(metrics.lines().filter(sent).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The folder of its store, unless that is elsewhere.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// What nodes are given, unless there is a name for it.
    pub fn url(&self) -> String {
        format!("https://{}", self.listen)
    }

    /// What a user would type.
    pub fn command_line(&self) -> String {
        format!("larder-cache run {}", self.arguments.join(" "))
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.process.lock().expect("lock").as_ref().map(Process::output).unwrap_or_default()
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        self.process.lock().expect("lock").as_ref().map(|process| process.last_lines(60)).unwrap_or_default()
    }

    fn with_process<T>(&self, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        act(self.process.lock().expect("lock").as_mut().context("larder-cache was not started")?)
    }
}
