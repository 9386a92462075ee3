//! What a fetch may cost, in one value, so that a test can make every bound small.

use std::time::Duration;

/// Bounds of [`super::Fetcher`].
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Assemblies at a time; each has two threads and a queue. Beyond it a request is passed through by itself.
    pub assemblies: usize,
    /// Assemblies that go on although nobody reads them any more.
    pub orphans: usize,
    /// How long such an assembly goes on.
    pub orphan_time: Duration,
    /// How long the origin has for the headers of one request.
    pub headers: Duration,
    /// Attempts to continue after a break, without [`FetchLimits::resume_progress`] in between.
    pub resume_tries: usize,
    /// Bytes after which the attempts count anew.
    pub resume_progress: u64,
    /// The first pause before continuing; the next ones double, with jitter, up to [`FetchLimits::resume_pause_longest`].
    pub resume_pause: Duration,
    /// The longest pause, also when the origin asks for a longer one (`Retry-After`).
    pub resume_pause_longest: Duration,
    /// How long the disk may make no progress before it counts as not answering.
    pub store_patience: Duration,
    /// The largest blob that is fetched.
    pub blob: u64,
    /// How long content that did not have its digest is refused.
    pub refuse_mismatch: Duration,
    /// How long content whose readers were cut short is refused.
    pub refuse_cut: Duration,
    /// The most that a reader takes from the file at a time: its memory.
    pub chunk: usize,
}

impl FetchLimits {
    /// Of a service that asks for a whole cluster: what one node would pass through by itself, hundreds ask for.
    pub fn of_a_cluster() -> Self {
        Self { assemblies: 192, orphans: 48, ..Self::default() }
    }
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            assemblies: 64,
            orphans: 16,
            orphan_time: Duration::from_mins(10),
            headers: Duration::from_secs(30),
            resume_tries: 6,
            resume_progress: 1 << 20,
            resume_pause: Duration::from_millis(100),
            resume_pause_longest: Duration::from_secs(5),
            store_patience: Duration::from_secs(5),
            blob: 1 << 40,
            refuse_mismatch: Duration::from_mins(5),
            refuse_cut: Duration::from_mins(1),
            chunk: 128 << 10,
        }
    }
}
