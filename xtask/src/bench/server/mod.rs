//! The contenders: real programs, each in a folder of its own and on a free port of 127.0.0.1.
//!
//! All are asked with the paths of the distribution API. Whatever a program starts ends with its [`Server`], also when the program does
//! not stop when it is asked to. One file a program.

mod cluster;
mod larder;
mod nginx;
mod registry;
mod varnish;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::http;
use larder_test_node::process::{Process, children};
use larder_test_node::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Bench;
use super::usage;

pub(super) use cluster::Cluster;
pub(super) use nginx::Files;
pub(super) use registry::on_bucket as registry_on_bucket;

/// What stands between a client and an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// `larder-node proxy` with a directory store.
    Larder,
    /// nginx with `proxy_cache` and `proxy_cache_lock`.
    Nginx,
    /// varnish, with its content in memory.
    Varnish,
    /// distribution 2.8 as a pull-through cache.
    Registry2,
    /// distribution 3 as a pull-through cache.
    Registry3,
}

impl Cache {
    pub(super) fn start(self, bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Server> {
        let folder = folder.join(format!("{self:?}").to_lowercase());
        std::fs::create_dir_all(&folder)?;
        match self {
            Self::Larder => larder::start(bench, &folder, origin),
            Self::Nginx => nginx::cache(bench, &folder, origin),
            Self::Varnish => varnish::start(bench, &folder, origin),
            Self::Registry2 => registry::second(bench, &folder, origin),
            Self::Registry3 => registry::third(bench, &folder, origin),
        }
    }
}

/// A contender that can be asked.
pub(super) struct Server {
    /// As the table has it.
    pub(super) name: &'static str,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Goes behind every target.
    query: String,
    /// What was started for it; nothing where the tests' own origin is asked.
    process: Option<Process>,
    /// What else belongs to it, and is counted with it: somebody else keeps that.
    behind: Vec<Pid>,
}

impl Server {
    /// The origin itself, which somebody else keeps.
    pub(super) fn direct(address: SocketAddr) -> Self {
        Self { name: "direct", address, query: String::new(), process: None, behind: Vec::new() }
    }

    /// Waits until it says 200 to `/v2/`.
    fn started(name: &'static str, address: SocketAddr, query: String, mut process: Process) -> Result<Self> {
        until(&format!("{name} answers"), Duration::from_secs(20), || {
            process.check_running()?;
            let status = http::get(address, "/v2/", &[])?.status;
            ensure!(status == 200, "it says {status}");
            Ok(())
        })?;
        Ok(Self { name, address, query, process: Some(process), behind: Vec::new() })
    }

    /// How it is asked for a path of the distribution API.
    pub(super) fn target(&self, path: &str) -> String {
        format!("{path}{}", self.query)
    }

    /// Processor seconds that it has used so far.
    pub(super) fn processor_seconds(&self) -> Result<f64> {
        self.sum(usage::processor_seconds)
    }

    /// The same, without what stands behind it.
    pub(super) fn own_processor_seconds(&self) -> Result<f64> {
        usage::processor_seconds(self.process()?.pid())
    }

    /// Memory that it holds beside its files, in MiB.
    pub(super) fn anonymous_mebibytes(&self) -> Result<f64> {
        self.sum(usage::anonymous_mebibytes)
    }

    fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} is not a program of its own", self.name))
    }

    fn sum(&self, of: impl Fn(Pid) -> Result<f64>) -> Result<f64> {
        std::iter::once(self.process()?.pid()).chain(self.behind.iter().copied()).map(of).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        // nginx's workers would outlive a master that is killed.
        let workers = children(process.pid());
        if process.terminate(Duration::from_secs(5)).is_err() {
            let _ = process.kill();
            for (worker, _) in workers {
                let _ = kill(worker, Signal::SIGKILL);
            }
        }
    }
}
