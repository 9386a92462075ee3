//! How long an answer may take, and how long things are remembered.

use std::time::Duration;

use super::Redirects;
use crate::fetch::FetchLimits;

/// Bounds of [`super::Puller`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a tag is asked for while a cached answer exists; a registry that is slow but answers gets more.
    pub freshness: Duration,
    /// The most that it gets.
    pub freshness_longest: Duration,
    /// How long is waited once a registry has let that time pass and has not answered since.
    pub freshness_overdue: Duration,
    /// How long a client waits for the head of a manifest, whatever has to be looked at and asked for it.
    pub answer: Duration,
    /// How long the origin has in all, for an answer that the store still profits from.
    pub background: Duration,
    /// How long "needs credentials" is remembered of a repository.
    pub denied: Duration,
    /// How long an image is refused to clients that stay with whoever gave them the manifest, after something of it could not be
    /// given.
    pub broken: Duration,
    /// At a stop: how long such a client may ask for nothing and is still waited for. Between a manifest and the first blob it
    /// looks at signatures, which may be elsewhere.
    pub quiet: Duration,
    /// How long the disk may take for the first bytes of a stored blob, which are checked before the headers leave.
    pub first_chunk: Duration,
    /// How long the disk may take for one look at whether an image can be given as a whole, before a client is told that it cannot.
    pub look_at_disk: Duration,
    /// After how long a confirmation is written down anew.
    pub confirmation: Duration,
    /// Who is sent to where the store keeps a blob.
    pub redirects: Redirects,
    /// Bounds of fetching blobs.
    pub fetch: FetchLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            freshness: Duration::from_secs(3),
            freshness_longest: Duration::from_secs(8),
            freshness_overdue: Duration::from_millis(250),
            answer: Duration::from_secs(10),
            background: Duration::from_secs(30),
            denied: Duration::from_mins(5),
            broken: Duration::from_mins(5),
            quiet: Duration::from_secs(5),
            first_chunk: Duration::from_secs(2),
            look_at_disk: Duration::from_secs(2),
            confirmation: Duration::from_mins(1),
            redirects: Redirects::default(),
            fetch: FetchLimits::default(),
        }
    }
}
