//! The cases that a person would ask about, by name.

use std::{fs, path::Path};

use super::{
    super::{
        Change, ChangeError, Colour, Expected, ItemState, Plan, Reason, Wanted, apply, diff, inventory, marker,
        restore, verify,
    },
    tree::{BEGIN, END, FOLDER, Tree, splice, unsplice, xattrs_work},
};
use crate::host::{Checksum, Fault, FaultyHost, Host, HostError, Kind};

const HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const DEFAULT: &str = "/etc/containerd/certs.d/_default";
const HIS: &[u8] = b"server = \"https://registry-1.docker.io\"\r\n\r\n[host.\"https://registry-1.docker.io\"]\r\n";

fn folder() -> &'static Path {
    Path::new(FOLDER)
}

fn link(before: Expected, target: &str) -> Plan {
    let after = Wanted::Link { target: target.into() };
    Plan::from_iter([Change::new(DEFAULT, before, after, "asks the proxy for every registry").volatile()])
}

fn splicing(his: &[u8]) -> Plan {
    let after = Wanted::Splice { bytes: splice(his) };
    Plan::from_iter([Change::new(HOSTS, Expected::file(his), after, "asks the proxy first")])
}

fn spliced() -> Tree {
    let tree = Tree::new(&[]);
    tree.file(HOSTS, HIS);
    apply(&tree.host, folder(), &splicing(HIS), &unsplice).unwrap();
    tree
}

#[test]
fn parents_that_are_missing_are_made_and_go_again_but_not_with_a_strangers_file_in_them() {
    let tree = Tree::new(&[]);
    let found = tree.photograph();
    let plan = link(Expected::Absent, "/proc/7/root/n");
    apply(&tree.host, folder(), &plan, &unsplice).unwrap();
    assert_eq!(fs::read_link(tree.path(DEFAULT)).unwrap(), Path::new("/proc/7/root/n"));
    assert_eq!(tree.host.metadata(Path::new("/etc/containerd")).unwrap().mode, 0o755);
    tree.file("/etc/containerd/his.toml", b"");
    let restored = restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(
        restored.left.iter().map(|left| left.path.as_path()).collect::<Vec<_>>(),
        [Path::new("/etc/containerd")]
    );
    assert!(!tree.host.exists(Path::new("/etc/containerd/certs.d")).unwrap());
    fs::remove_dir_all(tree.path("/etc/containerd")).unwrap();
    assert_eq!(tree.photograph(), found);
}

#[test]
fn what_is_not_as_observed_ends_the_whole_plan_before_anything_is_touched() {
    let tree = Tree::new(&[]);
    tree.file(HOSTS, HIS);
    let mut plan = link(Expected::Absent, "/proc/7/root/n");
    plan.changes.extend(splicing(b"what was there once").changes);
    let found = tree.photograph();
    let Err(ChangeError::Conflicts { conflicts }) = apply(&tree.host, folder(), &plan, &unsplice) else {
        panic!("the edit was not seen");
    };
    assert_eq!(conflicts.len(), 1);
    assert_eq!((conflicts[0].path.as_path(), conflicts[0].reason), (Path::new(HOSTS), Reason::NotAsObserved));
    assert_eq!(tree.photograph(), found);
}

#[test]
fn a_directory_of_someone_is_neither_replaced_nor_removed() {
    let tree = Tree::new(&[]);
    fs::create_dir_all(tree.path(DEFAULT)).unwrap();
    for after in [Wanted::Link { target: "/run/x".into() }, Wanted::Absent] {
        let plan = Plan::from_iter([Change::new(DEFAULT, Expected::Directory, after, "a test")]);
        assert!(matches!(apply(&tree.host, folder(), &plan, &unsplice), Err(ChangeError::Conflicts { .. })));
    }
    assert_eq!(tree.host.link_metadata(Path::new(DEFAULT)).unwrap().kind, Kind::Directory);
}

#[test]
fn an_edit_of_something_that_is_ours_is_told_and_left() {
    let tree = Tree::new(&[]);
    apply(&tree.host, folder(), &link(Expected::Absent, "/proc/7/root/n"), &unsplice).unwrap();
    fs::remove_file(tree.path(DEFAULT)).unwrap();
    tree.link(DEFAULT, "/etc/his");
    let next = link(Expected::link("/etc/his"), "/proc/8/root/n");
    let Err(ChangeError::Conflicts { conflicts }) = apply(&tree.host, folder(), &next, &unsplice) else {
        panic!("overwritten");
    };
    assert_eq!(conflicts[0].reason, Reason::EditedByOther);
    assert_eq!(inventory(&tree.host, folder()).unwrap().items.last().unwrap().state, ItemState::Changed);
    let restored = restore(&tree.host, folder(), &unsplice).unwrap();
    assert!(restored.left.iter().any(|left| left.path == Path::new(DEFAULT)));
    assert_eq!(fs::read_link(tree.path(DEFAULT)).unwrap(), Path::new("/etc/his"));
}

#[test]
fn a_new_agent_replaces_the_links_of_the_one_before_and_restore_removes_them() {
    let tree = Tree::new(&[]);
    let found = tree.photograph();
    apply(&tree.host, folder(), &link(Expected::Absent, "/proc/7/root/a"), &unsplice).unwrap();
    for agent in 8..12 {
        let before = Expected::link(format!("/proc/{}/root/a", agent - 1));
        apply(&tree.host, folder(), &link(before, &format!("/proc/{agent}/root/a")), &unsplice).unwrap();
    }
    let applies = tree.host.list(folder()).unwrap();
    assert_eq!(applies.len(), 2, "the lock and one apply: {applies:?}");
    restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(tree.photograph(), found);
}

#[test]
fn an_unedited_splice_is_undone_byte_for_byte_with_its_time() {
    let tree = Tree::new(&[]);
    tree.file(HOSTS, HIS);
    let found = tree.photograph();
    apply(&tree.host, folder(), &splicing(HIS), &unsplice).unwrap();
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), splice(HIS));
    restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(tree.photograph(), found);
}

#[test]
fn what_the_administrator_added_to_a_spliced_file_stays() {
    let tree = spliced();
    let edited = [splice(HIS).as_slice(), b"# his comment\n"].concat();
    fs::write(tree.path(HOSTS), &edited).unwrap();
    tree.chmod(HOSTS, 0o640);
    restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), [HIS, b"# his comment\n"].concat());
    assert_eq!(tree.host.metadata(Path::new(HOSTS)).unwrap().mode, 0o640);
    assert!(!tree.host.exists(folder()).unwrap());
}

#[test]
fn a_splice_over_his_later_edit_goes_back_to_the_edit() {
    let tree = spliced();
    let edited = [splice(HIS).as_slice(), b"# his comment\n"].concat();
    fs::write(tree.path(HOSTS), &edited).unwrap();
    let without = unsplice(&edited).unwrap();
    let renewed = [BEGIN, b"asks another port\n", END, without.as_slice()].concat();
    let change = Change::new(HOSTS, Expected::file(&edited), Wanted::Splice { bytes: renewed }, "a new port");
    apply(&tree.host, folder(), &Plan::from_iter([change]), &unsplice).unwrap();
    restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), without);
}

#[test]
fn a_block_that_he_removed_himself_is_not_missed() {
    let tree = spliced();
    fs::write(tree.path(HOSTS), b"all new\n").unwrap();
    let restored = restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(restored.left.len(), 1);
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), b"all new\n");
}

#[test]
fn a_whole_file_that_was_replaced_and_then_edited_keeps_its_backup_until_that_is_settled() {
    let tree = Tree::new(&[]);
    tree.file(HOSTS, HIS);
    let ours = marker::sealed("ours\n");
    let after = Wanted::File { bytes: ours.clone(), mode: 0o644 };
    let plan = Plan::from_iter([Change::new(HOSTS, Expected::file(HIS), after, "a test")]);
    apply(&tree.host, folder(), &plan, &unsplice).unwrap();
    fs::write(tree.path(HOSTS), b"edited\n").unwrap();
    let restored = restore(&tree.host, folder(), &unsplice).unwrap();
    let backup = restored.left[0].backup.clone().expect("his bytes are kept");
    assert_eq!(fs::read(tree.path(&backup)).unwrap(), HIS);
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), b"edited\n");
    fs::write(tree.path(HOSTS), &ours).unwrap();
    assert_eq!(restore(&tree.host, folder(), &unsplice).unwrap().left, []);
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), HIS);
    assert!(!tree.host.exists(folder()).unwrap());
}

#[test]
fn only_a_mode_that_differs_is_drift_and_comes_back() {
    let tree = Tree::new(&[]);
    tree.file(HOSTS, HIS);
    tree.chmod(HOSTS, 0o640);
    let found = tree.photograph();
    let after = Wanted::File { bytes: HIS.to_vec(), mode: 0o644 };
    let plan = Plan::from_iter([Change::new(HOSTS, Expected::file(HIS), after, "a test")]);
    assert_eq!(verify(&tree.host, &plan).unwrap().len(), 1);
    apply(&tree.host, folder(), &plan, &unsplice).unwrap();
    assert_eq!(tree.host.metadata(Path::new(HOSTS)).unwrap().mode, 0o644);
    restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(tree.photograph(), found);
}

#[test]
fn what_is_ours_from_a_life_without_journal_is_removed_and_not_brought_back() {
    let tree = Tree::new(&[]);
    tree.link(DEFAULT, "/proc/5/root/old");
    for plan in [
        link(Expected::link("/proc/5/root/old"), "/proc/7/root/n"),
        link(Expected::link("/proc/5/root/old"), "/proc/5/root/old"),
    ] {
        let adopting: Plan = plan.changes.into_iter().map(Change::adopting).collect();
        apply(&tree.host, folder(), &adopting, &unsplice).unwrap();
        restore(&tree.host, folder(), &unsplice).unwrap();
        assert!(!tree.host.exists(Path::new(DEFAULT)).unwrap());
        tree.link(DEFAULT, "/proc/5/root/old");
    }
}

#[test]
fn a_second_agent_is_told_who_the_first_is() {
    let tree = spliced();
    let _first = tree.host.lock(&folder().join("lock"), "larder-node (process 42)").unwrap();
    for outcome in [
        apply(&tree.host, folder(), &splicing(HIS), &unsplice).map(drop),
        restore(&tree.host, folder(), &unsplice).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(error.to_string(), format!("{FOLDER}/lock is held by larder-node (process 42)"));
    }
}

#[test]
fn a_read_only_file_system_is_an_error_of_its_own() {
    let tree = Tree::new(&[]);
    let found = tree.photograph();
    let host = FaultyHost::failing(tree.reopened(), 0, Fault::ReadOnly);
    let outcome = apply(&host, folder(), &link(Expected::Absent, "/x"), &unsplice);
    assert!(matches!(outcome, Err(ChangeError::Host(HostError::ReadOnly { .. }))));
    assert_eq!(tree.photograph(), found);
}

#[test]
fn one_path_that_cannot_be_undone_keeps_no_other_from_going_back() {
    let prepared = || {
        let tree = Tree::new(&[]);
        tree.file(HOSTS, HIS);
        let found = tree.photograph();
        let mut plan = splicing(HIS);
        plan.changes.extend(link(Expected::Absent, "/proc/7/root/n").changes);
        apply(&tree.host, folder(), &plan, &unsplice).unwrap();
        (tree, found)
    };
    let mut went_on = 0;
    for step in 0..20 {
        let (tree, found) = prepared();
        let host = FaultyHost::failing(tree.reopened(), step, Fault::FailsOnce);
        let Ok(restored) = restore(&host, folder(), &unsplice) else { continue };
        if let [failed] = restored.failed.as_slice() {
            assert!([HOSTS, DEFAULT].iter().any(|path| failed.path == Path::new(path)), "{failed:?}");
            assert_eq!((restored.undone.len(), restored.left.len()), (1, 0), "step {step}");
            went_on += 1;
        }
        restore(&tree.host, folder(), &unsplice).unwrap();
        assert_eq!(tree.photograph(), found, "step {step}");
    }
    assert!(went_on >= 2, "{went_on}");
}

#[test]
fn a_journal_that_was_tampered_with_stops_everything() {
    let tree = spliced();
    let copy = folder().join("apply-000001").join(Checksum::of(HIS).to_string());
    fs::write(tree.path(copy.to_str().unwrap()), b"other bytes").unwrap();
    assert!(matches!(restore(&tree.host, folder(), &unsplice), Err(ChangeError::Journal { .. })));
    let manifest = folder().join("apply-000001/manifest.json");
    fs::write(tree.path(manifest.to_str().unwrap()), b"{\"version\": 2}").unwrap();
    let error = restore(&tree.host, folder(), &unsplice).unwrap_err().to_string();
    assert!(error.contains("its version is 2"), "{error}");
    assert_eq!(fs::read(tree.path(HOSTS)).unwrap(), splice(HIS));
}

#[test]
fn an_interrupted_apply_is_seen_in_the_inventory() {
    let tree = Tree::new(&[]);
    let plan = link(Expected::Absent, "/proc/7/root/n");
    let rehearsal = Tree::new(&[]);
    let counting = FaultyHost::counting(rehearsal.reopened());
    apply(&counting, folder(), &plan, &unsplice).unwrap();
    let committed = counting.touched().iter().rposition(|path| path == Path::new(DEFAULT)).unwrap();
    let dying = FaultyHost::failing(tree.reopened(), committed as u64, Fault::DiesBefore);
    assert!(matches!(apply(&dying, folder(), &plan, &unsplice), Err(ChangeError::HalfDone { .. })));
    let seen = inventory(&tree.host, folder()).unwrap();
    assert!(seen.interrupted);
    assert_eq!(seen.items.last().unwrap().state, ItemState::NotPlaced);
    apply(&tree.host, folder(), &plan, &unsplice).unwrap();
    let seen = inventory(&tree.host, folder()).unwrap();
    assert!(!seen.interrupted);
    assert!(seen.items.iter().all(|item| item.state == ItemState::InPlace));
}

#[test]
fn the_diff_is_what_a_person_reads() {
    let tree = Tree::new(&[]);
    tree.file(HOSTS, HIS);
    tree.link("/etc/containerd/certs.d/old", "/proc/5/root/old");
    let mut plan = link(Expected::Absent, "/proc/7/root/n");
    plan.changes.extend(splicing(HIS).changes);
    plan.changes.push(Change::new(
        "/etc/containerd/certs.d:/etc/docker/certs.d",
        Expected::Absent,
        Wanted::Directory { mode: 0o755 },
        "the literal path that containerd 2.2 looks up",
    ));
    plan.changes.push(Change::new(
        "/etc/containerd/certs.d/new.example/hosts.toml",
        Expected::Absent,
        Wanted::File { bytes: b"[host]\x1b[31m\nlast".to_vec(), mode: 0o644 },
        "a file of ours",
    ));
    plan.changes.push(Change::new(
        "/etc/containerd/certs.d/old",
        Expected::link("/proc/5/root/old"),
        Wanted::Absent,
        "no longer needed",
    ));
    insta::assert_snapshot!(diff(&tree.host, &plan, Colour::Never).unwrap());
    assert!(diff(&tree.host, &plan, Colour::Always).unwrap().contains("\u{1b}[32m+ link"));
    apply(&tree.host, folder(), &plan, &unsplice).unwrap();
    assert_eq!(diff(&tree.host, &plan, Colour::Never).unwrap(), "");
}

#[test]
fn a_plan_survives_json_with_names_and_bytes_that_are_no_text() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let odd = Path::new(OsStr::from_bytes(b"/etc/\xff\xfe"));
    let after = Wanted::File { bytes: vec![0xff, 0], mode: 0o600 };
    let plan = Plan::from_iter([
        Change::new(odd, Expected::Absent, after, "a test"),
        Change::new("/etc/x", Expected::file(b"x"), Wanted::Splice { bytes: b"text".to_vec() }, "a test"),
    ]);
    let json = serde_json::to_string(&plan).unwrap();
    assert!(json.contains("\"text\""), "{json}");
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn a_real_disk_keeps_the_same_promise() {
    let at = std::env::temp_dir();
    let tree = Tree::new_in(&at, &[]);
    let with_xattrs = xattrs_work(&tree.host);
    if !with_xattrs {
        eprintln!("{}: no user.* attributes here, so they are not compared", at.display());
    }
    tree.file(HOSTS, HIS);
    if with_xattrs {
        let path = Path::new(HOSTS);
        let mut attributes = tree.host.attributes(path).unwrap();
        attributes.xattrs.get_or_insert_default().insert("user.his".into(), vec![0, 1, 255]);
        tree.host.write(path, HIS, &attributes, &tree.host.occupant(path).unwrap()).unwrap();
    }
    let found = tree.photograph();
    let mut plan = splicing(HIS);
    plan.changes.extend(link(Expected::Absent, "/proc/7/root/n").changes);
    apply(&tree.host, folder(), &plan, &unsplice).unwrap();
    let kept = tree.host.attributes(Path::new(HOSTS)).unwrap().xattrs.unwrap();
    assert_eq!(kept.contains_key(std::ffi::OsStr::new("user.his")), with_xattrs);
    restore(&tree.host, folder(), &unsplice).unwrap();
    assert_eq!(tree.photograph(), found);
}
