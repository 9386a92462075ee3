//! The conditions of a CachedImage.

use crate::condition::reasons;

reasons! {
    /// Whether the image can be pulled while its registry is away.
    Cached of "Cached" {
        /// Every blob of every digest that matters is in the cache.
        Complete = True,
        /// The reference is in the cache; a digest that some Pod has, the newest one, or a platform is not yet.
        Incomplete = False,
        /// Its turn to be fetched comes.
        Queued = False,
        /// What is left of its registry's quota is kept for the pulls of nodes (pacing.keepQuotaPercent); it is fetched when more is left.
        QuotaKept = False,
        /// It is being fetched.
        Fetching = False,
        /// Fetching it failed; it is tried again.
        Retrying = False,
        /// It needs credentials: private images are left to the nodes.
        Private = False,
        /// It is not fetched: a rule forbids it, the registry is skipped, there is none of the platforms, or the cache takes no such wish.
        Refused = False,
        /// The registry does not have it, and the cache never had it.
        NotFound = False,
        /// Its namespace has as many images, or bytes, as it may have.
        OverLimit = False,
        /// The cluster cache does not answer.
        CacheUnreachable = Unknown,
        /// Nobody has looked yet.
        Pending = Unknown,
    }
}

reasons! {
    /// Whether the registry still has the image.
    UpstreamAvailable of "UpstreamAvailable" {
        /// The registry has it.
        Present = True,
        /// The registry says that it has no such image any more, which the cache has or had.
        Gone = False,
        /// The registry says that it has no such image, and the cache never had it: its name is not right, as a rule.
        NotFound = False,
        /// The registry gives it to nobody without credentials.
        Denied = False,
        /// The registry cannot be reached.
        Unreachable = False,
        /// The registry answers with errors.
        Failing = False,
        /// The registry wants to be left in peace for a while.
        RateLimited = Unknown,
        /// Nobody has asked the registry yet, or is to.
        NotChecked = Unknown,
    }
}

reasons! {
    /// Whether what is cached is what the registry has for the reference.
    UpToDate of "UpToDate" {
        /// It is.
        Same = True,
        /// The reference is a digest, which means the same for ever.
        ByDigest = True,
        /// The tag means something else at the registry now.
        Moved = False,
        /// Nothing is cached.
        NotCached = False,
        /// The registry has not said what the tag means, or no longer says it.
        NotChecked = Unknown,
    }
}
