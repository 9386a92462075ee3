//! `larder-controller run`, as it was just built, with a kubeconfig in the place of a Pod's own account.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use larder_test_callers::wait::until;
use larder_test_node::http::{self, free_address};
use larder_test_node::process::Process;
use larder_test_parts::own::larder_controller;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Cache;

/// How one is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// `larder-controller`
    pub program: PathBuf,
    /// `--lease-duration`
    pub lease: &'static str,
    /// `LARDER_LOG`
    pub log: &'static str,
}

/// A running process with a folder of its own.
pub struct Controller {
    process: Process,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Controller {
    /// Starts one. It need not lead, nor answer yet.
    pub fn start(kubeconfig: &Path, cache: &Cache, words: &[&str]) -> Result<Self> {
        let start = Start { program: larder_controller()?, lease: "6s", log: "info,larder_controller=debug" };
        Self::start_as(&start, kubeconfig, cache, words)
    }

    /// The same, as `start` says.
    pub fn start_as(start: &Start, kubeconfig: &Path, cache: &Cache, words: &[&str]) -> Result<Self> {
        let (folder, admin) = (tempfile::tempdir()?, free_address()?);
        let mut command = Command::new(&start.program);
        command.args(["run", "--cache", &cache.url(), "--cache-ca"]).arg(cache.authority_file());
        command.arg("--cache-token-file").arg(cache.token_file()).args(["--admin", &admin.to_string()]);
        command.args(["--lease", "larder/larder-controller", "--lease-duration", start.lease]).args(words);
        command.env("KUBECONFIG", kubeconfig).env("LARDER_LOG", start.log);
        let process = Process::start("larder-controller", folder.path(), &mut command)?;
        Ok(Self { process, admin, _folder: folder })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// A page for operators.
    pub fn page(&self, path: &str) -> Result<String> {
        Ok(http::get(self.admin, path, &[])?.text())
    }

    /// Whether it works.
    pub fn leads(&self) -> bool {
        self.page("/metrics").is_ok_and(|page| page.lines().any(|line| line == "larder_controller_leads 1"))
    }

    /// Waits until it does.
    pub fn until_it_leads(&self) -> Result<()> {
        until("it leads", || {
            ensure!(self.leads(), "{}", self.process.last_lines(20));
            Ok(())
        })
    }

    /// Waits until `/readyz` holds a text.
    pub fn until_it_says(&self, text: &str) -> Result<String> {
        until(&format!("/readyz says {text:?}"), || {
            let page = self.page("/readyz")?;
            ensure!(page.contains(text), "{page}{}", self.process.last_lines(20));
            Ok(page)
        })
    }

    /// The word to the brake that `/readyz` names on the line of this condition, if it is held.
    pub fn word(&self, condition: &str) -> Result<Option<String>> {
        let page = self.page("/readyz")?;
        let line = page.lines().find(|line| line.starts_with(&format!("degraded: {condition}:")));
        let Some((_, rest)) = line.and_then(|line| line.split_once("larder.dev/remove=")) else { return Ok(None) };
        Ok(Some(rest.chars().take_while(char::is_ascii_hexdigit).collect()))
    }

    /// Waits until `/readyz` does not hold a text.
    pub fn until_it_says_no_more(&self, text: &str) -> Result<()> {
        until(&format!("/readyz says no more {text:?}"), || {
            let page = self.page("/readyz")?;
            ensure!(!page.contains(text), "{page}{}", self.process.last_lines(20));
            Ok(())
        })
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and its end.
    pub fn terminate(mut self) -> Result<()> {
        let status = self.process.terminate(Duration::from_mins(1))?;
        ensure!(status.success(), "{status}: {}", self.process.last_lines(40));
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("LARDER_TEST_LOGS").is_some() {
            eprintln!("{}", self.process.last_lines(60));
        }
    }
}
