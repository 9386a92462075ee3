//! For any layout of registry directories: what containerd resolves after a plan is what it resolved before, with our
//! mirror in front or untouched, and once our links dangle it is exactly what it was.
//!
//! The model of containerd here looks directories up on a real file system, independently of the planner.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use larder_node_agent::change::{Plan, Wanted};
use larder_node_agent::engine::containerd::hosts::{AdminChain, Endpoint, parse};
use larder_node_agent::engine::containerd::intent::{self, Address, Intent};
use larder_node_agent::engine::containerd::{Containerd, Version};
use larder_node_agent::engine::{Desired, Engine as _, Proposal, Targets, Wish};
use larder_node_agent::host::RootedHost;
use larder_oci::Registry;
use proptest::prelude::*;

const MIRROR: &str = "http://127.0.0.1:7439";
const FOLDER: &str = "/run/larder-0123456789abcdef";
const HOSTS: [&str; 5] = ["docker.io", "a.example", "b.example:5000", "c.example:80", "unknown.example"];
const NAMES: [&str; 6] = ["_default", "docker.io", "a.example", "b.example:5000", "b.example_5000_", "c.example_80_"];

/// What somebody may have put into one directory.
const CONTENTS: [&[(&str, &str)]; 12] = [
    &[],
    &[("ca.crt", "pem")],
    &[("ca.crt", "pem"), ("client.cert", "c"), ("client.key", "k")],
    &[("hosts.toml", "[host.\"https://mirror.example\"]\n  ca = \"m.pem\"\n")],
    &[("hosts.toml", "server = \"https://elsewhere.example\"\n")],
    &[("hosts.toml", "ca = \"ca.pem\"\nskip_verify = true\n"), ("ca.pem", "pem")],
    &[(
        "hosts.toml",
        "[host.\"https://a.example\"]\n  client = [[\"x.cert\", \"x.key\"]]\n  [host.\"https://a.example\".header]\n    x = \"y\"",
    )],
    &[("hosts.toml", "")],
    &[("hosts.toml", "not toml"), ("ca.crt", "pem")],
    &[("hosts.toml", "capabilities = [\"push\"]\n")],
    &[("hosts.toml", "capabilities = [\"pull\"]\r\n[header]\r\nx = [\"y\", \"z\"]\r\n")],
    &[("hosts.toml", "host.\"https://a.example\".capabilities = [\"pull\"]\n")],
];

#[derive(Debug, Clone)]
struct Layout {
    version: Version,
    list: bool,
    local: bool,
    /// Root, name and what is in it.
    directories: Vec<(usize, usize, usize)>,
    wishes: BTreeMap<usize, (bool, bool)>,
}

const ROOTS: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

fn layouts() -> impl Strategy<Value = Layout> {
    (
        prop_oneof![Just(Version::new(1, 7, 28)), Just(Version::new(2, 1, 9)), Just(Version::new(2, 4, 2))],
        any::<bool>(),
        any::<bool>(),
        proptest::collection::vec((0..ROOTS.len(), 0..NAMES.len(), 0..CONTENTS.len()), 0..7),
        proptest::collection::btree_map(0..HOSTS.len(), any::<(bool, bool)>(), 0..3),
    )
        .prop_map(|(version, list, local, directories, wishes)| Layout {
            version,
            list,
            local,
            directories,
            wishes,
        })
}

struct Node {
    root: tempfile::TempDir,
    engine: Containerd,
    desired: Desired,
    /// As the engine reads them.
    lookup: Vec<PathBuf>,
}

impl Node {
    fn new(layout: &Layout) -> Self {
        let root = tempfile::tempdir().unwrap();
        let list = ROOTS.join(":");
        let path = if layout.list { list.as_str() } else { ROOTS[0] };
        let (format, plugin) = if layout.version.major < 2 {
            (2, "io.containerd.grpc.v1.cri")
        } else {
            (3, "io.containerd.cri.v1.images")
        };
        let config = format!(
            "version = {format}\n[plugins.\"{plugin}\"]\ndiscard_unpacked_layers = {}\n[plugins.\"{plugin}\".registry]\nconfig_path = \"{path}\"\n",
            layout.local
        );
        let write = |path: PathBuf, bytes: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write(root.path().join("etc/containerd/config.toml"), &config);
        for (index, name, contents) in &layout.directories {
            let directory = root.path().join(ROOTS[*index].trim_start_matches('/')).join(NAMES[*name]);
            fs::create_dir_all(&directory).unwrap();
            for (file, bytes) in CONTENTS[*contents] {
                write(directory.join(file), bytes);
            }
        }
        let splits = layout.version.major < 2 || layout.local;
        let lookup = match (layout.list, splits) {
            (false, _) => vec![PathBuf::from(ROOTS[0])],
            (true, true) => ROOTS.map(PathBuf::from).to_vec(),
            (true, false) => vec![PathBuf::from(list)],
        };
        let registries = layout
            .wishes
            .iter()
            .map(|(host, (skip, endpoints))| {
                (Registry::parse(HOSTS[*host]).unwrap(), Wish { skip: *skip, endpoints: *endpoints })
            })
            .collect();
        let engine = Containerd::at("/etc/containerd/config.toml", Some(layout.version));
        let desired =
            Desired { mirror: MIRROR.to_owned(), registries, in_use: BTreeSet::new(), allow_engine_restart: false };
        Self { root, engine, desired, lookup }
    }

    fn plan(&self) -> Proposal {
        let observed = self.engine.observe(&RootedHost::open(self.root.path()).unwrap()).unwrap();
        self.engine.plan(&observed, &self.desired, &Targets::new(FOLDER).unwrap()).unwrap()
    }

    fn carry_out(&self, plan: &Plan) {
        for change in &plan.changes {
            let path = self.inside(&change.path);
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path).unwrap();
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match &change.after {
                Wanted::Link { target } => symlink(target, &path).unwrap(),
                Wanted::Splice { bytes } | Wanted::File { bytes, .. } => fs::write(&path, bytes).unwrap(),
                Wanted::Absent => {}
                Wanted::Directory { .. } => panic!("containerd needs no directories of ours"),
            }
        }
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.path().join(path.strip_prefix("/").unwrap())
    }

    /// The path on the machine of the test, if the name leads to something inside the root.
    fn follow(&self, path: &Path) -> Option<PathBuf> {
        let inside = self.inside(path);
        let target = if inside.is_symlink() { self.inside(&inside.read_link().unwrap()) } else { inside };
        target.exists().then_some(target)
    }

    /// containerd's `hostDirFromRoots` and `loadHostDir`.
    fn resolve(&self, host: &str) -> AdminChain {
        for root in &self.lookup {
            let with_port = host.rsplit_once(':').map(|(name, port)| format!("{name}_{port}_"));
            for name in with_port.iter().map(String::as_str).chain([host, "_default"]) {
                let directory = root.join(name);
                let Some(found) = self.follow(&directory) else { continue };
                // A link to a directory leads to plain files; `hosts.toml` in an administrator's directory may be a link.
                let hosts = if self.inside(&directory).is_symlink() {
                    Some(found.join("hosts.toml"))
                } else {
                    self.follow(&directory.join("hosts.toml"))
                };
                let bytes = hosts.and_then(|path| fs::read(path).ok()).unwrap_or_default();
                if !bytes.is_empty()
                    && let Ok(chain) = parse(&bytes, &directory, self.engine.version)
                {
                    return chain;
                }
                let mut server = Endpoint::default();
                let mut names: Vec<String> = fs::read_dir(found)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                for name in &names {
                    if name.strip_suffix(".crt").is_some() {
                        server.ca.push(directory.join(name));
                    } else if let Some(stem) = name.strip_suffix(".cert") {
                        let key = format!("{stem}.key");
                        server.client.push((directory.join(name), names.contains(&key).then(|| directory.join(&key))));
                    }
                }
                return AdminChain { server, hosts: Vec::new() };
            }
        }
        AdminChain::default()
    }

    fn resolve_all(&self) -> Vec<AdminChain> {
        HOSTS.iter().map(|host| self.resolve(host)).collect()
    }
}

/// The chain without our mirror, and what our mirror may be asked for.
fn without_mirror(mut chain: AdminChain) -> (AdminChain, Option<Vec<String>>) {
    if chain.hosts.first().and_then(|host| host.url.as_deref()) == Some(MIRROR) {
        let ours = chain.hosts.remove(0);
        return (chain, Some(ours.capabilities));
    }
    (chain, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_but_our_mirror_is_added(layout in layouts()) {
        let node = Node::new(&layout);
        let before = node.resolve_all();
        let proposal = node.plan();
        for target in &proposal.targets {
            let path = node.inside(Path::new(FOLDER)).join(&target.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &target.bytes).unwrap();
        }
        node.carry_out(&proposal.plan);
        let mirror = Address::parse(MIRROR).unwrap();
        for (host, before) in HOSTS.iter().zip(&before) {
            let (after, ours) = without_mirror(node.resolve(host));
            prop_assert_eq!(&after, before, "{}", host);
            let wish = node.desired.registries.get(&Registry::parse(host).unwrap()).copied().unwrap_or_default();
            let intent = intent::of(before, Some(host), &mirror);
            let elsewhere = matches!(intent, Intent::Redirected(_)) && !wish.endpoints;
            if wish.skip || elsewhere || intent == Intent::Blocked {
                prop_assert_eq!(&ours, &None, "{} is not ours", host);
            }
            if ours.is_some_and(|ours| ours.contains(&"resolve".to_owned())) {
                prop_assert!(before.endpoints().any(|endpoint| endpoint.can("resolve")));
            }
        }
        prop_assert_eq!(node.plan().plan.changes, Vec::new());

        // The agent dies: its links dangle. What is spliced stays, and refuses at once.
        fs::remove_dir_all(node.inside(Path::new("/run"))).ok();
        for (host, before) in HOSTS.iter().zip(&before) {
            prop_assert_eq!(&without_mirror(node.resolve(host)).0, before, "{} with dangling links", host);
        }

        let observed = node.engine.observe(&RootedHost::open(node.root.path()).unwrap()).unwrap();
        node.carry_out(&node.engine.removal(&observed).unwrap().plan);
        prop_assert_eq!(node.resolve_all(), before);
    }
}
