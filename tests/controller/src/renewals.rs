//! When the Lease of the controllers was renewed, as each renewal says of itself: how busy whoever watches is makes no difference.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, WatchEvent, WatchParams};
use larder_test_callers::ControlPlane;
use tokio::runtime::Runtime;

use crate::world::client;

/// One renewal, or one that took it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Renewal {
    holder: String,
    transitions: i32,
    /// Since 1970, by the clock of the machine on which all of them run.
    at: Duration,
}

/// Of one Lease, from the beginning of this on.
pub struct Renewals {
    _runtime: Runtime,
    seen: Arc<Mutex<Vec<Renewal>>>,
}

impl Renewals {
    /// Begins to watch the Lease `name`.
    pub fn of(plane: &ControlPlane, namespace: &str, name: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let api = Api::<Lease>::namespaced(client(&runtime, &plane.administrator())?, namespace);
        let found = runtime.block_on(api.get(name)).with_context(|| format!("the Lease {namespace}/{name}"))?;
        let mut version = found.metadata.resource_version.context("a Lease has a version")?;
        let (seen, parameters) = (Arc::default(), WatchParams::default().fields(&format!("metadata.name={name}")));
        let log: Arc<Mutex<Vec<Renewal>>> = Arc::clone(&seen);
        runtime.spawn(async move {
            loop {
                let Ok(events) = api.watch(&parameters, &version).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let mut events = events.boxed();
                while let Ok(Some(event)) = events.try_next().await {
                    let (WatchEvent::Added(lease) | WatchEvent::Modified(lease)) = event else { continue };
                    if let Some(newer) = lease.metadata.resource_version.clone() {
                        version = newer;
                    }
                    log.lock().unwrap_or_else(PoisonError::into_inner).extend(renewal(lease));
                }
            }
        });
        Ok(Self { _runtime: runtime, seen })
    }

    /// How many there were, the longest time between two of them, and how often it was taken.
    pub fn so_far(&self) -> (usize, Duration, usize) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = || seen.iter().zip(seen.iter().skip(1));
        let longest = pairs().map(|(one, next)| next.at.saturating_sub(one.at)).max().unwrap_or_default();
        let taken =
            pairs().filter(|(one, next)| one.transitions != next.transitions || one.holder != next.holder).count();
        (seen.len(), longest, taken + usize::from(!seen.is_empty()))
    }
}

fn renewal(lease: Lease) -> Option<Renewal> {
    let spec = lease.spec?;
    let at = spec.renew_time?.0;
    let since = Duration::from_micros(u64::try_from(at.as_microsecond()).ok()?);
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty())?;
    Some(Renewal { holder, transitions: spec.lease_transitions.unwrap_or_default(), at: since })
}
