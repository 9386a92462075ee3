//! A real containerd in folders of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;

use crate::engine::{Client, Engine};
use crate::mounts::seeing;
use crate::process::Process;
use crate::wait::until;
use larder_test_parts::{EngineLine, Line, Parts};

/// How `config_path` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigPath {
    /// One folder, `certs.d` in the engine's own folder.
    One,
    /// `certs.d:docker-certs.d` there: a list.
    List,
    /// Not set: the engine's default. It runs in a mount namespace with an `/etc/containerd` and an `/etc/docker` of its own.
    Default,
    /// Not set, on a line before 2.2: it reads no folder of registries at all. It shares the mount namespace of the tests.
    Unset,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ContainerdOptions {
    /// Where hosts.toml files are looked for.
    pub config_path: ConfigPath,
    /// TOML for the CRI image plugin's table, one `key = value` a line.
    pub image_settings: String,
    /// TOML for the transfer plugin's table (2.1 and later).
    pub transfer_settings: String,
    /// `/etc/hosts`, when it is not the machine's.
    pub hosts: String,
}

impl Default for ContainerdOptions {
    fn default() -> Self {
        Self {
            config_path: ConfigPath::One,
            image_settings: String::new(),
            transfer_settings: String::new(),
            hosts: String::new(),
        }
    }
}

/// A running containerd.
pub struct Containerd {
    line: Line,
    folder: PathBuf,
    options: ContainerdOptions,
    process: Mutex<Process>,
    client: Client,
}

impl Containerd {
    /// Starts it in `folder/containerd` and waits until its CRI service answers.
    pub fn start(line: Line, folder: &Path, options: ContainerdOptions) -> Result<Self> {
        let folder = folder.join("containerd");
        anyhow::ensure!(
            options.config_path != ConfigPath::Unset || line < Line::V2_2,
            "containerd {line} would read the machine's own /etc/containerd"
        );
        for name in ["certs.d", "docker-certs.d", "etc/containerd", "etc/docker"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        std::fs::write(folder.join("config.toml"), configuration(line, &folder, &options))?;
        let process = launch(line, &folder, &options)?;
        std::fs::write(folder.join("pid"), process.pid().to_string())?;
        let client = Client::new(&folder.join("sock"))?;
        let engine = Self { line, folder, options, process: Mutex::new(process), client };
        engine.wait_until_ready()?;
        Ok(engine)
    }

    fn wait_until_ready(&self) -> Result<()> {
        until("containerd answers at its CRI socket", Duration::from_secs(30), || {
            self.process.lock().expect("lock").check_running()?;
            self.client.check_answers()
        })
    }

    /// The line that runs.
    pub fn line(&self) -> Line {
        self.line
    }

    /// The main configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// The first folder that hosts.toml files are looked for in, as this test sees it.
    pub fn certs_folder(&self) -> PathBuf {
        match self.options.config_path {
            ConfigPath::One | ConfigPath::List | ConfigPath::Unset => self.folder.join("certs.d"),
            ConfigPath::Default => self.folder.join("etc/containerd/certs.d"),
        }
    }

    /// The second folder of a list, as this test sees it.
    pub fn second_certs_folder(&self) -> PathBuf {
        match self.options.config_path {
            ConfigPath::One | ConfigPath::List | ConfigPath::Unset => self.folder.join("docker-certs.d"),
            ConfigPath::Default => self.folder.join("etc/docker/certs.d"),
        }
    }

    /// Where the literal path of a list begins.
    fn literal_parent(&self) -> PathBuf {
        PathBuf::from(format!("{}:", self.folder.join("certs.d").display()))
    }

    /// Writes an administrator's hosts.toml for a registry.
    pub fn write_hosts(&self, registry: &str, content: &str) -> Result<PathBuf> {
        let folder = self.certs_folder().join(registry);
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("hosts.toml");
        std::fs::write(&file, content)?;
        Ok(file)
    }

    /// A script that does to this engine what `systemctl restart` does to a node's: ends it, and starts it again as nobody's
    /// child. It starts it only if `condition` (of a shell) holds.
    pub fn restart_script(&self, condition: &str) -> Result<PathBuf> {
        let part = Parts::from_environment()?.containerd(self.line)?;
        let script = format!(
            "#!/bin/sh\nset -e\necho restart >>{folder}/restarts\npid=$(cat {folder}/pid)\nkill \"$pid\" || true\n\
             while [ -e /proc/$pid ] && ! grep -q '^State:.*[ZX]' /proc/$pid/status; do sleep 0.02; done\n\
             if ! ( {condition} ); then exit 0; fi\n\
             PATH={shims}:$PATH setsid {program} --config {folder}/config.toml </dev/null >>{folder}/containerd.log 2>&1 &\n\
             echo $! >{folder}/pid\n",
            folder = self.folder.display(),
            shims = part.shim_folder.display(),
            program = part.containerd.display(),
        );
        let path = self.folder.join("restart.sh");
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(path)
    }

    /// How often a restart script was run.
    pub fn restarts(&self) -> usize {
        std::fs::read_to_string(self.folder.join("restarts")).unwrap_or_default().lines().count()
    }

    /// The process that a restart script started, if it did.
    fn started_by_script(&self) -> Option<nix::unistd::Pid> {
        let pid = std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config_file();
        let ours = String::from_utf8_lossy(&line).contains(config.to_str()?);
        ours.then(|| nix::unistd::Pid::from_raw(pid))
    }
}

impl Engine for Containerd {
    fn engine_line(&self) -> EngineLine {
        EngineLine::Containerd(self.line)
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn own_folders(&self) -> Vec<PathBuf> {
        ["certs.d", "docker-certs.d", "etc", "certs.d:"]
            .iter()
            .map(|name| self.folder.join(name))
            .chain([self.literal_parent()])
            .collect()
    }

    fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().expect("lock");
        process.terminate(Duration::from_secs(10))?;
        *process = launch(self.line, &self.folder, &self.options)?;
        std::fs::write(self.folder.join("pid"), process.pid().to_string())?;
        drop(process);
        self.wait_until_ready()
    }

    fn last_lines(&self) -> String {
        self.process.lock().expect("lock").last_lines(60)
    }

    fn entry(&self) -> PathBuf {
        self.certs_folder().join("_default")
    }

    fn authorities(&self) -> PathBuf {
        self.certs_folder()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Its own child ends with its `Process`.
        if let Some(pid) = self.started_by_script() {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn launch(line: Line, folder: &Path, options: &ContainerdOptions) -> Result<Process> {
    let part = Parts::from_environment()?.containerd(line)?;
    let mut mounts = Vec::new();
    if options.config_path == ConfigPath::Default {
        // Without its own configuration file: the one that it would find is not there.
        mounts.extend(["etc/containerd", "etc/docker"].map(|name| (folder.join(name), Path::new("/").join(name))));
    }
    if !options.hosts.is_empty() {
        let hosts = folder.join("hosts");
        std::fs::write(&hosts, &options.hosts)?;
        mounts.push((hosts, "/etc/hosts".into()));
    }
    let mut command = if mounts.is_empty() { Command::new(part.containerd) } else { seeing(&mounts, &part.containerd) };
    command.arg("--config").arg(folder.join("config.toml"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(part.shim_folder).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(paths)?);
    Process::start("containerd", folder, &mut command)
}

fn configuration(line: Line, folder: &Path, options: &ContainerdOptions) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let config_path = match options.config_path {
        ConfigPath::One => format!("config_path = {:?}", path("certs.d")),
        ConfigPath::List => format!("config_path = {:?}", format!("{}:{}", path("certs.d"), path("docker-certs.d"))),
        ConfigPath::Default | ConfigPath::Unset => String::new(),
    };
    let images = &options.image_settings;
    let plugins = if line < Line::V2_0 {
        format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n{images}\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\n{config_path}\n"
        )
    } else {
        format!(
            "[plugins.\"io.containerd.cri.v1.images\"]\n{images}\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\n{config_path}\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n"
        )
    };
    // Its socket has one path for the whole machine, and nobody here uses it.
    let nri = if line >= Line::V1_7 { "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n" } else { "" };
    let transfer = if options.transfer_settings.is_empty() {
        String::new()
    } else {
        format!("[plugins.\"io.containerd.transfer.v1.local\"]\n{}\n", options.transfer_settings)
    };
    format!(
        "version = {version}\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n{plugins}{nri}{transfer}",
        version = if line < Line::V2_0 { 2 } else { 3 },
        root = path("root"),
        state = path("state"),
        socket = path("sock"),
        ttrpc = path("sock.ttrpc"),
    )
}
