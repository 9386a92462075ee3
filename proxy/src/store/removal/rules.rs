//! The rules of the protocol by name, so that tests can leave each of them out and see what goes wrong. The program leaves out
//! none: outside of tests there is nothing that could.

/// A rule. What each says is its name, read after "the protocol holds that".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// A pin is written before its blobs are looked for.
    PinBeforeLook,
    /// A condemned generation is nothing to rely on.
    CondemnedIsNotUsable,
    /// A pinner lists a digest's marks before its blobs.
    MarksBeforeBlobs,
    /// A blob is written under a generation that never was.
    NewGeneration,
    /// A pin is written under a key that never was.
    NewPinKey,
    /// What is not known to be done is not taken for done.
    UnknownIsNotDone,
    /// A pinner removes only those older pins that it saw before it wrote its own.
    ReleasesOnlyOlder,
    /// A blob is deleted only after it was condemned.
    CondemnedFirst,
    /// Pins are listed after the marks that are acted on.
    PinsAfterMarks,
    /// The pins of every cluster count.
    EveryCluster,
    /// A mark stays, whoever pins its digest later.
    MarksStay,
    /// A mark outlives its blob.
    Tombstone,
    /// Of a pinned digest a condemned generation goes only where another one is that is not condemned.
    Witness,
    /// That other one is looked up in a listing of marks that began after the first one ended.
    LaterWitness,
    /// And that listing of marks comes before the blobs are listed.
    WitnessThere,
    /// A reader whose key is gone looks for another.
    LooksAgain,
    /// Nothing goes while a declaration is too old.
    FreshHolders,
    /// Nothing goes while a cluster or a pin has no holder that declared.
    KnownHolders,
    /// A declaration's age is told by what it says, not by when it was written.
    StatedTime,
    /// Fewer pins by more than a quarter wait.
    Brake,
    /// The newest reference is told by what it says, not by when it was written.
    StatedReference,
    /// A word is good for the reference that it names.
    WordForOne,
    /// A condemned blob stays for a while.
    Grace,
}

/// The rules that a machine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Rules {
    #[cfg(test)]
    pub(super) omitted: Option<Rule>,
}

impl Rules {
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "only a test's rules hold anything"))]
    pub(super) fn keep(self, rule: Rule) -> bool {
        #[cfg(test)]
        if self.omitted == Some(rule) {
            return false;
        }
        let _ = rule;
        true
    }
}
