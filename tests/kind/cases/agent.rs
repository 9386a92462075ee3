//! An agent that was killed or hangs takes no pull with it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::{Cluster, Release, at_once};
use larder_test_node::wait::until;

use crate::Case;
use crate::images::{Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("agent::killed_takes_its_entry_along_and_is_configured_again", killed).installed().alone(),
    Case::new("agent::hung_is_ended_by_kubelet_while_pulls_go_on", hung).installed().alone(),
];

fn killed(cluster: &Cluster) -> Result<()> {
    let (image, after) = (Image::push(cluster, "agent-killed")?, Image::push(cluster, "agent-back")?);
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "agent-killed")?;
    cluster.on_each_worker(|worker| {
        let agent = release.agent(worker)?;
        ensure!(release.has_entry(worker)?, "{} has no entry to begin with", worker.name());
        // In one breath, so that no new agent can have placed another entry meanwhile. Where the entry stays, so does the proxy.
        let gone = if worker.engine().entry_ends_with_agent() { "test ! -e" } else { "test -e" };
        let script = format!(
            "kill -KILL {agent}; while grep -qs '^State:.[^ZX]' /proc/{agent}/status; do :; done; {gone} {}",
            worker.engine().entry()
        );
        let gone = cluster.node_exec(worker, &["sh", "-c", &script]);
        gone.with_context(|| format!("the entry of {} is not what its dead agent should leave", worker.name()))?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        until("another agent is at work", Duration::from_mins(1), || {
            ensure!(release.agent(worker)? != agent, "there is only the old one");
            Ok(())
        })?;
        release.wait_until_ready(worker)?;
        ensure!(release.has_entry(worker)?, "{} was not configured again", worker.name());
        let name = format!("{}-after", worker.name());
        Pod::create(&namespace, &name, worker, &after.reference, "Always")?.wait_until_running()?;
        Ok(())
    })?;
    only_larder_asked(&after.requests()?)
}

fn hung(cluster: &Cluster) -> Result<()> {
    let image = Image::push(cluster, "agent-hung")?;
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "agent-hung")?;
    let frozen = cluster.on_each_worker(|worker| {
        let agent = release.agent(worker)?;
        release.signal(worker, agent, "STOP")?;
        Ok((worker, agent, Instant::now()))
    })?;
    cluster.on_each_worker(|worker| {
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()
    })?;
    // The entry is still there, and the proxy is well.
    only_larder_asked(&image.requests()?)?;
    at_once(frozen, |(worker, agent, since)| {
        until("kubelet ends the hung agent", Duration::from_mins(1), || {
            ensure!(!release.lives(worker, agent)?, "it is still there");
            Ok(())
        })?;
        let took = since.elapsed();
        // Three probes, five seconds apart, of five seconds each, and a grace of one second; and kubelet's own pace.
        ensure!(took < Duration::from_secs(40), "kubelet needed {took:?} on {}", worker.name());
        until("another agent is ready", Duration::from_mins(1), || {
            ensure!(release.agent(worker)? != agent, "there is only the old one");
            Ok(())
        })?;
        release.wait_until_ready(worker)
    })?;
    Ok(())
}
