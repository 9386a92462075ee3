//! varnish, which streams what it fetches to everybody who waits for it, and keeps it in memory.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use larder_test_node::http::free_address;
use larder_test_node::process::Process;
use larder_test_parts::Debian;

use super::Server;
use crate::bench::Bench;

pub(super) fn start(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    let configuration = format!(
        "vcl 4.1;\n\
         backend origin {{ .host = \"{}\"; .port = \"{}\"; }}\n\
         sub vcl_recv {{ if (req.url == \"/v2/\") {{ return (synth(200)); }} return (hash); }}\n\
         sub vcl_backend_response {{ set beresp.ttl = 1d; set beresp.do_stream = true; }}\n",
        origin.ip(),
        origin.port()
    );
    let file = folder.join("origin.vcl");
    std::fs::write(&file, configuration)?;
    let address = free_address()?;
    let mut command = Command::new(bench.parts.debian(Debian::Varnish)?);
    command.args(["-F", "-j", "none", "-a", &address.to_string(), "-s", "malloc,3G"]);
    command.arg("-n").arg(folder.join("work")).arg("-f").arg(&file);
    Server::started("varnish", address, String::new(), Process::start("varnish", folder, &mut command)?)
}
