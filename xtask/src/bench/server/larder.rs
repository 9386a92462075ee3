//! `larder-node proxy` alone, as a node that is configured in another way would run it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use larder_test_node::http::free_address;
use larder_test_node::process::Process;

use super::Server;
use crate::bench::Bench;
use crate::bench::sheet::LARDER;

pub(super) fn start(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    // In a folder of its own: the proxy watches that folder, and its log would be a change there.
    let registries = folder.join("settings/registries.toml");
    std::fs::create_dir_all(folder.join("settings"))?;
    // An origin on loopback without TLS is asked only where that is said.
    std::fs::write(&registries, format!("[registries.\"{origin}\"]\ninsecure = true\n"))?;
    let store = format!("directory:{}", folder.join("store").display());
    node(bench, folder, &["--store", &store, "--store-reserve", "0"], &registries, &origin.to_string())
}

/// With these arguments and settings of registries, to be asked for what `registry` has.
pub(super) fn node(
    bench: &Bench,
    folder: &Path,
    arguments: &[impl AsRef<OsStr>],
    registries: &Path,
    registry: &str,
) -> Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(bench.program()?);
    command.arg("proxy");
    command.args(["--listen", &address.to_string(), "--admin", &free_address()?.to_string()]);
    command.args(arguments).arg("--registries").arg(registries);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable);
    }
    let process = Process::start("larder-node", folder, &mut command)?;
    Server::started(LARDER, address, format!("?ns={registry}"), process)
}
