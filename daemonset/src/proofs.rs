//! Which entries were proved, and what that says of the node.
//!
//! The node does its work when the entry for every other registry is proved (or, where the administrator left none to us,
//! all that there are). One registry whose pulls fail is news about that registry.

use larder_node_agent::confirm::{Confirmation, nowhere};
use larder_node_agent::engine::{Placed, PlacementKind, Report};
use larder_oci::Registry;
use std::collections::{BTreeMap, BTreeSet};

/// A node with a directory for each of a thousand registries is proved by some of them.
const MOST: usize = 32;
/// A condition names so many.
const NAMED: usize = 5;

/// An entry, as far as a proof is about it.
pub(crate) type Entry = (PlacementKind, Option<Registry>);

/// The last proof of each entry that was tried.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proofs {
    tried: BTreeMap<Entry, Confirmation>,
}

fn entry(placed: &Placed) -> Entry {
    (placed.kind, placed.registry.clone())
}

/// All entries of a report.
pub(crate) fn entries(report: &Report) -> BTreeSet<Entry> {
    report.placed.iter().map(entry).collect()
}

/// What is tried, in this order: what stands for every other registry, one of each kind, and more while there is room.
pub(crate) fn to_try(report: &Report) -> Vec<Entry> {
    let all = entries(report);
    let mut kinds = BTreeSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    // One file with all entries is read as a whole: the name that exists nowhere proves it, and no registry is bothered.
    let proves = |(kind, registry): &Entry| *kind != PlacementKind::RegistriesDropIn || *registry == nowhere();
    // What has no registry sorts first within its kind.
    for entry in all.into_iter().filter(proves) {
        if kinds.insert(entry.0) || entry.1.is_none() { first.push(entry) } else { rest.push(entry) }
    }
    first.sort_by_key(|(_, registry)| registry.is_some());
    first.extend(rest);
    first.truncate(MOST);
    first
}

impl Proofs {
    pub(crate) fn set(&mut self, entry: Entry, proof: Confirmation) {
        self.tried.insert(entry, proof);
    }

    pub(crate) fn all_confirmed(&self) -> bool {
        self.tried.values().all(Confirmation::is_confirmed)
    }

    /// The engine was asked and followed no entry at all, and not only because of its own trouble.
    pub(crate) fn none_was_followed(&self) -> bool {
        let lost = |proof: &Confirmation| matches!(proof, Confirmation::NotSeen { by_itself: false, .. });
        !self.tried.values().any(Confirmation::is_confirmed) && self.tried.values().any(lost)
    }

    /// Its own proof, or that of another entry of the same kind when it was not among those that were tried.
    pub(crate) fn of(&self, placed: &Placed) -> Option<Confirmation> {
        let same_kind = || {
            let mut same = self.tried.iter().filter(|((kind, _), _)| *kind == placed.kind).map(|(_, proof)| proof);
            same.find(|proof| proof.is_confirmed())
        };
        self.tried.get(&entry(placed)).or_else(same_kind).cloned()
    }

    /// Why the node as a whole is not proved.
    pub(crate) fn missing(&self) -> Option<String> {
        if self.tried.is_empty() {
            return Some("the engine was not seen to ask the proxy yet".to_owned());
        }
        let required: Vec<_> = self.unproved().filter(|(entry, _)| self.is_required(entry)).map(in_words).collect();
        (!required.is_empty()).then(|| listed(&required))
    }

    /// What is wrong with single registries of a node that does its work.
    pub(crate) fn degraded(&self) -> Option<String> {
        let others: Vec<_> = self.unproved().filter(|(entry, _)| !self.is_required(entry)).map(in_words).collect();
        (!others.is_empty()).then(|| listed(&others))
    }

    /// How many entries of single registries are unproved.
    pub(crate) fn unproved_registries(&self) -> usize {
        self.unproved().filter(|((_, registry), _)| registry.is_some()).count()
    }

    fn is_required(&self, entry: &Entry) -> bool {
        entry.1.is_none() || !self.tried.keys().any(|(_, registry)| registry.is_none())
    }

    fn unproved(&self) -> impl Iterator<Item = (&Entry, &str)> {
        self.tried.iter().filter_map(|(entry, proof)| match proof {
            Confirmation::NotSeen { reason, .. } | Confirmation::NotAsked { reason } => Some((entry, reason.as_str())),
            Confirmation::Confirmed { .. } => None,
        })
    }
}

fn in_words(((kind, registry), reason): (&Entry, &str)) -> String {
    let registry = registry.as_ref().map_or("every other registry", Registry::as_str);
    format!("{registry} ({}): {reason}", crate::status::word(kind))
}

fn listed(words: &[String]) -> String {
    let named: Vec<&str> = words.iter().take(NAMED).map(String::as_str).collect();
    let more = words.len().saturating_sub(NAMED);
    if more == 0 { named.join("; ") } else { format!("{}; and {more} more", named.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Proofs, entries, to_try};
    use larder_node_agent::confirm::Confirmation;
    use larder_node_agent::engine::{Placed, PlacementKind, Report};
    use larder_oci::Registry;
    use std::time::SystemTime;

    fn placed(kind: PlacementKind, registry: Option<&str>) -> Placed {
        Placed { registry: registry.map(|name| Registry::parse(name).unwrap()), kind, path: "/x".into() }
    }

    fn proofs(proved: &[(&Placed, Option<bool>)]) -> Proofs {
        let mut proofs = Proofs::default();
        for (placed, by_itself) in proved {
            let proof = match *by_itself {
                None => Confirmation::Confirmed { at: SystemTime::UNIX_EPOCH },
                Some(by_itself) => Confirmation::NotSeen { reason: "bad CA".to_owned(), by_itself },
            };
            proofs.set((placed.kind, placed.registry.clone()), proof);
        }
        proofs
    }

    #[test]
    fn one_broken_registry_is_no_broken_node() {
        let default = placed(PlacementKind::DefaultLink, None);
        let broken = placed(PlacementKind::Splice, Some("a.example"));
        let proofs = proofs(&[(&default, None), (&broken, Some(true))]);
        assert_eq!(proofs.missing(), None);
        assert_eq!(proofs.degraded().unwrap(), "a.example (splice): bad CA");
        assert_eq!(proofs.unproved_registries(), 1);
        assert!(!proofs.all_confirmed() && !proofs.none_was_followed());
    }

    #[test]
    fn without_an_entry_for_all_each_of_them_counts() {
        let (one, other) =
            (placed(PlacementKind::Splice, Some("a.example")), placed(PlacementKind::RegistryLink, Some("b.example")));
        let proofs = proofs(&[(&one, Some(false)), (&other, None)]);
        assert_eq!(proofs.missing().unwrap(), "a.example (splice): bad CA");
        assert_eq!(proofs.degraded(), None);
        assert_eq!(Proofs::default().missing().unwrap(), "the engine was not seen to ask the proxy yet");
    }

    #[test]
    fn an_engine_that_fails_by_itself_is_no_reason_to_place_elsewhere() {
        let default = placed(PlacementKind::DefaultLink, None);
        assert!(!proofs(&[(&default, Some(true))]).none_was_followed());
        assert!(proofs(&[(&default, Some(false))]).none_was_followed());
        let mut unknown = proofs(&[]);
        unknown.set((default.kind, None), Confirmation::NotAsked { reason: "no answer".to_owned() });
        assert!(!unknown.none_was_followed() && !unknown.all_confirmed() && unknown.missing().is_some());
    }

    #[test]
    fn what_stands_for_all_comes_first_then_one_of_each_kind() {
        let mut report = Report::default();
        report.placed.extend((0..100).map(|n| placed(PlacementKind::RegistryLink, Some(&format!("r{n}.example")))));
        report.placed.push(placed(PlacementKind::Splice, Some("z.example")));
        report.placed.push(placed(PlacementKind::Splice, None));
        let order = to_try(&report);
        assert_eq!(order.len(), MOST);
        assert_eq!(order.first().unwrap(), &(PlacementKind::Splice, None));
        assert_eq!(order.get(1).unwrap().0, PlacementKind::RegistryLink);
        assert_eq!(entries(&report).len(), 102);
    }

    #[test]
    fn what_was_not_tried_goes_by_its_kind() {
        let (one, other) =
            (placed(PlacementKind::Splice, Some("a.example")), placed(PlacementKind::Splice, Some("b.example")));
        assert!(proofs(&[(&one, None)]).of(&other).unwrap().is_confirmed());
        assert_eq!(proofs(&[(&one, Some(true))]).of(&other), None);
    }
}
