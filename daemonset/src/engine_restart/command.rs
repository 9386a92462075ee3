//! The command that restarts the engine: as a person gave it, run as on the node itself, for a limited time.

use super::namespace::as_seen_by;
use anyhow::{Context as _, bail};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What may be missing from the environment of a container.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestartCommand {
    /// A program and its arguments; nothing interprets them.
    Words(Vec<String>),
    /// Something that only a shell can read.
    Shell(String),
}

impl RestartCommand {
    /// Words are split at white space. A line with quotes, variables, redirections or the like goes to `/bin/sh -c`.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Some(first) = words.first() else { bail!("it is empty") };
        let for_a_shell = line.contains(|letter| "|&;<>()$`\\\"'*?[]{}!#~\n".contains(letter)) || first.contains('=');
        Ok(if for_a_shell { Self::Shell(line.to_owned()) } else { Self::Words(words) })
    }

    fn command(&self) -> Command {
        match self {
            Self::Words(words) => {
                let mut words = words.iter();
                let mut command = Command::new(words.next().map_or("", String::as_str));
                command.args(words);
                command
            }
            Self::Shell(line) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(line);
                command
            }
        }
    }

    /// Runs it in the node's own view of its files, with its output in our log. An error when it cannot be started, fails,
    /// or has not ended after `limit`.
    pub(crate) fn run(&self, limit: Duration) -> anyhow::Result<()> {
        as_seen_by(host_process(), || {
            let mut command = self.command();
            let path = std::env::var("PATH").map_or(USUAL_PATH.to_owned(), |path| format!("{path}:{USUAL_PATH}"));
            // In a group of its own, so that a Ctrl-C that is meant for us does not leave an engine half restarted.
            command.env("PATH", path).process_group(0);
            command.stdin(Stdio::null()).stdout(std::io::stderr()).stderr(std::io::stderr());
            let mut child = command.spawn().with_context(|| format!("start {self}"))?;
            let status = wait(&mut child, limit).with_context(|| self.to_string())?;
            anyhow::ensure!(status.success(), "{self} ended with {status}");
            Ok(())
        })
    }
}

impl std::fmt::Display for RestartCommand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Words(words) => formatter.write_str(&words.join(" ")),
            Self::Shell(line) => formatter.write_str(line),
        }
    }
}

/// The node's first process sees the node as a person does who types the command; our own view may be a container's.
fn host_process() -> u32 {
    if Path::new("/proc/1/ns/mnt").metadata().is_ok() { 1 } else { std::process::id() }
}

/// The end of `child`, which is killed after `limit`.
pub(super) fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {limit:?}");
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::RestartCommand;
    use std::time::{Duration, Instant};

    #[test]
    fn a_shell_is_used_only_where_one_is_needed() {
        let words = |line: &str| match RestartCommand::parse(line).unwrap() {
            RestartCommand::Words(words) => Some(words),
            RestartCommand::Shell(shell) => {
                assert_eq!(shell, line);
                None
            }
        };
        assert_eq!(words(" systemctl  restart containerd ").unwrap(), ["systemctl", "restart", "containerd"]);
        assert_eq!(words("snap restart microk8s.daemon-containerd --x=y").unwrap().len(), 4);
        for shell in ["a && b", "echo 'x y'", "A=1 b", "x > /dev/null", "kill $(cat pid)"] {
            assert_eq!(words(shell), None, "{shell}");
        }
        assert!(RestartCommand::parse("  ").is_err());
    }

    #[test]
    fn failing_and_staying_too_long_are_errors() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: running a restart command, because this is not root");
            return;
        }
        let run = |line: &str, limit| RestartCommand::parse(line).unwrap().run(limit);
        let long = Duration::from_secs(20);
        run("true", long).unwrap();
        assert!(run("false", long).unwrap_err().to_string().contains("exit status: 1"));
        assert!(run("sh -c exit\\ 3", long).unwrap_err().to_string().contains("exit status: 3"));
        assert!(format!("{:#}", run("/no/such/program", long).unwrap_err()).contains("/no/such/program"));
        let begun = Instant::now();
        assert!(format!("{:#}", run("sleep 60", Duration::from_millis(100)).unwrap_err()).contains("did not end"));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
