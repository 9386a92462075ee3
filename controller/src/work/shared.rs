//! What the work begins with: what a person decided, and what is there whoever leads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use larder_process::readiness::Readiness;

use crate::api_server::Heard;
use crate::cluster_cache::ClusterCache;
use crate::decide::bounds::Bounds;
use crate::decide::expiry::Rules;
use crate::leader::Note;
use crate::metrics::Metrics;
use crate::world::World;

/// What a person decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Nothing is changed, in the cache nor in the API server.
    pub observe: bool,
    /// How long images are kept without a Pod.
    pub rules: Rules,
    /// How much one namespace may have.
    pub bounds: Bounds,
    /// How often a registry is asked what a tag means.
    pub monitoring: Duration,
    /// Whether tags are followed of which nobody says anything.
    pub follow: bool,
    /// Images that are fetched at a time.
    pub concurrency: usize,
    /// How a person answers the brake.
    pub how_to_release: String,
}

/// What works on it, whoever leads.
pub struct Shared {
    /// What is known.
    pub world: Arc<World>,
    /// The API server.
    pub client: Client,
    /// What its answers say beside.
    pub heard: Heard,
    /// The cluster cache.
    pub cache: ClusterCache,
    /// What a person decided.
    pub settings: Settings,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What is wrong.
    pub readiness: Readiness,
    /// What a person has said to the brake.
    pub word: Mutex<Option<String>>,
    /// What the next leader has to know.
    pub note: Note,
    /// The page `/report`, as the work made it last.
    pub report: Arc<Mutex<String>>,
    /// This process, for events and jitter.
    pub identity: String,
}
