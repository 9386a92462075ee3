//! How a walk begins, who takes part, which faults there are, and what must hold besides what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use larder_oci::{Algorithm, Digest};

use super::machines::Kind;
use super::world::Object;
use crate::store::removal::rules::{Rule, Rules};
use crate::store::removal::{
    Body, BucketTime, Held, Key, Label, Names, Operation, Owner, PinName, Policy, Prefix, Reference,
};

pub(super) fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

pub(super) fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

pub(super) fn owner(cluster: &str) -> Owner {
    Owner { cluster: label(cluster), holder: label("pull") }
}

pub(super) fn pin_name(cluster: &str, image: &str) -> PinName {
    PinName { owner: owner(cluster), image: label(image) }
}

pub(super) fn held(blob: &str, generation: &str) -> Held {
    Held { digest: digest(blob), generation: Names::new(generation).unwrap().take() }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, and any of them may go with any other")]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) rules: Rules,
    pub(super) policy: Arc<Policy>,
    pub(super) bucket: BTreeMap<Key, Object>,
    pub(super) promised: BTreeMap<PinName, (Key, BTreeSet<Digest>)>,
    pub(super) participants: Vec<(Kind, u8)>,
    /// Requests of the past that are still under way.
    pub(super) late: Vec<Operation>,
    pub(super) faults: u8,
    /// Whether a write may arrive twice.
    pub(super) twice: bool,
    /// Whether the origin delivers.
    pub(super) origin: bool,
    /// Keys in a page of a listing; 0: all.
    pub(super) page: usize,
    /// How often time may pass, and how much of it at a time; what is under way then is refused for its age.
    pub(super) ticks: (u8, u64),
    /// Pins that go all at once at some moment.
    pub(super) mass: Vec<Key>,
    /// Whether nobody writes records of holders and collectors, so that it does not matter when they are read.
    pub(super) records_stay: bool,
    /// Whether no pin is ever removed, so that it does not matter when it is read, once listed.
    pub(super) pins_stay: bool,
    /// Of these some generation must be there in every state.
    pub(super) stays: Vec<Digest>,
    /// Whether a pinner may have to ask the origin.
    pub(super) may_fetch: bool,
    /// Whether what is left in the end is looked at.
    pub(super) settles: bool,
    /// What a violation must say to count.
    pub(super) looks_for: &'static str,
}

/// Time begins here, so that something can be older.
pub(super) const START: u64 = 1000;

impl Setting {
    /// Two clusters `a` and `b`, whose holders have declared. Every span is nothing: collectors are as hasty as can be.
    pub(super) fn new(name: &'static str) -> Self {
        let nothing = Duration::ZERO;
        let policy = Policy {
            grace: nothing,
            young: nothing,
            declared_within: Duration::from_secs(500),
            tombstone: nothing,
            sudden: Duration::from_secs(100_000),
            small: 100,
            most: 100,
        };
        let mut setting = Self {
            name,
            rules: Rules::default(),
            policy: Arc::new(policy),
            bucket: BTreeMap::new(),
            promised: BTreeMap::new(),
            participants: Vec::new(),
            late: Vec::new(),
            faults: 0,
            twice: false,
            origin: true,
            page: 0,
            ticks: (0, 0),
            mass: Vec::new(),
            records_stay: true,
            pins_stay: false,
            stays: Vec::new(),
            may_fetch: true,
            settles: true,
            looks_for: "",
        };
        for cluster in ["a", "b"] {
            setting.declared(cluster, START);
            setting.reference(cluster, 10);
        }
        // Something that is pinned all the time, so that the pins are never none.
        setting.pin("a", "other", &["other"]);
        setting.blob("other", "o1");
        setting
    }

    pub(super) fn put(&mut self, key: Key, body: Body) {
        self.bucket.insert(key, Object { body, modified: BucketTime(START - 1) });
    }

    pub(super) fn declared(&mut self, cluster: &str, as_of: u64) {
        self.bucket.retain(|key, _| !matches!(key, Key::Declaration(of, ..) if *of == owner(cluster)));
        let unique = Names::new("first").unwrap().take();
        self.put(Key::Declaration(owner(cluster), BucketTime(as_of), unique), Body::Empty);
    }

    pub(super) fn reference(&mut self, cluster: &str, pins: u64) {
        self.bucket.retain(|key, _| !matches!(key, Key::Reference(of, ..) if *of == label(cluster)));
        let reference = Reference { pins, since: BucketTime(START - 2) };
        self.put(Key::Reference(label(cluster), reference, Names::new("first").unwrap().take()), Body::Empty);
    }

    pub(super) fn blob(&mut self, blob: &str, generation: &str) {
        self.put(Key::Blob(held(blob, generation)), Body::Empty);
    }

    pub(super) fn mark(&mut self, blob: &str, generation: &str) {
        self.put(Key::Mark(held(blob, generation)), Body::Empty);
    }

    /// A pin that is complete.
    pub(super) fn pin(&mut self, cluster: &str, image: &str, blobs: &[&str]) -> Key {
        let (name, digests) =
            (pin_name(cluster, image), blobs.iter().map(|blob| digest(blob)).collect::<BTreeSet<_>>());
        let key = Key::Pin(name.clone(), Names::new("first").unwrap().take());
        self.put(key.clone(), Body::Pin(digests.clone()));
        self.promised.insert(name, (key.clone(), digests));
        key
    }

    pub(super) fn collectors(&mut self, runs: &[(&str, u8)]) {
        self.participants.extend(runs.iter().map(|(cluster, runs)| (Kind::Collector(label(cluster)), *runs)));
    }

    pub(super) fn pinner(&mut self, cluster: &str, image: &str, blobs: &[&str]) {
        let digests = blobs.iter().map(|blob| digest(blob)).collect();
        self.participants.push((Kind::Pinner(pin_name(cluster, image), digests), 1));
    }

    /// Goes on with one of several pins of a name that are there, and then removes `older`, by their seeds.
    pub(super) fn continuer(&mut self, (cluster, image): (&str, &str), blobs: &[&str], own: &str, older: &[&str]) {
        let (name, digests) = (pin_name(cluster, image), blobs.iter().map(|blob| digest(blob)).collect());
        let unique = |seed: &str| Names::new(seed).unwrap().take();
        let older = older.iter().map(|seed| Key::Pin(name.clone(), unique(seed))).collect();
        self.participants.push((Kind::Continuer(name, digests, unique(own), older), 1));
    }

    pub(super) fn unpinner(&mut self, cluster: &str, image: &str) {
        self.participants.push((Kind::Unpinner(pin_name(cluster, image)), 1));
    }

    pub(super) fn reader(&mut self, blob: &str) {
        self.participants.push((Kind::Reader(digest(blob)), 1));
    }

    pub(super) fn policy(&mut self, change: impl FnOnce(&mut Policy)) {
        change(Arc::make_mut(&mut self.policy));
    }

    pub(super) fn without(mut self, rule: Rule) -> Self {
        self.rules.omitted = Some(rule);
        self
    }

    /// Whether it does not matter when, in between the steps of others, this is done: nobody else sees or changes what it is about.
    pub(super) fn is_private(&self, operation: &Operation) -> bool {
        match operation {
            // Two collectors of one cluster may take each other's clocks away.
            Operation::Put(Key::Clock(..), _)
            | Operation::Delete(Key::Clock(..))
            | Operation::Clusters
            | Operation::List { prefix: Prefix::Removal(_) | Prefix::Holders(_), .. } => self.records_stay,
            Operation::GetPin(_) => self.pins_stay,
            _ => false,
        }
    }
}
