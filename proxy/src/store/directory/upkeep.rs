//! What runs beside the serving: room ahead of those who write, the way back to health, counting, sweeping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::layout;
use super::pins;
use super::record::Sweep;
use super::shared::Shared;
use crate::store::{StoreError, StoreHealth};

/// How often an overdue operation is looked for; others' threads cannot be given a limit of their own.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often the disk is asked for its room.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Notices a disk that hangs and finds the way back to health, for ever. It waits for no operation on the disk itself.
pub(super) async fn health(shared: Arc<Shared>) {
    let recheck_every = shared.config.recheck_every;
    let mut probe: Option<oneshot::Receiver<Result<(), StoreError>>> = None;
    let mut next_probe = Instant::now();
    loop {
        sleep(LOOK_EVERY.min(recheck_every)).await;
        shared.gate.look_for_overdue();
        if let Some(running) = &mut probe {
            match running.try_recv() {
                Ok(result) => {
                    shared.gate.probed(&result);
                    probe = None;
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => probe = None,
            }
        }
        if shared.gate.health() != StoreHealth::Ok && probe.is_none() && Instant::now() >= next_probe {
            next_probe = Instant::now() + recheck_every;
            probe = start_probe(&shared);
        }
    }
}

/// Counts what pins keep, once, and then waits for ever.
pub(super) async fn pins(shared: Arc<Shared>) {
    loop {
        let at = Arc::clone(&shared);
        match shared.gate.run("count pins", shared.config.durable_within, move || pins::load(&at)).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => sleep(shared.config.recheck_every).await,
        }
    }
    count_pinned(&shared).await;
    std::future::pending::<()>().await;
}

/// Keeps room ahead of those who write, for ever.
pub(super) async fn room(shared: Arc<Shared>) {
    loop {
        let at = Arc::clone(&shared);
        let tidied = shared.gate.run("make room", shared.config.durable_within, move || at.tidy()).await;
        if tidied.is_ok() {
            let _ = timeout(TIDY_EVERY, shared.wake.notified()).await;
        } else {
            // With nothing to gain from it, a walk over all blobs is not for every second.
            sleep(shared.config.recheck_every).await;
        }
    }
}

/// On a thread of its own: behind threads that hang it would wait for them. There is never more than one.
fn start_probe(shared: &Arc<Shared>) -> Option<oneshot::Receiver<Result<(), StoreError>>> {
    let (answer, probe) = oneshot::channel();
    let shared = Arc::clone(shared);
    let work = move || {
        let _ = answer.send(shared.probe());
    };
    match std::thread::Builder::new().name("store-probe".to_owned()).spawn(work) {
        Ok(_) => Some(probe),
        Err(error) => {
            tracing::warn!(%error, "store: no thread to try the disk with");
            None
        }
    }
}

/// Counts what is there and sweeps records that are of no use, again and again.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        count(&shared).await;
        let at = Arc::clone(&shared);
        let _ = shared.gate.run("write the ceiling", shared.config.durable_within, move || at.lower_ceiling()).await;
        shared.stats.records_written.store(0, Ordering::Relaxed);
        let mut sweep = Sweep::new();
        loop {
            let at = Arc::clone(&shared);
            let step = shared.gate.run("sweep records", shared.config.durable_within, move || {
                let more = sweep.step(&at)?;
                Ok((sweep, more))
            });
            match step.await {
                Ok((back, true)) => sweep = back,
                Ok((back, false)) => {
                    let at = Arc::clone(&shared);
                    let _ =
                        shared.gate.run("sweep records", shared.config.durable_within, move || back.finish(&at)).await;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "store: a sweep was cut short");
                    break;
                }
            }
        }
        for folder in 0..pins::FOLDERS {
            let at = Arc::clone(&shared);
            let expired =
                shared.gate.run("look through pins", shared.config.durable_within, move || pins::expire(&at, folder));
            if let Err(error) = expired.await {
                tracing::warn!(%error, "store: pins of what was pulled through were not all looked through");
                break;
            }
        }
        for shard in 0..layout::SHARDS {
            let at = Arc::clone(&shared);
            let swept = shared.gate.run("sweep checksums", shared.config.durable_within, move || {
                at.blobs.sweep_checksums(&at.folder, shard, at.now(), at.config.record_grace)
            });
            if let Err(error) = swept.await {
                tracing::warn!(%error, "store: a sweep of checksums was cut short");
                break;
            }
        }
        rest(&shared).await;
    }
}

/// Until it is time again, or many records were written.
async fn rest(shared: &Shared) {
    let many = (shared.config.maximum_records / 10).max(1);
    let until = Instant::now() + shared.config.sweep_every;
    while Instant::now() < until && shared.stats.records_written.load(Ordering::Relaxed) < many {
        sleep(TIDY_EVERY.min(shared.config.sweep_every)).await;
    }
}

async fn count(shared: &Arc<Shared>) {
    for shard in 0..layout::SHARDS {
        loop {
            let at = Arc::clone(shared);
            let listed =
                shared.gate.run("count blobs", shared.config.durable_within, move || at.blobs.list(&at.folder, shard));
            match listed.await {
                Ok(_) => break,
                // It cannot be read now; the sums stay unfinished until it can.
                Err(_) => sleep(shared.config.recheck_every).await,
            }
        }
    }
    count_pinned(shared).await;
}

/// How much of it is pinned, for people.
async fn count_pinned(shared: &Arc<Shared>) {
    if !shared.pins.keep_nothing() {
        let at = Arc::clone(shared);
        let count = move || {
            at.oldest_blobs();
            Ok(())
        };
        let _ = shared.gate.run("count what is pinned", shared.config.durable_within, count).await;
    }
}
