//! One suite for every host, and what only the real one can show.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(root.path().join("etc/engine")).unwrap();
    fs::write(root.path().join("etc/engine/hosts"), "found\n").unwrap();
    symlink("/etc/engine", root.path().join("etc/absolute")).unwrap();
    symlink("../../../../etc/engine/hosts", root.path().join("etc/climbing")).unwrap();
    symlink("/proc/1/root/nonce", root.path().join("etc/engine/ours")).unwrap();
    root
}

fn names(host: &dyn Host, path: &str) -> Vec<String> {
    host.list(Path::new(path)).unwrap().into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

/// What every implementation does.
fn conforms(host: &dyn Host) {
    let at = Path::new;
    let found = at("/etc/engine/hosts");

    // Links are followed inside the root, the last name only where the call says so.
    for path in ["/etc/engine/hosts", "/etc/absolute/hosts", "/etc/climbing"] {
        assert_eq!(host.read(at(path), 100).unwrap().bytes, b"found\n", "{path}");
    }
    assert_eq!(host.link_metadata(at("/etc/climbing")).unwrap().kind, Kind::Link);
    assert_eq!(host.link_metadata(at("/etc/engine/ours")).unwrap().kind, Kind::Link);
    assert_eq!(host.read_link(at("/etc/engine/ours")).unwrap(), at("/proc/1/root/nonce"));
    assert!(host.exists(at("/etc/engine/ours")).unwrap());
    assert!(matches!(host.metadata(at("/etc/engine/ours")), Err(HostError::NotFound { .. })));
    assert_eq!(resolve(host, at("/etc/absolute/hosts")).unwrap(), found);
    assert_eq!(resolve(host, at("/etc/climbing")).unwrap(), found);
    assert_eq!(resolve(host, at("/etc/absolute/new/one")).unwrap(), at("/etc/engine/new/one"));

    // Bounds and kinds.
    assert!(matches!(host.read(found, 5), Err(HostError::TooLarge { limit: 5, .. })));
    assert_eq!(host.read(found, 6).unwrap().bytes.len(), 6);
    assert!(matches!(host.read(at("/etc"), 5), Err(HostError::WrongKind { found: Kind::Directory, .. })));
    assert!(matches!(host.list(found), Err(HostError::WrongKind { found: Kind::File, .. })));
    assert!(matches!(host.read_link(found), Err(HostError::WrongKind { .. })));
    assert!(matches!(host.attributes(at("/etc/climbing")), Err(HostError::WrongKind { found: Kind::Link, .. })));
    assert!(matches!(host.read(at("/etc/none"), 5), Err(HostError::NotFound { .. })));
    assert!(matches!(host.read(at("/etc/engine/hosts/none"), 5), Err(HostError::NotFound { .. })));
    for bad in ["etc/engine", "/etc/../etc", "", "/etc/engine\0"] {
        assert!(matches!(host.link_metadata(at(bad)), Err(HostError::BadPath { .. })), "{bad:?}");
    }

    // A file is replaced only over what it was decided on, keeping what it has.
    let identity = host.identity(found, 100).unwrap();
    assert_eq!(identity.sha256, Checksum::of(b"found\n"));
    assert_eq!(host.occupant(found).unwrap(), Occupant::Is(identity.stamp));
    let attributes = Attributes { mode: 0o604, ..host.attributes(found).unwrap() };
    host.write(found, b"new\n", &attributes, &Occupant::Is(identity.stamp)).unwrap();
    assert_eq!(host.attributes(found).unwrap(), attributes);
    let stale = host.write(found, b"newer\n", &attributes, &Occupant::Is(identity.stamp));
    assert!(matches!(stale, Err(HostError::Changed { .. })));
    let foreign = host.write(found, b"newer\n", &attributes, &Occupant::Absent);
    assert!(matches!(foreign, Err(HostError::Changed { .. })));
    assert!(matches!(host.remove(found, &Occupant::Is(identity.stamp)), Err(HostError::Changed { .. })));
    assert_eq!(host.read(found, 100).unwrap().bytes, b"new\n");

    // The same for links; and a refusal leaves nothing behind.
    let link = at("/etc/engine/_default");
    host.symlink(link, at("/run/a"), &Occupant::Absent).unwrap();
    assert!(matches!(host.symlink(link, at("/run/b"), &Occupant::Absent), Err(HostError::Changed { .. })));
    host.symlink(link, at("/run/c"), &host.occupant(link).unwrap()).unwrap();
    assert_eq!(host.read_link(link).unwrap(), at("/run/c"));
    assert_eq!(names(host, "/etc/engine"), ["_default", "hosts", "ours"]);
    host.remove(link, &host.occupant(link).unwrap()).unwrap();

    // What was staged is invisible under its name, and can be taken back any time.
    host.stage_file(at("/etc/engine/staged"), b"half", &Attributes::new(0o644)).unwrap();
    assert!(!host.exists(at("/etc/engine/staged")).unwrap());
    host.discard(at("/etc/engine/staged")).unwrap();
    host.discard(at("/etc/engine/staged")).unwrap();
    host.discard(at("/none/staged")).unwrap();
    assert_eq!(names(host, "/etc/engine"), ["hosts", "ours"]);

    // Directories.
    let directory = at("/etc/engine/sub");
    host.create_directory(directory, 0o751).unwrap();
    assert_eq!(host.metadata(directory).unwrap().mode, 0o751);
    assert!(matches!(host.create_directory(directory, 0o755), Err(HostError::AlreadyExists { .. })));
    assert!(matches!(host.remove_directory(at("/etc/engine")), Err(HostError::NotEmpty { .. })));
    host.rename(directory, at("/etc/engine/renamed")).unwrap();
    let taken = host.rename(at("/etc/engine/renamed"), at("/etc/absolute"));
    assert!(matches!(taken, Err(HostError::AlreadyExists { .. })));
    host.remove_directory(at("/etc/engine/renamed")).unwrap();
    host.sync_directory(at("/etc/engine")).unwrap();

    // One holder at a time, who is named.
    let lock = host.lock(at("/etc/lock"), "the first one").unwrap();
    match host.lock(at("/etc/lock"), "the second one") {
        Err(HostError::Locked { holder, .. }) => assert_eq!(holder, "the first one"),
        other => panic!("locked twice: {other:?}"),
    }
    drop(lock);
    drop(host.lock(at("/etc/lock"), "the second one").unwrap());
}

#[test]
fn the_rooted_host_conforms() {
    let root = tree();
    conforms(&RootedHost::open(root.path()).unwrap());
}

#[test]
fn the_faulty_host_conforms_while_nothing_fails() {
    let root = tree();
    let host = FaultyHost::counting(RootedHost::open(root.path()).unwrap());
    conforms(&host);
    assert!(host.steps() > 20);
}

#[test]
fn no_link_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let root = tree();
    let host = RootedHost::open(root.path()).unwrap();
    symlink(outside.path(), root.path().join("etc/out")).unwrap();
    let deep = format!("../../../../../../../../../..{}", outside.path().display());
    symlink(deep, root.path().join("etc/climb")).unwrap();
    for path in ["/etc/out/secret", "/etc/climb/secret"] {
        assert!(matches!(host.read(Path::new(path), 100), Err(HostError::NotFound { .. })), "{path}");
        let written = host.write(Path::new(path), b"x", &Attributes::new(0o644), &Occupant::Absent);
        assert!(matches!(written, Err(HostError::NotFound { .. })), "{path}");
    }
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"outside");
}

#[test]
fn a_link_that_only_the_kernel_follows_is_seen_and_not_followed() {
    // The host's own root, where /proc/self/root exists.
    let host = RootedHost::open(Path::new("/")).unwrap();
    let own = format!("/proc/{}/root", std::process::id());
    assert_eq!(host.link_metadata(Path::new(&own)).unwrap().kind, Kind::Link);
    let through = host.metadata(&Path::new(&own).join("etc"));
    assert!(matches!(through, Err(HostError::Loop { .. })), "{through:?}");
}

#[test]
fn a_pipe_is_never_opened() {
    let root = tree();
    let pipe = root.path().join("etc/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let host = RootedHost::open(root.path()).unwrap();
    assert!(matches!(host.read(Path::new("/etc/pipe"), 1), Err(HostError::WrongKind { found: Kind::Other, .. })));
}

#[test]
fn a_root_that_is_no_directory_is_an_error() {
    let root = tree();
    assert!(RootedHost::open(&root.path().join("etc/engine/hosts")).is_err());
    assert!(matches!(RootedHost::open(&root.path().join("none")), Err(HostError::NotFound { .. })));
}

#[test]
fn what_a_killed_process_left_of_a_directory_goes_with_the_next_try() {
    let root = tree();
    let host = RootedHost::open(root.path()).unwrap();
    let path = Path::new("/etc/new");
    host.stage_link(path, Path::new("/x"), None).unwrap();
    let staged = host
        .list(Path::new("/etc"))
        .unwrap()
        .into_iter()
        .find(|entry| entry.kind == Kind::Link && entry.name.to_string_lossy().starts_with(".larder-"))
        .unwrap();
    host.discard(path).unwrap();
    fs::create_dir(root.path().join("etc").join(staged.name)).unwrap();
    host.create_directory(path, 0o755).unwrap();
    assert_eq!(names(&host, "/etc"), ["absolute", "climbing", "engine", "new"]);
}

#[test]
fn a_lock_whose_file_was_removed_is_no_lock() {
    let root = tree();
    let host = RootedHost::open(root.path()).unwrap();
    let path = Path::new("/etc/lock");
    let first = host.lock(path, "first").unwrap();
    host.remove(path, &host.occupant(path).unwrap()).unwrap();
    let second = host.lock(path, "second").unwrap();
    drop(first);
    assert!(matches!(host.lock(path, "third"), Err(HostError::Locked { .. })));
    drop(second);
}

#[test]
fn each_fault_leaves_what_a_kernel_would_leave() {
    let write = |fault| {
        let root = tree();
        let host = FaultyHost::failing(RootedHost::open(root.path()).unwrap(), 0, fault);
        let path = Path::new("/etc/engine/new");
        let error = host.write(path, b"0123456789", &Attributes::new(0o644), &Occupant::Absent).unwrap_err();
        let again = host.exists(path);
        (error, again, names(&host.into_inner(), "/etc/engine").len())
    };
    let (error, again, entries) = write(Fault::Full);
    assert!(matches!((error, again, entries), (HostError::Full { .. }, Ok(false), 2)));
    let (error, again, entries) = write(Fault::FailsOnce);
    assert!(matches!((error, again, entries), (HostError::Io { .. }, Ok(false), 2)));
    let (error, again, entries) = write(Fault::ReadOnly);
    assert!(matches!((error, again, entries), (HostError::ReadOnly { .. }, Ok(false), 2)));
    let (error, again, entries) = write(Fault::DiesBefore);
    assert!(matches!((error, again, entries), (HostError::Io { .. }, Err(_), 2)));
    let (error, again, entries) = write(Fault::DiesWithin);
    assert!(matches!((error, again, entries), (HostError::Io { .. }, Err(_), 3)), "half a temporary file");
}

#[test]
fn the_directories_above_a_path_are_made_where_they_are_missing() {
    let root = tree();
    let host = RootedHost::open(root.path()).unwrap();
    let path = Path::new("/a/b/c");
    assert_eq!(host.make_parents(path).unwrap(), [Path::new("/a"), Path::new("/a/b")]);
    assert_eq!(host.metadata(Path::new("/a/b")).unwrap().mode, 0o755);
    assert!(!host.exists(path).unwrap());
    assert!(host.make_parents(path).unwrap().is_empty(), "they are there");
    assert!(host.make_parents(Path::new("/")).unwrap().is_empty());
    host.write(path, b"x", &Attributes::new(0o600), &Occupant::Absent).unwrap();
    assert!(host.make_parents(Path::new("/a/b/c/d/e")).is_err(), "a file is no directory");
}

/// Never opened, and told from every other device: a link to it is how a file is switched off.
#[test]
fn the_null_device_is_known_by_its_numbers() {
    let host = RootedHost::open(Path::new("/")).unwrap();
    let is_null = |path| host.metadata(Path::new(path)).unwrap().is_null_device;
    assert!(is_null("/dev/null"));
    assert!(!is_null("/dev/zero") && !is_null("/dev") && !is_null("/proc/self/status"));
}
