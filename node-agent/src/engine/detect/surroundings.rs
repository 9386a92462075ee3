//! What a process has from whoever started it, beside its files: control groups, capabilities, a filter of system calls.
//!
//! An engine that the node's service manager starts has the node's. One that a restart command forked has those of the command, which
//! are a container's where we are in one: it ends with our Pod, and cannot do what an engine does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::DetectError;
use super::process::read;

/// Of one process, at the time of looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// By hierarchy, as `/proc/<pid>/cgroup` names it (`cgroups(7)`); the path is relative to our own cgroup namespace.
    groups: BTreeMap<String, PathBuf>,
    /// `CapBnd` and `CapEff` of `proc_pid_status(5)`.
    bounding: u64,
    effective: u64,
    /// `Seccomp` there: whether there is any filter.
    filtered: bool,
}

impl Surroundings {
    /// What `/proc` says about `pid`.
    pub fn of(pid: u32) -> Result<Self, DetectError> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let text = |name: &str| Ok(String::from_utf8_lossy(&read(&directory.join(name))?).into_owned());
        Ok(Self::parse(&text("cgroup")?, &text("status")?))
    }

    /// What may be expected of any engine of this node: it is not where we are, unless the node's first process is there as well.
    /// Nothing is known of its rights.
    pub fn of_the_node() -> Self {
        let nothing = Self { groups: BTreeMap::new(), bounding: 0, effective: 0, filtered: true };
        Self::of(1).map_or(nothing.clone(), |first| Self { groups: first.groups, ..nothing })
    }

    fn parse(cgroup: &str, status: &str) -> Self {
        // "9:name=systemd:/system.slice/containerd.service"; a path may have colons of its own.
        let group = |line: &str| {
            let (hierarchy, path) = line.split_once(':')?.1.split_once(':')?;
            Some((hierarchy.to_owned(), PathBuf::from(path)))
        };
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim).unwrap_or_default()
        };
        let mask = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or_default();
        Self {
            groups: cgroup.lines().filter_map(group).collect(),
            bounding: mask("CapBnd"),
            effective: mask("CapEff"),
            filtered: !matches!(field("Seccomp"), "" | "0"),
        }
    }

    /// What an engine with these has lost as `now`, when `ours` are our own; `None` if nothing.
    pub fn lost(&self, now: &Self, ours: &Self) -> Option<String> {
        let mut words = Vec::new();
        let moved = now.groups.iter().find(|(hierarchy, path)| {
            let ours = ours.groups.get(*hierarchy);
            let before = self.groups.get(*hierarchy);
            ours.zip(before).is_some_and(|(ours, before)| is_within(path, ours) && !is_within(before, ours))
        });
        if let Some((_, path)) = moved {
            words.push(format!("it is in our own control group ({}) and may end with us", path.display()));
        }
        let capabilities = (self.bounding & !now.bounding) | (self.effective & !now.effective);
        if capabilities != 0 {
            words.push(format!("it lacks {} of the capabilities that it had", capabilities.count_ones()));
        }
        if now.filtered && !self.filtered {
            words.push("it is under a filter of system calls (seccomp) that it was not under".to_owned());
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// In a cgroup namespace of our own we are at `/`, and what is outside begins with `/..` (`cgroup_namespaces(7)`).
fn is_within(path: &Path, group: &Path) -> bool {
    path.starts_with(group) && !path.starts_with("/..")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "Name:\tcontainerd\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\nSeccomp:\t0\n";
    const OURS: &str = "Name:\tlarder-node\nCapEff:\t00000000002c103b\nCapBnd:\t00000000002c103b\nSeccomp:\t2\n";

    fn lost(before: (&str, &str), now: (&str, &str), ours: (&str, &str)) -> Option<String> {
        let parse = |(cgroup, status)| Surroundings::parse(cgroup, status);
        parse(before).lost(&parse(now), &parse(ours))
    }

    #[test]
    fn an_engine_of_the_service_manager_has_lost_nothing() {
        let host = ("0::/../../system.slice/containerd.service", FULL);
        assert_eq!(lost(host, host, ("0::/", OURS)), None, "version 2, in a namespace of our own");
        let host =
            ("1:cpu:/system.slice/containerd.service\n9:name=systemd:/system.slice/containerd.service\n0::/", FULL);
        let ours = ("1:cpu:/kubepods/x:1\n9:name=systemd:/kubepods/x:1\n0::/", OURS);
        assert_eq!(lost(host, host, ours), None, "version 1, whose last line is everybody's");
        let unit = ("0::/../../system.slice/run-r1.service", FULL);
        assert_eq!(
            lost(("0::/../../system.slice/containerd.service", FULL), unit, ("0::/", OURS)),
            None,
            "systemd-run"
        );
    }

    #[test]
    fn an_engine_that_was_where_we_are_has_not_moved() {
        for ours in ["0::/", "0::/user.slice/session-1.scope"] {
            assert_eq!(lost((ours, FULL), (ours, FULL), (ours, FULL)), None);
        }
        assert_eq!(
            lost(("0::/containerd", FULL), ("0::/", FULL), ("0::/", FULL)),
            None,
            "all of a machine is below its root"
        );
    }

    #[test]
    fn an_engine_that_the_command_forked_is_found_out() {
        let host = ("0::/../../system.slice/containerd.service", FULL);
        insta::assert_snapshot!(lost(host, ("0::/", OURS), ("0::/", OURS)).unwrap(), @"it is in our own control group (/) and may end with us, it lacks 32 of the capabilities that it had, it is under a filter of system calls (seccomp) that it was not under");
        let version_1 = ("1:cpu:/system.slice/containerd.service\n0::/", FULL);
        let ours = "1:cpu:/kubepods/pod1/2\n0::/";
        assert!(lost(version_1, (ours, FULL), (ours, FULL)).unwrap().contains("/kubepods/pod1/2"));
        assert!(lost(version_1, ("1:cpu:/kubepods/pod1/2/child\n0::/", FULL), (ours, FULL)).is_some());
        assert_eq!(lost(version_1, ("1:cpu:/kubepods/pod1/23\n0::/", FULL), (ours, FULL)), None, "another's");
    }

    #[test]
    fn an_engine_of_which_nothing_was_known_is_held_against_the_node() {
        let ourselves = Surroundings::of(std::process::id()).unwrap();
        assert!(!ourselves.groups.is_empty() && ourselves.bounding != 0);
        let first = Surroundings::of_the_node();
        assert_eq!((first.bounding, first.effective, first.filtered), (0, 0, true));
        assert_eq!(ourselves.lost(&ourselves, &ourselves), None);
    }
}
