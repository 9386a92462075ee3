use super::{Announcer, Placement, PlacementError, PrivateMount};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

fn in_run(root: &Path) -> Placement {
    Placement::in_run_folder(root, Path::new("/run/larder")).unwrap()
}

#[test]
fn withdrawn_at_first_then_there_then_gone() {
    let root = tempfile::tempdir().unwrap();
    let placement = in_run(root.path());
    let link = root.path().join("_default");
    let as_we_see_it = root.path().join(placement.targets().strip_prefix("/").unwrap()).join("_default");
    symlink(&as_we_see_it, &link).unwrap();
    placement.write(Path::new("_default/hosts.toml"), b"one").unwrap();
    assert!(!link.exists());
    placement.announce().unwrap();
    placement.announce().unwrap();
    assert_eq!(fs::read(link.join("hosts.toml")).unwrap(), b"one");
    placement.write(Path::new("_default/hosts.toml"), b"two").unwrap();
    assert_eq!(fs::read(link.join("hosts.toml")).unwrap(), b"two");
    placement.withdraw().unwrap();
    placement.withdraw().unwrap();
    assert!(!link.exists());
    placement.announce().unwrap();
    assert_eq!(fs::read(link.join("hosts.toml")).unwrap(), b"two");
    placement.remove().unwrap();
    assert!(!link.exists());
    assert_eq!(fs::read_dir(root.path().join("run/larder")).unwrap().count(), 0);
}

#[test]
fn nobody_else_reads_it_whatever_the_umask() {
    let root = tempfile::tempdir().unwrap();
    let placement = in_run(root.path());
    placement.write(Path::new("a/b/hosts.toml"), b"").unwrap();
    placement.announce().unwrap();
    let folder = root.path().join(placement.targets().strip_prefix("/").unwrap());
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("a"), mode("a/b"), mode("a/b/hosts.toml")), (0o700, 0o755, 0o755, 0o600));
}

#[test]
fn the_targets_become_exactly_the_wanted_ones() {
    let root = tempfile::tempdir().unwrap();
    let placement = in_run(root.path());
    let files = |names: &[&'static str]| -> Vec<(PathBuf, Vec<u8>)> {
        names.iter().map(|name| (PathBuf::from(name), name.as_bytes().to_vec())).collect()
    };
    let write = |files: &[(PathBuf, Vec<u8>)]| {
        placement.write_all(files.iter().map(|(name, bytes)| (name.as_path(), bytes.as_slice()))).unwrap();
    };
    write(&files(&["_default/hosts.toml", "old/deep/hosts.toml"]));
    write(&files(&["_default/hosts.toml", "new/hosts.toml"]));
    assert_eq!(placement.read(Path::new("new/hosts.toml")).unwrap().unwrap(), b"new/hosts.toml");
    assert_eq!(placement.read(Path::new("old/deep/hosts.toml")).unwrap(), None);
    placement.announce().unwrap();
    let folder = root.path().join(placement.targets().strip_prefix("/").unwrap());
    assert!(!folder.join("old").exists(), "an empty folder would hide what an engine looks for elsewhere");
}

#[test]
fn a_name_stays_inside() {
    let root = tempfile::tempdir().unwrap();
    let placement = in_run(root.path());
    for name in ["/etc/passwd", "../x", "a/../../x", "", "."] {
        let error = placement.write(Path::new(name), b"").unwrap_err();
        assert!(matches!(error, PlacementError::Name { .. }), "{name}: {error}");
    }
}

#[test]
fn an_engine_whose_root_cannot_be_reached_any_more_is_told_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (way, elsewhere) = (folder.path().join("proc-1-root"), folder.path().join("the-node"));
    std::fs::create_dir(&way).unwrap();
    let placement = Placement::in_run_folder(&way, Path::new("/run/larder")).unwrap();
    placement.write(Path::new("_default/hosts.toml"), b"x").unwrap();
    placement.announce().unwrap();
    // What /proc/<pid>/root does when that process ends.
    std::fs::rename(&way, &elsewhere).unwrap();
    let seen = elsewhere.join(placement.targets().strip_prefix("/").unwrap());
    assert!(seen.is_dir());
    placement.withdraw().unwrap();
    assert!(!seen.exists());
    placement.remove().unwrap();
    assert_eq!(std::fs::read_dir(elsewhere.join("run/larder")).unwrap().count(), 0);
}

#[test]
fn an_emptied_run_counts_as_withdrawn_and_says_so_when_announced() {
    let root = tempfile::tempdir().unwrap();
    let placement = in_run(root.path());
    placement.announce().unwrap();
    assert!(!placement.is_lost());
    fs::remove_dir_all(root.path().join("run")).unwrap();
    assert!(placement.is_lost());
    placement.withdraw().unwrap();
    assert!(placement.announce().is_err());
}

#[test]
fn what_a_killed_agent_left_is_removed_by_the_next_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run/larder");
    let of_agent = || Placement::in_run_folder_of_agent(root.path(), Path::new("/run/larder")).unwrap();
    let names = || {
        let entries = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let by_hand = in_run(root.path());
    by_hand.announce().unwrap();
    let made_by_hand = names();
    for announced in [true, false] {
        let killed = of_agent();
        killed.write(Path::new("_default/hosts.toml"), b"x").unwrap();
        if announced {
            killed.announce().unwrap();
        }
        // As when its process ends: the kernel lets go of the lock, and nobody removes anything.
        drop(killed);
    }
    // Killed while it made the file that says that it lives.
    fs::create_dir(run.join(".larder-0.withdrawn")).unwrap();
    fs::write(run.join(".larder-0.agent.new"), "").unwrap();
    let (one, other) = (of_agent(), of_agent());
    one.announce().unwrap();
    assert_eq!(names().len(), made_by_hand.len() + 4, "{:?}", names());
    other.remove().unwrap();
    assert!(root.path().join(one.targets().strip_prefix("/").unwrap()).is_dir(), "the living one keeps its own");
    one.remove().unwrap();
    assert_eq!(names(), made_by_hand);
}

#[test]
fn a_mount_namespace_is_not_left_with_threads_running() {
    // The thread that runs tests is a second one.
    let folder = tempfile::tempdir().unwrap();
    let error = PrivateMount::enter(&folder.path().join("larder-agent")).unwrap_err();
    assert!(matches!(error, PlacementError::Threads { threads } if threads > 1), "{error}");
}

struct Agent {
    child: Child,
    targets: PathBuf,
}

impl Agent {
    /// The example program `holds-a-private-mount`, which is single-threaded as an agent is at its start.
    fn start(point: &Path) -> Self {
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        program.push("examples/holds-a-private-mount");
        assert!(program.exists(), "cargo builds examples before it runs tests: {}", program.display());
        let mut child = Command::new(program)
            .arg(point)
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, targets: PathBuf::from(line.trim()) }
    }
}

#[test]
fn a_link_into_the_private_mount_dangles_as_soon_as_its_process_is_killed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a mount namespace takes CAP_SYS_ADMIN, and this is not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("larder-agent");
    let mut agent = Agent::start(&point);
    assert!(agent.targets.starts_with(format!("/proc/{}/root", agent.child.id())), "{}", agent.targets.display());
    let link = folder.path().join("_default");
    symlink(agent.targets.join("_default"), &link).unwrap();
    assert_eq!(fs::read(link.join("hosts.toml")).unwrap(), b"of the agent");
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "nothing is mounted for others");

    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    assert!(!link.exists());
    assert!(link.symlink_metadata().is_ok(), "the link itself is still there");
}

#[test]
fn a_private_mount_is_withdrawn_and_announced_again() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a mount namespace takes CAP_SYS_ADMIN, and this is not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&folder.path().join("larder-agent"));
    let target = agent.targets.join("_default/hosts.toml");
    let mut turn = |to: &str| {
        writeln!(agent.child.stdin.as_mut().unwrap(), "{to}").unwrap();
        let mut line = String::new();
        BufReader::new(agent.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), to);
    };
    turn("withdraw");
    assert!(!target.exists());
    turn("announce");
    assert_eq!(fs::read(&target).unwrap(), b"of the agent");
    drop(agent.child.stdin.take());
    assert!(agent.child.wait().unwrap().success());
}

#[test]
fn the_last_decision_holds_for_a_placement_that_comes_later() {
    let root = tempfile::tempdir().unwrap();
    let announcer = Announcer::default();
    announcer.turn(true).unwrap();
    let (first, second) = (Arc::new(in_run(root.path())), Arc::new(in_run(root.path())));
    announcer.hold(&first).unwrap();
    assert!(first.is_announced() && announcer.is_announced());
    announcer.hold(&second).unwrap();
    assert!(!first.is_announced() && second.is_announced());
    assert_eq!(fs::read_dir(root.path().join("run/larder")).unwrap().count(), 1, "the first one is gone");
    announcer.turn(false).unwrap();
    assert!(!second.is_announced() && !announcer.is_announced());
    announcer.hold(&second).unwrap();
    assert!(!second.is_announced());
    announcer.turn(true).unwrap();
    announcer.release().unwrap();
    assert!(!announcer.is_announced());
}
