//! Docker: one that runs already, else Debian's daemon, started with everything of it below the cache and stopped at the end ([`daemon`]).

mod daemon;
mod descriptors;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::command;
use crate::machine::Machine;
use daemon::Daemon;

/// The network of nodes and registries. Not kind's own, for that is a developer's.
pub const NETWORK: &str = "larder-test-kind";

/// A Docker that answers. The daemon, when it is ours, ends with this value.
pub struct Docker {
    address: Option<String>,
    daemon: Mutex<Option<Daemon>>,
}

impl Docker {
    /// The running one, or one of our own.
    pub fn find_or_start(machine: &Machine) -> Result<Self> {
        let running = Self { address: None, daemon: Mutex::default() };
        let docker = if running.run(&["info"]).is_ok() {
            running
        } else {
            let daemon = Daemon::start(machine)?;
            Self { address: Some(daemon::address()), daemon: Mutex::new(Some(daemon)) }
        };
        // Without IPv6, or names could resolve to an address that nothing on a node listens on.
        if docker.run(&["network", "inspect", NETWORK]).is_err() {
            docker.run(&["network", "create", NETWORK]).context("could not make the nodes' network")?;
        }
        Ok(docker)
    }

    /// Where everything that it runs is written, as far as that is on this machine.
    pub fn folder(&self) -> Result<Option<PathBuf>> {
        let said = self.run(&["info", "--format", "{{.DockerRootDir}}"])?;
        Ok(Some(PathBuf::from(said.trim())).filter(|folder| folder.is_dir()))
    }

    /// `docker`, for this daemon.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        self.environment(&mut command);
        command
    }

    /// Lets any program that calls `docker` talk to this daemon.
    pub fn environment(&self, command: &mut Command) {
        if let Some(address) = &self.address {
            command.env("DOCKER_HOST", address).env_remove("DOCKER_CONTEXT");
        }
    }

    /// Runs `docker` to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        command::run(self.command().args(arguments))
    }

    /// Whether it has an image.
    pub fn has_image(&self, reference: &str) -> bool {
        self.run(&["image", "inspect", reference]).is_ok()
    }

    /// Takes an image from an archive in Docker's own format, and drops the older images of the same repository.
    pub fn load(&self, archive: &std::path::Path, reference: &str) -> Result<()> {
        self.run(&["load", "--input", &archive.to_string_lossy()])?;
        let (repository, _) = reference.rsplit_once(':').context("an image's name has a tag")?;
        let images = self.run(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository])?;
        for older in images.lines().filter(|image| *image != reference) {
            // One that a container still uses stays until the next time.
            let _ = self.run(&["image", "rm", older]);
        }
        Ok(())
    }

    /// Whether a container runs, and of which image.
    pub fn image_of_running(&self, container: &str) -> Option<String> {
        let said = self.run(&["container", "inspect", "--format", "{{.State.Running}} {{.Config.Image}}", container]);
        said.ok()?.trim().strip_prefix("true ").map(str::to_owned)
    }

    /// Where a container's files are seen from the machine.
    pub fn root_of(&self, container: &str) -> Result<PathBuf> {
        let pid = self.run(&["container", "inspect", "--format", "{{.State.Pid}}", container])?;
        Ok(PathBuf::from(format!("/proc/{}/root", pid.trim())))
    }

    /// What a container wrote, on both ways.
    pub fn log(&self, container: &str) -> Result<String> {
        let output = self.command().args(["logs", container]).output().context("could not run docker")?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// Leaves a daemon of our own running, for people who want to look around.
    pub fn keep(&self) {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(daemon) = daemon {
            daemon.keep();
        }
    }

    /// What a person sets to use it.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}
