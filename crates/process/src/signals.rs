//! Signals that ask a process to stop: the first one cancels a token, and draining begins.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Makes SIGTERM and SIGINT cancel `shutdown`. Must be called inside the runtime.
///
/// A second signal ends the process at once with status 1, for the person who does not want to wait for the drain.
pub fn stop_on_signals(shutdown: &CancellationToken) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "stopping");
        shutdown.cancel();
        let name = next().await;
        tracing::warn!(signal = name, "second signal: not waiting for the rest");
        std::process::exit(1);
    });
    Ok(())
}
