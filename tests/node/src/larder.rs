//! `larder-node run` as a user runs it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::engine::Engine;
use crate::http;
use crate::mounts::seeing;
use crate::process::{Process, children};
use crate::programs::larder_node;
use crate::wait::until;

/// How to start.
#[derive(Clone, Debug, Default)]
pub struct LarderOptions {
    /// The registries file.
    pub registries: String,
    /// The store's folder, when it is not one of the case's own.
    pub store: Option<PathBuf>,
    /// So much is kept in memory instead of in a folder: `1MB`.
    pub memory: Option<&'static str>,
    /// Where the proxy listens, when not on a free port.
    pub listen: Option<SocketAddr>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// `/etc/hosts`, when it is not the machine's.
    pub hosts: String,
    /// The program, when it is not found by [`larder_node`].
    pub program: Option<PathBuf>,
}

/// A running agent with its proxy.
pub struct Larder {
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    mounts: Vec<(PathBuf, PathBuf)>,
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// The proxy's admin address.
    pub proxy_admin: SocketAddr,
    /// The agent's admin address.
    pub agent_admin: SocketAddr,
    process: Mutex<Option<Process>>,
}

impl Larder {
    /// Starts it for `engine` and waits until the agent has seen the engine ask the proxy.
    pub fn start(engine: &(impl Engine + ?Sized), folder: &Path, options: &LarderOptions) -> Result<Self> {
        let larder = Self::start_unconfirmed(engine, folder, options)?;
        larder.wait_until_configured(Duration::from_secs(30))?;
        Ok(larder)
    }

    /// Starts it and waits for nothing.
    pub fn start_unconfirmed(engine: &(impl Engine + ?Sized), folder: &Path, options: &LarderOptions) -> Result<Self> {
        let larder = Self::prepare(engine, folder, options)?;
        larder.launch()?;
        Ok(larder)
    }

    /// Chooses folders and ports, and starts nothing yet.
    pub fn prepare(engine: &(impl Engine + ?Sized), folder: &Path, options: &LarderOptions) -> Result<Self> {
        let folder = folder.join("larder");
        std::fs::create_dir_all(&folder)?;
        let registries = folder.join("registries.toml");
        std::fs::write(&registries, &options.registries)?;
        let listen = options.listen.map_or_else(http::free_address, Ok)?;
        let (proxy_admin, agent_admin) = (http::free_address()?, http::free_address()?);
        let store = match (options.memory, &options.store) {
            (Some(size), _) => format!("memory:{size}"),
            (None, Some(store)) => format!("directory:{}", store.display()),
            (None, None) => format!("directory:{}", folder.join("store").display()),
        };
        let mut mounts = Vec::new();
        if !options.hosts.is_empty() {
            let hosts = folder.join("hosts");
            std::fs::write(&hosts, &options.hosts)?;
            mounts.push((hosts, PathBuf::from("/etc/hosts")));
        }
        let path = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> = [
            "--cri-socket",
            &path(&engine.socket()),
            "--listen",
            &listen.to_string(),
            "--registries",
            &path(&registries),
            "--run-dir",
            &path(&folder.join("run")),
            "--state-dir",
            &path(&folder.join("state")),
            "--store",
            &store,
            "--proxy-admin",
            &proxy_admin.to_string(),
            "--admin",
            &agent_admin.to_string(),
        ]
        .map(str::to_owned)
        .to_vec();
        if options.store.is_none() && options.memory.is_none() {
            // Nothing depends on how full the machine's own disk is.
            arguments.extend(["--store-reserve", "0"].map(str::to_owned));
        }
        arguments.extend(options.arguments.iter().cloned());
        let program = options.program.clone().map_or_else(larder_node, Ok)?;
        Ok(Self { program, folder, arguments, mounts, listen, proxy_admin, agent_admin, process: Mutex::new(None) })
    }

    /// Runs another command of the program with the same arguments, to its end.
    pub fn command(&self, name: &str, more: &[&str]) -> Result<Output> {
        Ok(Command::new(&self.program).arg(name).args(&self.arguments).args(more).output()?)
    }

    /// Waits until the agent is ready: the engine was seen to ask the proxy.
    pub fn wait_until_configured(&self, limit: Duration) -> Result<()> {
        until("the agent has seen the engine ask the proxy", limit, || {
            self.with_process(Process::check_running)?;
            let reply = http::get(self.agent_admin, "/readyz", &[])?;
            ensure!(reply.status == 200, "/readyz says {}: {}\n{}", reply.status, reply.text(), self.last_lines());
            Ok(())
        })
    }

    /// Waits until the agent is not ready, and returns what it says.
    pub fn wait_until_not_ready(&self, limit: Duration) -> Result<String> {
        until("the agent says that it is not ready", limit, || {
            let reply = http::get(self.agent_admin, "/readyz", &[])?;
            ensure!(reply.status != 200, "it says that it is ready");
            Ok(reply.text())
        })
    }

    /// The agent's own status.
    pub fn status(&self) -> Result<Value> {
        let reply = http::get(self.agent_admin, "/status", &[])?;
        serde_json::from_slice(&reply.body).with_context(|| format!("status is not JSON: {}", reply.text()))
    }

    /// The proxy's metrics.
    pub fn metrics(&self) -> Result<String> {
        Ok(http::get(self.proxy_admin, "/metrics", &[])?.text())
    }

    /// The agent's process.
    pub fn agent(&self) -> Pid {
        self.process.lock().expect("lock").as_ref().expect("larder-node was started").pid()
    }

    /// The proxy's process.
    pub fn proxy(&self) -> Result<Pid> {
        let found = children(self.agent()).into_iter().find(|(_, line)| line.contains(" proxy "));
        found.map(|(pid, _)| pid).context("the agent has no child that is a proxy")
    }

    /// Sends the proxy a signal.
    pub fn signal_proxy(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.proxy()?, signal)?)
    }

    /// Sends the agent a signal.
    pub fn signal_agent(&self, signal: Signal) -> Result<()> {
        self.with_process(|process| process.signal(signal))
    }

    /// SIGKILL for the agent, and its end.
    pub fn kill_agent(&self) -> Result<()> {
        self.with_process(Process::kill)
    }

    /// A planned stop.
    pub fn stop(&self) -> Result<()> {
        let status = self.with_process(|process| process.terminate(Duration::from_secs(30)))?;
        ensure!(status.success(), "larder-node ended with {status}:\n{}", self.last_lines());
        Ok(())
    }

    /// Starts what was only prepared, or was stopped or killed, with the same arguments.
    pub fn start_again(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_configured(Duration::from_secs(30))
    }

    /// Starts it with the same arguments and waits for nothing.
    pub fn launch(&self) -> Result<()> {
        let mut command =
            if self.mounts.is_empty() { Command::new(&self.program) } else { seeing(&self.mounts, &self.program) };
        let process = Process::start("larder-node", &self.folder, command.arg("run").args(&self.arguments))?;
        *self.process.lock().expect("lock") = Some(process);
        Ok(())
    }

    fn with_process<T>(&self, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        act(self.process.lock().expect("lock").as_mut().context("larder-node was not started")?)
    }

    /// What a user would type.
    pub fn command_line(&self) -> String {
        format!("larder-node run {}", self.arguments.join(" "))
    }

    /// All that agent and proxy have logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("larder-node.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
    }

    /// The sum of a metric of the proxy over all its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        http::metric(&self.metrics()?, name)
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}
