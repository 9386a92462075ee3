//! One look at the node and what follows from it: observe → plan → tell the proxy → write targets → apply. Blocking.
//!
//! Invariant: what cannot be changed is left out with everything that belongs to it, and told; the rest is not held up by it.

use crate::node::Node;
use larder_node_agent::change::{Applied, Change, ChangeError, Plan, Wanted};
use larder_node_agent::engine::{Desired, Proposal, Report, RestartEdit};
use larder_node_agent::host::HostError;
use larder_node_agent::placement::{Announcer, Placement};
use larder_node_agent::watch::Fights;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// How much of a plan is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Nothing; it is only reported.
    Look,
    /// Nothing either, and lasting edits are taken back.
    TakeBack,
    /// What vanishes with us; lasting edits are taken back.
    Links,
    Everything,
}

/// The outcome of one look.
pub(crate) struct Made {
    pub(crate) report: Report,
    pub(crate) restart: Option<RestartEdit>,
    pub(crate) watched: Vec<PathBuf>,
    pub(crate) changed: u64,
    /// What was left as it is, and why.
    pub(crate) conflicts: Vec<String>,
}

/// What was done before, to tell somebody else's changes from later wishes of our own.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) fights: Fights,
    /// The last value that each path was given.
    given: BTreeMap<PathBuf, Wanted>,
}

impl History {
    /// `path` was made `wanted`. A repair, if that is what it had been made before.
    fn changed(&mut self, now: Instant, path: &Path, wanted: &Wanted) -> bool {
        let repair = self.given.insert(path.to_owned(), wanted.clone()).as_ref() == Some(wanted);
        if repair {
            self.fights.repaired(now, path);
        }
        repair
    }
}

/// Makes the node what `desired` says, as far as `extent` goes. `tell` gives the proxy what the report says about origins,
/// before the engine asks it for any of them.
pub(crate) fn apply_once(
    node: &Node,
    placement: &Arc<Placement>,
    announcer: &Announcer,
    desired: &Desired,
    extent: Extent,
    history: &mut History,
    tell: impl FnOnce(&Report) -> anyhow::Result<()>,
) -> anyhow::Result<Made> {
    let observation = node.observe()?;
    let Proposal { plan, targets, restart, mut report } = node.propose(&observation, desired, placement.targets())?;
    let watched = node.engine.watched(&observation);
    let told = tell(&report);
    if extent == Extent::Look {
        told?;
        report.placed.clear();
        return Ok(Made { report, restart, watched, changed: 0, conflicts: Vec::new() });
    }
    let (edits, links) = (extent == Extent::Everything, extent != Extent::TakeBack);
    // Lasting edits are taken back also when the proxy cannot be told.
    let told = if edits { told.map(Ok)? } else { told };
    // Targets first: no link of ours ever leads to half of what it should.
    placement.write_all(targets.iter().map(|target| (target.path.as_path(), target.bytes.as_ref())))?;
    let now = Instant::now();
    let lasts = |change: &Change| node.engine.outlives_us(change);
    let (mut plan, mut not_made): (Vec<_>, Vec<_>) = plan
        .changes
        .into_iter()
        .partition(|change| history.fights.permits(now, &change.path) && if lasts(change) { edits } else { links });
    if !edits {
        let removal = node.engine.removal(&observation)?.plan.changes;
        let (removed, _) = removal.into_iter().partition::<Vec<_>, _>(|change| lasts(change));
        not_made.extend(removed.iter().cloned());
        plan.extend(removed);
    }
    let mut plan = Plan { changes: plan };
    let (applied, conflicts, left_out) = apply_what_can_be(&mut plan, |plan| node.apply(plan))?;
    announcer.hold(placement)?;
    for path in &applied.changed {
        let repair = plan.change(path).is_some_and(|change| history.changed(now, path, &change.after));
        tracing::info!(path = %path.display(), repair, "changed");
    }
    let absent: Vec<&Path> =
        not_made.iter().map(|change| change.path.as_path()).chain(left_out.iter().map(PathBuf::as_path)).collect();
    report.placed.retain(|placed| !absent.iter().any(|path| belongs_to(&placed.path, path)));
    told?;
    Ok(Made { report, restart, watched, changed: applied.changed.len() as u64, conflicts })
}

fn belongs_to(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Applies, and again without what conflicts or cannot be changed, and whatever belongs to it. What was left out, in words
/// and as paths.
pub(crate) fn apply_what_can_be(
    plan: &mut Plan,
    mut apply: impl FnMut(&Plan) -> anyhow::Result<Applied>,
) -> anyhow::Result<(Applied, Vec<String>, Vec<PathBuf>)> {
    let (mut words, mut left_out) = (Vec::new(), Vec::new());
    loop {
        let error = match apply(plan) {
            Ok(applied) => return Ok((applied, words, left_out)),
            Err(error) => error,
        };
        let (found, paths): (Vec<String>, Vec<PathBuf>) = match error.downcast_ref::<ChangeError>() {
            // What others changed in this very moment is looked at again soon.
            Some(ChangeError::Conflicts { conflicts }) => {
                conflicts.iter().map(|conflict| (conflict.to_string(), conflict.path.clone())).unzip()
            }
            Some(ChangeError::Host(error)) if is_about_one_path(error) => {
                (vec![format!("{error}; left as it is")], vec![error.path().to_owned()])
            }
            _ => return Err(error),
        };
        let before = plan.changes.len();
        let mut gone = paths;
        // A directory that is not made takes what was to be in it along; what is in one that holds the trouble as well.
        plan.changes.retain(|change| {
            let concerned = gone.iter().any(|path| belongs_to(&change.path, path));
            if concerned {
                gone.push(change.path.clone());
            }
            !concerned
        });
        if plan.changes.len() == before {
            return Err(error);
        }
        words.extend(found);
        left_out.extend(gone);
    }
}

/// Not a second agent, a full disk or a kernel that lacks something: these are the same for every path.
fn is_about_one_path(error: &HostError) -> bool {
    !matches!(error, HostError::Locked { .. } | HostError::NoOpenat2 { .. } | HostError::Full { .. })
}

#[cfg(test)]
mod tests {
    use super::{History, apply_what_can_be};
    use larder_node_agent::change::{Applied, Change, ChangeError, Expected, Plan, Wanted};
    use larder_node_agent::host::HostError;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    fn link(target: &str) -> Wanted {
        Wanted::Link { target: PathBuf::from(target) }
    }

    fn plan(paths: &[&str]) -> Plan {
        paths.iter().map(|path| Change::new(*path, Expected::Absent, link("/x"), "a test")).collect()
    }

    /// As a file system in which nothing at or below `path` can be changed.
    fn refusing(path: &'static str) -> impl FnMut(&Plan) -> anyhow::Result<Applied> {
        move |plan| match plan.changes.iter().find(|change| change.path.starts_with(path)) {
            Some(change) => Err(ChangeError::from(HostError::Denied { path: change.path.clone() }).into()),
            None => Ok(Applied::default()),
        }
    }

    #[test]
    fn one_path_that_cannot_be_changed_takes_only_its_own_along() {
        let mut plan = plan(&["/certs/_default", "/certs/a", "/certs/a/hosts.toml", "/certs/b/hosts.toml"]);
        let (_, words, left_out) = apply_what_can_be(&mut plan, refusing("/certs/a")).unwrap();
        let refused = HostError::Denied { path: PathBuf::from("/certs/a") };
        assert_eq!(words, [format!("{refused}; left as it is")]);
        assert!(left_out.iter().all(|path| path.starts_with("/certs/a")), "{left_out:?}");
        let left: Vec<&Path> = plan.changes.iter().map(|change| change.path.as_path()).collect();
        assert_eq!(left, [Path::new("/certs/_default"), Path::new("/certs/b/hosts.toml")]);
    }

    #[test]
    fn what_is_the_same_for_every_path_or_about_none_of_them_is_an_error() {
        let full = |_: &Plan| Err(ChangeError::from(HostError::Full { path: "/certs/a".into() }).into());
        assert!(apply_what_can_be(&mut plan(&["/certs/a"]), full).is_err());
        let journal = |_: &Plan| Err(ChangeError::from(HostError::ReadOnly { path: "/state".into() }).into());
        assert!(apply_what_can_be(&mut plan(&["/certs/a"]), journal).is_err());
    }

    #[test]
    fn only_the_same_value_again_is_a_repair() {
        let (mut history, now, path) = (History::default(), Instant::now(), Path::new("/a"));
        assert!(!history.changed(now, path, &link("/x")));
        assert!(!history.changed(now, path, &link("/y")));
        assert!(!history.changed(now, path, &link("/x")));
        assert!(history.changed(now, path, &link("/x")));
    }
}
