//! How a link of ours is told from everybody else's, also after the agent that made it is gone: by its target alone, because
//! the target of a dead agent's link cannot be read any more. Files of ours carry `change::marker`.

use std::path::{Component, Path};

/// A link with this target was made by an agent of ours: some component is `larder` or begins with `larder-`, below
/// `/run` or below the root of a process.
pub fn is_our_link(target: &Path) -> bool {
    let mut components = target.components();
    if components.next() != Some(Component::RootDir) {
        return false;
    }
    let names: Vec<&str> = components.filter_map(|component| component.as_os_str().to_str()).collect();
    let below = match names.as_slice() {
        ["run", below @ ..] => below,
        ["proc", pid, "root", below @ ..] if pid.bytes().all(|byte| byte.is_ascii_digit()) => below,
        _ => return false,
    };
    below.iter().any(|name| *name == "larder" || name.starts_with("larder-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_ours_is_known_by_its_target() {
        for ours in ["/run/larder/9f/_default", "/proc/812/root/larder-9f/0/_default", "/proc/1/root/run/larder/9f"] {
            assert!(is_our_link(Path::new(ours)), "{ours}");
        }
        for theirs in ["/etc/larder/certs.d", "larder/x", "/proc/self/root/larder", "/run/other", "/home/larder-x"] {
            assert!(!is_our_link(Path::new(theirs)), "{theirs}");
        }
    }
}
