//! What runs beside the serving: the way back to a bucket that did not answer, what is owed to it, uploads that were left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::client::{Client, Created, Who};
use super::layout::{Layout, VERSION};
use super::shared::Shared;
use crate::store::StoreError;

/// The first pause of the probe; the next ones double.
const PAUSE: Duration = Duration::from_millis(500);
/// The first one before what another replica writes at this moment is looked for again; the next ones double.
const SEEN_AFTER: Duration = Duration::from_millis(20);
/// Between two looks at what is owed.
const SETTLE: Duration = Duration::from_secs(30);
pub(super) const LARGEST_VERSION: u64 = 4096;

#[derive(Serialize, Deserialize)]
struct VersionRecord {
    version: u64,
}

impl Shared {
    /// Looks at the bucket's version, writes it where there is none, and lets everybody in. An error is one for a person to mend; a
    /// bucket that does not answer leaves the gate closed.
    pub(super) async fn look_at_version(&self) -> Result<(), StoreError> {
        let key = self.layout.version();
        let mut found = self.client.get(Who::Probe, &key, LARGEST_VERSION).await;
        if matches!(found, Ok(None)) {
            let ours = Bytes::from(serde_json::to_vec(&VersionRecord { version: VERSION }).unwrap_or_default());
            found = match self.client.create(Who::Probe, &key, ours).await {
                // Somebody else may have been first, also where the server did not heed the condition.
                Ok(Created::Written | Created::ExistsAlready) => self.read_written_version(&key).await,
                Err(error) => Err(error),
            };
        }
        match found {
            Ok(Some(bytes)) => check_version(&self.client, &self.layout, &bytes)?,
            Ok(None) => {
                let reason = format!("{key} was written and is not there: it is looked for again");
                self.client.gate.stays_closed(&self.client.place, &reason);
                return Ok(());
            }
            Err(error) => {
                self.client.gate.stays_closed(&self.client.place, &error.to_string());
                return Ok(());
            }
        }
        self.client.gate.open(&self.client.place);
        Ok(())
    }

    /// A server may refuse our write because of another replica's that cannot be read yet.
    async fn read_written_version(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let mut pause = SEEN_AFTER;
        loop {
            let found = self.client.get(Who::Probe, key, LARGEST_VERSION).await;
            if !matches!(found, Ok(None)) || pause > PAUSE {
                return found;
            }
            sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Whether a store of this version may be used.
pub(super) fn check_version(client: &Client, layout: &Layout, bytes: &[u8]) -> Result<(), StoreError> {
    let place = client.place.clone();
    let wrong = |reason: String| StoreError::Bucket { operation: "read the version of", place: place.clone(), reason };
    match serde_json::from_slice::<VersionRecord>(bytes) {
        Ok(VersionRecord { version }) if version == VERSION => Ok(()),
        Ok(VersionRecord { version }) if version > VERSION => {
            Err(StoreError::NewerLayout { path: place.into(), found: version, known: VERSION })
        }
        Ok(VersionRecord { version }) => Err(wrong(format!("there never was a layout version {version}"))),
        Err(error) => {
            Err(wrong(format!("{} is not ours ({error}): give Larder a prefix of its own", layout.version())))
        }
    }
}

/// Brings the bucket back, for as long as the program runs.
pub(super) async fn health(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    loop {
        if shared.client.gate.is_open() {
            pause = PAUSE;
            shared.client.gate.closed.notified().await;
            continue;
        }
        sleep(pause).await;
        pause = (pause * 2).min(shared.config.probe_every.max(PAUSE));
        if let Err(error) = shared.look_at_version().await {
            shared.client.gate.stays_closed(&shared.client.place, &error.to_string());
            tracing::error!(%error, "store: the bucket is not used");
        }
        if shared.client.gate.is_open() {
            shared.due.notify_one();
        }
    }
}

/// Writes what is owed.
pub(super) async fn settle(shared: Arc<Shared>) {
    loop {
        if shared.client.gate.is_open() && (shared.records.owed() > 0 || shared.owed.count() > 0) {
            if let Err(error) = shared.settle_records().await {
                tracing::debug!(%error, "store: records wait for the bucket");
            }
            shared.settle_blobs().await;
        }
        let _ = timeout(SETTLE, shared.due.notified()).await;
    }
}

/// Gives up uploads that were left.
pub(super) async fn uploads(shared: Arc<Shared>) {
    loop {
        sleep(shared.config.upload_look).await;
        if shared.client.gate.is_open()
            && let Err(error) = shared.expire_uploads().await
        {
            tracing::debug!(%error, "store: uploads that were left could not be looked at");
        }
    }
}
