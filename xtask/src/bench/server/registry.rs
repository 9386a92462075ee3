//! The CNCF distribution registry as a pull-through cache: what its documentation calls a mirror.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use larder_test_bucket::{BUCKET, CREDENTIALS, Server as Bucket};
use larder_test_node::http::free_address;
use larder_test_node::process::Process;
use larder_test_parts::Debian;

use super::Server;
use crate::bench::Bench;

/// Where the registry's own lies in a bucket.
const IN_BUCKET: &str = "registry";

pub(super) fn second(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    start(bench.parts.debian(Debian::DockerRegistry)?, folder, "registry 2.8", origin)
}

pub(super) fn third(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    start(bench.parts.registry()?, folder, "registry 3.1", origin)
}

/// The third with its S3 driver: what it keeps is in a bucket, below [`IN_BUCKET`], and it keeps nothing else. Clients are given
/// the bytes and not sent there.
pub(in crate::bench) fn on_bucket(bench: &Bench, folder: &Path, origin: SocketAddr, bucket: &Bucket) -> Result<Server> {
    std::fs::create_dir_all(folder)?;
    let [(_, access), (_, secret), (_, region), ..] = CREDENTIALS;
    let storage = format!(
        "  s3:\n    accesskey: {access}\n    secretkey: {secret}\n    region: {region}\n    regionendpoint: {}\n\
         \x20   forcepathstyle: true\n    secure: false\n    bucket: {BUCKET}\n    rootdirectory: /{IN_BUCKET}\n\
         \x20 redirect:\n    disable: true\n",
        bucket.endpoint(),
    );
    start_with(bench.parts.registry()?, folder, "registry 3.1, S3", origin, &storage)
}

fn start(program: PathBuf, folder: &Path, name: &'static str, origin: SocketAddr) -> Result<Server> {
    let storage = format!("  filesystem:\n    rootdirectory: {}\n", folder.join("data").display());
    start_with(program, folder, name, origin, &storage)
}

fn start_with(
    program: PathBuf,
    folder: &Path,
    name: &'static str,
    origin: SocketAddr,
    storage: &str,
) -> Result<Server> {
    let address = free_address()?;
    let configuration = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
         storage:\n{storage}http:\n  addr: {address}\nproxy:\n  remoteurl: http://{origin}\n"
    );
    let file = folder.join("config.yml");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(program);
    command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
    Server::started(name, address, String::new(), Process::start("registry", folder, &mut command)?)
}
