//! A daemon of our own. One that a killed run left behind is taken over, and ends with this run instead.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_node::wait::{Hopeless, until};
use larder_test_parts::Debian;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::descriptors;
use crate::command;
use crate::machine::{Machine, RUN};

/// Where it listens, as `DOCKER_HOST` says it.
pub(super) fn address() -> String {
    format!("unix://{RUN}/docker.sock")
}

/// A running dockerd, which is stopped when this is dropped.
pub(super) struct Daemon {
    pid: Pid,
    stops: bool,
}

impl Daemon {
    pub(super) fn start(machine: &Machine) -> Result<Self> {
        let program = machine.parts.debian(Debian::Docker)?;
        if answers() {
            let pid = fs::read_to_string(Path::new(RUN).join("docker.pid")).context("a Docker without a process id")?;
            return Ok(Self { pid: Pid::from_raw(pid.trim().parse()?), stops: true });
        }
        machine.parts.progress("no Docker runs here: starting one");
        let log_path = machine.folder.join("dockerd.log");
        let log = fs::File::create(&log_path).with_context(|| format!("could not make {}", log_path.display()))?;
        // What an administrator configured for another daemon is not for this one.
        let configuration = Path::new(RUN).join("docker.json");
        fs::write(&configuration, "{}").with_context(|| format!("could not write {}", configuration.display()))?;
        let mut command = Command::new(program);
        command.arg("--config-file").arg(configuration);
        command.arg("--data-root").arg(machine.folder.join("docker"));
        command.arg("--exec-root").arg(Path::new(RUN).join("docker"));
        command.arg("--pidfile").arg(Path::new(RUN).join("docker.pid"));
        // Everything here has a network of its own; the default one could meet somebody else's.
        command.args(["--bridge", "none", "--host", &address()]);
        if let Some(runtime) = &machine.runtime {
            command.arg("--add-runtime").arg(format!("within-bounds={}", runtime.display()));
            command.args(["--default-runtime", "within-bounds"]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // In a group of its own: an interrupt at the terminal is for the run, which then stops the daemon.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        // What this process inherited open, a lock of whoever called it for example, is not for a daemon that may outlive all of them.
        descriptors::close_on_exec()?;
        let child = command.spawn().context("could not start dockerd")?;
        let daemon = Self { pid: Pid::from_raw(i32::try_from(child.id())?), stops: true };
        until("dockerd answers", Duration::from_mins(1), || {
            if daemon.has_ended() {
                let said = fs::read_to_string(&log_path).unwrap_or_default();
                let last = said.lines().rev().take(10).collect::<Vec<_>>().join("\n");
                bail!(Hopeless(format!("it ended; {} says, last line first:\n{last}", log_path.display())));
            }
            ensure!(answers(), "it does not answer at {}", address());
            Ok(())
        })?;
        Ok(daemon)
    }

    pub(super) fn keep(mut self) {
        self.stops = false;
    }

    fn has_ended(&self) -> bool {
        // Only a child has to be waited for; one that was taken over is none.
        let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        kill(self.pid, None).is_err()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.stops || kill(self.pid, Signal::SIGTERM).is_err() {
            return;
        }
        let ended = until("dockerd ends", Duration::from_mins(1), || {
            ensure!(self.has_ended(), "it still runs");
            Ok(())
        });
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
    }
}

fn answers() -> bool {
    command::run(Command::new("docker").args(["--host", &address(), "version"])).is_ok()
}
