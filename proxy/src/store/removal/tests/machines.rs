//! Who takes part: the very machines that the bucket store's shell will run.

use std::collections::BTreeSet;
use std::sync::Arc;

use larder_oci::Digest;

use super::setting::Setting;
use crate::store::removal::{
    Answer, Collector, Key, Label, Names, Operation, PinName, Pinner, Reader, Step, Unique, Unpinner,
};

/// Who takes part.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Collector(Label),
    Pinner(PinName, BTreeSet<Digest>),
    /// Goes on with a pin that is there, and then removes others.
    Continuer(PinName, BTreeSet<Digest>, Unique, BTreeSet<Key>),
    Unpinner(PinName),
    Reader(Digest),
}

#[derive(Debug, Clone, Hash)]
pub(super) enum Machine {
    Collector(Collector),
    Pinner(Pinner),
    Unpinner(Unpinner),
    Reader(Reader),
}

impl Machine {
    pub(super) fn new(kind: &Kind, names: &str, setting: &Setting) -> Self {
        let names = Names::new(names).unwrap();
        let (policy, rules) = (Arc::clone(&setting.policy), setting.rules);
        match kind.clone() {
            Kind::Collector(cluster) => Self::Collector(Collector::with(cluster, policy, names, rules)),
            Kind::Pinner(name, digests) => Self::Pinner(Pinner::with(name, digests, names, rules)),
            Kind::Continuer(name, digests, own, older) => {
                Self::Pinner(Pinner::knowing(name, digests, older, Some(own), names))
            }
            Kind::Unpinner(name) => Self::Unpinner(Unpinner::new(name)),
            Kind::Reader(digest) => Self::Reader(Reader::with(digest, 2, rules)),
        }
    }

    pub(super) fn next(&self) -> Option<Operation> {
        fn operation<T>(step: Step<T>) -> Option<Operation> {
            if let Step::Do(operation) = step { Some(operation) } else { None }
        }
        match self {
            Self::Collector(machine) => operation(machine.next()),
            Self::Pinner(machine) => operation(machine.next()),
            Self::Unpinner(machine) => operation(machine.next()),
            Self::Reader(machine) => operation(machine.next()),
        }
    }

    pub(super) fn feed(&mut self, answer: Answer) {
        match self {
            Self::Collector(machine) => machine.feed(answer),
            Self::Pinner(machine) => machine.feed(answer),
            Self::Unpinner(machine) => machine.feed(answer),
            Self::Reader(machine) => machine.feed(answer),
        }
    }
}
