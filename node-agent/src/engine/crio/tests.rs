use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::change::{Change, Wanted};
use crate::engine::detect::{Kind, Process};
use crate::engine::{PlacementKind, Readiness};
use crate::host::RootedHost;

struct Node {
    root: tempfile::TempDir,
    engine: Crio,
}

impl Node {
    fn new(version: &str, files: &[(&str, &str)]) -> Self {
        let node = Self { root: tempfile::tempdir().unwrap(), engine: Crio::at(version.parse().ok()) };
        for (path, text) in files {
            node.write(path, text.as_bytes());
        }
        node
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn observe(&self) -> super::super::Observation {
        self.engine.observe(&RootedHost::open(self.root.path()).unwrap()).unwrap()
    }

    fn plan(&self, in_use: &[&str]) -> Proposal {
        let desired = desired("http://127.0.0.1:7439", in_use);
        self.engine.plan(&self.observe(), &desired, &Targets::new("/run/larder").unwrap()).unwrap()
    }

    fn apply(&self, changes: &[Change]) {
        for change in changes {
            let path = change.path.strip_prefix("/").unwrap().to_str().unwrap();
            match &change.after {
                Wanted::File { bytes, mode: 0o644 } => self.write(path, bytes),
                Wanted::Absent => fs::remove_file(self.root.path().join(path)).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn desired(mirror: &str, in_use: &[&str]) -> Desired {
    Desired {
        mirror: mirror.to_owned(),
        registries: BTreeMap::new(),
        in_use: in_use.iter().map(|name| name.parse().unwrap()).collect(),
        allow_engine_restart: false,
    }
}

const CONF_D: &str = "etc/containers/registries.conf.d";

#[test]
fn what_is_not_there_yet_is_watched_too() {
    let node = Node::new("1.34.0", &[("etc/containers/registries.conf.d/a.conf", "")]);
    let expected = [
        "/etc/containers/certs.d",
        "/etc/containers/policy.json",
        "/etc/containers/registries.conf",
        "/etc/containers/registries.conf.d",
        "/etc/containers/registries.conf.d/a.conf",
        "/etc/containers/registries.d",
        "/etc/crio/crio.conf",
        "/etc/crio/crio.conf.d",
        "/etc/crio/policies",
        "/etc/docker/certs.d",
        "/root/.config/containers/certs.d",
        "/root/.config/containers/policy.json",
        "/root/.config/containers/registries.conf",
        "/root/.config/containers/registries.conf.d",
        "/root/.config/containers/registries.d",
    ];
    assert_eq!(node.engine.watched(&node.observe()), expected.map(PathBuf::from));
    assert_eq!(node.engine.reload(), Reload::Signal(nix::libc::SIGHUP));
}

#[test]
fn a_mirror_that_cannot_be_written_down_is_refused() {
    let node = Node::new("1.34.0", &[]);
    let targets = Targets::new("/run/larder").unwrap();
    for mirror in ["https://127.0.0.1:7439", "http://127.0.0.1:7439/x", "http://[::1]:7439", "http://a\"]\n", ""] {
        let error = node.engine.plan(&node.observe(), &desired(mirror, &[]), &targets).unwrap_err();
        assert!(matches!(error, EngineError::Mirror { .. }), "{mirror}");
    }
}

#[test]
fn what_was_observed_of_another_engine_is_refused() {
    let node = Node::new("1.34.0", &[]);
    let containerd = crate::engine::containerd::Containerd::at("/etc/containerd/config.toml", None);
    let targets = Targets::new("/run/larder").unwrap();
    let wanted = desired("http://127.0.0.1:7439", &[]);
    assert!(containerd.plan(&node.observe(), &wanted, &targets).is_err());
    let of_containerd = containerd.observe(&RootedHost::open(node.root.path()).unwrap()).unwrap();
    assert!(node.engine.plan(&of_containerd, &wanted, &targets).is_err());
    assert!(node.engine.removal(&of_containerd).is_err());
}

#[test]
fn the_process_says_which_files() {
    let environment = [("HOME", "/home/crio"), ("CONTAINER_REGISTRIES_CONF_DIR", "/x.d")];
    let process = Process {
        pid: 1,
        start_ticks: 1,
        started: None,
        executable: PathBuf::from("/bin/crio"),
        arguments: ["crio", "--config", "crio.conf"].map(str::to_owned).to_vec(),
        working_directory: PathBuf::from("/srv"),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    let engine = Crio::of(&Found { kind: Kind::Crio, socket: PathBuf::from("/run/crio.sock"), process }, None);
    assert_eq!(engine.config, Path::new("/srv/crio.conf"));
    assert_eq!(engine.home, Path::new("/home/crio"));
    assert_eq!(engine.registries_conf_dir.as_deref(), Some(Path::new("/x.d")));
    assert_eq!(engine.registries_conf, None);
}

#[test]
fn settings_of_the_last_file_count() {
    let node = Node::new(
        "1.34.0",
        &[
            ("etc/crio/crio.conf", "[crio.image]\nauto_reload_registries = true\nsignature_policy = '/p.json'\n"),
            ("etc/crio/crio.conf.d/10-x", "[crio.image]\nauto_reload_registries = false\n"),
            ("etc/crio/crio.conf.d/sub/y.conf", "[crio.image]\nauto_reload_registries = true\n"),
            ("etc/crio/crio.conf.d/z", "not toml"),
        ],
    );
    let super::super::Observation::Crio(observed) = node.observe() else { panic!("another engine") };
    assert!(observed.settings.auto_reload_registries);
    assert_eq!(observed.settings.signature_policy.as_deref(), Some(Path::new("/p.json")));
    assert_eq!(observed.settings.files.len(), 4);
}

#[test]
fn links_are_read_as_the_library_reads_them() {
    let node = Node::new("1.31.0", &[("run/x", "[[registry]]\nlocation='a.example'\n"), ("etc/x.d/y.conf", "")]);
    fs::create_dir_all(node.root.path().join(CONF_D)).unwrap();
    let link = |to: &str, name: &str| symlink(to, node.root.path().join(CONF_D).join(name)).unwrap();
    link("/run/x", "a.conf");
    let registries: BTreeSet<String> =
        node.plan(&[]).report.placed.iter().filter_map(|placed| Some(placed.registry.as_ref()?.to_string())).collect();
    assert_eq!(registries.into_iter().collect::<Vec<_>>(), ["a.example", "larder.invalid"]);

    link("/run/nowhere", "b.conf");
    assert_eq!(node.plan(&[]).report.readiness, Readiness::Cannot, "c/image 5.32 fails");
    let newer = Node { engine: Crio::at("1.32.0".parse().ok()), root: node.root };
    assert_eq!(newer.plan(&[]).report.readiness, Readiness::Ready);
    symlink("/etc/x.d", newer.root.path().join(CONF_D).join("c.conf")).unwrap();
    assert_eq!(newer.plan(&[]).report.readiness, Readiness::Cannot, "a directory is no file");

    let linked = Node::new("1.34.0", &[("etc/x.d/y.conf", ""), ("etc/containers/registries.conf", "")]);
    symlink("/etc/x.d", linked.root.path().join(CONF_D)).unwrap();
    assert_eq!(linked.plan(&[]).report.readiness, Readiness::Cannot, "nothing in it would be read");
}

#[test]
fn a_named_file_has_to_be_there() {
    let mut node = Node::new("1.34.0", &[]);
    assert_eq!(node.plan(&[]).report.readiness, Readiness::Ready);
    node.engine.registries_conf = Some("/etc/mine.conf".into());
    assert_eq!(node.plan(&[]).report.readiness, Readiness::Cannot);
}

#[test]
fn ours_follows_the_others_and_goes_without_a_trace() {
    let node = Node::new("1.34.0", &[("etc/containers/registries.conf", "[[registry]]\nlocation='a.example'\n")]);
    node.apply(&node.plan(&["b.example"]).plan.changes);
    assert!(node.plan(&["b.example"]).plan.is_empty());

    // Somebody writes a file that sorts after ours: ours moves behind it, and repeats what it says.
    node.write(&format!("{CONF_D}/zzz.conf"), b"[[registry]]\nlocation='b.example'\ninsecure=true\n");
    let moved = node.plan(&["b.example"]);
    let paths: Vec<&Path> = moved.plan.changes.iter().map(|change| change.path.as_path()).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    node.apply(&moved.plan.changes);
    assert!(node.plan(&["b.example"]).plan.is_empty());
    assert!(moved.report.placed.iter().all(|placed| placed.kind == PlacementKind::RegistriesDropIn));
    assert!(moved.report.origin_hints.contains_key(&"b.example".parse().unwrap()));

    // While another file is malformed, ours stays as it is.
    node.write(&format!("{CONF_D}/bad.conf"), b"[[registry]]\n");
    assert!(node.plan(&["c.example"]).plan.is_empty());
    fs::remove_file(node.root.path().join(CONF_D).join("bad.conf")).unwrap();

    node.apply(&node.engine.removal(&node.observe()).unwrap().plan.changes);
    let left: Vec<String> = fs::read_dir(node.root.path().join(CONF_D))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["zzz.conf"]);
}

#[test]
fn what_somebody_edited_is_neither_changed_nor_removed() {
    let node = Node::new("1.34.0", &[]);
    node.apply(&node.plan(&["a.example"]).plan.changes);
    let path = format!("{CONF_D}/zz-larder.conf");
    let mut bytes = fs::read(node.root.path().join(&path)).unwrap();
    bytes.extend(b"# mine\n");
    node.write(&path, &bytes);
    let planned = node.plan(&["b.example"]);
    assert!(planned.plan.is_empty());
    assert!(planned.report.conditions.iter().any(|condition| condition.kind == "ForeignEdit"));
    assert!(node.engine.removal(&node.observe()).unwrap().plan.is_empty());
}

#[test]
fn signatures_are_looked_for_at_the_mirror_before_it_is_asked() {
    let signed = "docker:\n  a.example:\n    use-sigstore-attachments: true\n";
    let node = Node::new("1.34.0", &[("etc/containers/registries.d/a.yaml", signed)]);
    let planned = node.plan(&["a.example"]);
    let paths: Vec<&Path> = planned.plan.changes.iter().map(|change| change.path.as_path()).collect();
    let expected = ["/etc/containers/registries.d/larder.yaml", "/etc/containers/registries.conf.d/zz-larder.conf"];
    assert_eq!(paths, expected.map(Path::new));
    node.apply(&planned.plan.changes);
    assert!(node.plan(&["a.example"]).plan.is_empty());
    let removal = node.engine.removal(&node.observe()).unwrap().plan;
    let paths: Vec<&Path> = removal.changes.iter().map(|change| change.path.as_path()).collect();
    assert_eq!(paths, [expected[1], expected[0]].map(Path::new), "the mirror goes before its signatures");
    node.write("etc/containers/registries.d/b.yaml", signed.as_bytes());
    assert_eq!(node.plan(&["a.example"]).report.readiness, Readiness::Cannot, "every pull fails now");
}

#[test]
fn an_authority_of_a_registry_is_told_to_the_proxy_as_the_library_finds_it() {
    let node = Node::new(
        "1.34.0",
        &[
            ("etc/containers/certs.d/a.example:5000/b.crt", "B"),
            ("etc/containers/certs.d/a.example:5000/a.crt", "A\n\n"),
            ("etc/containers/certs.d/a.example:5000/client.cert", "no authority"),
            // The first folder that is there counts, whatever is in it.
            ("etc/containers/certs.d/b.example/client.cert", "no authority"),
            ("etc/docker/certs.d/a.example:5000/c.crt", "C"),
            ("etc/docker/certs.d/b.example/c.crt", "C"),
            ("etc/docker/certs.d/c.example/c.crt", "C"),
            ("root/.config/containers/certs.d/d.example/d.crt", "D"),
            ("etc/docker/certs.d/d.example/c.crt", "C"),
        ],
    );
    let hints = node.plan(&["a.example:5000", "b.example", "c.example", "d.example"]).report.origin_hints;
    let hints: Vec<_> = hints.iter().map(|(registry, hint)| (registry.as_str(), hint.ca_pem.as_deref())).collect();
    let expected = [("a.example:5000", Some("A\nB\n")), ("c.example", Some("C\n")), ("d.example", Some("D\n"))];
    assert_eq!(hints, expected);
    let watched = node.engine.watched(&node.observe());
    assert!(watched.contains(&PathBuf::from("/etc/containers/certs.d/a.example:5000")), "{watched:?}");
}

const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const SIGNED: &str = r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}"#;
const LOOKASIDE: &str = "docker:\n  a.example:\n    lookaside: https://a.example/sigstore\n";

/// Why a registry with a lookaside is left alone, if it is, beside these files.
fn left_alone(engine: &Crio, files: &[(&str, &str)]) -> Option<String> {
    let mut node = Node::new("1.34.0", files);
    node.engine = engine.clone();
    node.write("etc/containers/registries.d/a.yaml", LOOKASIDE.as_bytes());
    let report = node.plan(&["a.example"]).report;
    assert_eq!(report.readiness, Readiness::Ready);
    let told = report.conditions.iter().any(|condition| condition.kind == "WithoutSignatures");
    let left = report.left_alone.first().map(|left| left.reason.clone());
    assert_ne!(told, left.is_some(), "{report}");
    left
}

#[test]
fn every_policy_that_counts_has_to_do_without_signatures() {
    let usual = Crio::at("1.34.0".parse().ok());
    let named = Crio { signature_policy: Some("/p.json".into()), ..usual.clone() };
    let by_conf = ("etc/crio/crio.conf", "[crio.image]\nsignature_policy = '/p.json'\n");
    let (system, home) = ("etc/containers/policy.json", "root/.config/containers/policy.json");
    let namespaced = "[crio.image]\nsignature_policy_dir = '/n'\n";
    let at_n = Crio { signature_policy_dir: Some("/n".into()), ..usual.clone() };
    for (engine, files, expected) in [
        (&usual, vec![], Some("there is no signature policy")),
        (&usual, vec![(system, ACCEPT)], None),
        (&usual, vec![(system, SIGNED)], Some("by which CRI-O verifies, asks for them (signedBy by default)")),
        (&usual, vec![(system, "{")], Some("is no signature policy (line 1")),
        (&usual, vec![(home, ACCEPT)], None),
        (&usual, vec![(home, SIGNED), (system, ACCEPT)], Some("/root/.config/containers/policy.json, by which CRI-O")),
        (
            &usual,
            vec![(home, ACCEPT), (system, SIGNED)],
            Some("policy.json, by which podman, skopeo and buildah verify"),
        ),
        (&named, vec![(system, ACCEPT)], Some("/p.json, by which CRI-O verifies, is not there")),
        (&named, vec![("p.json", ACCEPT)], None),
        (&named, vec![("p.json", ACCEPT), (home, SIGNED)], Some("by which podman")),
        (&usual, vec![by_conf, ("p.json", ACCEPT), (system, ACCEPT)], None),
        (&usual, vec![by_conf, ("p.json", SIGNED), (system, ACCEPT)], Some("/p.json, by which CRI-O")),
        (&usual, vec![("etc/crio/policies/shop.json", ACCEPT), (system, ACCEPT)], Some("shop.json may ask for them")),
        (&usual, vec![("etc/crio/policies/README", ""), (system, ACCEPT)], None),
        (&usual, vec![("etc/crio/policies", ""), (system, ACCEPT)], Some("/etc/crio/policies may ask for them")),
        (&usual, vec![("etc/crio/crio.conf", namespaced), ("n/x.json", ""), (system, ACCEPT)], Some("/n/x.json")),
        (&at_n, vec![("etc/crio/policies/shop.json", ACCEPT), (system, ACCEPT)], None),
    ] {
        let left = left_alone(engine, &files);
        assert_eq!(left.is_some(), expected.is_some(), "{files:?}: {left:?}");
        assert!(left.unwrap_or_default().contains(expected.unwrap_or_default()), "{files:?}");
    }
    let relative = Crio { signature_policy: Some("p.json".into()), ..usual };
    assert!(left_alone(&relative, &[("p.json", ACCEPT)]).unwrap().contains("no absolute path"));
    assert!(relative.watched(&Node::new("1.34.0", &[]).observe()).iter().all(|path| path.is_absolute()));
}

#[test]
fn a_policy_that_cannot_be_read_is_told_and_stops_nothing_else() {
    let node = Node::new("1.34.0", &[("etc/containers/policy.json", "[]")]);
    let report = node.plan(&["a.example"]).report;
    assert!(report.conditions.iter().any(|condition| condition.kind == "SignaturePolicy"), "{report}");
    assert!(report.left_alone.is_empty());
}

#[test]
fn who_reads_what_is_told() {
    let settings = "[crio.image]\nauto_reload_registries = true\n";
    let files =
        [("etc/crio/crio.conf", ""), ("etc/crio/crio.conf.d/x", settings), ("etc/containers/policy.json", ACCEPT)];
    let reason = Node::new("1.34.0", &files).plan(&[]).report.reason;
    for part in ["in /etc/crio/crio.conf and 1 more", "policy is /etc/containers/policy.json", "auto_reload_registries"]
    {
        assert!(reason.contains(part), "{reason}");
    }
}
