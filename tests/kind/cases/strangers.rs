//! Whoever was there before Larder keeps what is his: an administrator his files, a stranger his port, and a release the nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Node, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;
use serde_json::json;

use crate::Case;
use crate::images::{Image, only_engines_asked, only_larder_asked};
use crate::removal::{Snapshot, nothing_is_left, snapshots};

pub(crate) const INSTALLED: &[Case] = &[
    Case::new("strangers::an_administrators_mirror_is_asked_and_his_file_untouched", an_administrators_mirror)
        .installed()
        .alone(),
    Case::new("strangers::a_second_release_is_refused", a_second_release_is_refused).installed().alone(),
    Case::new("strangers::who_takes_the_port_of_a_dead_proxy_and_is_silent_is_named", who_takes_the_port)
        .installed()
        .alone(),
    Case::new("strangers::a_second_agent_by_force_says_who_is_at_work", a_second_agent_by_force).installed().alone(),
];

pub(crate) const BARE: &[Case] = &[Case::new("strangers::a_squatter_on_the_port_is_named", a_squatter).bare().alone()];

/// A registry that does not exist; only the administrator's file leads to one that does.
const MIRRORED: &str = "mirrored.larder.test";

fn an_administrators_mirror(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "mirrored")?;
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "mirrored")?;
    cluster.on_each_worker(|worker| {
        let (path, file) = worker.engine().redirection(MIRRORED, ORIGIN);
        let put = format!("mkdir -p $(dirname {path}) && printf '%s' '{file}' > {path}");
        cluster.node_exec(worker, &["sh", "-c", &put])?;
        cluster.node_exec(worker, worker.engine().reload())?;
        Ok(())
    })?;
    let asked = cluster.on_each_worker(|worker| {
        until("the agent has seen the administrator's file", Duration::from_mins(1), || {
            let status = release.status(worker)?;
            let left = status.get("left_alone").map(ToString::to_string).unwrap_or_default();
            ensure!(left.contains(MIRRORED), "only {left} is left alone");
            Ok(())
        })?;
        let reference = format!("{MIRRORED}/{}:1", image.repository);
        Pod::create(&namespace, worker.name(), worker, &reference, "Always")?.wait_until_running()?;
        let (path, file) = worker.engine().redirection(MIRRORED, ORIGIN);
        let now = cluster.node_exec(worker, &["cat", &path])?;
        ensure!(now == file, "{} has another file now: {now}", worker.name());
        Ok(())
    });
    cluster.on_each_worker(|worker| {
        let (path, _) = worker.engine().redirection(MIRRORED, ORIGIN);
        // The folder of one registry goes with its file; one that drop-ins share stays.
        cluster.node_exec(worker, &["sh", "-c", &format!("rm {path}; rmdir $(dirname {path}) || true")])?;
        cluster.node_exec(worker, worker.engine().reload())?;
        Ok(())
    })?;
    asked?;
    let requests = image.requests()?;
    let ours: Vec<_> = requests.iter().filter(|request| !request.is_an_engines()).collect();
    ensure!(!requests.is_empty() && ours.is_empty(), "his mirror was asked by {ours:#?} of {requests:#?}");
    Ok(())
}

fn a_second_release_is_refused(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let values = release.values()?.to_string();
    for more in [&[][..], &["--set", "fullnameOverride=other"]] {
        let install = ["install", "second", &Release::chart(), "--namespace", NAMESPACE, "--values", "-"];
        let refused = cluster.helm_with_input(&[&install[..], more].concat(), values.as_bytes());
        let said = format!("{:#}", refused.err().context("helm installed a second release")?);
        // What is in the way, and whose it is.
        ensure!(said.contains("cannot be imported") && said.contains("\"larder\""), "helm says {said}");
    }
    for node in cluster.nodes() {
        ensure!(release.has_entry(node)?, "the attempt took the entry of {}", node.name());
    }
    let installed = cluster.helm(&["list", "--all", "--short", "--all-namespaces"])?;
    // A failed first installation is remembered by helm, and is nobody's on any node.
    let pods = cluster.kubectl(&["get", "daemonsets", "--all-namespaces", "--output", "name"])?;
    ensure!(!pods.contains("second") && !pods.contains("other"), "{installed} {pods}");
    Ok(())
}

fn a_second_agent_by_force(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push(cluster, "by-force")?;
    let values = json!({
        "fullnameOverride": "second",
        "metrics": {"enabled": false},
        "ports": {"proxyAdmin": 17440, "agentAdmin": 17441, "proxyMetrics": 17442, "agentMetrics": 17444},
        "store": {"type": "emptyDir"},
        // It asks for no rights, which are the whole cluster's and would stay.
        "agent": {"kubernetes": false, "livenessProbe": {"failureThreshold": 100}},
    });
    let rendered = release.template("second", &values)?;
    let manifests = rendered.as_bytes();
    // Everything but the one object whose name is the same on purpose.
    let kinds = ["apply", "--namespace", NAMESPACE, "--server-side", "--force-conflicts", "--filename", "-"];
    cluster.kubectl_with_input(&kinds, manifests)?;
    let outcome = cluster.on_each_worker(|worker| {
        let who = release.agent(worker)?;
        until("the second agent says who is at work", Duration::from_mins(1), || {
            let url = "http://127.0.0.1:17441/readyz";
            let said = cluster.node_exec(worker, &["curl", "--silent", "--max-time", "3", url])?;
            ensure!(said.contains("is at work with"), "the second agent of {} says {said:?}", worker.name());
            ensure!(said.contains(&who.to_string()), "it names somebody else than {who}: {said:?}");
            Ok(())
        })?;
        ensure!(release.lives(worker, who)?, "the first agent of {} is gone", worker.name());
        ensure!(release.has_entry(worker)?, "the entry of {} is gone", worker.name());
        Ok(())
    });
    let namespace = Namespace::create(cluster, "by-force")?;
    let pulled = cluster.on_each_worker(|worker| {
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()
    });
    let delete = ["delete", "--namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"];
    let objects = ["daemonset/second-node", "serviceaccount/second-node", "configmap/second-registries"];
    cluster.kubectl(&[&delete[..], &objects].concat())?;
    // The object that says whose the nodes are was taken by force as well; an upgrade takes it back, or else the next one is refused.
    let annotate = ["annotate", "clusterrole/larder-node", "--overwrite", "meta.helm.sh/release-name=larder"];
    cluster.kubectl(&annotate)?;
    outcome.and(pulled)?;
    only_larder_asked(&image.requests()?)
}

/// Somebody who listens on Larder's port as soon as it is free. With whoever connects he does what `with` says, in Perl.
fn squat(cluster: &Cluster, node: &Node, with: &str) -> Result<()> {
    let listen = "IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 7439, Listen => 50, ReuseAddr => 1)";
    let program = format!(
        "use IO::Socket::INET; my $s; select(undef, undef, undef, 0.001) until $s = {listen}; my @all; while (my $c = $s->accept) {{ {with} }}"
    );
    cluster.docker().run(&["exec", "--detach", node.name(), "perl", "-e", &program]).map(drop)
}

/// Waits until he listens; his process id.
fn squatter(cluster: &Cluster, node: &Node) -> Result<String> {
    until("the squatter listens", Duration::from_secs(20), || {
        let id = cluster.node_exec(node, &["pgrep", "-x", "perl"])?;
        let users =
            cluster.node_exec(node, &["ss", "--listening", "--numeric", "--tcp", "--processes", "--no-header"])?;
        ensure!(users.contains("\"perl\""), "he waits for the port: {users}");
        let sockets = cluster.node_exec(node, &["ss", "--listening", "--numeric", "--tcp", "--no-header"])?;
        ensure!(sockets.contains("127.0.0.1:7439 "), "nobody listens: {sockets}");
        Ok(id.trim().to_owned())
    })
}

fn a_squatter(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let image = Image::push(cluster, "squatter")?;
    let namespace = Namespace::create(cluster, "squatter")?;
    let before = snapshots(cluster)?;
    let node = cluster.workers().next().context("there is no worker")?;
    squat(cluster, node, "close $c")?;
    let squatter = squatter(cluster, node)?;
    release.install_only(&json!({}))?;
    let named = until("the agent names the squatter", Duration::from_mins(1), || {
        let said = release.readiness(node)?;
        ensure!(said.contains("perl") && said.contains(&squatter), "readyz says {said:?}");
        let status = release.status(node)?.to_string();
        ensure!(status.contains("perl") && status.contains(&squatter), "the status is {status}");
        Ok(())
    });
    let nothing = Snapshot::of(cluster, node).and_then(|now| {
        let index = cluster.nodes().iter().position(|one| one == node).context("a worker is a node")?;
        now.must_equal(before.get(index).context("every node was looked at")?)
    });
    let pulled = Pod::create(&namespace, "beside", node, &image.reference, "Always")?.wait_until_running();
    cluster.node_exec(node, &["kill", "-s", "KILL", &squatter])?;
    named?;
    nothing.context("something was written although the port is a stranger's")?;
    pulled?;
    let requests = image.requests()?;
    only_engines_asked(&requests)?;
    // With the stranger gone the node works like every other.
    release.wait()?;
    ensure!(release.has_entry(node)?, "{} was not configured afterwards", node.name());
    release.uninstall()?;
    nothing_is_left(cluster, &before)
}

/// The proxy dies, and before it is started again somebody else has its port, who takes connections and never says a word.
fn who_takes_the_port(cluster: &Cluster) -> Result<()> {
    let release = Release::of(cluster);
    let (meanwhile, after) = (Image::push(cluster, "port-taken")?, Image::push(cluster, "port-free")?);
    let namespace = Namespace::create(cluster, "port-taken")?;
    cluster.on_each_worker(|worker| {
        let proxy = release.proxy(worker)?;
        squat(cluster, worker, "push @all, $c")?;
        release.signal(worker, proxy, "KILL")?;
        let who = squatter(cluster, worker)?;
        let pulled = until("the agent names him", Duration::from_mins(1), || {
            let said = release.readiness(worker)?;
            ensure!(said.contains("perl") && said.contains(&who), "readyz says {said:?}");
            ensure!(!release.has_entry(worker)?, "the engine is still sent to him");
            Ok(())
        })
        .and_then(|()| {
            let pod = Pod::create(&namespace, worker.name(), worker, &meanwhile.reference, "Always")?;
            pod.wait_until_running()
        });
        cluster.node_exec(worker, &["kill", "-s", "KILL", &who])?;
        pulled?;
        release.wait_until_ready(worker)
    })?;
    only_engines_asked(&meanwhile.requests()?)?;
    release.wait()?;
    cluster.on_each_worker(|worker| {
        ensure!(release.has_entry(worker)?, "{} was not configured afterwards", worker.name());
        let name = format!("{}-after", worker.name());
        Pod::create(&namespace, &name, worker, &after.reference, "Always")?.wait_until_running()
    })?;
    only_larder_asked(&after.requests()?)
}
