//! What can be told of this CRI-O from its files alone: which of them it reads, and why nothing can be added to them.

use std::fmt::Write as _;

use super::observation::Observation;
use crate::engine::{Condition, Readiness, Report};

/// Before anything is decided.
pub(super) fn report(observed: &Observation) -> Report {
    let mut report = Report::default();
    let engine = observed.version.map_or_else(|| "CRI-O".to_owned(), |version| format!("CRI-O {version}"));
    let paths = &observed.paths;
    let directories: Vec<String> = paths.directories.iter().map(|path| path.display().to_string()).collect();
    report.readiness = Readiness::Ready;
    report.reason = format!("{engine} reads {} and {}", paths.main.display(), directories.join(" and "));
    report.reason.push_str(&own_settings(observed));
    if paths.is_home {
        let message =
            "it replaces what the system's files say of registries, so our drop-in is put beside it".to_owned();
        report.conditions.push(Condition { kind: "HomeConfiguration", path: Some(paths.main.clone()), message });
    }
    for problem in observed.problems.iter().chain(&observed.signatures.problems) {
        let message = format!("it {}; nothing is added to what cannot be read", problem.message);
        report.conditions.push(Condition { kind: "Malformed", path: Some(problem.path.clone()), message });
        cannot(&mut report, format!("{} {}", problem.path.display(), problem.message));
    }
    for (path, who, message) in observed.policies.unread() {
        let message = format!("{who} by it, and it {message}: what has its signatures at a lookaside is left alone");
        report.conditions.push(Condition { kind: "SignaturePolicy", path: Some(path.to_owned()), message });
    }
    for ours in observed.ours.iter().chain(&observed.signatures.ours).filter(|ours| ours.edited) {
        let message =
            "it is ours, and somebody edited it: move what is yours to another file, and remove it".to_owned();
        report.conditions.push(Condition { kind: "ForeignEdit", path: Some(ours.path.clone()), message });
        cannot(&mut report, format!("{} was edited", ours.path.display()));
    }
    report
}

/// What `crio.conf` makes of it.
fn own_settings(observed: &Observation) -> String {
    let mut text = match observed.settings.files.as_slice() {
        [] => "; no crio.conf is there".to_owned(),
        [one] => format!("; its settings are in {}", one.display()),
        [first, more @ ..] => format!("; its settings are in {} and {} more", first.display(), more.len()),
    };
    // Writing to a string cannot fail.
    let _ = match &observed.policies.in_force {
        Some(path) => write!(text, "; its signature policy is {}", path.display()),
        None => write!(text, "; it has no signature policy"),
    };
    if observed.settings.auto_reload_registries {
        text.push_str("; it notices drop-ins by itself (auto_reload_registries), and is told of ours all the same");
    }
    text
}

fn cannot(report: &mut Report, reason: String) {
    if report.readiness != Readiness::Cannot {
        report.readiness = Readiness::Cannot;
        report.reason = reason;
    }
}
