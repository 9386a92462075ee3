//! Pins on a bucket in memory. On real servers: `tests/bucket`.

use super::*;
use crate::pins::Pins;
use crate::pins::conformance::pins_conformance_tests;

async fn kept() -> ((Arc<dyn Pins>, Arc<dyn Store>), Around) {
    let (store, around) = store_on(Arc::new(InMemory::new()), |_| {}).await;
    ((store.pins(), store as Arc<dyn Store>), around)
}

pins_conformance_tests!(kept().await);
