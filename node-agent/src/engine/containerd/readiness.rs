//! Whether this containerd can be made to ask us, what that takes and why: told from its configuration alone.

use super::config::Lookup;
use super::intent;
use super::observation::Observation;
use crate::engine::{Condition, Readiness, Report};

/// What it takes, before anything is decided.
pub(super) fn report(observed: &Observation) -> Report {
    let configuration = &observed.configuration;
    let main = Some(configuration.main.clone());
    let mut report = Report::default();
    let engine = observed.version.map_or_else(|| "containerd".to_owned(), |version| format!("containerd {version}"));
    (report.readiness, report.reason) = if let Some(problem) = &configuration.problem {
        report.conditions.push(Condition { kind: "EngineConfiguration", path: main.clone(), message: problem.clone() });
        (Readiness::Cannot, problem.clone())
    } else {
        let path = configuration.config_path.as_deref().unwrap_or_default();
        match &configuration.lookup {
            Lookup::None if configuration.legacy_mirrors => {
                let reason = "registry.mirrors in the engine's configuration excludes registry directories";
                let message = format!("{reason}: move them to hosts.toml files and set config_path");
                report.conditions.push(Condition { kind: "LegacyMirrors", path: main.clone(), message });
                (Readiness::Cannot, reason.to_owned())
            }
            Lookup::None => {
                let message = format!("{engine} reads no registry directories: no config_path is set");
                report.conditions.push(Condition {
                    kind: "NoConfigPath",
                    path: main.clone(),
                    message: message.clone(),
                });
                (Readiness::NeedsConfigToml, message)
            }
            Lookup::Roots(_) => (
                Readiness::Ready,
                match configuration.local_pull.filter(|_| path.contains(':')) {
                    Some(reason) => format!("{engine} reads {path}, a list that it takes apart because of {reason}"),
                    None => format!("{engine} reads {path}"),
                },
            ),
            Lookup::Literal { .. } => {
                (Readiness::NeedsLiteralPath, format!("{engine} takes {path} for one path with colons in it"))
            }
        }
    };
    if observed.configuration_is_newer {
        let message = "it was written after the engine started, and is in effect only after a restart".to_owned();
        report.conditions.push(Condition { kind: "ConfigurationNewer", path: main, message });
    }
    for root in observed.roots.iter().chain(&observed.meant) {
        if let Some(problem) = &root.problem {
            report.readiness = Readiness::Cannot;
            report.reason.clone_from(problem);
            let path = Some(root.path.clone());
            report.conditions.push(Condition { kind: "Unreadable", path, message: problem.clone() });
        }
    }
    let default = Observation::find(&observed.roots, None);
    if default.is_some_and(|place| !place.theirs.authorities.is_empty() || intent::is_insecure(&place.theirs.chain)) {
        let message =
            "its CA or skip_verify is for every registry and is not handed to the proxy: name those that need it";
        report.conditions.push(Condition { kind: "DefaultTrust", path: None, message: message.to_owned() });
    }
    report
}
