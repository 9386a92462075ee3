//! `restore(apply(x)) == x`, planning again finds nothing, and both from any instant at which the process may die.

use std::path::Path;

use proptest::prelude::*;

use super::{
    super::{Change, ChangeError, Expected, Plan, Wanted, apply, present::Present, restore, verify},
    tree::{FOLDER, Node, Tree, splice, unsplice},
};
use crate::host::{Fault, FaultyHost, Host};

/// Few names, so that plans meet what is there.
fn path() -> impl Strategy<Value = String> {
    let directory = prop::sample::select(vec!["/etc", "/etc/certs.d", "/etc/certs.d/_default", "/etc/certs.d:/etc"]);
    let name =
        prop::sample::select(vec!["certs.d", "_default", "hosts.toml", "ca.crt", "certs.d:", "etc", "docker.io"]);
    (directory, name).prop_map(|(directory, name)| format!("{directory}/{name}"))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "([a-z]{0,8}\r?\n){0,4}".prop_map(String::into_bytes),]
}

fn mode() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0o644, 0o600, 0o755, 0o640, 0o4755, 0o444, 0o000])
}

fn node() -> impl Strategy<Value = Node> {
    let uid = || 0_u32..3;
    prop_oneof![
        4 => (bytes(), mode(), uid(), prop::option::of(bytes()), 0_i64..2_000_000_000)
            .prop_map(|(bytes, mode, uid, xattr, modified)| Node::File { bytes, mode, uid, xattr, modified }),
        2 => (prop::sample::select(vec!["/run/x", "hosts.toml", "/etc/certs.d", "/proc/1/root/n", ".."]), uid())
            .prop_map(|(target, uid)| Node::Link { target: target.to_owned(), uid }),
        3 => (prop::sample::select(vec![0o755, 0o700, 0o1777]), uid()).prop_map(|(mode, uid)| Node::Directory { mode, uid }),
    ]
}

fn nodes() -> impl Strategy<Value = Vec<(String, Node)>> {
    prop::collection::vec((path(), node()), 0..10).prop_map(|mut nodes| {
        nodes.sort_by_key(|(path, _)| path.len());
        nodes
    })
}

#[derive(Debug, Clone)]
enum Wish {
    Link(String),
    File(Vec<u8>, u32),
    Splice,
    Directory,
    Absent,
}

fn wishes() -> impl Strategy<Value = Vec<(String, Wish)>> {
    let wish = prop_oneof![
        3 => "/proc/[0-9]{1,4}/root/[a-f0-9]{6}".prop_map(Wish::Link),
        2 => (bytes(), prop::sample::select(vec![0o644, 0o600])).prop_map(|(bytes, mode)| Wish::File(bytes, mode)),
        2 => Just(Wish::Splice),
        1 => Just(Wish::Directory),
        1 => Just(Wish::Absent),
    ];
    prop::collection::vec((path(), wish), 1..5)
}

/// What an engine's adapter would plan: it looks, and never asks for what its own rules forbid.
fn plan(host: &dyn Host, wishes: &[(String, Wish)]) -> Plan {
    let mut plan = Plan::default();
    for (path, wish) in wishes {
        let path = Path::new(path);
        let below = |other: &Path| other != path && (other.starts_with(path) || path.starts_with(other));
        if plan.change(path).is_some() || plan.changes.iter().any(|change| below(&change.path)) {
            continue;
        }
        let Ok(present) = Present::look(host, path) else { continue };
        let after = match (wish, &present) {
            (Wish::Splice, Present::File { bytes, .. }) => {
                Wanted::Splice { bytes: splice(&unsplice(bytes).unwrap_or_else(|| bytes.clone())) }
            }
            (Wish::Absent, Present::Absent) | (Wish::Splice, _) | (_, Present::Directory | Present::Other) => continue,
            (Wish::Link(target), _) => Wanted::Link { target: target.into() },
            (Wish::File(bytes, mode), _) => Wanted::File { bytes: bytes.clone(), mode: *mode },
            (Wish::Directory, Present::Absent) => Wanted::Directory { mode: 0o755 },
            (Wish::Directory, _) => continue,
            (Wish::Absent, _) => Wanted::Absent,
        };
        // An edit of a file that is ours as a whole is not planned for, nor is a link through which its path would lead.
        let parents_are_plain = path
            .ancestors()
            .skip(1)
            .all(|parent| matches!(Present::look(host, parent), Ok(Present::Absent | Present::Directory)));
        if parents_are_plain {
            plan.changes.push(Change::new(path, present.expected().unwrap_or(Expected::Absent), after, "a test"));
        }
    }
    plan
}

fn config(cases: u32) -> ProptestConfig {
    // Failures are printed with their input; a file of seeds beside the source would be found by nobody.
    // A longer run: LARDER_PROPERTY_FACTOR=20.
    let factor = std::env::var("LARDER_PROPERTY_FACTOR").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    let cases = cases.saturating_mul(factor);
    ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::with_cases(cases) }
}

/// Trees of these tests stay within their folder, also by links that are absolute.
#[test]
fn a_directory_behind_an_absolute_link_is_made_within_the_tree() {
    let nodes = [
        ("/etc/certs.d".to_owned(), Node::Directory { mode: 0o755, uid: 0 }),
        ("/etc/certs.d/_default".to_owned(), Node::Link { target: "/etc/certs.d".to_owned(), uid: 0 }),
        ("/etc/certs.d/_default/docker.io".to_owned(), Node::Directory { mode: 0o700, uid: 1 }),
    ];
    let tree = Tree::new(&nodes);
    assert!(tree.photograph().contains_key("/etc/certs.d/docker.io"));
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn what_was_applied_is_undone_and_planning_again_finds_nothing(
        nodes in nodes(), first in wishes(), second in wishes(),
    ) {
        let tree = Tree::new(&nodes);
        let found = tree.photograph();
        let folder = Path::new(FOLDER);
        for wishes in [&first, &second] {
            let plan = plan(&tree.host, wishes);
            let before = tree.photograph_of_engine(true);
            match apply(&tree.host, folder, &plan, &unsplice) {
                Ok(_) => {
                    prop_assert_eq!(verify(&tree.host, &plan).unwrap(), vec![]);
                    let applied = tree.photograph_of_engine(true);
                    let again = apply(&tree.host, folder, &plan, &unsplice).unwrap();
                    prop_assert_eq!(again.changed, Vec::<std::path::PathBuf>::new());
                    prop_assert_eq!(tree.photograph_of_engine(true), applied);
                }
                Err(ChangeError::Conflicts { .. }) => prop_assert_eq!(tree.photograph_of_engine(true), before),
                Err(error) => return Err(TestCaseError::fail(format!("{error}"))),
            }
        }
        let restored = restore(&tree.host, folder, &unsplice).unwrap();
        prop_assert_eq!(restored.left, vec![]);
        prop_assert_eq!(&tree.photograph(), &found);
        let nothing = restore(&tree.host, folder, &unsplice).unwrap();
        prop_assert_eq!(nothing.undone, Vec::<std::path::PathBuf>::new());
        prop_assert_eq!(tree.photograph(), found);
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn dying_at_any_step_of_apply_loses_nothing(nodes in nodes(), first in wishes(), second in wishes()) {
        let folder = Path::new(FOLDER);
        // The second apply, over a first one: the longer way, with a journal to take over.
        let prepared = || {
            let tree = Tree::new(&nodes);
            let found = tree.photograph_of_engine(true);
            let _first = apply(&tree.host, folder, &plan(&tree.host, &first), &unsplice);
            let plan = plan(&tree.host, &second);
            (tree, found, plan)
        };
        let (tree, _, wanted) = prepared();
        let counting = FaultyHost::counting(tree.reopened());
        if apply(&counting, folder, &wanted, &unsplice).is_err() {
            return Ok(());
        }
        let applied = tree.photograph_of_engine(false);
        for step in 0..counting.steps() {
            for fault in [Fault::DiesBefore, Fault::DiesWithin] {
                let (tree, found, plan) = prepared();
                let _dead = apply(&FaultyHost::failing(tree.reopened(), step, fault), folder, &plan, &unsplice);
                let restored = restore(&tree.host, folder, &unsplice).unwrap();
                prop_assert_eq!(restored.left, vec![], "step {} {:?}", step, fault);
                prop_assert_eq!(tree.photograph_of_engine(true), found, "step {} {:?}", step, fault);

                let (tree, found, plan) = prepared();
                let _dead = apply(&FaultyHost::failing(tree.reopened(), step, fault), folder, &plan, &unsplice);
                apply(&tree.host, folder, &plan, &unsplice).unwrap();
                prop_assert_eq!(tree.photograph_of_engine(false), applied.clone(), "step {} {:?}", step, fault);
                restore(&tree.host, folder, &unsplice).unwrap();
                prop_assert_eq!(tree.photograph_of_engine(true), found, "step {} {:?}", step, fault);
            }
        }
    }

    #[test]
    fn an_apply_that_fails_takes_back_what_it_did(nodes in nodes(), first in wishes(), second in wishes()) {
        let folder = Path::new(FOLDER);
        let prepared = || {
            let tree = Tree::new(&nodes);
            let found = tree.photograph_of_engine(true);
            let _first = apply(&tree.host, folder, &plan(&tree.host, &first), &unsplice);
            let plan = plan(&tree.host, &second);
            (tree, found, plan)
        };
        let (tree, _, wanted) = prepared();
        let counting = FaultyHost::counting(tree.reopened());
        if apply(&counting, folder, &wanted, &unsplice).is_err() {
            return Ok(());
        }
        for step in 0..counting.steps() {
            for fault in [Fault::Full, Fault::FailsOnce, Fault::ReadOnly] {
                let (tree, found, plan) = prepared();
                let before = tree.photograph_of_engine(true);
                match apply(&FaultyHost::failing(tree.reopened(), step, fault), folder, &plan, &unsplice) {
                    // The fault hit something that may wait, such as the removal of an old copy.
                    Ok(_) => prop_assert_eq!(verify(&tree.host, &plan).unwrap(), vec![]),
                    // Once everything is read-only, nothing can be taken back; restore does it when it is not any more.
                    Err(_) if fault == Fault::ReadOnly => {}
                    Err(error) => {
                        let half_done = matches!(error, ChangeError::HalfDone { .. });
                        prop_assert!(!half_done, "step {} {:?}: {}", step, fault, error);
                        prop_assert_eq!(tree.photograph_of_engine(true), before, "step {} {:?}", step, fault);
                    }
                }
                restore(&tree.host, folder, &unsplice).unwrap();
                prop_assert_eq!(tree.photograph_of_engine(true), found, "step {} {:?}", step, fault);
            }
        }
    }

    #[test]
    fn dying_at_any_step_of_restore_loses_nothing(nodes in nodes(), first in wishes(), second in wishes()) {
        let folder = Path::new(FOLDER);
        let prepared = || {
            let tree = Tree::new(&nodes);
            let found = tree.photograph_of_engine(true);
            for wishes in [&first, &second] {
                let _applied = apply(&tree.host, folder, &plan(&tree.host, wishes), &unsplice);
            }
            (tree, found)
        };
        let (tree, _) = prepared();
        let counting = FaultyHost::counting(tree.reopened());
        restore(&counting, folder, &unsplice).unwrap();
        for step in 0..counting.steps() {
            for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::FailsOnce, Fault::Full] {
                let (tree, found) = prepared();
                let _dead = restore(&FaultyHost::failing(tree.reopened(), step, fault), folder, &unsplice);
                restore(&tree.host, folder, &unsplice).unwrap();
                prop_assert_eq!(tree.photograph_of_engine(true), found, "step {} {:?}", step, fault);
            }
        }
    }
}
