//! Which process is this node's engine: the one at the other end of the CRI socket, never a guess among several.
//!
//! Its arguments, working directory and root say how to read its files ([`process`], [`arguments`], read by [`flags`]). Where several engines
//! answer, it is the one that kubelet uses ([`kubelet`]). Whether it is still what it was after a restart, [`surroundings`] say. The flow goes on in the engine's own module.

mod arguments;
pub(in crate::engine) mod flags;
mod kubelet;
mod process;
mod surroundings;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};

use crate::host::advice_on_denial;

pub use arguments::Arguments;
pub use process::Process;
pub use surroundings::Surroundings;

/// Where engines of distributions listen for CRI. Docker's own containerd has no CRI.
pub const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
];

/// The engines that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// containerd, whoever ships it.
    Containerd,
    /// CRI-O.
    Crio,
}

impl Kind {
    /// As people type it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "crio",
        }
    }
}

/// The engine of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which engine.
    pub kind: Kind,
    /// The CRI socket, as it was connected to.
    pub socket: PathBuf,
    /// The process that listens there.
    pub process: Process,
}

/// Why there is no single engine to speak of.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// Nobody listens on any of the known sockets.
    #[error(
        "no CRI socket answers (looked at {}): start the engine, or name its socket with --cri-socket, or give \
         --host-root for its files alone",
        list(looked)
    )]
    None {
        /// Where.
        looked: Vec<PathBuf>,
    },
    /// Several engines run here, and no kubelet says which of them it uses.
    #[error("several engines answer ({}): name one with --engine or --cri-socket", list(sockets))]
    Several {
        /// Where.
        sockets: Vec<PathBuf>,
    },
    /// The given socket does not answer.
    #[error("connect to {socket}: {cause}{}", advice(cause))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The engine lives in a pid namespace that we do not see into.
    #[error("the process behind {socket} cannot be seen: the agent needs the host's pid namespace")]
    Hidden {
        /// The socket.
        socket: PathBuf,
    },
    /// `/proc` did not tell.
    #[error("read {path}: {cause}{}", advice_for_proc(cause))]
    Proc {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Something else speaks CRI there.
    #[error("{executable} behind {socket} is no engine that we know")]
    Unknown {
        /// The socket.
        socket: PathBuf,
        /// The program.
        executable: PathBuf,
    },
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(": {}", advice_on_denial(nix::unistd::geteuid().is_root())),
        _ => String::new(),
    }
}

/// In `/proc` nothing is immutable: who may look at a process is a question of users and of one capability.
fn advice_for_proc(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run it as root, with CAP_SYS_PTRACE where it runs in a container",
        _ => "",
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Finds the engine behind `socket`, or behind the one known socket that answers; of several, the one that kubelet uses.
///
/// `root` is where the host's file system is seen from here: `/`, or `/proc/1/root` in a container with the host's pids.
/// A socket that was named is taken below that root too. Engines of another kind than `wanted` are passed over.
pub fn detect(root: &Path, socket: Option<&Path>, wanted: Option<Kind>) -> Result<Found, DetectError> {
    if let Some(socket) = socket {
        return behind(&below(root, socket));
    }
    let looked: Vec<PathBuf> = SOCKETS.iter().map(|socket| below(root, Path::new(socket))).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut failed = None;
    for socket in &looked {
        match behind(socket) {
            Ok(one) if found.iter().any(|known| known.process.pid == one.process.pid) => {}
            Ok(one) if wanted.is_some_and(|wanted| wanted != one.kind) => {}
            Ok(one) => found.push(one),
            Err(DetectError::Connect { cause, .. })
                if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(error) => failed = Some(error),
        }
    }
    match (found.len(), failed) {
        (0, Some(error)) => Err(error),
        (0, None) => Err(DetectError::None { looked }),
        (1, _) => found.pop().ok_or(DetectError::None { looked }),
        _ => used_by_kubelet(found, Path::new("/proc")),
    }
}

fn used_by_kubelet(mut found: Vec<Found>, proc: &Path) -> Result<Found, DetectError> {
    let same = |one: &Path, other: &Path| match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    let its = kubelet::socket(proc);
    match its.and_then(|socket| found.iter().position(|found| same(&found.socket, &socket))) {
        Some(position) => Ok(found.swap_remove(position)),
        None => Err(DetectError::Several { sockets: found.into_iter().map(|found| found.socket).collect() }),
    }
}

/// An absolute path of the host, as it is reached from here.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn behind(socket: &Path) -> Result<Found, DetectError> {
    let pid = peer(socket).map_err(|cause| DetectError::Connect { socket: socket.to_owned(), cause })?;
    let Some(pid) = pid else { return Err(DetectError::Hidden { socket: socket.to_owned() }) };
    let process = Process::read(pid)?;
    let kind = process
        .kind()
        .ok_or_else(|| DetectError::Unknown { socket: socket.to_owned(), executable: process.executable.clone() })?;
    Ok(Found { kind, socket: socket.to_owned(), process })
}

/// The process that listens on `socket`; `None` when it is in a pid namespace that we do not see. Never waits.
fn peer(socket: &Path) -> io::Result<Option<u32>> {
    let stream: OwnedFd =
        socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match socket::connect(stream.as_raw_fd(), &UnixAddr::new(socket)?) {
        Ok(()) => {}
        Err(Errno::EAGAIN) => {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "its queue of connections is full"));
        }
        Err(error) => return Err(error.into()),
    }
    let credentials = socket::getsockopt(&stream, sockopt::PeerCredentials)?;
    Ok(u32::try_from(credentials.pid()).ok().filter(|pid| *pid != 0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_listener_is_who_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cri.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(peer(&socket).unwrap(), Some(std::process::id()));
        // This test is no engine, and says so by its own name.
        let error = detect(folder.path(), Some(Path::new("/cri.sock")), None).unwrap_err();
        assert!(
            matches!(&error, DetectError::Unknown { executable, .. } if *executable == std::env::current_exe().unwrap())
        );
        assert!(matches!(
            detect(folder.path(), Some(Path::new("/none.sock")), None).unwrap_err(),
            DetectError::Connect { .. }
        ));
        assert!(matches!(detect(folder.path(), None, None).unwrap_err(), DetectError::None { .. }));
    }

    #[test]
    fn of_several_it_is_kubelets() {
        let folder = tempfile::tempdir().unwrap();
        let found = |name: &str| {
            let socket = folder.path().join(name);
            fs::write(&socket, name).unwrap();
            Found { kind: Kind::Crio, socket, process: Process::read(std::process::id()).unwrap() }
        };
        let both = || vec![found("one.sock"), found("other.sock")];
        let proc = folder.path().join("proc");
        let process = proc.join("12");
        fs::create_dir_all(&process).unwrap();
        std::os::unix::fs::symlink(folder.path(), process.join("root")).unwrap();
        let kubelet = |line: &str| fs::write(process.join("cmdline"), line).unwrap();
        kubelet("kubelet\0--container-runtime-endpoint=unix:///other.sock\0");
        assert!(used_by_kubelet(both(), &proc).unwrap().socket.ends_with("other.sock"));
        kubelet("kubelet\0--container-runtime-endpoint=unix:///third.sock\0");
        let error = used_by_kubelet(both(), &proc).unwrap_err().to_string();
        assert!(error.contains("one.sock") && error.contains("other.sock") && error.contains("--engine"), "{error}");
    }
}
