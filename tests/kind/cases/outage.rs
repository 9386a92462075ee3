//! What the cluster pulled once stays pullable while its registry is away.

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::Cluster;
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::registry::ORIGIN;
use larder_test_kind::requests::Request;

use crate::Case;
use crate::images::{Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("outage::a_removed_image_comes_back_while_its_registry_is_stopped", comes_back_while_stopped)
        .installed()
        .alone(),
    Case::new("outage::a_removed_image_comes_back_while_its_registry_hangs", comes_back_while_frozen)
        .installed()
        .alone(),
    Case::new("outage::a_removed_image_comes_back_while_no_name_resolves", comes_back_without_names)
        .installed()
        .alone(),
];

fn comes_back_while_stopped(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "stopped")?;
    comes_back(cluster, &image, "stopped", || image.registry.stop(), || image.registry.restart())
}

fn comes_back_while_frozen(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "frozen")?;
    comes_back(cluster, &image, "frozen", || image.registry.freeze(), || image.registry.thaw())
}

/// Every question for a name is lost on its way, so whoever asks waits.
fn comes_back_without_names(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "no-names")?;
    let questions = |action: &str| {
        cluster.on_each_worker(|worker| {
            for protocol in ["udp", "tcp"] {
                let rule = ["OUTPUT", "--protocol", protocol, "--dport", "53", "--jump", "DROP"];
                cluster.node_exec(worker, &[&["iptables", "--wait", "--table", "raw", action], &rule[..]].concat())?;
            }
            Ok(())
        })?;
        Ok(())
    };
    let take_away = || {
        questions("--insert")?;
        let first = cluster.workers().next().context("there is no worker")?;
        let resolves = cluster.node_exec(first, &["timeout", "2", "getent", "hosts", ORIGIN]);
        ensure!(resolves.is_err(), "names still resolve: {resolves:?}");
        Ok(())
    };
    comes_back(cluster, &image, "no-names", take_away, || questions("--delete"))
}

fn comes_back(
    cluster: &Cluster,
    image: &Image<'_>,
    case: &str,
    take_away: impl FnOnce() -> Result<()>,
    give_back: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let namespace = Namespace::create(cluster, case)?;
    let references = [image.reference.clone(), image.by_digest()?];
    let digest = image.digest()?;
    cluster.on_each_worker(|worker| {
        for reference in &references {
            let pod = Pod::create(&namespace, &format!("{}-before", worker.name()), worker, reference, "IfNotPresent")?;
            pod.wait_until_running()?;
            pod.delete()?;
            cluster.remove_image(worker, reference)?;
        }
        Ok(())
    })?;
    let before = image.requests()?;
    only_larder_asked(&before)?;
    take_away()?;
    let came_back = cluster.on_each_worker(|worker| {
        for (number, reference) in references.iter().enumerate() {
            // By tag with the policy that asks every time, too.
            let policy = if number == 0 { "Always" } else { "IfNotPresent" };
            let pod = Pod::create(&namespace, &format!("{}-{number}", worker.name()), worker, reference, policy)?;
            pod.wait_until_running()?;
            let id = pod.image_id()?;
            ensure!(id.ends_with(&digest), "{} runs {id}, and the image was {digest}", worker.name());
        }
        Ok(())
    });
    give_back()?;
    came_back?;
    let blobs: Vec<_> = image.requests_since(&before)?.into_iter().filter(Request::is_for_a_blob).collect();
    ensure!(blobs.is_empty(), "blobs were asked for again: {blobs:#?}");
    Ok(())
}
