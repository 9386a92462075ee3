//! The conditions of an UpstreamRegistry.

use crate::condition::reasons;

reasons! {
    /// Whether the registry answers.
    Reachable of "Reachable" {
        /// It answers.
        Answers = True,
        /// Nothing answers at any of its endpoints.
        Unreachable = False,
        /// Its certificate is not trusted.
        Untrusted = False,
        /// It answers with errors.
        Failing = False,
        /// It wants to be left in peace for a while (429).
        RateLimited = False,
        /// It is skipped: nobody of Larder asks it.
        Skipped = Unknown,
        /// Nobody has asked it yet, or nobody does: no image of it is wanted.
        NotAsked = Unknown,
    }
}

reasons! {
    /// Whether every image of it that is wanted is in the cache.
    AllCached of "AllCached" {
        /// Every one is.
        EveryImage = True,
        /// No image of it is wanted.
        NoImages = True,
        /// Some are not; the message counts them.
        SomeMissing = False,
        /// It is skipped: none is cached.
        Skipped = False,
        /// Nobody has counted yet.
        NotCounted = Unknown,
    }
}

reasons! {
    /// Whether what its spec says is in force.
    Accepted of "Accepted" {
        /// It is.
        Valid = True,
        /// The certificates in ca cannot be used; the message says which.
        InvalidCertificates = False,
        /// The object's name is not that of its registry: it is not looked at. The message says the name.
        WrongName = False,
        /// Something else in it cannot be used; the message says what.
        Invalid = False,
    }
}
