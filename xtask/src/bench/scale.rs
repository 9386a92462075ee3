//! How big and how long.

use std::time::Duration;

use super::row::Size;

/// Sizes of a run.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The blob of most rows, in bytes.
    pub(super) blob: usize,
    /// Of the row in which the origin counts bytes.
    pub(super) ranged_blob: usize,
    /// What a shaped connection to the origin gives, in bytes a second.
    pub(super) line: u64,
    /// How long a load that has no end of its own is kept up.
    pub(super) load: Duration,
    /// Of the image that containerd pulls.
    pub(super) layers: usize,
    /// Of each of its layers, in bytes.
    pub(super) layer: usize,
    /// How many a cluster grows by.
    pub(super) nodes: u32,
    /// What the controller has to do with.
    pub(super) cluster: Size,
    /// `CachedImages` that it finds when it starts.
    pub(super) objects: usize,
}

impl Scale {
    /// The blob of most rows, for people.
    pub(super) fn blob_size(&self) -> String {
        format!("{} MB", self.blob / 1_000_000)
    }

    /// What a shaped connection to the origin gives, for people.
    pub(super) fn line_speed(&self) -> String {
        format!("each connection to the origin has {} MB/s", self.line / 1_000_000)
    }

    /// What the goals speak of.
    pub(super) const FULL: Self = Self {
        blob: 200_000_000,
        ranged_blob: 100_000_000,
        line: 50_000_000,
        load: Duration::from_secs(2),
        layers: 10,
        layer: 100 << 20,
        nodes: 1000,
        cluster: Size { pods: 5_000, nodes: 500, images: 800, restarted_a_second: 40 },
        objects: 100_000,
    };

    /// For trying it out.
    pub(super) const QUICK: Self = Self {
        blob: 20_000_000,
        ranged_blob: 10_000_000,
        line: 50_000_000,
        load: Duration::from_millis(500),
        layers: 3,
        layer: 4 << 20,
        nodes: 200,
        cluster: Size { pods: 500, nodes: 50, images: 80, restarted_a_second: 50 },
        objects: 2_000,
    };
}
