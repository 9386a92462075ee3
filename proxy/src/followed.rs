//! Files that are read again while the process runs: tokens, certificates.

use std::time::Duration;

use larder_process::readiness::Condition;
use tokio_util::sync::CancellationToken;

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Calls `load` every few seconds, on a blocking thread, until `shutdown`. It compares and takes what is new by itself; where it fails,
/// what was read before stays in force, which the condition says.
pub(crate) async fn follow(
    load: impl Fn() -> Result<(), String> + Clone + Send + 'static,
    condition: Condition,
    shutdown: CancellationToken,
) {
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let load = load.clone();
        let loaded = tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| Err(error.to_string()));
        match loaded {
            Ok(()) => {
                condition.clear();
            }
            Err(error) => {
                if condition.set(format!("{error}; what was read before stays in force")) {
                    tracing::error!("{error}; what was read before stays in force");
                }
            }
        }
    }
}
