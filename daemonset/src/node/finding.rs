//! Which engine a node has: the one that runs, or the one whose files a root has.

use super::NODE_ROOT;
use crate::config::Engine as Config;
use anyhow::Context as _;
use larder_node_agent::engine::containerd::{self, Containerd};
use larder_node_agent::engine::crio::{self, Crio};
use larder_node_agent::engine::detect::{self, Found, Kind};
use larder_node_agent::engine::{Engine, Version};
use larder_node_agent::host::{Host as _, RootedHost};
use std::io;
use std::path::{Path, PathBuf};

/// As the running engine was started, unless a person named its files.
pub(super) fn engine(config: &Config, found: &Found, version: Option<Version>) -> Box<dyn Engine> {
    match found.kind {
        Kind::Containerd => {
            let mut containerd = Containerd::of(found, version);
            if let Some(path) = &config.containerd_config {
                containerd.config.clone_from(path);
            }
            Box::new(containerd)
        }
        Kind::Crio => {
            let mut crio = Crio::of(found, version);
            if let Some(path) = &config.crio_config {
                crio.config.clone_from(path);
            }
            Box::new(crio)
        }
    }
}

/// The engine whose files a root has, when no process can be asked: the one that was named, else the one whose configuration
/// is there.
pub(super) fn engine_of_files(config: &Config, host: &RootedHost) -> anyhow::Result<Box<dyn Engine>> {
    let has = |path: &str| host.exists(Path::new(path));
    let kind = match config.kind {
        Some(kind) => kind,
        None if config.crio_config.is_some() => Kind::Crio,
        None if config.containerd_config.is_some() => Kind::Containerd,
        None if has("/etc/crio")? && !has("/etc/containerd")? => Kind::Crio,
        None => Kind::Containerd,
    };
    Ok(match kind {
        Kind::Containerd => {
            let path = config.containerd_config.as_deref().unwrap_or(Path::new(containerd::config::DEFAULT_CONFIG));
            Box::new(Containerd::at(path, None))
        }
        Kind::Crio => {
            let mut crio = Crio::at(None);
            crio.config = config.crio_config.clone().unwrap_or_else(|| PathBuf::from(crio::DEFAULT_CONFIG));
            Box::new(crio)
        }
    })
}

/// The process behind the CRI socket.
pub(crate) fn found(config: &Config) -> anyhow::Result<Found> {
    let (root, closed) = sockets_root(config, Path::new("/"), Path::new(NODE_ROOT));
    let found = detect::detect(&root, config.cri_socket.as_deref(), config.kind);
    match closed {
        None => Ok(found?),
        // In a container this is the cause, and elsewhere a person wants to know that it was not looked at.
        Some(error) => found.with_context(|| {
            format!(
                "{NODE_ROOT} cannot be entered ({error}), so the engine was looked for in this process's own root only"
            )
        }),
    }
}

pub(super) fn parsed(version: &str) -> Option<Version> {
    version.parse().ok()
}

/// Where sockets are looked for: where we are, then where the node's first process is, for we may be in a container.
/// With the reason when that cannot be entered and only the former is left.
fn sockets_root(config: &Config, own_root: &Path, node_root: &Path) -> (PathBuf, Option<io::Error>) {
    if let Some(root) = &config.host_root {
        return (root.clone(), None);
    }
    let here = match &config.cri_socket {
        Some(socket) => detect::below(own_root, socket).exists(),
        None => detect::SOCKETS.iter().any(|socket| detect::below(own_root, Path::new(socket)).exists()),
    };
    if here {
        return (own_root.to_owned(), None);
    }
    // The link itself can be looked at where it cannot be followed.
    match std::fs::read_dir(node_root) {
        Ok(_) => (node_root.to_owned(), None),
        Err(error) => (own_root.to_owned(), Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::sockets_root;
    use crate::config::Engine;
    use std::path::{Path, PathBuf};

    #[test]
    fn sockets_are_looked_for_here_then_at_the_nodes_root_and_here_again_where_that_is_closed() {
        let (here, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = |socket: Option<&str>| Engine {
            host_root: None,
            cri_socket: socket.map(PathBuf::from),
            containerd_config: None,
            crio_config: None,
            state_dir: PathBuf::from("/state"),
            run_dir: PathBuf::from("/run/larder"),
            kind: None,
            restart: None,
        };
        let chosen = |socket, node: &Path| {
            let (root, closed) = sockets_root(&config(socket), here.path(), node);
            (root, closed.map(|error| error.kind()))
        };
        assert_eq!(chosen(None, node.path()), (node.path().to_owned(), None));
        let gone = node.path().join("closed");
        assert_eq!(chosen(None, &gone), (here.path().to_owned(), Some(std::io::ErrorKind::NotFound)));
        std::fs::create_dir_all(here.path().join("run/k0s")).unwrap();
        std::fs::write(here.path().join("run/k0s/containerd.sock"), "").unwrap();
        assert_eq!(chosen(None, node.path()), (here.path().to_owned(), None));
        assert_eq!(chosen(Some("/run/k0s/containerd.sock"), node.path()), (here.path().to_owned(), None));
        assert_eq!(chosen(Some("/run/other.sock"), node.path()), (node.path().to_owned(), None));
    }
}
