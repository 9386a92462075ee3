//! A real CRI-O in folders of its own, or, of the lines whose daemon there is not, its library in an engine of ours around it
//! (`tests/parts/programs/cimage`).
//!
//! It runs in a mount namespace in which the folders that CRI-O and the library `containers/image` have on a node are its own ones, so
//! that every path in its configuration is the one of a real node. Where this machine has no such folder, an empty one is made.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, ensure};
use larder_test_parts::{CrioLine, EngineLine, LibraryLine, Parts};
use nix::sys::signal::Signal;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use crate::engine::{Client, Engine};
use crate::mounts::seeing;
use crate::process::Process;
use crate::wait::until;

/// What it logs when it has read its configuration again, and when it could not.
const RELOADED: &str = "Configuration reload completed";
const NOT_RELOADED: &str = "Unable to reload configuration";

/// The folders of a node that are its own ones: `/etc/containers` is `etc/containers` in the engine's folder.
const FOLDERS: [&str; 6] =
    ["etc/containers", "etc/crio", "run/containers", "run/crio", "var/lib/containers", "var/lib/crio"];

/// What to start.
#[derive(Clone, Debug)]
pub struct CrioOptions {
    /// `registries.conf`.
    pub registries: String,
    /// `policy.json`.
    pub policy: String,
    /// TOML for the table `crio.image`, one `key = value` a line.
    pub image_settings: String,
    /// More arguments of the program.
    pub arguments: Vec<String>,
    /// `/etc/hosts`, when it is not the machine's.
    pub hosts: String,
}

impl Default for CrioOptions {
    /// Every signature is fine, and nothing is said about any registry.
    fn default() -> Self {
        Self {
            registries: "unqualified-search-registries = [\"docker.io\"]\n".to_owned(),
            policy: r#"{"default":[{"type":"insecureAcceptAnything"}]}"#.to_owned(),
            image_settings: String::new(),
            arguments: Vec::new(),
            hosts: String::new(),
        }
    }
}

/// A running CRI-O.
pub struct Crio {
    line: CrioLine,
    folder: PathBuf,
    options: CrioOptions,
    process: Mutex<Process>,
    client: Client,
}

impl Crio {
    /// Starts it in `folder/crio` and waits until its CRI service answers.
    pub fn start(line: CrioLine, folder: &Path, options: CrioOptions) -> Result<Self> {
        let engine = Self::start_furnished(line, folder, options, |_| Ok(()))?;
        engine.wait_until_ready()?;
        Ok(engine)
    }

    /// Starts it in `folder/crio` once `furnish` has added to its files, and waits for nothing.
    pub fn start_furnished(
        line: CrioLine,
        folder: &Path,
        options: CrioOptions,
        furnish: impl FnOnce(&Files) -> Result<()>,
    ) -> Result<Self> {
        let folder = folder.join("crio");
        let files = Files { folder: folder.clone() };
        for name in FOLDERS.into_iter().chain(["etc/containers/registries.conf.d", "etc/containers/registries.d"]) {
            std::fs::create_dir_all(folder.join(name))?;
        }
        for name in ["etc/crio/crio.conf.d", "home", "cni", "namespaces"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        std::fs::write(files.registries_conf(), &options.registries)?;
        std::fs::write(folder.join("etc/containers/policy.json"), &options.policy)?;
        match line {
            // Larder knows an engine by the name of its program.
            CrioLine::Library(library) => {
                symlink(Parts::from_environment()?.image_library(library)?, folder.join("crio"))?;
            }
            CrioLine::V1_34 => std::fs::write(
                folder.join("etc/crio/crio.conf.d/10-crio.conf"),
                configuration(line, &folder, &options)?,
            )?,
        }
        furnish(&files)?;
        let client = Client::new(&folder.join("run/crio/crio.sock"))?;
        let process = launch(line, &folder, &options)?;
        Ok(Self { line, folder, options, process: Mutex::new(process), client })
    }

    /// Waits until its CRI service answers. Until then SIGHUP ends it, even when its socket takes connections.
    pub fn wait_until_ready(&self) -> Result<()> {
        until("CRI-O answers at its CRI socket", Duration::from_secs(30), || {
            self.process.lock().expect("lock").check_running()?;
            self.client.check_answers()
        })
    }

    /// Waits until it has ended by itself, and returns all that it logged.
    pub fn wait_until_ended(&self) -> Result<String> {
        let status = self.process.lock().expect("lock").wait(Duration::from_secs(30))?;
        ensure!(!status.success(), "CRI-O ended well:\n{}", self.log());
        Ok(self.log())
    }

    /// Its configuration, as this test sees it.
    pub fn files(&self) -> Files {
        Files { folder: self.folder.clone() }
    }

    /// The daemon's process.
    pub fn pid(&self) -> nix::unistd::Pid {
        self.process.lock().expect("lock").pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().expect("lock").signal(signal)
    }

    /// Has it read its configuration again, as `systemctl reload` does, and waits until it has. An error when it says that it could not.
    pub fn reload(&self) -> Result<()> {
        let before = self.log().len();
        self.signal(Signal::SIGHUP)?;
        until("CRI-O has read its configuration again", Duration::from_secs(10), || {
            let log = self.log();
            let since = log.get(before..).unwrap_or_default();
            if let Some(line) = since.lines().find(|line| line.contains(NOT_RELOADED)) {
                return Ok(Err(anyhow::anyhow!("{line}")));
            }
            ensure!(since.contains(RELOADED), "it says {since:?}");
            Ok(Ok(()))
        })?
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("crio.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Engine for Crio {
    fn engine_line(&self) -> EngineLine {
        EngineLine::Crio(self.line)
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn own_folders(&self) -> Vec<PathBuf> {
        ["etc", "home"].map(|name| self.folder.join(name)).to_vec()
    }

    fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().expect("lock");
        process.terminate(Duration::from_secs(20))?;
        *process = launch(self.line, &self.folder, &self.options)?;
        drop(process);
        self.wait_until_ready()
    }

    fn last_lines(&self) -> String {
        self.process.lock().expect("lock").last_lines(60)
    }

    fn entry(&self) -> PathBuf {
        self.files().drop_in("zz-larder.conf")
    }

    fn authorities(&self) -> PathBuf {
        self.files().containers().join("certs.d")
    }
}

/// The files that CRI-O reads, as a test sees them; CRI-O itself sees them in `/etc`.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// `/etc/containers`.
    pub fn containers(&self) -> PathBuf {
        self.folder.join("etc/containers")
    }

    /// `/etc/containers/registries.conf`.
    pub fn registries_conf(&self) -> PathBuf {
        self.containers().join("registries.conf")
    }

    /// A file in `/etc/containers/registries.conf.d`.
    pub fn drop_in(&self, name: &str) -> PathBuf {
        self.containers().join("registries.conf.d").join(name)
    }

    /// A file in `/etc/containers/registries.d`, where signatures are looked for.
    pub fn signatures(&self, name: &str) -> PathBuf {
        self.containers().join("registries.d").join(name)
    }

    /// A file in `/etc/crio/crio.conf.d`.
    pub fn settings(&self, name: &str) -> PathBuf {
        self.folder.join("etc/crio/crio.conf.d").join(name)
    }

    /// What `$HOME` is for CRI-O, whose `.config/containers` it reads too. The same path for both.
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }
}

fn launch(line: CrioLine, folder: &Path, options: &CrioOptions) -> Result<Process> {
    let mut mounts: Vec<(PathBuf, PathBuf)> =
        FOLDERS.iter().map(|name| (folder.join(name), Path::new("/").join(name))).collect();
    if !options.hosts.is_empty() {
        let hosts = folder.join("hosts");
        std::fs::write(&hosts, &options.hosts)?;
        mounts.push((hosts, "/etc/hosts".into()));
    }
    let mut command;
    match line {
        CrioLine::Library(library) => {
            ensure!(options.image_settings.is_empty(), "{library} is an engine without settings");
            command = seeing(&mounts, &folder.join("crio"));
            command.args(["--version-said", library.crio()]);
            // As CRI-O did up to 1.30.
            command.args((library <= LibraryLine::V5_29).then_some("--looks-first"));
        }
        CrioLine::V1_34 => command = seeing(&mounts, &Parts::from_environment()?.crio(line)?.crio),
    }
    command.env("HOME", folder.join("home"));
    for (name, _) in std::env::vars() {
        // Each of its flags has a variable.
        if name.starts_with("CONTAINER_") {
            command.env_remove(name);
        }
    }
    Process::start("crio", folder, &mut command)
}

fn configuration(line: CrioLine, folder: &Path, options: &CrioOptions) -> Result<String> {
    let part = Parts::from_environment()?.crio(line)?;
    // The kernel mounts no overlay whose upper folder is on one.
    let driver = if statfs(folder)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC { "vfs" } else { "overlay" };
    let path = |name: &str| folder.join(name).display().to_string();
    // No container has a port of the host, and without iptables and nft CRI-O does not start unless it is told so.
    Ok(format!(
        "[crio]\nstorage_driver = {driver:?}\n\
         [crio.api]\nstream_port = \"0\"\n\
         [crio.runtime]\ndefault_runtime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nconmon_cgroup = \"pod\"\ndisable_hostport_mapping = true\npinns_path = {pinns:?}\nnamespaces_dir = {namespaces:?}\n\
         [crio.runtime.runtimes.runc]\nruntime_path = {runc:?}\nmonitor_path = {conmon:?}\n\
         [crio.image]\n{image_settings}\n\
         [crio.network]\nnetwork_dir = {cni:?}\nplugin_dirs = [{cni:?}]\n\
         [crio.nri]\nenable_nri = false\n",
        pinns = part.pinns.display().to_string(),
        runc = part.runc.display().to_string(),
        conmon = part.conmon.display().to_string(),
        image_settings = options.image_settings,
        cni = path("cni"),
        namespaces = path("namespaces"),
    ))
}
