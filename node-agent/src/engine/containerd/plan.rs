//! What to change so that containerd asks our mirror first, and where it must not be made to: a pure decision.
//!
//! Least intrusive first: a link for `_default`; a link ahead of an administrator's directory; `hosts.toml` itself a link
//! beside certificates; a block in his file only where it redirects nowhere. A registry that he sent elsewhere keeps exactly
//! what it had, also where a link of ours would have hidden it. Every link, once it dangles, leaves what was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_oci::Registry;

use super::changes::{Decided, Link, changes};
use super::hosts::AdminChain;
use super::intent::{self, Address, Intent};
use super::observation::{Directory, HostsFile, Observation, Place, Root};
use super::splice::{self, Block};
use super::{edit, readiness, render};
use crate::engine::version::Version;
use crate::engine::{
    Condition, Desired, EngineError, LeftAlone, OriginHint, Placed, PlacementKind, Proposal, Readiness, Report,
    TargetFile, Targets, Wish,
};

pub(super) fn plan(observed: &Observation, desired: &Desired, targets: &Targets) -> Result<Proposal, EngineError> {
    let mirror = Address::parse(&desired.mirror)
        .filter(|address| address.scheme == "http" && address.path.is_empty())
        .filter(|_| desired.mirror.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":/.[]-".contains(&byte)))
        .ok_or_else(|| EngineError::Mirror {
            mirror: desired.mirror.clone(),
            advice: "it is no http URL of an address and port",
        })?;
    let mut planner = Planner {
        observed,
        desired,
        mirror,
        default_is_ours: false,
        links: BTreeMap::new(),
        blocks: BTreeMap::new(),
        report: readiness::report(observed),
    };
    if planner.report.readiness != Readiness::Cannot {
        planner.decide();
    }
    Ok(planner.propose(targets))
}

struct Planner<'input> {
    observed: &'input Observation,
    desired: &'input Desired,
    mirror: Address,
    /// Registries without a directory of their own ask us.
    default_is_ours: bool,
    links: BTreeMap<PathBuf, Link>,
    /// Files of administrators, with our block in them.
    blocks: BTreeMap<PathBuf, Vec<u8>>,
    report: Report,
}

/// Why a registry keeps what it has.
struct Leave {
    /// The word of a condition; `None` when nobody needs to be told.
    condition: Option<&'static str>,
    reason: String,
}

impl Leave {
    fn new(condition: &'static str, reason: impl Into<String>) -> Self {
        Self { condition: Some(condition), reason: reason.into() }
    }
}

impl Planner<'_> {
    fn decide(&mut self) {
        let observed = self.observed;
        let Some(first) = observed.roots.first() else { return };
        self.decide_default(first);
        for host in hosts(&observed.roots) {
            match Observation::find(&observed.roots, Some(&host)) {
                Some(place) if place.name != "_default" => self.decide_registry(first, &host, place),
                // A `_default` before it hides it from the engine, with or without us.
                _ => {}
            }
        }
        for host in hosts(&observed.meant) {
            self.decide_unread(first, &host);
        }
        let named: Vec<(Registry, Wish)> =
            self.desired.registries.iter().map(|(registry, wish)| (registry.clone(), *wish)).collect();
        for (registry, wish) in named {
            self.decide_named(first, registry.as_str(), wish);
        }
    }

    fn decide_default(&mut self, first: &Root) {
        let unread = Observation::find(&self.observed.meant, None);
        if let Some(place) = unread
            && let Err(leave) = self.verdict(place, None)
        {
            self.leave(None, &path_of(&self.observed.meant, place), leave);
            return;
        }
        match Observation::find(&self.observed.roots, None) {
            None => {
                let bytes = render::with_mirror(&AdminChain::default(), &self.block(&AdminChain::default()));
                self.default_is_ours = self.link(first, "_default", bytes, None);
            }
            Some(place) => match self.verdict(place, None) {
                Ok(()) => self.default_is_ours = self.place(first, place, None),
                Err(leave) => self.leave(None, &path_of(&self.observed.roots, place), leave),
            },
        }
    }

    /// A registry whose directory the engine reads.
    fn decide_registry(&mut self, first: &Root, host: &str, place: Place<'_>) {
        match self.verdict(place, Some(host)) {
            Ok(()) => {
                if self.place(first, place, Some(host)) {
                    self.hint(host, place);
                }
            }
            Err(leave) => {
                // In a later root, a `_default` of ours in the first would hide it.
                if place.index > 0 && self.default_is_ours {
                    let bytes = self.untouched(&place.theirs.chain, host);
                    self.pass(first, host, bytes);
                }
                self.leave(Some(host), &path_of(&self.observed.roots, place), leave);
            }
        }
    }

    /// A registry whose directory somebody made for an engine that does not read it. It goes straight to the registry now;
    /// what was meant decides whether it may go through us.
    fn decide_unread(&mut self, first: &Root, host: &str) {
        let read = Observation::find(&self.observed.roots, Some(host));
        if read.is_some_and(|place| place.name != "_default") {
            return;
        }
        let Some(place) = Observation::find(&self.observed.meant, Some(host)).filter(|place| place.name != "_default")
        else {
            return;
        };
        let nothing = AdminChain::default();
        match self.verdict(place, Some(host)) {
            Ok(()) => {
                if !self.default_is_ours {
                    let bytes = render::with_mirror(&nothing, &self.block(&place.theirs.chain));
                    self.link(first, &intent::directory_of_host(host), bytes, Some(host));
                }
                self.hint(host, place);
            }
            Err(leave) => {
                if self.default_is_ours {
                    let bytes = self.untouched(&nothing, host);
                    self.pass(first, host, bytes);
                }
                self.leave(Some(host), &path_of(&self.observed.meant, place), leave);
            }
        }
    }

    /// A registry that the settings speak of and that has no directory of its own.
    fn decide_named(&mut self, first: &Root, host: &str, wish: Wish) {
        let place = Observation::find(&self.observed.roots, Some(host));
        if place.is_some_and(|place| place.name != "_default") {
            return;
        }
        let chain = place.map(|place| place.theirs.chain.clone()).unwrap_or_default();
        if wish.skip && self.default_is_ours {
            let bytes = self.untouched(&chain, host);
            self.pass(first, host, bytes);
            let path = first.path.join(intent::directory_of_host(host));
            self.report.left_alone.push(LeftAlone {
                registry: intent::registry(host),
                path,
                reason: "the settings skip it".to_owned(),
            });
        } else if wish.endpoints && !wish.skip && !self.default_is_ours {
            match place.map_or(Ok(()), |place| self.verdict(place, Some(host))) {
                Ok(()) => {
                    let bytes = render::with_mirror(&chain, &self.block(&chain));
                    self.link(first, &intent::directory_of_host(host), bytes, Some(host));
                }
                Err(leave) => self.leave(Some(host), &first.path.join("_default"), leave),
            }
        }
    }

    fn wish(&self, host: &str) -> Wish {
        intent::registry(host).and_then(|registry| self.desired.registries.get(&registry)).copied().unwrap_or_default()
    }

    /// Whether what stands at `place` may be asked through us.
    fn verdict(&self, place: Place<'_>, host: Option<&str>) -> Result<(), Leave> {
        let wish = host.map(|host| self.wish(host)).unwrap_or_default();
        if wish.skip {
            return Err(Leave { condition: None, reason: "the settings skip it".to_owned() });
        }
        if let HostsFile::File { bytes, without_us: _, error } = &place.theirs.hosts {
            if splice::is_edited(bytes) {
                return Err(Leave::new("ForeignEdit", "its hosts.toml holds a block of ours that somebody edited"));
            }
            if let Some(error) = error {
                return Err(Leave::new("Unreadable", format!("its hosts.toml {error}")));
            }
        }
        match intent::of(&place.theirs.chain, host, &self.mirror) {
            Intent::Nothing | Intent::SameOrigin => Ok(()),
            Intent::Redirected(_) if wish.endpoints => Ok(()),
            Intent::Redirected(to) => Err(Leave::new(
                "Redirected",
                format!("it is redirected to {to}; name endpoints for it in the settings to cache it all the same"),
            )),
            Intent::Blocked => Err(Leave::new("Blocked", "nothing may be pulled from it")),
            Intent::NamesUs => Err(Leave::new("NamesUs", "its hosts.toml names our mirror by somebody else's hand")),
        }
    }

    /// Puts our mirror in front of what is at `place`; `false` when that cannot be, which is then reported.
    fn place(&mut self, first: &Root, place: Place<'_>, host: Option<&str>) -> bool {
        let chain = &place.theirs.chain;
        let block = self.block(chain);
        let name = host.map_or_else(|| "_default".to_owned(), intent::directory_of_host);
        if place.index > 0 || place.name != name {
            return self.link(first, &name, render::with_mirror(chain, &block), host);
        }
        let path = first.path.join(&name).join("hosts.toml");
        let left = match &place.theirs.hosts {
            HostsFile::Absent | HostsFile::Ours(_) => {
                let file = PathBuf::from("hosts").join(&name).join("hosts.toml");
                let bytes = render::with_mirror(chain, &block);
                let why = "asks the proxy first; the certificates beside it are repeated".to_owned();
                self.placed(host, PlacementKind::HostsFileLink, &path);
                self.links.insert(path, Link { target: file.clone(), file, bytes, why });
                return true;
            }
            HostsFile::Foreign(why) => Leave::new("Occupied", format!("its hosts.toml {why}")),
            HostsFile::File { bytes, without_us, error: _ } => {
                let theirs = without_us.as_deref().unwrap_or(bytes);
                if theirs.is_empty() {
                    Leave::new("Occupied", "its hosts.toml is empty: remove it and the certificates stay in force")
                } else if let Intent::Redirected(to) = intent::of(chain, host, &self.mirror) {
                    let advice = "and is not edited; remove it to cache the registry by the settings' endpoints";
                    Leave::new("Redirected", format!("its hosts.toml redirects it to {to} {advice}"))
                } else {
                    match splice::splice(theirs, &block, self.observed.version) {
                        Ok(bytes) => {
                            self.placed(host, PlacementKind::Splice, &path);
                            self.blocks.insert(path, bytes);
                            return true;
                        }
                        Err(error) => Leave::new("Unreadable", format!("its hosts.toml {error}")),
                    }
                }
            }
        };
        self.leave(host, &first.path.join(&name), left);
        false
    }

    /// Wants a link of ours called `name` in the first root; `false` when somebody else has that name.
    fn link(&mut self, first: &Root, name: &str, bytes: Vec<u8>, host: Option<&str>) -> bool {
        let why = host.map_or_else(
            || "asks the proxy first for every registry without a directory".to_owned(),
            |host| format!("asks the proxy first for {host}"),
        );
        let path = first.path.join(name);
        if self.insert_link(first, name, bytes, why) {
            let kind = if host.is_some() { PlacementKind::RegistryLink } else { PlacementKind::DefaultLink };
            self.placed(host, kind, &path);
            true
        } else {
            let reason = "the name is taken by something that is neither a directory nor ours";
            self.leave(host, &path, Leave::new("Occupied", reason));
            false
        }
    }

    /// Wants a link for `host` that says what holds without us, lest our `_default` be found for it.
    fn pass(&mut self, first: &Root, host: &str, bytes: Vec<u8>) {
        let why = format!("keeps {host} as it is beside our default");
        self.insert_link(first, &intent::directory_of_host(host), bytes, why);
    }

    fn insert_link(&mut self, first: &Root, name: &str, bytes: Vec<u8>, why: String) -> bool {
        if matches!(first.directories.get(name), Some(Directory::Dangling | Directory::Foreign | Directory::Theirs(_)))
        {
            return false;
        }
        let target = PathBuf::from("registries").join(name);
        let file = target.join("hosts.toml");
        self.links.insert(first.path.join(name), Link { target, file, bytes, why });
        true
    }

    fn untouched(&self, chain: &AdminChain, host: &str) -> Vec<u8> {
        let needs_host = self.observed.version.is_none_or(|version| version < Version::new(1, 7, 0));
        render::without_mirror(chain, host, needs_host)
    }

    fn block(&self, chain: &AdminChain) -> Block<'_> {
        Block { mirror: &self.desired.mirror, capabilities: intent::capabilities(chain) }
    }

    fn placed(&mut self, host: Option<&str>, kind: PlacementKind, path: &Path) {
        let registry = host.and_then(intent::registry);
        self.report.placed.push(Placed { registry, kind, path: path.to_owned() });
    }

    fn leave(&mut self, host: Option<&str>, path: &Path, leave: Leave) {
        let Leave { condition, reason } = leave;
        if let Some(kind) = condition {
            let subject = host.unwrap_or("every registry without a directory of its own");
            let message = format!("{subject} is left alone: {reason}");
            self.report.conditions.push(Condition { kind, path: Some(path.to_owned()), message });
        }
        let registry = host.and_then(intent::registry);
        self.report.left_alone.push(LeftAlone { registry, path: path.to_owned(), reason });
    }

    /// Hands over how the engine reaches the registry itself.
    fn hint(&mut self, host: &str, place: Place<'_>) {
        let chain = &place.theirs.chain;
        let Some(registry) = intent::registry(host) else { return };
        if intent::of(chain, Some(host), &self.mirror) != Intent::SameOrigin {
            return;
        }
        let authorities: BTreeSet<&PathBuf> = chain.endpoints().flat_map(|endpoint| &endpoint.ca).collect();
        let texts: Vec<&str> = authorities
            .iter()
            .filter_map(|path| place.theirs.authorities.get(*path))
            .map(|text| text.trim_end())
            .collect();
        let ca_pem = (!texts.is_empty()).then(|| texts.join("\n") + "\n");
        let insecure = intent::is_insecure(chain);
        if ca_pem.is_some() || insecure {
            self.report.origin_hints.insert(registry, OriginHint { ca_pem, insecure });
        }
    }

    fn propose(mut self, targets: &Targets) -> Proposal {
        let restart = (self.report.readiness == Readiness::NeedsConfigToml && self.desired.allow_engine_restart)
            .then(|| edit::propose(self.observed))
            .and_then(|edit| match edit {
                Ok(edit) => Some(edit),
                Err(reason) => {
                    let path = Some(self.observed.configuration.main.clone());
                    self.report.conditions.push(Condition { kind: "ConfigToml", path, message: reason });
                    None
                }
            });
        let decided = Decided { links: &self.links, blocks: &self.blocks, folder: Some(targets.folder()) };
        let plan = changes(self.observed, &decided).into_iter().collect();
        let targets =
            self.links.into_values().map(|link| TargetFile { path: link.file, bytes: link.bytes.into() }).collect();
        Proposal { plan, targets, restart, report: self.report }
    }
}

fn path_of(roots: &[Root], place: Place<'_>) -> PathBuf {
    roots.get(place.index).map_or_else(PathBuf::new, |root| root.path.join(place.name))
}

/// All hosts that have a directory somewhere in `roots`.
fn hosts(roots: &[Root]) -> BTreeSet<String> {
    let theirs = |(name, directory): (&String, &Directory)| {
        matches!(directory, Directory::Theirs(_)).then(|| intent::host_of_directory(name)).flatten()
    };
    roots.iter().flat_map(|root| root.directories.iter().filter_map(theirs)).collect()
}
