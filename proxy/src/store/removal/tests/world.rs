//! The bucket, whoever acts on it, and what is still under way to it.
//!
//! The bucket is as the protocol assumes it: a request takes effect at one moment, whole or not at all, and a read or a listing
//! that begins later sees it. Nothing else is assumed: what was sent may take effect late, twice, or never.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use larder_oci::Digest;

use super::machines::{Kind, Machine};
use super::setting::{START, Setting};
use crate::store::removal::{
    Answer, Body, BucketTime, Entry, Held, Key, Names, Operation, PinName, Prefix, Read, Step,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Object {
    pub(super) body: Body,
    pub(super) modified: BucketTime,
}

/// What a broken promise says.
pub(super) const GONE: &str = "its blob is gone";

type Bucket = BTreeMap<Key, Object>;

/// A part of a state, shared by all states in which it is the same, with its hash.
#[derive(Debug, Clone)]
struct Part<T>(Arc<T>, u64);

impl<T: Hash + Clone> Part<T> {
    fn new(value: T) -> Self {
        let print = print_of(&value);
        Self(Arc::new(value), print)
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(Arc::make_mut(&mut self.0));
        self.1 = print_of(&*self.0);
        result
    }
}

fn print_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone)]
struct Participant {
    machine: Part<Machine>,
    /// Which of its lives this is.
    life: u8,
    /// How many more of them there are.
    runs: u8,
}

/// What must hold, seen from outside.
#[derive(Debug, Clone, Hash, Default)]
struct Promises {
    /// Pins that were completed and that nobody began to remove.
    completed: BTreeMap<PinName, (Key, BTreeSet<Digest>)>,
    /// Pins that somebody began to remove after they were sent: their holder does not want them any more.
    withdrawn: BTreeSet<Key>,
    /// Generations that somebody sent a delete for.
    doomed: BTreeSet<Held>,
    broken: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    bucket: Part<Bucket>,
    promises: Part<Promises>,
    participants: Vec<Participant>,
    late: Part<Vec<Operation>>,
    pub(super) clock: u64,
    ticks: u8,
    faults: u8,
    mass_done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The next operation is carried out and answered.
    Step(usize),
    /// It is sent, nobody knows whether it arrived, and it is under way.
    Lose(usize),
    /// It is carried out and answered, and a second copy is under way.
    Twice(usize),
    /// It is sent, whoever sent it dies and begins anew.
    Crash(usize),
    /// Something that was under way arrives.
    Arrive(usize),
    /// Time passes.
    Tick,
    /// Pins go, all at once.
    Mass,
}

impl Action {
    pub(super) fn is_a_step(&self) -> bool {
        matches!(self, Self::Step(_))
    }
}

impl World {
    pub(super) fn new(setting: &Setting) -> Self {
        let names = |index| format!("m{index}x0");
        let participant = |(index, (kind, runs)): (usize, &(Kind, u8))| Participant {
            machine: Part::new(Machine::new(kind, &names(index), setting)),
            life: 0,
            runs: runs - 1,
        };
        let promises = Promises { completed: setting.promised.clone(), ..Promises::default() };
        let mut world = Self {
            bucket: Part::new(setting.bucket.clone()),
            promises: Part::new(promises),
            participants: setting.participants.iter().enumerate().map(participant).collect(),
            late: Part::new(setting.late.clone()),
            clock: START,
            ticks: setting.ticks.0,
            faults: setting.faults,
            mass_done: setting.mass.is_empty(),
        };
        world.go_on(setting);
        world
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.bucket.0.keys()
    }

    pub(super) fn print(&self) -> u64 {
        let participants: Vec<_> = self.participants.iter().map(|one| (one.machine.1, one.life, one.runs)).collect();
        let parts = (self.bucket.1, self.promises.1, participants, self.late.1);
        print_of(&(parts, self.clock, self.ticks, self.faults, self.mass_done))
    }

    /// All that can happen now.
    pub(super) fn actions(&self, setting: &Setting) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, one) in self.participants.iter().enumerate() {
            let Some(operation) = one.machine.0.next() else { continue };
            actions.push(Action::Step(index));
            if self.faults > 0 {
                if is_a_write(&operation) {
                    actions.push(Action::Lose(index));
                    actions.extend(setting.twice.then_some(Action::Twice(index)));
                }
                actions.push(Action::Crash(index));
            }
        }
        actions.extend((0..self.late.0.len()).map(Action::Arrive));
        actions.extend((self.ticks > 0).then_some(Action::Tick));
        actions.extend((!self.mass_done).then_some(Action::Mass));
        actions
    }

    pub(super) fn act(&mut self, action: Action, setting: &Setting) {
        match action {
            Action::Step(index) => self.step(index, setting),
            Action::Twice(index) => {
                self.faults -= 1;
                self.late.change(|late| late.extend(self.participants[index].machine.0.next()));
                self.step(index, setting);
            }
            Action::Lose(index) => {
                self.faults -= 1;
                self.send_late(index, setting);
                self.feed(index, Answer::Unknown, setting);
            }
            Action::Crash(index) => {
                self.faults -= 1;
                self.send_late(index, setting);
                self.begin_anew(index, setting);
            }
            Action::Arrive(index) => {
                let operation = self.late.change(|late| late.remove(index));
                self.carry_out(&operation, setting);
            }
            Action::Tick => {
                self.ticks -= 1;
                self.clock += setting.ticks.1;
                self.late.change(Vec::clear);
            }
            Action::Mass => {
                self.mass_done = true;
                for key in &setting.mass {
                    self.unpromise(key);
                    self.bucket.change(|bucket| bucket.remove(key));
                }
            }
        }
        self.go_on(setting);
    }

    pub(super) fn describe(&self, action: Action) -> String {
        let who = |index: usize| format!("{action:?} {:?}", self.participants[index].machine.0.next());
        match action {
            Action::Step(index) | Action::Lose(index) | Action::Twice(index) | Action::Crash(index) => who(index),
            Action::Arrive(index) => format!("{action:?} {:?}", self.late.0[index]),
            Action::Tick | Action::Mass => format!("{action:?}"),
        }
    }

    /// What must hold in every state and does not.
    pub(super) fn violation(&self, setting: &Setting) -> Option<String> {
        let there =
            |digest: &Digest| self.bucket.0.keys().any(|key| matches!(key, Key::Blob(held) if held.digest == *digest));
        if let Some(broken) = &self.promises.0.broken {
            return Some(broken.clone());
        }
        if let Some(digest) = setting.stays.iter().find(|digest| !there(digest)) {
            return Some(format!("{digest} is gone"));
        }
        let pinned = |name: &PinName| self.bucket.0.keys().any(|key| matches!(key, Key::Pin(of, _) if of == name));
        if let Some(name) = self.promises.0.completed.keys().find(|name| !pinned(name))
            && setting.looks_for != GONE
        {
            return Some(format!("{} is complete and has no pin", Prefix::PinsOf(name.clone())));
        }
        let lost = |(_, digests): &&(Key, BTreeSet<Digest>)| !digests.iter().all(there);
        self.promises.0.completed.values().find(lost).map(|(key, _)| format!("{key} is complete and {GONE}"))
    }

    /// What is left too much when from here on all goes well, and time passes.
    pub(super) fn unsettled(&self, setting: &Setting) -> Option<String> {
        if !setting.settles {
            return None;
        }
        let mut world = self.clone();
        for operation in world.late.change(std::mem::take) {
            world.carry_out(&operation, setting);
        }
        for run in 0..4 {
            world.clock += 1_000_000;
            let owners: BTreeSet<_> = world.bucket.0.keys().filter_map(declarer).collect();
            for owner in owners {
                let key = Key::Declaration(owner, BucketTime(world.clock), Names::new("settling").unwrap().take());
                world.put(key, Body::Empty);
            }
            let cluster = Kind::Collector(super::setting::label("a"));
            let mut collector = Machine::new(&cluster, &format!("settling{run}"), setting);
            while let Some(operation) = collector.next() {
                let answer = world.carry_out(&operation, setting);
                collector.feed(answer);
            }
        }
        let kept: BTreeSet<&Digest> = world.bucket.0.values().flat_map(pinned).collect();
        let usable = |held: &&Held| !world.bucket.0.contains_key(&Key::Mark((*held).clone()));
        let usable: BTreeSet<&Held> = world.bucket.0.keys().filter_map(blob).filter(usable).collect();
        for key in world.bucket.0.keys() {
            match key {
                Key::Blob(held) if !kept.contains(&held.digest) => {
                    return Some(format!("{key} is left and not pinned"));
                }
                Key::Blob(held) if usable.iter().any(|other| other.digest == held.digest && *other != held) => {
                    return Some(format!("{key} is left beside another"));
                }
                Key::Mark(held) if !world.bucket.0.contains_key(&Key::Blob(held.clone())) => {
                    return Some(format!("{key} is left without its blob"));
                }
                Key::Clock(cluster, _) if *cluster == super::setting::label("a") => {
                    return Some(format!("{key} is left by one who was killed"));
                }
                _ => {}
            }
        }
        None
    }

    fn step(&mut self, index: usize, setting: &Setting) {
        let Some(operation) = self.participants[index].machine.0.next() else { return };
        self.sent(index, &operation, setting);
        let answer = self.carry_out(&operation, setting);
        self.feed(index, answer, setting);
    }

    fn send_late(&mut self, index: usize, setting: &Setting) {
        let Some(operation) = self.participants[index].machine.0.next() else { return };
        self.sent(index, &operation, setting);
        if is_a_write(&operation) {
            self.late.change(|late| {
                late.push(operation);
                late.sort();
            });
        }
    }

    /// What is wrong, or promised no more, as soon as something is sent, whatever becomes of it.
    fn sent(&mut self, index: usize, operation: &Operation, setting: &Setting) {
        let written = match operation {
            Operation::Put(Key::Blob(held), _) | Operation::Fetch(held) => Some(held.clone()),
            Operation::Copy(from, generation) => {
                Some(Held { digest: from.digest.clone(), generation: generation.clone() })
            }
            _ => None,
        };
        let fetches = matches!(operation, Operation::Fetch(_)) && !setting.may_fetch;
        let again = written.filter(|held| self.promises.0.doomed.contains(held));
        if fetches || again.is_some() {
            let what = if fetches { "the origin had to be asked" } else { "a deleted key was written again" };
            self.promises.change(|promises| promises.broken = Some(format!("{what}: {operation:?}")));
        }
        match operation {
            Operation::Delete(Key::Blob(held)) => {
                self.promises.change(|promises| _ = promises.doomed.insert(held.clone()));
            }
            Operation::Put(key @ Key::Pin(..), _) => {
                self.promises.change(|promises| _ = promises.withdrawn.remove(key));
            }
            Operation::Delete(key) if matches!(setting.participants[index].0, Kind::Unpinner(_)) => {
                self.unpromise(key);
                self.promises.change(|promises| _ = promises.withdrawn.insert(key.clone()));
            }
            _ => {}
        }
    }

    fn unpromise(&mut self, key: &Key) {
        self.promises.change(|promises| promises.completed.retain(|_, (pin, _)| pin != key));
    }

    fn feed(&mut self, index: usize, answer: Answer, setting: &Setting) {
        let before = self.completed(index);
        self.participants[index].machine.change(|machine| machine.feed(answer));
        if let (None, Some(key), Kind::Pinner(name, digests) | Kind::Continuer(name, digests, ..)) =
            (before, self.completed(index), &setting.participants[index].0)
            && !self.promises.0.withdrawn.contains(&key)
        {
            self.promises.change(|promises| promises.completed.insert(name.clone(), (key, digests.clone())));
        }
        if let (Machine::Reader(reader), Kind::Reader(digest)) =
            (&*self.participants[index].machine.0, &setting.participants[index].0)
            && reader.next() == Step::Done(Read::Missing)
            && self.promises.0.completed.values().any(|(_, digests)| digests.contains(digest))
        {
            self.promises.change(|promises| promises.broken = Some(format!("a reader did not find {digest}")));
        }
    }

    fn completed(&self, index: usize) -> Option<Key> {
        if let Machine::Pinner(pinner) = &*self.participants[index].machine.0 { pinner.complete() } else { None }
    }

    fn begin_anew(&mut self, index: usize, setting: &Setting) {
        let one = &mut self.participants[index];
        one.life += 1;
        let machine = Machine::new(&setting.participants[index].0, &format!("m{index}x{}", one.life), setting);
        one.machine = Part::new(machine);
    }

    /// What nobody else can see or hinder is done at once.
    fn go_on(&mut self, setting: &Setting) {
        for index in 0..self.participants.len() {
            loop {
                match self.participants[index].machine.0.next() {
                    Some(operation) if setting.is_private(&operation) => self.step(index, setting),
                    None if self.participants[index].runs > 0 => {
                        self.participants[index].runs -= 1;
                        self.begin_anew(index, setting);
                    }
                    _ => break,
                }
            }
        }
    }

    fn put(&mut self, key: Key, body: Body) {
        let object = Object { body, modified: BucketTime(self.clock) };
        self.bucket.change(|bucket| bucket.insert(key, object));
    }

    pub(super) fn carry_out(&mut self, operation: &Operation, setting: &Setting) -> Answer {
        let bucket = &*self.bucket.0;
        let there = |held: &Held| bucket.contains_key(&Key::Blob(held.clone()));
        match operation {
            Operation::List { prefix, after } => return self.list(prefix, after.as_ref(), setting),
            Operation::Clusters => {
                return Answer::Clusters(bucket.keys().filter_map(Key::cluster).cloned().collect());
            }
            Operation::GetPin(key) => {
                return match bucket.get(key).map(|object| &object.body) {
                    Some(Body::Pin(digests)) => Answer::Pin(digests.clone()),
                    Some(Body::Empty) => Answer::Unreadable,
                    None => Answer::NotFound,
                };
            }
            Operation::GetBlob(held, _) => return if there(held) { Answer::Done } else { Answer::NotFound },
            Operation::Copy(from, _) if !there(from) => return Answer::NotFound,
            Operation::Fetch(_) if !setting.origin => return Answer::NotFound,
            Operation::Copy(from, generation) => {
                self.put(Key::Blob(Held { digest: from.digest.clone(), generation: generation.clone() }), Body::Empty);
            }
            Operation::Fetch(held) => self.put(Key::Blob(held.clone()), Body::Empty),
            Operation::Put(key, body) => self.put(key.clone(), body.clone()),
            Operation::Delete(key) => {
                if bucket.contains_key(key) {
                    self.bucket.change(|bucket| bucket.remove(key));
                }
            }
        }
        Answer::Done
    }

    fn list(&self, prefix: &Prefix, after: Option<&Key>, setting: &Setting) -> Answer {
        let next = |key: &Key| after.is_none_or(|after| key > after);
        let mut keys = self.bucket.0.iter().filter(|(key, _)| prefix.covers(key) && next(key));
        let size = if setting.page == 0 { usize::MAX } else { setting.page };
        let entry = |(key, object): (&Key, &Object)| Entry { key: key.clone(), modified: object.modified };
        let entries: Vec<Entry> = keys.by_ref().take(size).map(entry).collect();
        Answer::Page { entries, foreign: false, last: keys.next().is_none() }
    }
}

fn is_a_write(operation: &Operation) -> bool {
    matches!(operation, Operation::Put(..) | Operation::Copy(..) | Operation::Fetch(_) | Operation::Delete(_))
}

fn declarer(key: &Key) -> Option<crate::store::removal::Owner> {
    if let Key::Declaration(owner, ..) = key { Some(owner.clone()) } else { None }
}

fn pinned(object: &Object) -> impl Iterator<Item = &Digest> {
    let digests = if let Body::Pin(digests) = &object.body { Some(digests) } else { None };
    digests.into_iter().flatten()
}

fn blob(key: &Key) -> Option<&Held> {
    if let Key::Blob(held) = key { Some(held) } else { None }
}
