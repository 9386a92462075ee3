//! What `/proc` says of a process: a pid **and** its start time, because a pid is given to another process sooner or later.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DetectError, Kind};
use crate::host::Timestamp;

/// Ticks of a second in `/proc`, the same on every architecture that we are built for.
const USER_HZ: u64 = 100;
/// Of an engine's environment.
const VARIABLES: [&str; 5] =
    ["HOME", "CONTAINER_CONFIG", "CONTAINER_CONFIG_DIR", "CONTAINER_REGISTRIES_CONF", "CONTAINER_REGISTRIES_CONF_DIR"];
const MAX_PROC_FILE: usize = 1 << 20;

/// A process, at the time of looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// In our own pid namespace.
    pub pid: u32,
    /// Ticks since the machine started: with the pid, unique until it restarts.
    pub start_ticks: u64,
    /// The same as a time of day; `None` when the kernel does not tell when it started.
    pub started: Option<Timestamp>,
    /// The program, as the process sees it; an upgrade that replaced it does not change this.
    pub executable: PathBuf,
    /// All of them, the program's name first.
    pub arguments: Vec<String>,
    /// Where its relative paths start.
    pub working_directory: PathBuf,
    /// Those of its variables by which an engine is told where its files are; the others may be secrets.
    pub environment: BTreeMap<String, String>,
}

impl Process {
    /// What `/proc` says about `pid`.
    pub fn read(pid: u32) -> Result<Self, DetectError> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let link = |name: &str| {
            let path = directory.join(name);
            fs::read_link(&path).map_err(|cause| DetectError::Proc { path, cause })
        };
        let executable = link("exe")?;
        let arguments = read(&directory.join("cmdline"))?;
        let start_ticks = start_ticks(&directory)?;
        Ok(Self {
            pid,
            start_ticks,
            started: started(start_ticks),
            executable: executable
                .to_str()
                .and_then(|path| path.strip_suffix(" (deleted)"))
                .map_or_else(|| executable.clone(), PathBuf::from),
            arguments: arguments
                .split(|byte| *byte == 0)
                .filter(|argument| !argument.is_empty())
                .map(|argument| String::from_utf8_lossy(argument).into_owned())
                .collect(),
            working_directory: link("cwd")?,
            environment: environment(&directory),
        })
    }

    /// The engine's root directory, as we reach it.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// One of its variables, as it was when the process started.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    /// The same process still runs. One that ended and that nobody has taken notice of yet does not.
    pub fn is_running(&self) -> bool {
        let directory = PathBuf::from(format!("/proc/{}", self.pid));
        fields(&directory).is_ok_and(|fields| {
            start_ticks_of(&fields) == Some(self.start_ticks)
                && !matches!(fields.first().map(String::as_str), Some("Z" | "X"))
        })
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        let by_name = |path: &Path| match path.file_name()?.to_str()? {
            "containerd" => Some(Kind::Containerd),
            "crio" | "cri-o" => Some(Kind::Crio),
            _ => None,
        };
        by_name(&self.executable).or_else(|| by_name(Path::new(self.arguments.first()?)))
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, DetectError> {
    use io::Read as _;
    let error = |cause| DetectError::Proc { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(error)?.take(MAX_PROC_FILE as u64).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// Of a process that we may not ask, nothing: the usual places are right then.
fn environment(directory: &Path) -> BTreeMap<String, String> {
    let bytes = read(&directory.join("environ")).unwrap_or_default();
    let texts = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let pairs = texts.filter_map(|text| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    pairs.filter(|(name, _)| VARIABLES.contains(&name.as_str())).collect()
}

/// Fields 3 and later of `stat`; the command in field 2 may hold anything, so they are counted from its closing parenthesis.
fn fields(directory: &Path) -> Result<Vec<String>, DetectError> {
    let stat = String::from_utf8_lossy(&read(&directory.join("stat"))?).into_owned();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

fn start_ticks_of(fields: &[String]) -> Option<u64> {
    fields.get(19)?.parse().ok()
}

fn start_ticks(directory: &Path) -> Result<u64, DetectError> {
    start_ticks_of(&fields(directory)?)
        .ok_or_else(|| DetectError::Proc { path: directory.join("stat"), cause: io::ErrorKind::InvalidData.into() })
}

fn started(ticks: u64) -> Option<Timestamp> {
    let stat = String::from_utf8_lossy(&read(Path::new("/proc/stat")).ok()?).into_owned();
    let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let nanoseconds = u32::try_from(ticks % USER_HZ * (1_000_000_000 / USER_HZ)).ok()?;
    Some(Timestamp { seconds: i64::try_from(boot + ticks / USER_HZ).ok()?, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_pid_and_its_start() {
        let ourselves = Process::read(std::process::id()).unwrap();
        assert!(ourselves.is_running());
        assert!(!Process { start_ticks: ourselves.start_ticks + 1, ..ourselves.clone() }.is_running());
        assert_eq!(ourselves.working_directory, std::env::current_dir().unwrap());
        assert!(ourselves.started.is_some());
    }

    #[test]
    fn a_process_that_ended_unnoticed_runs_no_more() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::read(child.id()).unwrap();
        assert!(process.is_running());
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while process.is_running() {
            assert!(std::time::Instant::now() < deadline, "it counts as running while nobody waits for it");
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
