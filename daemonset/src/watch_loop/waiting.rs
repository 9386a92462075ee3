//! What the loop waits for between two looks at the node.

use super::{Life, WatchLoop};
use anyhow::Context as _;
use larder_node_agent::watch::Watcher;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Without any event.
const LOOK_AT_LEAST: Duration = Duration::from_mins(1);
/// Between two looks at whether the engine's process and the registries file are still the same.
const TICK: Duration = Duration::from_secs(1);
/// The steps of one change are seen as one.
const SETTLE: Duration = Duration::from_millis(200);

/// Why the waiting is over.
pub(super) enum Next {
    LookAgain,
    EngineGone,
    Stop,
}

impl WatchLoop {
    /// Until there is a reason to look again.
    pub(super) async fn wait(&mut self, life: &mut Life, shutdown: &CancellationToken) -> anyhow::Result<Next> {
        let begun = Instant::now();
        let changed = life.watcher.as_ref().map(Watcher::changed);
        let registries = modified(self.around.config.registries.as_ref());
        loop {
            // Compared with what the last look saw, so that news that came during it is not missed.
            let announced = self.around.view.borrow_and_update().announced;
            if announced != life.announced || self.extent() != life.wanted_extent {
                return Ok(Next::LookAgain);
            }
            let event = async {
                match &changed {
                    Some(changed) => changed.notified().await,
                    None => std::future::pending().await,
                }
            };
            let objects = async {
                match &mut self.kubernetes {
                    Some(kubernetes) => kubernetes.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Next::Stop),
                () = objects => return Ok(Next::LookAgain),
                () = event => {
                    tokio::time::sleep(SETTLE).await;
                    return Ok(if life.runs() { Next::LookAgain } else { Next::EngineGone });
                }
                told = self.around.view.changed() => {
                    told.context("the supervising thread ended")?;
                    self.tell(Some(life));
                }
                () = tokio::time::sleep(TICK) => {}
            }
            if shutdown.is_cancelled() {
                return Ok(Next::Stop);
            }
            if !life.runs() {
                return Ok(Next::EngineGone);
            }
            if self.learn(life).await {
                return Ok(Next::LookAgain);
            }
            let now = Instant::now();
            let prove = life.prove_at.is_some_and(|at| now >= at) && self.around.announcer.is_announced();
            let settings_changed = modified(self.around.config.registries.as_ref()) != registries;
            if prove || settings_changed || now.duration_since(begun) >= LOOK_AT_LEAST {
                return Ok(Next::LookAgain);
            }
        }
    }
}

fn modified(file: Option<&PathBuf>) -> Option<(std::time::SystemTime, u64)> {
    let metadata = std::fs::metadata(file?).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
