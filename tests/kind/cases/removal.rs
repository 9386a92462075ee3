//! An uninstall leaves every node as it was found.

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::{Cluster, Release, at_once};
use larder_test_node::tree::Tree;
use serde_json::json;

use crate::Case;
use crate::images::{Image, only_engines_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("removal::an_uninstall_leaves_every_node_as_it_was", leaves_every_node_as_it_was).bare().alone(),
    Case::new("removal::nodes_that_were_off_keep_only_what_refuses_at_once", a_node_that_was_off).bare().alone(),
];

/// What a node looks like to whoever comes back to it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Its whole `/etc`.
    etc: Tree,
    /// The names of what keeps data on it, and of what its engine's data are in; but for our store, which is kept on purpose.
    data: Vec<String>,
}

impl Snapshot {
    pub(crate) fn of(cluster: &Cluster, node: &Node) -> Result<Self> {
        let folders = ["/var/lib", "/var/lib/containerd", "/var/lib/containers", "/opt", "/usr/local/bin"];
        let find = [&["find"], &folders[..], &["-maxdepth", "1", "-not", "-name", "larder"]].concat();
        // A folder that is not there is another engine's.
        let data = cluster.node_exec(node, &["sh", "-c", &format!("{} 2>/dev/null || true", find.join(" "))])?;
        let mut data: Vec<_> = data.lines().map(str::to_owned).collect();
        data.sort();
        ensure!(data.len() > folders.len(), "{} has no data at all: {data:?}", node.name());
        Ok(Self { etc: cluster.snapshot(node)?, data })
    }

    /// Fails with what differs.
    pub(crate) fn must_equal(&self, before: &Self) -> Result<()> {
        ensure!(self.data == before.data, "there was {:?}, and there is {:?}", before.data, self.data);
        self.etc.must_equal(&before.etc)
    }
}

/// Every node's.
pub(crate) fn snapshots(cluster: &Cluster) -> Result<Vec<Snapshot>> {
    cluster.nodes().iter().map(|node| Snapshot::of(cluster, node)).collect()
}

/// Nothing differs from what was there before, and nothing of ours is where it lives only while an agent does.
pub(crate) fn nothing_is_left(cluster: &Cluster, before: &[Snapshot]) -> Result<()> {
    for (node, before) in cluster.nodes().iter().zip(before) {
        Snapshot::of(cluster, node)?.must_equal(before).with_context(|| format!("{} is not as it was", node.name()))?;
        nothing_runs(cluster, node)?;
    }
    Ok(())
}

/// The folder below /run holds nothing, no process is left, and nobody listens.
fn nothing_runs(cluster: &Cluster, node: &Node) -> Result<()> {
    let left = cluster.node_exec(node, &["sh", "-c", "find /run/larder -mindepth 1 2>/dev/null || true"])?;
    ensure!(left.is_empty(), "{} still has {left}", node.name());
    let processes = cluster.node_exec(node, &["sh", "-c", "pgrep -x larder-node || true"])?;
    ensure!(processes.is_empty(), "{} still runs {processes}", node.name());
    let sockets = cluster.node_exec(node, &["ss", "--listening", "--numeric", "--tcp", "--no-header"])?;
    ensure!(!sockets.contains(":7439 "), "somebody on {} still listens: {sockets}", node.name());
    Ok(())
}

fn leaves_every_node_as_it_was(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let before = snapshots(cluster)?;
    release.install(&json!({}))?;
    for node in cluster.nodes() {
        ensure!(release.has_entry(node)?, "{} has no entry, so there is nothing to take back", node.name());
    }
    let changed = nothing_is_left(cluster, &before);
    ensure!(changed.is_err(), "the nodes look as if Larder was not there");
    // It has worked, too.
    let image = Image::push(cluster, "removal")?;
    let namespace = Namespace::create(cluster, "removal")?;
    cluster.on_each_worker(|worker| {
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        Ok(())
    })?;
    release.uninstall()?;
    nothing_is_left(cluster, &before)?;
    // And from now on engines ask by themselves.
    let asked = image.requests()?;
    cluster.on_each_worker(|worker| {
        Pod::create(&namespace, &format!("{}-after", worker.name()), worker, &image.reference, "Always")?
            .wait_until_running()?;
        Ok(())
    })?;
    let after = image.requests_since(&asked)?;
    only_engines_asked(&after)?;
    Ok(())
}

fn a_node_that_was_off(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push(cluster, "was-off")?;
    let namespace = Namespace::create(cluster, "was-off")?;
    let configurations = || cluster.on_each_worker(|worker| configuration(cluster, worker));
    let before = configurations()?;
    release.install(&json!({}))?;
    cluster.stop_workers()?;
    release.uninstall_only()?;
    cluster.start_workers()?;
    release.uninstall()?;
    at_once(cluster.workers().zip(&before), |(worker, before)| {
        only_what_refuses_is_left(cluster, worker, before)?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()
    })?;
    let requests = image.requests()?;
    only_engines_asked(&requests)?;
    // The next installation takes over what was left, and its end takes it away.
    release.install(&json!({}))?;
    release.uninstall()?;
    for (now, before) in configurations()?.iter().zip(&before) {
        now.must_equal(before)?;
    }
    Ok(())
}

fn configuration(cluster: &Cluster, node: &Node) -> Result<Tree> {
    Tree::read(&cluster.files(node)?.join(node.engine().configuration()))
}

/// Links that lead nowhere; where entries are files, these, which lead to a port that refuses at once.
fn only_what_refuses_is_left(cluster: &Cluster, node: &Node, before: &Tree) -> Result<()> {
    let after = configuration(cluster, node)?;
    let new: Vec<_> = after.links().into_iter().filter(|link| !before.links().contains(link)).collect();
    let root = cluster.files(node)?;
    for (link, target) in &new {
        let in_root = root.join(target.strip_prefix("/").unwrap_or(target));
        ensure!(!in_root.exists(), "{} leads to {}, which is there", link.display(), target.display());
    }
    let links = new.iter().filter_map(|(link, _)| link.to_str());
    let left: Vec<_> = links.chain(node.engine().lasting().iter().copied()).collect();
    after.clone().without(&left).must_equal(before).with_context(|| format!("on {}", node.name()))?;
    // A file may stay, if the agent had no time to take it back; a link leads nowhere.
    let finds = Release::of(cluster).has_entry(node)?;
    ensure!(!(finds && node.engine().entry_ends_with_agent()), "{} still finds an entry", node.name());
    Ok(())
}
