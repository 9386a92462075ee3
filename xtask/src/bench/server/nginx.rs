//! nginx in two roles: serving the files themselves (also the origin where one has to be fast), and as a cache.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use larder_oci::{Algorithm, Digest};
use larder_test_node::http::free_address;
use larder_test_node::process::Process;
use larder_test_parts::Debian;

use super::Server;
use crate::bench::Bench;

/// nginx with files in the folders of the distribution API: as fast as a file comes over a socket (`sendfile`).
pub(in crate::bench) struct Files {
    /// To be asked.
    pub(in crate::bench) server: Server,
    root: PathBuf,
}

impl Files {
    pub(in crate::bench) fn start(bench: &Bench, folder: &Path, name: &'static str) -> Result<Self> {
        let folder = folder.join("nginx-files");
        let root = folder.join("root");
        std::fs::create_dir_all(&root)?;
        let rules = format!(
            "root {};\n\
             location = /v2/ {{ return 200 '{{}}'; }}\n\
             location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}",
            root.display()
        );
        let server = start(bench, &folder, name, "", &rules)?;
        Ok(Self { server, root })
    }

    /// Holds a blob; gives the path that it is asked for with.
    pub(in crate::bench) fn hold_blob(&self, bytes: &[u8]) -> Result<String> {
        self.hold(&format!("blobs/{}", Digest::of(Algorithm::Sha256, bytes)), bytes)
    }

    /// Holds something below the repository; gives the path that it is asked for with.
    pub(in crate::bench) fn hold(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = format!("/v2/bench/app/{name}");
        let file = self.root.join(path.trim_start_matches('/'));
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&file, bytes)?;
        Ok(path)
    }
}

/// nginx as people put it before a registry: one request at a time per content goes to the origin.
pub(super) fn cache(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
    let outside = format!(
        "proxy_cache_path {} levels=1:2 keys_zone=cache:16m max_size=20g inactive=1d use_temp_path=off;\n\
         upstream origin {{ server {origin}; keepalive 8; }}",
        folder.join("cache").display()
    );
    let rules = "location = /v2/ { return 200 '{}'; }\n\
         location / {\n\
         proxy_pass http://origin;\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection '';\n\
         proxy_cache cache;\n\
         proxy_cache_valid 200 1d;\n\
         proxy_cache_lock on;\n\
         proxy_cache_lock_timeout 10m;\n\
         proxy_cache_lock_age 10m;\n\
         }";
    start(bench, folder, "nginx cache", &outside, rules)
}

fn start(bench: &Bench, folder: &Path, name: &'static str, outside: &str, rules: &str) -> Result<Server> {
    std::fs::create_dir_all(folder)?;
    let address = free_address()?;
    let here = |name: &str| folder.join(name).display().to_string();
    // Temporary folders of modules that are not used, but made at the start all the same.
    let unused: String = ["client_body", "fastcgi", "uwsgi", "scgi"]
        .map(|module| format!("{module}_temp_path {};\n", here(&format!("tmp-{module}"))))
        .concat();
    let configuration = format!(
        "worker_processes auto;\npid {pid};\nerror_log stderr error;\ndaemon off;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\nkeepalive_requests 1000000000;\n\
         proxy_temp_path {proxied};\n{unused}{outside}\n\
         server {{\nlisten {address};\n{rules}\n}}\n}}\n",
        pid = here("nginx.pid"),
        proxied = here("tmp-proxy"),
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(bench.parts.debian(Debian::Nginx)?);
    command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(&file);
    Server::started(name, address, String::new(), Process::start("nginx", folder, &mut command)?)
}
