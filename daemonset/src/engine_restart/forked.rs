//! Whether the restarted engine is the node's own again, or was forked by the restart command, with what we have: the control group
//! and the few rights of a container, so that it is crippled, and ends with our Pod and all Pods of the node with it.

use crate::node::Node;
use larder_node_agent::engine::detect::{Process, Surroundings};

/// The engine answers, and is not what it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forked {
    pid: u32,
    lost: String,
}

impl std::fmt::Display for Forked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, lost } = self;
        write!(
            formatter,
            "the restart command started the engine (process {pid}) itself: {lost}. RESTART IT ON THE NODE, and have the command ask the \
             node's service manager, as \"systemctl restart containerd\" does, or \"systemd-run PROGRAM\" where the engine is no unit"
        )
    }
}

impl std::error::Error for Forked {}

/// What the engine has before it is restarted. Of one that does not run, what any engine of the node should have.
pub(crate) fn before(node: &Node) -> Surroundings {
    let running = node.running.as_ref().and_then(|running| Surroundings::of(running.found.process.pid).ok());
    running.unwrap_or_else(Surroundings::of_the_node)
}

/// Of an engine that has ended meanwhile nothing can be said; that it is gone is noticed elsewhere.
pub(super) fn check(before: &Surroundings, now: &Process) -> Result<(), Forked> {
    let (Ok(after), Ok(ours)) = (Surroundings::of(now.pid), Surroundings::of(std::process::id())) else {
        return Ok(());
    };
    before.lost(&after, &ours).map_or(Ok(()), |lost| Err(Forked { pid: now.pid, lost }))
}

#[cfg(test)]
mod tests {
    use super::{Forked, check};
    use larder_node_agent::engine::detect::{Process, Surroundings};

    #[test]
    fn a_person_is_told_what_to_do_now_and_what_to_change() {
        let forked = Forked { pid: 7, lost: "it lacks 32 of the capabilities that it had".to_owned() };
        insta::assert_snapshot!(forked, @r#"the restart command started the engine (process 7) itself: it lacks 32 of the capabilities that it had. RESTART IT ON THE NODE, and have the command ask the node's service manager, as "systemctl restart containerd" does, or "systemd-run PROGRAM" where the engine is no unit"#);
    }

    #[test]
    fn an_engine_like_before_and_one_that_is_gone_are_no_reason() {
        let (ourselves, ours) = (std::process::id(), Surroundings::of(std::process::id()).unwrap());
        let now = Process::read(ourselves).unwrap();
        assert_eq!(check(&ours, &now), Ok(()));
        assert_eq!(check(&ours, &Process { pid: 0, ..now }), Ok(()));
    }
}
