//! The program `larder-cache`: the proxy as a service for a whole cluster.
//!
//! Text becomes what was typed ([`args`]), that becomes what is meant ([`config`]), and the rest is
//! [`larder_proxy::program`], as on a node, and what only this program knows: [`kubernetes`]. Exit status: 0 done, 1 failed, 2 wrong usage.

mod args;
mod callers;
mod config;
mod kubernetes;
mod own_certificate;
mod person;
mod redirect;
mod store;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use larder_process::signals::stop_on_signals;
use larder_process::tasks::Tasks;
use larder_proxy::program::{self, CertificateConfig};
use larder_proxy::store::directory::make_parent;
use tokio_util::sync::CancellationToken;

use args::{Command, RunArgs, Typed};
use config::Config;
use kubernetes::Kubernetes;

/// For parts that ask the API server, which hold nothing that has to end well.
const AFTER_SERVING: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let (typed, file) = match larder_process::command_line::parse::<Typed>(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    if let Err(error) = larder_process::logging::init(typed.log_format) {
        eprintln!("larder-cache: {error}");
        return ExitCode::from(2);
    }
    if let Some(file) = file {
        tracing::debug!(file = %file.display(), "options read");
    }
    let done = match typed.command {
        Command::Run(args) => run(&args),
        Command::ForgetCluster(args) => person::forget_cluster(&args),
        Command::ReleaseBrake(args) => person::release_brake(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder-cache: {error:#}");
            if error.is::<larder_process::command_line::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// For each blob that is fetched at a time: two of its own, and as many again for whatever else waits for a disk.
const BLOCKING_THREADS: usize = 4;

/// Until SIGTERM.
fn run(args: &RunArgs) -> anyhow::Result<()> {
    let Config { mut proxy, kubernetes } = config::config(args)?;
    if let Some(folder) = store::folder(&proxy.store) {
        make_parent(folder).context("open the store")?;
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().max_blocking_threads(BLOCKING_THREADS * proxy.limits.pull.fetch.assemblies);
    let runtime = runtime.build().context("start a runtime")?;
    let kubernetes = kubernetes.map(|config| runtime.block_on(Kubernetes::open(config))).transpose()?;
    if let (Some(kubernetes), Some(service)) = (&kubernetes, &mut proxy.service) {
        service.callers = kubernetes.callers();
        if let Some(control) = &mut service.control {
            control.callers = kubernetes.control();
        }
        service.tls = service.tls.take().or(kubernetes.certificate().map(CertificateConfig::Held));
    }
    proxy.settings_beside = kubernetes.as_ref().and_then(Kubernetes::settings_beside);
    let opened = program::open(proxy)?;
    let shutdown = CancellationToken::new();
    runtime.block_on(async {
        stop_on_signals(&shutdown).context("listen to signals")?;
        let tasks = Tasks::new(shutdown.clone());
        if let Some(kubernetes) = kubernetes {
            kubernetes.start(&tasks, opened.readiness(), opened.metrics());
        }
        let served = opened.run(shutdown).await;
        let ended = tasks.finish(AFTER_SERVING).await;
        served?;
        ended.map_err(anyhow::Error::from)
    })
}
