//! The proxy's process: started, killed, stopped, or found at the port when somebody else starts it.
//!
//! Invariant: only a process that proved to be ours is ever killed. The child notices our end by its standard input, which
//! nobody writes to and which closes with us, and the kernel kills it with the thread that started it
//! ([`crate::parent`]): that is the supervising one, which outlives the child.

use anyhow::Context as _;
use larder_node_agent::listener::{self, Owner};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child that lived so long is started again without delay.
const LIVED_WELL: Duration = Duration::from_mins(1);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Variables that a proxy below an agent must not take from whoever started the agent: the agent says it by flags.
const NOT_INHERITED: [&str; 4] = ["LARDER_CONFIG", "LARDER_REGISTRIES", "LARDER_ADMIN", "LARDER_RUN_FOLDER"];

/// A proxy of our own, or somebody else's.
#[derive(Debug)]
pub(crate) enum ProxyProcess {
    /// Started and restarted here.
    Own(Own),
    /// Started by others; known by its listening socket while it proves to be ours.
    Others { address: SocketAddr, known: Option<Owner> },
}

/// A child and when to start it again.
#[derive(Debug)]
pub(crate) struct Own {
    arguments: Vec<OsString>,
    child: Option<(Child, Instant)>,
    start_at: Instant,
    delay: Duration,
}

/// What became of the child since the last look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Started(u32),
    Exited(ExitStatus),
    FailedToStart(String),
}

impl Own {
    /// `arguments` follow the program's name.
    pub(crate) fn new(arguments: Vec<OsString>) -> Self {
        Self { arguments, child: None, start_at: Instant::now(), delay: FIRST_DELAY }
    }

    /// Reaps a child that ended, starts one that is due.
    pub(crate) fn look(&mut self, now: Instant) -> Option<News> {
        if let Some((child, started)) = &mut self.child {
            let status = child.try_wait().ok().flatten()?;
            if now.saturating_duration_since(*started) >= LIVED_WELL {
                self.delay = FIRST_DELAY;
            }
            self.child = None;
            self.put_off(now);
            return Some(News::Exited(status));
        }
        if now < self.start_at {
            return None;
        }
        match self.start() {
            Ok(child) => {
                let pid = child.id();
                self.child = Some((child, now));
                Some(News::Started(pid))
            }
            Err(error) => {
                self.put_off(now);
                Some(News::FailedToStart(error.to_string()))
            }
        }
    }

    fn put_off(&mut self, now: Instant) {
        self.start_at = now + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    fn start(&self) -> std::io::Result<Child> {
        // Its own image, also when the file was replaced by an upgrade meanwhile.
        let mut command = Command::new("/proc/self/exe");
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command.args(&self.arguments).stdin(Stdio::piped()).spawn()
    }
}

impl ProxyProcess {
    pub(crate) fn look(&mut self, now: Instant) -> Option<News> {
        match self {
            Self::Own(own) => own.look(now),
            Self::Others { known, .. } => {
                // Whoever has the address after it has proved nothing yet.
                *known = known.take().filter(|owner| listener::started(owner.pid) == Some(owner.started));
                None
            }
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Own(own) => own.child.as_ref().map(|(child, _)| child.id()),
            Self::Others { known, .. } => known.as_ref().map(|owner| owner.pid),
        }
    }

    /// It just proved to be ours: remember who that is.
    pub(crate) fn proved(&mut self) {
        if let Self::Others { address, known } = self {
            let still = known.as_ref().is_some_and(|owner| listener::started(owner.pid) == Some(owner.started));
            if !still {
                *known = listener::owner(*address);
            }
        }
    }

    /// SIGKILL. An error says why nobody was killed.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Own(own) => match &mut own.child {
                Some((child, _)) => child.kill().context("kill the proxy"),
                None => anyhow::bail!("no proxy of ours runs"),
            },
            Self::Others { address, known } => {
                let owner =
                    known.as_ref().with_context(|| format!("nobody was ever seen to be our proxy on {address}"))?;
                kill_others(owner)
            }
        }
    }

    /// SIGTERM, and SIGKILL when it has not ended after `limit`. Others' proxies are theirs to stop.
    pub(crate) fn stop(&mut self, limit: Duration) {
        let Self::Own(Own { child: Some((child, _)), .. }) = self else { return };
        let pid = i32::try_from(child.id()).map(Pid::from_raw);
        if let Ok(pid) = pid {
            // It may have ended already; then there is a status to take.
            let _ = kill(pid, Signal::SIGTERM);
        }
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        tracing::warn!(limit = ?limit, "the proxy did not end in time: killed");
        drop(child.kill());
        drop(child.wait());
    }
}

/// Takes hold of the process before looking whether it is still the one: a number may have been given to another.
pub(crate) fn kill_others(owner: &Owner) -> anyhow::Result<()> {
    let pid = i32::try_from(owner.pid).ok().and_then(rustix::process::Pid::from_raw).context("no process id")?;
    let held = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .with_context(|| format!("take hold of {owner}"))?;
    anyhow::ensure!(listener::started(owner.pid) == Some(owner.started), "{owner} is another process by now");
    rustix::process::pidfd_send_signal(&held, rustix::process::Signal::KILL).with_context(|| format!("kill {owner}"))
}

#[cfg(test)]
mod tests {
    use super::{News, ProxyProcess};
    use larder_node_agent::listener;
    use std::net::TcpListener;

    #[test]
    fn a_proxy_that_never_proved_to_be_ours_is_not_killed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut others = ProxyProcess::Others { address: listener.local_addr().unwrap(), known: None };
        assert!(others.kill().unwrap_err().to_string().contains("nobody was ever seen"));
        assert_eq!(others.look(std::time::Instant::now()), None::<News>);
    }

    #[test]
    fn a_proxy_of_others_that_ended_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let known = listener::owner(address);
        assert!(known.is_some());
        let mut others = ProxyProcess::Others { address, known };
        others.look(std::time::Instant::now());
        assert_eq!(others.pid(), Some(std::process::id()));
        let ProxyProcess::Others { known: Some(owner), .. } = &mut others else { panic!("it was forgotten") };
        // As when its process has ended.
        owner.started += 1;
        others.look(std::time::Instant::now());
        assert_eq!(others.pid(), None);
    }

    #[test]
    fn a_number_that_was_given_to_another_process_is_not_killed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owner = listener::owner(listener.local_addr().unwrap()).unwrap();
        owner.started += 1;
        let mut others = ProxyProcess::Others { address: listener.local_addr().unwrap(), known: Some(owner) };
        assert!(others.kill().unwrap_err().to_string().contains("another process by now"));
    }
}
