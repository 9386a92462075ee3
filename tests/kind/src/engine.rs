//! What runs the containers of a node, and what differs between engines for whoever looks at a node from outside.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use larder_test_parts::EngineLine;

/// What the workers run when nobody says otherwise: a new containerd, the last with the old form of configuration, which many
/// distributions still have, and CRI-O.
const USUAL: &str = "containerd-2.3,containerd-1.7,crio-1.34";

/// An engine of a line, on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(pub EngineLine);

impl Engine {
    /// What the workers of this run have, from `LARDER_KIND_WORKERS`, a worker each; the control plane has that of the first.
    pub fn of_workers() -> Result<Vec<Self>> {
        let words = std::env::var("LARDER_KIND_WORKERS").unwrap_or_else(|_| USUAL.to_owned());
        let engines: Vec<Self> =
            words.split(',').map(str::parse).collect::<Result<_>>().context("LARDER_KIND_WORKERS")?;
        ensure!(engines.len() > 1, "LARDER_KIND_WORKERS names {words}, and cases need two workers or more");
        Ok(engines)
    }

    /// The name of its systemd unit.
    pub fn service(self) -> &'static str {
        match self.0 {
            EngineLine::Containerd(_) => "containerd",
            EngineLine::Crio(_) => "crio",
        }
    }

    /// Where kubelet finds it, on the node.
    pub fn socket(self) -> &'static str {
        match self.0 {
            EngineLine::Containerd(_) => "/run/containerd/containerd.sock",
            EngineLine::Crio(_) => "/run/crio/crio.sock",
        }
    }

    /// What kubelet calls it, up to the last number of its version.
    pub fn reported(self) -> String {
        match self.0 {
            EngineLine::Containerd(line) => format!("containerd://{line}."),
            EngineLine::Crio(line) => format!("cri-o://{line}."),
        }
    }

    /// The folder that everything of its configuration is in, without a slash at the beginning.
    pub fn configuration(self) -> &'static str {
        match self.0 {
            EngineLine::Containerd(_) => "etc/containerd",
            EngineLine::Crio(_) => "etc/containers",
        }
    }

    /// What Larder leaves in that folder on a node that was off when it was uninstalled, beside links that lead nowhere.
    pub fn lasting(self) -> &'static [&'static str] {
        match self.0 {
            EngineLine::Containerd(_) => &[],
            EngineLine::Crio(_) => &["registries.conf.d/zz-larder.conf", "registries.d/larder.yaml"],
        }
    }

    /// Whether what Larder puts there is gone with its agent, by the kernel's doing. CRI-O keeps what it read, so there it is a file.
    pub fn entry_ends_with_agent(self) -> bool {
        matches!(self.0, EngineLine::Containerd(_))
    }

    /// The file with which an administrator sends all pulls from the registry `host` to the registry `other`, and its content.
    pub fn redirection(self, host: &str, other: &str) -> (String, String) {
        match self.0 {
            EngineLine::Containerd(_) => (
                format!("/etc/containerd/certs.d/{host}/hosts.toml"),
                format!("[host.\"https://{other}\"]\n  capabilities = [\"pull\", \"resolve\"] # by hand\n"),
            ),
            EngineLine::Crio(_) => (
                format!("/etc/containers/registries.conf.d/50-{host}.conf"),
                format!("[[registry]] # by hand\nprefix = \"{host}\"\nlocation = \"{other}\"\n"),
            ),
        }
    }

    /// How an administrator has it read a file that he changed.
    pub fn reload(self) -> &'static [&'static str] {
        match self.0 {
            EngineLine::Containerd(_) => &["true"],
            EngineLine::Crio(_) => &["systemctl", "reload", "crio"],
        }
    }

    /// What Larder puts into that folder: the file by which the engine asks the proxy.
    pub fn entry(self) -> &'static str {
        match self.0 {
            EngineLine::Containerd(_) => "/etc/containerd/certs.d/_default/hosts.toml",
            EngineLine::Crio(_) => "/etc/containers/registries.conf.d/zz-larder.conf",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        word.parse().map(Self)
    }
}
