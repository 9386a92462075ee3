//! The conditions of a NodeMirror.

use crate::condition::reasons;

reasons! {
    /// Whether the engine was seen to ask Larder.
    Configured of "Configured" {
        /// It was, by every kind of place that there is.
        Proved = True,
        /// It was, and for single registries it was not; toDo names them.
        ProvedButSome = True,
        /// It is told to, and was not seen to yet.
        NotProved = False,
        /// It was tried, and the engine asked somebody else; the message says what it said.
        NotSeen = False,
        /// There is no engine, or none that Larder knows; the message says where it looked.
        NoEngine = False,
        /// The engine's own configuration has to be changed first; the message says how.
        NeedsConfiguration = False,
        /// A file of the node cannot be changed; the message names it.
        CannotWrite = False,
        /// The engine is not told to ask Larder at the moment: see Withdrawn.
        Withdrawn = False,
    }
}

reasons! {
    /// Whether the engine is not told to ask Larder at the moment, and pulls directly.
    Withdrawn of "Withdrawn" {
        /// It is told to.
        Announced = False,
        /// The proxy is starting.
        ProxyStarting = True,
        /// The proxy is dead, and is started again.
        ProxyDead = True,
        /// The proxy hung, and was killed; Larder waits before it trusts it again.
        ProxyHung = True,
        /// Somebody else has the proxy's address; the message says who.
        Stranger = True,
        /// The agent is stopping.
        Stopping = True,
        /// Nothing is placed on the node; Configured says why.
        NothingPlaced = True,
    }
}

reasons! {
    /// Whether somebody else writes what Larder writes.
    Conflict of "Conflict" {
        /// Nobody does.
        Nobody = False,
        /// Something keeps changing the same file; Larder backs off, its file comes first.
        OtherWriter = True,
        /// Somebody edited a block or a file of Larder's; it is left as it is.
        ForeignEdit = True,
        /// A name that is needed is taken by something that is not Larder's.
        Occupied = True,
    }
}
