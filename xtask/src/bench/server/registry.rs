//! The CNCF distribution registry as a pull-through cache: what its documentation calls a mirror.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use larder_test_node::http::free_address;
use larder_test_node::process::Process;
use larder_test_parts::Debian;

use super::Server;
use crate::bench::Bench;

pub(super) fn second(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    start(bench.parts.debian(Debian::DockerRegistry)?, folder, "registry 2.8", origin)
}

pub(super) fn third(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    start(bench.parts.registry()?, folder, "registry 3.1", origin)
}

fn start(program: PathBuf, folder: &Path, name: &'static str, origin: SocketAddr) -> Result<Server> {
    let address = free_address()?;
    let configuration = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\nproxy:\n  remoteurl: http://{origin}\n",
        folder.join("data").display()
    );
    let file = folder.join("config.yml");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(program);
    command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
    Server::started(name, address, String::new(), Process::start("registry", folder, &mut command)?)
}
