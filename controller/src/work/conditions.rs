//! What `/readyz` says of the work.

use larder_process::readiness::{Condition, Readiness};

use super::held;

/// Each is said and taken back where it is noticed.
pub(super) struct Conditions {
    pub(super) cache: Condition,
    pub(super) brake: Condition,
    pub(super) expiry: Condition,
    pub(super) clock: Condition,
    pub(super) unreadable: Condition,
    pub(super) api: Condition,
    pub(super) declared: Condition,
    pub(super) lists: Condition,
}

impl Conditions {
    pub(super) fn of(readiness: &Readiness) -> Self {
        Self {
            cache: readiness.condition("cluster cache"),
            brake: readiness.condition(held::PINS),
            expiry: readiness.condition(held::OBJECTS),
            clock: readiness.condition("clock"),
            unreadable: readiness.condition("unreadable"),
            api: readiness.condition("API server"),
            declared: readiness.condition("declaration"),
            lists: readiness.condition("lists"),
        }
    }

    /// All that only whoever leads knows.
    pub(super) fn clear(&self) {
        let Self { cache, brake, expiry, clock, unreadable, api, declared, lists } = self;
        for condition in [cache, brake, expiry, clock, unreadable, api, declared, lists] {
            condition.clear();
        }
    }
}
