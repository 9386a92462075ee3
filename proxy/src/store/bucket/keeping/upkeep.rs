//! What runs beside the serving: the holder `pull` says what it wants, and a collector lets go of what nobody wants.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::machine::run;
use super::operations::OfStore;
use super::pins::BucketPins;
use crate::store::StoreError;
use crate::store::bucket::shared::Shared;
use crate::store::removal::{Answer, Collector, Key, Operation, Prefix, Run, Wait};

/// Between two looks at a bucket that does not answer.
const LOOK: Duration = Duration::from_secs(1);

/// Three quarters to five quarters of it, so that replicas do not run together.
fn jittered(shared: &Shared, span: Duration) -> Duration {
    let random = shared.random().map_or(128, |bytes| u32::from(bytes[0]));
    span * 3 / 4 + span / 2 * random / 256
}

/// For as long as the program runs.
pub(in crate::store::bucket) async fn hold_pulls(shared: Arc<Shared>) {
    let pins = BucketPins { shared: Arc::clone(&shared) };
    loop {
        if !shared.client.gate.is_open() {
            sleep(LOOK.min(shared.config.removal.declare_every)).await;
            continue;
        }
        let mut pause = shared.config.removal.declare_every;
        if let Err(error) = pins.hold_pulls().await {
            tracing::debug!(%error, "store: what was pulled could not be declared complete; it is tried again");
            pause /= 4;
        }
        sleep(jittered(&shared, pause)).await;
    }
}

/// For as long as the program runs.
pub(in crate::store::bucket) async fn collect(shared: Arc<Shared>) {
    loop {
        sleep(jittered(&shared, shared.config.removal.every)).await;
        if shared.client.gate.is_open()
            && shared.sweeps_now()
            && let Err(error) = shared.sweep().await
        {
            tracing::debug!(%error, "store: what was left in the bucket could not be looked for; it is tried again");
        }
        while shared.client.gate.is_open() {
            match shared.collect().await {
                // There was more to do than one run does.
                Ok(run) if run.condemned + run.removed >= shared.config.removal.policy.most => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "store: what nobody wants could not be looked for; it is tried again");
                    break;
                }
            }
        }
    }
}

impl Shared {
    /// Whether a sweep goes with this run: by lot, so that it has its turn where no process lives from one sweep to the next.
    fn sweeps_now(&self) -> bool {
        let removal = &self.config.removal;
        let lot = self.random().map_or(0, |bytes| u128::from(bytes[0]) << 8 | u128::from(bytes[1]));
        lot * removal.sweep.as_millis() < removal.every.as_millis() << 16
    }

    /// One run of a collector.
    pub(in crate::store::bucket) async fn collect(self: &Arc<Self>) -> Result<Run, StoreError> {
        let policy = Arc::clone(&self.config.removal.policy);
        let mut collector = Collector::new(self.cluster.clone(), policy, self.new_names()?);
        let mut pins = BTreeSet::new();
        let seen = |operation: &Operation, answer: &Answer| {
            if let (Operation::List { prefix: Prefix::Pins(_), .. }, Answer::Page { entries, .. }) = (operation, answer)
            {
                pins.extend(entries.iter().filter_map(|entry| match &entry.key {
                    Key::Pin(name, _) => Some(name.clone()),
                    _ => None,
                }));
            }
        };
        let hands = OfStore { shared: self, pin: None };
        let ended = run(&mut collector, &hands, seen).await;
        let pins = u64::try_from(pins.len()).unwrap_or(u64::MAX);
        let run = ended.unwrap_or(Run { verdict: Err(Wait::Unanswered), condemned: 0, removed: 0 });
        match &run.verdict {
            Ok(()) if run.condemned + run.removed > 0 => {
                tracing::info!(
                    bucket = self.client.place,
                    pins,
                    condemned = run.condemned,
                    removed = run.removed,
                    "store: what nobody wants leaves the bucket"
                );
            }
            Ok(()) => tracing::debug!(pins, "store: nothing leaves the bucket"),
            Err(wait) => tracing::debug!(pins, %wait, "store: nothing leaves the bucket now"),
        }
        self.standings.note(&run, pins);
        Ok(run)
    }
}
