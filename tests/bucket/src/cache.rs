//! The program `larder-cache`, as it was just built, on a bucket.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use larder_test_parts::own::larder_cache;
use tempfile::TempDir;

use crate::kind::CREDENTIALS;

/// Longer than any command takes.
const COMMAND: Duration = Duration::from_mins(1);

/// What a person gives it, beside the addresses.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// `--store`.
    pub store: String,
    /// `--endpoint`.
    pub endpoint: String,
    /// `--store-cluster`.
    pub cluster: String,
    /// The registries file.
    pub registries: String,
    /// More words and variables. Without tokens everybody on this machine may ask.
    pub arguments: Vec<String>,
    /// See above. What is empty is not set at all.
    pub environment: Vec<(String, String)>,
}

/// A running process. Killed when it is dropped; its folder of copies goes with it.
#[derive(Debug)]
pub struct Cache {
    child: Child,
    /// Where images are.
    pub address: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    settings: CacheSettings,
    folder: TempDir,
}

impl Cache {
    /// Starts one with nothing of its own. It need not answer yet.
    pub fn start(settings: CacheSettings) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("registries.toml"), &settings.registries)?;
        let (address, admin) = (free_address()?, free_address()?);
        let child = spawn(&settings, folder.path(), address, admin)?;
        Ok(Self { child, address, admin, settings, folder })
    }

    /// SIGKILL, as the kernel does it when memory is short.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// As kubelet does after that: the same folder, the same addresses.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.settings, self.folder.path(), self.address, self.admin)?;
        Ok(())
    }

    /// A command of the program for the same bucket: its exit status and what it printed.
    pub fn command(&self, words: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command = Command::new(larder_cache()?);
        command.args(words).args(["--store", &self.settings.store, "--endpoint", &self.settings.endpoint]);
        command.args(["--store-cluster", &self.settings.cluster]).envs(CREDENTIALS);
        command.envs(self.settings.environment.iter().cloned());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let until = Instant::now() + COMMAND;
        // It says less than a pipe holds.
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                child.kill()?;
                bail!("larder-cache {words:?} does not end: {:?}", child.wait_with_output()?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// What it said until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(settings: &CacheSettings, folder: &Path, address: SocketAddr, admin: SocketAddr) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let mut command = Command::new(larder_cache()?);
    command.args(["run", "--store", &settings.store, "--endpoint", &settings.endpoint]);
    command.args(["--store-cluster", &settings.cluster, "--store-folder"]).arg(folder.join("copies"));
    command.args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
    // Nothing depends on how full the machine's own disk is.
    command.args(["--store-reserve", "0"]);
    command.arg("--registries").arg(folder.join("registries.toml"));
    if !settings.arguments.iter().any(|word| word == "--token-file") {
        command.args(["--anonymous-networks", "127.0.0.0/8"]);
    }
    command.args(&settings.arguments).envs(CREDENTIALS);
    for (name, value) in &settings.environment {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("could not start larder-cache")
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
