//! What is planned for the layouts of real distributions: one folder a case under `tests/golden`.
//!
//! `before/` is the node's root, `wish.toml` the settings and the engine's version, `after/` the root with the plan carried
//! out, `report.txt` what a person is told. `LARDER_GOLDEN=write cargo test -p larder-node-agent --test golden` writes the
//! last two anew; review the difference. For every case it also holds that a second plan is empty, that nothing of an
//! administrator's is lost, and that taking ours away leads back to what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use larder_node_agent::change::{self, Change, Expected, Plan, Wanted};
use larder_node_agent::engine::containerd::Containerd;
use larder_node_agent::engine::crio::Crio;
use larder_node_agent::engine::{Desired, Engine, Proposal, Targets, Wish};
use larder_node_agent::host::RootedHost;
use larder_oci::Registry;
use serde::Deserialize;

const FOLDER: &str = "/run/larder-0123456789abcdef";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WishFile {
    #[serde(default)]
    engine: EngineName,
    /// Of the engine.
    version: String,
    /// Of containerd.
    #[serde(default = "default_config")]
    config: PathBuf,
    /// For CRI-O, which has to be told of each.
    #[serde(default)]
    in_use: BTreeSet<Registry>,
    #[serde(default)]
    allow_engine_restart: bool,
    /// Empty ones, which a repository cannot hold.
    #[serde(default)]
    directories: Vec<PathBuf>,
    #[serde(default)]
    registries: BTreeMap<Registry, RegistryWish>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EngineName {
    #[default]
    Containerd,
    Crio,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryWish {
    #[serde(default)]
    skip: bool,
    #[serde(default)]
    endpoints: bool,
}

fn default_config() -> PathBuf {
    PathBuf::from("/etc/containerd/config.toml")
}

#[derive(Debug, PartialEq, Eq, Clone)]
enum Node {
    File(Vec<u8>),
    Link(PathBuf),
}

/// Files and links by path; directories are there by what they hold.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Node>> {
    fn walk(root: &Path, directory: &Path, into: &mut BTreeMap<PathBuf, Node>) -> Result<()> {
        for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let kind = path.symlink_metadata()?.file_type();
            if kind.is_dir() {
                walk(root, &path, into)?;
                continue;
            }
            let node = if kind.is_symlink() { Node::Link(path.read_link()?) } else { Node::File(fs::read(&path)?) };
            into.insert(path.strip_prefix(root)?.to_owned(), node);
        }
        Ok(())
    }
    let mut nodes = BTreeMap::new();
    if root.exists() {
        walk(root, root, &mut nodes)?;
    }
    Ok(nodes)
}

fn write_tree(root: &Path, nodes: &BTreeMap<PathBuf, Node>) -> Result<()> {
    for (path, node) in nodes {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a parent")?)?;
        match node {
            Node::File(bytes) => fs::write(&path, bytes)?,
            Node::Link(target) => symlink(target, &path)?,
        }
    }
    Ok(())
}

/// Carries a plan out, without any of the care that `change` takes, but never over what was not expected.
fn carry_out(root: &Path, plan: &Plan) -> Result<()> {
    for Change { path, before, after, .. } in &plan.changes {
        let path = root.join(path.strip_prefix("/")?);
        let there = match path.symlink_metadata() {
            Err(_) => Expected::Absent,
            Ok(metadata) if metadata.is_symlink() => Expected::link(path.read_link()?),
            Ok(metadata) if metadata.is_dir() => Expected::Directory,
            Ok(_) => Expected::file(&fs::read(&path)?),
        };
        ensure!(there == *before, "{} is not what the plan says", path.display());
        if there != Expected::Absent {
            fs::remove_file(&path)?;
        }
        fs::create_dir_all(path.parent().context("a parent")?)?;
        match after {
            Wanted::Link { target } => symlink(target, &path)?,
            Wanted::File { bytes, .. } | Wanted::Splice { bytes } => fs::write(&path, bytes)?,
            Wanted::Directory { .. } => fs::create_dir(&path)?,
            Wanted::Absent => {}
        }
    }
    Ok(())
}

struct Case {
    engine: Box<dyn Engine>,
    desired: Desired,
    targets: Targets,
    root: tempfile::TempDir,
}

impl Case {
    fn open(folder: &Path) -> Result<Self> {
        let wish: WishFile = toml::from_str(&fs::read_to_string(folder.join("wish.toml"))?)?;
        let root = tempfile::tempdir()?;
        write_tree(root.path(), &tree(&folder.join("before"))?)?;
        for directory in &wish.directories {
            fs::create_dir_all(root.path().join(directory.strip_prefix("/")?))?;
        }
        let registries = wish.registries.into_iter();
        Ok(Self {
            engine: match wish.engine {
                EngineName::Containerd => Box::new(Containerd::at(wish.config, Some(wish.version.parse()?))),
                EngineName::Crio => Box::new(Crio::at(Some(wish.version.parse()?))),
            },
            desired: Desired {
                mirror: "http://127.0.0.1:7439".to_owned(),
                registries: registries
                    .map(|(registry, RegistryWish { skip, endpoints })| (registry, Wish { skip, endpoints }))
                    .collect(),
                in_use: wish.in_use,
                allow_engine_restart: wish.allow_engine_restart,
            },
            targets: Targets::new(FOLDER)?,
            root,
        })
    }

    fn plan(&self) -> Result<Proposal> {
        let observed = self.engine.observe(&RootedHost::open(self.root.path())?)?;
        Ok(self.engine.plan(&observed, &self.desired, &self.targets)?)
    }

    fn apply(&self, proposal: &Proposal) -> Result<()> {
        for target in &proposal.targets {
            let path = self.root.path().join(FOLDER.trim_start_matches('/')).join(&target.path);
            fs::create_dir_all(path.parent().context("a parent")?)?;
            fs::write(path, &target.bytes)?;
        }
        carry_out(self.root.path(), &proposal.plan)
    }
}

fn run(folder: &Path) -> Result<()> {
    let case = Case::open(folder)?;
    let before = tree(case.root.path())?;
    let proposal = case.plan()?;
    case.apply(&proposal)?;

    let again = case.plan()?;
    ensure!(again.plan.is_empty(), "a second plan is not empty: {:?}", again.plan);
    ensure!(again.report == proposal.report, "a second report differs:\n{}", again.report);
    ensure!(again.targets == proposal.targets, "a second plan has other targets");

    let mut after = tree(case.root.path())?;
    for (path, node) in &before {
        let lost = after.get(path) != Some(node);
        let spliced = matches!((node, after.get(path)), (Node::File(theirs), Some(Node::File(bytes)))
            if case.engine.unsplice(path, bytes).as_ref() == Some(theirs));
        ensure!(!lost || spliced, "{} was changed", path.display());
    }
    if let Some(edit) = &proposal.restart {
        after.insert(edit.path.strip_prefix("/")?.to_owned(), Node::File(edit.after.to_vec()));
    }
    compare(folder, &after, &proposal.report.to_string())?;

    apply_and_restore(folder)?;

    // The next agent has another folder; what the last one left is replaced, not doubled.
    let next = Case { targets: Targets::new("/proc/4711/root/larder-fedcba")?, ..case };
    let replaced = next.plan()?;
    carry_out(next.root.path(), &replaced.plan)?;
    ensure!(next.plan()?.plan.is_empty(), "planning for the next agent does not settle");

    let observed = next.engine.observe(&RootedHost::open(next.root.path())?)?;
    carry_out(next.root.path(), &next.engine.removal(&observed)?.plan)?;
    fs::remove_dir_all(next.root.path().join(FOLDER.trim_start_matches('/'))).ok();
    ensure!(tree(next.root.path())? == before, "taking ours away does not lead back");
    Ok(())
}

/// The same with all the care that is taken on a node.
fn apply_and_restore(folder: &Path) -> Result<()> {
    let case = Case::open(folder)?;
    let before = tree(case.root.path())?;
    let host = RootedHost::open(case.root.path())?;
    let journal = Path::new("/var/lib/larder/node-agent");
    let unsplice = |bytes: &[u8]| case.engine.unsplice(Path::new("hosts.toml"), bytes);
    let proposal = case.plan()?;
    change::apply(&host, journal, &proposal.plan, &unsplice)?;
    ensure!(case.plan()?.plan.is_empty(), "a plan after an apply is not empty");
    let next = Targets::new("/proc/4711/root/larder-fedcba")?;
    let observed = case.engine.observe(&host)?;
    change::apply(&host, journal, &case.engine.plan(&observed, &case.desired, &next)?.plan, &unsplice)?;
    change::restore(&host, journal, &unsplice)?;
    ensure!(tree(case.root.path())? == before, "restore does not lead back");
    Ok(())
}

fn compare(folder: &Path, after: &BTreeMap<PathBuf, Node>, report: &str) -> Result<()> {
    if std::env::var_os("LARDER_GOLDEN").is_some_and(|value| value == "write") {
        fs::remove_dir_all(folder.join("after")).ok();
        write_tree(&folder.join("after"), after)?;
        fs::write(folder.join("report.txt"), report)?;
        return Ok(());
    }
    let expected = tree(&folder.join("after"))?;
    for path in expected.keys().chain(after.keys()) {
        let show = |node: Option<&Node>| match node {
            None => "nothing".to_owned(),
            Some(Node::Link(target)) => format!("a link to {}", target.display()),
            Some(Node::File(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        };
        ensure!(
            expected.get(path) == after.get(path),
            "{} is\n{}\nand not\n{}",
            path.display(),
            show(after.get(path)),
            show(expected.get(path))
        );
    }
    let expected = fs::read_to_string(folder.join("report.txt"))?;
    ensure!(expected == report, "the report is\n{report}\nand not\n{expected}");
    Ok(())
}

#[test]
fn layouts_of_real_distributions() -> Result<()> {
    let mut cases: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    ensure!(!cases.is_empty(), "no cases");
    let failed: Vec<String> =
        cases.iter().filter_map(|case| run(case).err().map(|error| format!("{}: {error:#}", case.display()))).collect();
    ensure!(failed.is_empty(), "{} of {} cases failed:\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
    Ok(())
}
