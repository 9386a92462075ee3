//! The spans and bounds that a collector works with. Safety rests on none of them but `tombstone`.

use std::time::Duration;

/// See each field. By the bucket's clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// How long a condemned blob stays: until then a reader ends in peace and whoever wants it copies it instead of asking its
    /// origin.
    pub grace: Duration,
    /// How old a blob is before it is condemned, so that what a pull is assembling is left alone.
    pub young: Duration,
    /// How old the newest declaration of a holder may be.
    pub declared_within: Duration,
    /// How long a mark outlives its blob. Longer than any request can be under way: signatures and tokens expire before.
    pub tombstone: Duration,
    /// How long pins may take to become fewer by a quarter without a word from a person.
    pub sudden: Duration,
    /// A drop of at most so many pins is no sudden one, unless none is left.
    pub small: u64,
    /// How many objects one run removes at most.
    pub most: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(24),
            young: Duration::from_hours(24),
            declared_within: Duration::from_hours(1),
            tombstone: Duration::from_hours(30 * 24),
            sudden: Duration::from_hours(24),
            small: 4,
            most: 1000,
        }
    }
}

impl Policy {
    /// How long a pull that completed keeps itself after its last use (holder `pull`).
    pub const PULL: Duration = Duration::from_hours(30 * 24);
}
