//! What to write so that CRI-O asks our mirror first, and where it must not be made to: a pure decision.
//!
//! One drop-in that is read last. It holds an entry for each registry in use and for every narrower prefix of it that
//! others have entries for, because exactly one entry counts and ours replaces theirs: each repeats what counted before,
//! with our mirror in front. What is blocked or sent elsewhere keeps its own entry. Before the file is given out, it is read
//! again beside all others, and must lead every reference where it was led before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_oci::Registry;

use super::changes;
use super::document::{self, Form};
use super::entry::{self, Endpoint, Entries, Entry};
use super::observation::Observation;
use super::signatures::Needed;
use super::verdict::{self, Leave};
use super::{paths, reference, render, report};
use crate::confirm::{NOWHERE, nowhere};
use crate::engine::{
    Condition, Desired, EngineError, LeftAlone, OriginHint, Placed, PlacementKind, Proposal, Readiness, Report, Wish,
};

/// Where registries listen that share a host with another one: those of the schemes, of distribution, GitLab, Nexus, Harbor, Artifactory, Quay,
/// `MicroK8s`, and what their manuals propose. An image from such a port fails when nobody has told us of it, before it could be learnt.
const USUAL_PORTS: [u16; 16] =
    [80, 443, 4443, 5000, 5001, 5005, 5050, 5443, 8080, 8081, 8082, 8083, 8443, 9443, 30500, 32000];

pub(super) fn plan(observed: &Observation, desired: &Desired) -> Result<Proposal, EngineError> {
    let mirror = desired.mirror.strip_prefix("http://").filter(|mirror| reference::is_domain(mirror));
    let advice = "CRI-O's files cannot name an IPv6 address: put 127.0.0.1 and a port first in --listen";
    let mirror = mirror.ok_or_else(|| EngineError::Mirror { mirror: desired.mirror.clone(), advice })?;
    let report = report::report(observed);
    if report.readiness == Readiness::Cannot {
        return Ok(Proposal { report, ..Proposal::default() });
    }
    let mut planner = Planner::new(observed, desired, mirror, report);
    for registry in planner.wanted() {
        planner.decide(&registry);
    }
    planner.keep_ports_apart();
    planner.place_deferred();
    planner.keep_ports_apart();
    planner.add_canary();
    Ok(planner.propose())
}

struct Planner<'input> {
    observed: &'input Observation,
    desired: &'input Desired,
    /// `127.0.0.1:7439`.
    mirror: &'input str,
    /// What counts without us.
    before: Entries,
    /// Prefixes that a file says something of which is read after ours.
    later: BTreeMap<String, PathBuf>,
    /// What our file will hold.
    ours: Entries,
    /// What gives way where entries that go to the same place cannot stand in one file.
    deferred: Vec<(Registry, Entry, Endpoint)>,
    /// What `registries.d` has to say of our mirror.
    namespaces: BTreeMap<String, bool>,
    /// Registries with a lookaside that nobody needs, and the file that names it.
    without_signatures: BTreeMap<Registry, PathBuf>,
    report: Report,
}

impl<'input> Planner<'input> {
    fn new(observed: &'input Observation, desired: &'input Desired, mirror: &'input str, report: Report) -> Self {
        let mut before = Entries::new();
        let mut later = BTreeMap::new();
        for file in &observed.files {
            before.extend(file.document.entries.clone());
            if observed.is_read_after_ours(&file.path) {
                later.extend(file.document.entries.keys().map(|prefix| (prefix.clone(), file.path.clone())));
            }
        }
        Self {
            observed,
            desired,
            mirror,
            before,
            later,
            ours: Entries::new(),
            deferred: Vec::new(),
            namespaces: BTreeMap::new(),
            without_signatures: BTreeMap::new(),
            report,
        }
    }

    /// Those that the settings or the node's images name, and those that the files name.
    fn wanted(&self) -> BTreeSet<Registry> {
        let mut wanted: BTreeSet<Registry> = self.desired.registries.keys().cloned().collect();
        wanted.extend(self.desired.in_use.iter().cloned());
        wanted.extend(self.before.keys().filter_map(|prefix| registry_of(prefix)));
        wanted.extend(self.observed.unqualified().iter().filter_map(|host| Registry::parse(host).ok()));
        wanted.retain(|registry| registry.as_str() != NOWHERE);
        wanted
    }

    fn wish(&self, registry: &Registry) -> Wish {
        self.desired.registries.get(registry).copied().unwrap_or_default()
    }

    /// A registry: all that its name is the beginning of.
    fn decide(&mut self, registry: &Registry) {
        let of_it = |prefix: &&String| registry_of(prefix).as_ref() == Some(registry);
        let mut prefixes: BTreeSet<String> = self.before.keys().filter(of_it).cloned().collect();
        prefixes.insert(registry.as_str().to_owned());
        if self.wish(registry).skip {
            self.leave(registry, registry.as_str(), &Leave::quietly("the settings skip it"));
            return;
        }
        if let Some(leave) = self.signatures(registry, &prefixes) {
            self.leave(registry, registry.as_str(), &leave);
            return;
        }
        for prefix in prefixes {
            let before = entry::find(&self.before, &prefix).cloned();
            let before = before.and_then(|entry| entry.narrowed(&prefix)).unwrap_or_else(|| Entry::plain(&prefix));
            match self.verdict(registry, &prefix, &before) {
                // What goes to itself by its own name comes first.
                Ok(mirror) if before.primary.location == prefix && is_spelt(&prefix, registry) => {
                    self.place(registry, &before, mirror);
                }
                Ok(mirror) => self.deferred.push((registry.clone(), before, mirror)),
                Err(leave) => self.leave(registry, &prefix, &leave),
            }
        }
    }

    /// Whether what counts for `prefix` may be asked through us, and where our mirror has it.
    fn verdict(&self, registry: &Registry, prefix: &str, before: &Entry) -> Result<Endpoint, Leave> {
        if let Some(path) = self.later.get(prefix) {
            let reason = format!("{} is read after ours and has an entry for {prefix}", path.display());
            return Err(Leave::new("Overridden", reason));
        }
        verdict::of(before, self.mirror, self.wish(registry).endpoints)?;
        let location = self.location(registry, prefix);
        if !reference::can_hold_repositories(&location) {
            return Err(Leave::new("Encoding", format!("{location} is no name that the engine would take for it")));
        }
        if entry::find(&self.before, &location).is_some_and(|entry| entry.blocked) {
            return Err(Leave::new(
                "MirrorBlocked",
                format!("nothing may be pulled from {location}, which is our mirror"),
            ));
        }
        Ok(Endpoint { location, insecure: true, ..Endpoint::default() })
    }

    /// Where our mirror has `prefix`: the colon of a port would make every reference below it invalid.
    fn location(&self, registry: &Registry, prefix: &str) -> String {
        let path = prefix.find('/').and_then(|at| prefix.get(at..)).unwrap_or_default();
        format!("{}/{}{path}", self.mirror, registry.path_segment())
    }

    fn signatures(&mut self, registry: &Registry, prefixes: &BTreeSet<String>) -> Option<Leave> {
        let hosts: BTreeSet<&str> = prefixes.iter().filter_map(|prefix| prefix.split('/').next()).collect();
        let mut all = BTreeMap::new();
        for host in hosts {
            let demand = self.observed.policies.demand(registry, host);
            let place = self.location(registry, host);
            match self.observed.signatures.needed(registry, host, &place, demand.as_deref()) {
                Needed::Namespaces(namespaces, unneeded) => {
                    all.extend(namespaces);
                    self.without_signatures.extend(unneeded.map(|path| (registry.clone(), path)));
                }
                Needed::Impossible(path, reason) => {
                    return Some(Leave { path: Some(path), ..Leave::new("Signatures", reason) });
                }
            }
        }
        self.namespaces.extend(all);
        None
    }

    fn place_deferred(&mut self) {
        for (registry, before, mirror) in std::mem::take(&mut self.deferred) {
            self.place(&registry, &before, mirror);
        }
    }

    fn conflicts(&self, entry: &Entry) -> bool {
        document::check_conflicts(self.ours.values().chain([entry])).is_err()
    }

    fn place(&mut self, registry: &Registry, before: &Entry, mirror: Endpoint) {
        let entry = before.with_mirror(mirror);
        let prefix = entry.prefix.clone();
        if self.conflicts(&entry) {
            let reason = format!("another entry that goes to {} says other things of it", entry.primary.location);
            return self.leave(registry, &prefix, &Leave::new("Conflict", reason));
        }
        if !entry::would_count(&self.before, &prefix) {
            let reason = "a wildcard of the same length counts more than an entry of its own";
            return self.leave(registry, &prefix, &Leave::new("Wildcard", reason));
        }
        if let Some(theirs) = before.mirrors.first() {
            let message = format!(
                "the mirrors of {prefix} are asked after the proxy, which asks the registry itself: name {} as an endpoint in the \
                 settings to have it ask there",
                theirs.location
            );
            let path = Some(self.observed.drop_in());
            self.report.conditions.push(Condition { kind: "MirrorsAfterUs", path, message });
        }
        self.ours.insert(prefix.clone(), entry);
        if prefix == registry.as_str() && verdict::keeps_origin(before) {
            let hint = OriginHint { ca_pem: self.observed.authorities.of(registry), insecure: before.primary.insecure };
            if hint != OriginHint::default() {
                self.report.origin_hints.insert(registry.clone(), hint);
            }
        }
        let path = self.observed.drop_in();
        if !self.report.placed.iter().any(|placed| placed.registry.as_ref() == Some(registry)) {
            let (registry, kind) = (Some(registry.clone()), PlacementKind::RegistriesDropIn);
            self.report.placed.push(Placed { registry, kind, path });
        }
    }

    /// The entry of a host is taken for all its ports too, where our location would make every reference invalid: a host
    /// with a port that we know of, or may expect, keeps what it has by an entry of its own.
    fn keep_ports_apart(&mut self) {
        let mut known: BTreeSet<String> = self.desired.registries.keys().map(|name| name.as_str().to_owned()).collect();
        known.extend(self.desired.in_use.iter().map(|name| name.as_str().to_owned()));
        known.extend(self.observed.unqualified());
        // People may ask our proxy by its own name.
        known.insert(self.mirror.to_owned());
        // Docker Hub is at no other port.
        let hub = Registry::docker_hub();
        let alone = [NOWHERE, hub.as_str()];
        let bare =
            self.ours.keys().filter(|prefix| !prefix.contains([':', '/', '*']) && !alone.contains(&prefix.as_str()));
        known.extend(bare.flat_map(|host| USUAL_PORTS.map(|port| format!("{host}:{port}"))));
        for entry in self.before.values() {
            let endpoints = entry.mirrors.iter().chain([&entry.primary]);
            let names = endpoints.map(|endpoint| endpoint.location.as_str()).chain([entry.prefix.as_str()]);
            known.extend(names.filter_map(|name| name.split('/').next()).map(str::to_owned));
        }
        for host in known {
            let Some((name, port)) = host.split_once(':') else { continue };
            let is_taken = self.before.contains_key(&host) || self.ours.contains_key(&host);
            if is_taken || port.is_empty() || !reference::is_domain(&host) || !self.ours.contains_key(name) {
                continue;
            }
            let before = entry::find(&self.before, &host).and_then(|entry| entry.narrowed(&host));
            let entry = before.unwrap_or_else(|| Entry::plain(&host));
            if self.conflicts(&entry) {
                // Then the bare host cannot have one either, or it would be taken for the port.
                self.ours.remove(name);
                self.report.placed.retain(|placed| {
                    let ours = |prefix: &String| registry_of(prefix) == placed.registry;
                    self.ours.keys().any(ours)
                });
                if let Ok(registry) = Registry::parse(name) {
                    let reason =
                        format!("another entry that goes to {} says other things of it", entry.primary.location);
                    self.leave(&registry, name, &Leave::new("Conflict", reason));
                }
                continue;
            }
            self.ours.insert(host.clone(), entry);
        }
    }

    /// A name that exists nowhere, by which it is proved that CRI-O asks us. Nobody else is asked for it.
    fn add_canary(&mut self) {
        let location = format!("{}/{NOWHERE}", self.mirror);
        let mirror = Endpoint { location, insecure: true, ..Endpoint::default() };
        let entry = Entry { blocked: true, ..Entry::plain(NOWHERE) }.with_mirror(mirror);
        self.ours.insert(NOWHERE.to_owned(), entry);
        let (kind, path) = (PlacementKind::RegistriesDropIn, self.observed.drop_in());
        self.report.placed.push(Placed { registry: nowhere(), kind, path });
    }

    fn leave(&mut self, registry: &Registry, prefix: &str, leave: &Leave) {
        let Leave { condition, reason, path } = leave;
        let path = path
            .clone()
            .or_else(|| self.observed.file_with(prefix))
            .unwrap_or_else(|| self.observed.paths.main.clone());
        let reason = if prefix == registry.as_str() { reason.clone() } else { format!("{prefix}: {reason}") };
        if let Some(kind) = condition {
            let message = format!("{registry} is left alone: {reason}");
            self.report.conditions.push(Condition { kind, path: Some(path.clone()), message });
        }
        self.report.left_alone.push(LeftAlone { registry: Some(registry.clone()), path, reason });
    }

    /// Who tightens the policy later finds images without signatures on the node.
    fn tell_of_missing_signatures(&mut self) {
        for (registry, path) in std::mem::take(&mut self.without_signatures) {
            if self.report.placed.iter().any(|placed| placed.registry.as_ref() == Some(&registry)) {
                let message = format!(
                    "no signature policy asks for signatures of {registry}, so its images come through the proxy without those of \
                     the lookaside"
                );
                self.report.conditions.push(Condition { kind: "WithoutSignatures", path: Some(path), message });
            }
        }
    }

    fn propose(mut self) -> Proposal {
        self.tell_of_missing_signatures();
        let bytes = render::drop_in(&self.ours);
        if let Err(reason) = self.check(&bytes) {
            self.report.readiness = Readiness::Cannot;
            self.report.reason.clone_from(&reason);
            let path = Some(self.observed.drop_in());
            self.report.conditions.push(Condition { kind: "SelfCheck", path, message: reason });
            self.report.placed.clear();
            return Proposal { report: self.report, ..Proposal::default() };
        }
        let plan = changes::changes(self.observed, &bytes, &self.namespaces);
        Proposal { plan, report: self.report, ..Proposal::default() }
    }

    /// Our file, read again beside the others: everything goes where it went, after our mirror or without it.
    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let ours = document::parse(bytes, Form::DropIn).map_err(|error| format!("what we would write {error}"))?;
        if ours.entries != self.ours {
            return Err("what we would write is read as something else".to_owned());
        }
        let mut after = self.before.clone();
        after.extend(ours.entries.into_iter().filter(|(prefix, _)| !self.later.contains_key(prefix)));
        let prefixes: BTreeSet<&String> = after.keys().filter(|prefix| !prefix.starts_with("*.")).collect();
        for prefix in prefixes.into_iter().filter(|prefix| *prefix != NOWHERE) {
            for (ending, with_digest) in [(":1", false), ("@sha256:0", true)] {
                let name = format!("{prefix}/x");
                let text = format!("{name}{ending}");
                let (was, is) = (entry::find(&self.before, &name), entry::find(&after, &name));
                let (before, now) = (entry::sources(was, &text, with_digest), entry::sources(is, &text, with_digest));
                let ours = |source: &entry::Source| source.reference.starts_with(&format!("{}/", self.mirror));
                let rest = now.split_first().filter(|(first, _)| ours(first)).map(|(_, rest)| rest);
                let is_blocked = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.blocked);
                let added = rest == Some(&before) && !is_blocked(was);
                if is_blocked(was) != is_blocked(is) || !(now == before || added) {
                    return Err(format!("what we would write sends {text} elsewhere"));
                }
            }
        }
        Ok(())
    }
}

/// Whether a prefix begins with the registry's name as we write it.
fn is_spelt(prefix: &str, registry: &Registry) -> bool {
    prefix.split('/').next() == Some(registry.as_str())
}

/// The registry whose name a prefix begins with; none for a wildcard.
fn registry_of(prefix: &str) -> Option<Registry> {
    Registry::parse(prefix.split('/').next()?).ok().filter(|_| !prefix.starts_with("*."))
}

impl Observation {
    /// Where names without a host are looked for.
    pub(super) fn unqualified(&self) -> Vec<String> {
        self.files.iter().rev().find_map(|file| file.document.unqualified.clone()).unwrap_or_default()
    }

    /// Our drop-in.
    pub(super) fn drop_in(&self) -> PathBuf {
        let directory = self.paths.ours();
        let others = self.files.iter().filter(|file| file.path.parent() == Some(directory));
        let names = others.filter_map(|file| file.path.file_name()?.to_str());
        directory.join(paths::drop_in_name(names))
    }

    fn is_read_after_ours(&self, path: &Path) -> bool {
        self.paths.directories.iter().skip(1).any(|directory| path.parent() == Some(directory))
    }

    /// The file whose entry counts for a prefix.
    fn file_with(&self, prefix: &str) -> Option<PathBuf> {
        let files = || self.files.iter().rev();
        let mut before = Entries::new();
        files().rev().for_each(|file| before.extend(file.document.entries.clone()));
        let found = entry::find(&before, prefix)?.prefix.clone();
        files().find(|file| file.document.entries.contains_key(&found)).map(|file| file.path.clone())
    }
}
