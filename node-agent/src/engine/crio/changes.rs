//! From what is there to what was decided: our two files appear, change and go; nobody else's is touched.
//!
//! They are files and no links, unlike containerd's. A link that dangles when its agent is gone fails every pull of CRI-O
//! before 1.32 and of older podman, skopeo and buildah, which read the same directories; and CRI-O keeps what it read until
//! it is told to read again, so that the end of a link would withdraw nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::observation::{Observation, OurFile};
use super::signatures;
use crate::change::{Change, Expected, Plan, Wanted};

/// Everybody on the host may read what podman reads.
const MODE: u32 = 0o644;

/// The plan that leads to this drop-in and these namespaces.
pub(super) fn changes(observed: &Observation, drop_in: &[u8], namespaces: &BTreeMap<String, bool>) -> Plan {
    let mut wanted = BTreeMap::new();
    if !namespaces.is_empty() {
        let why = "has signatures looked for at the mirror as at the registry";
        wanted.insert(observed.signatures.path(), (signatures::render(namespaces), why));
    }
    wanted.insert(observed.drop_in(), (drop_in.to_vec(), "asks the proxy first for the registries in it"));
    all(observed, wanted)
}

/// What to change so that nothing of ours remains. What somebody edited stays his.
pub(super) fn removal(observed: &Observation) -> Plan {
    all(observed, BTreeMap::new())
}

fn all(observed: &Observation, mut wanted: BTreeMap<PathBuf, (Vec<u8>, &str)>) -> Plan {
    let mut plan = Plan::default();
    let ours = || observed.ours.iter().chain(&observed.signatures.ours).filter(|ours| !ours.edited);
    let is_signatures = |path: &Path| path.parent() == Some(observed.signatures.directory.as_path());
    for OurFile { path, bytes, edited: _ } in ours() {
        let (after, why) = match wanted.remove(path) {
            Some((after, _)) if after == **bytes => continue,
            Some((bytes, why)) => (Wanted::File { bytes, mode: MODE }, why),
            None => (Wanted::Absent, "no longer wanted"),
        };
        plan.changes.push(Change::new(path, Expected::file(bytes), after, why).adopting());
    }
    for (path, (bytes, why)) in wanted {
        plan.changes.push(Change::new(path, Expected::Absent, Wanted::File { bytes, mode: MODE }, why));
    }
    // Signatures are looked for at the mirror while it is asked, so what is said of them is there first and goes last.
    plan.changes.sort_by_key(|change| match (is_signatures(&change.path), &change.after) {
        (true, Wanted::Absent) => 2,
        (true, _) => 0,
        (false, _) => 1,
    });
    plan
}
