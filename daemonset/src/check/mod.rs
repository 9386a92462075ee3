//! `larder-node check`: what `helm test` runs. On each node a Pod pulls an image through that node's proxy ([`pull`]), sees that the
//! cluster cache answered for the proxy ([`cluster_cache`]), and stays while it may; another one waits until every node that has Larder
//! has such a Pod ([`nodes`]), by names alone: nobody here speaks to the Kubernetes API.

mod cluster_cache;
mod nodes;
mod pull;

use crate::args::CheckCommand;
use anyhow::Context as _;
use larder_process::signals::stop_on_signals;
use tokio_util::sync::CancellationToken;

/// Runs to its end, or until SIGTERM.
pub(crate) fn run(command: &CheckCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(&shutdown).context("listen to signals")?;
        let work = async {
            match command {
                CheckCommand::Pull(args) => pull::run(args).await,
                CheckCommand::Nodes(args) => nodes::run(args).await,
                CheckCommand::Stay => std::future::pending().await,
            }
        };
        shutdown.run_until_cancelled(work).await.unwrap_or(Ok(()))
    })
}
