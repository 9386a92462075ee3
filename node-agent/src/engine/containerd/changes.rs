//! From what is there to what was decided, name by name: what is ours and not wanted any more goes, what is wanted comes.
//!
//! A link is ours by its target and a block by its checksum, so this also tidies up after an agent that left no journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::observation::{Directory, HostsFile, Observation};
use super::readiness;
use crate::change::{Change, Expected, Wanted};
use crate::engine::Proposal;

/// A link of ours that is wanted.
#[derive(Clone)]
pub(super) struct Link {
    /// Relative to the folder of targets.
    pub(super) target: PathBuf,
    /// The `hosts.toml` behind it, relative likewise.
    pub(super) file: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) why: String,
}

/// What shall be there in the end.
pub(super) struct Decided<'planner> {
    pub(super) links: &'planner BTreeMap<PathBuf, Link>,
    pub(super) blocks: &'planner BTreeMap<PathBuf, Vec<u8>>,
    /// Where links lead; only needed when there are any.
    pub(super) folder: Option<&'planner Path>,
}

/// From what is there to what was decided. What is ours and not wanted any more goes first.
pub(super) fn changes(observed: &Observation, decided: &Decided<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut ours: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    let mut files: BTreeMap<PathBuf, (&[u8], Option<&[u8]>)> = BTreeMap::new();
    let is_read = |name: &str, target: &PathBuf| {
        observed.roots.iter().any(|root| root.directories.get(name) == Some(&Directory::Ours(target.clone())))
    };
    for (root, read) in
        observed.roots.iter().map(|root| (root, true)).chain(observed.meant.iter().map(|root| (root, false)))
    {
        for (name, directory) in &root.directories {
            let path = root.path.join(name);
            match directory {
                // The literal path may itself be somebody's link to a root: then this is the same entry, seen twice.
                Directory::Ours(target) if read || !is_read(name, target) => {
                    ours.insert(path, target);
                }
                Directory::Theirs(theirs) if read => match &theirs.hosts {
                    HostsFile::Ours(target) => {
                        ours.insert(path.join("hosts.toml"), target);
                    }
                    HostsFile::File { bytes, without_us, error: _ } => {
                        files.insert(path.join("hosts.toml"), (bytes, without_us.as_deref()));
                    }
                    HostsFile::Absent | HostsFile::Foreign(_) => {}
                },
                _ => {}
            }
        }
    }
    for (path, target) in &ours {
        if !decided.links.contains_key(path) {
            let why = "no longer wanted";
            changes.push(Change::new(path, Expected::link(*target), Wanted::Absent, why).volatile().adopting());
        }
    }
    for (path, (bytes, without_us)) in &files {
        let wanted = decided.blocks.get(path).map(Vec::as_slice).or(*without_us);
        if let Some(wanted) = wanted.filter(|wanted| wanted != bytes) {
            let why = if decided.blocks.contains_key(path) {
                "our block before the first host: the last resort, it stays until it is removed"
            } else {
                "our block is no longer wanted"
            };
            let change = Change::new(path, Expected::file(bytes), Wanted::Splice { bytes: wanted.to_vec() }, why);
            changes.push(if without_us.is_some() { change.adopting() } else { change });
        }
    }
    let Some(folder) = decided.folder else { return changes };
    for (path, link) in decided.links {
        let target = folder.join(&link.target);
        let wanted = Wanted::Link { target: target.clone() };
        match ours.get(path) {
            Some(known) if **known == target => {}
            Some(known) => {
                changes.push(Change::new(path, Expected::link(*known), wanted, &*link.why).volatile().adopting());
            }
            None => changes.push(Change::new(path, Expected::Absent, wanted, &*link.why).volatile()),
        }
    }
    changes
}

/// What to change so that nothing of ours remains.
pub(super) fn removal(observed: &Observation) -> Proposal {
    let nothing = Decided { links: &BTreeMap::new(), blocks: &BTreeMap::new(), folder: None };
    Proposal {
        plan: changes(observed, &nothing).into_iter().collect(),
        report: readiness::report(observed),
        ..Proposal::default()
    }
}
