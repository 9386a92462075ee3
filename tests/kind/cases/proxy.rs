//! A proxy that hangs or dies is out of the way within seconds.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use larder_test_kind::cluster::{Namespace, Pod};
use larder_test_kind::{Cluster, Release};
use larder_test_node::wait::until;

use crate::Case;
use crate::images::{Image, only_larder_asked};

pub(crate) const CASES: &[Case] = &[
    Case::new("proxy::hung_is_withdrawn_and_killed_within_three_seconds", hung).installed().alone(),
    Case::new("proxy::killed_is_started_again_and_asked_again", killed).installed().alone(),
];

/// What a pull may take that met the hung proxy: the promise, the pull itself, and the second try of an engine that gave up once.
const PULL_LIMIT: Duration = Duration::from_secs(10);

/// The promise, and what one look at a node takes.
const LIMIT: Duration = Duration::from_millis(3500);

fn hung(cluster: &Cluster) -> Result<()> {
    let (image, after) = (Image::push(cluster, "proxy-hung")?, Image::push(cluster, "proxy-back")?);
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "proxy-hung")?;
    cluster.on_each_worker(|worker| {
        let (agent, proxy) = (release.agent(worker)?, release.proxy(worker)?);
        let kills = release.metric(worker, "larder_agent_proxy_kills_total", &[])?;
        release.signal(worker, proxy, "STOP")?;
        let since = Instant::now();
        let pod = Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?;
        until("the hung proxy is gone", Duration::from_secs(20), || {
            ensure!(!release.lives(worker, proxy)?, "it still lives");
            Ok(())
        })?;
        let took = since.elapsed();
        ensure!(took < LIMIT, "a hung proxy of {} lived for {took:?}", worker.name());
        pod.wait_until_running()?;
        let took = pod.pull_took()?;
        ensure!(took < PULL_LIMIT, "a pull of {} took {took:?}", worker.name());
        until("it is asked again", Duration::from_secs(90), || {
            ensure!(release.proxy(worker)? != proxy, "there is no new proxy");
            ensure!(release.has_entry(worker)?, "the engine was not told to ask the new one");
            Ok(())
        })?;
        release.wait_until_ready(worker)?;
        ensure!(release.agent(worker)? == agent, "the agent of {} went with its proxy", worker.name());
        let killed = release.metric(worker, "larder_agent_proxy_kills_total", &[])?;
        ensure!(killed > kills, "the agent of {} did not kill it", worker.name());
        let name = format!("{}-after", worker.name());
        Pod::create(&namespace, &name, worker, &after.reference, "Always")?.wait_until_running()?;
        Ok(())
    })?;
    only_larder_asked(&after.requests()?)
}

fn killed(cluster: &Cluster) -> Result<()> {
    let (image, after) = (Image::push(cluster, "proxy-killed")?, Image::push(cluster, "proxy-new")?);
    let release = Release::of(cluster);
    let namespace = Namespace::create(cluster, "proxy-killed")?;
    cluster.on_each_worker(|worker| {
        let (agent, proxy) = (release.agent(worker)?, release.proxy(worker)?);
        release.signal(worker, proxy, "KILL")?;
        Pod::create(&namespace, worker.name(), worker, &image.reference, "Always")?.wait_until_running()?;
        until("another proxy is asked", Duration::from_secs(90), || {
            ensure!(release.proxy(worker)? != proxy, "there is no new proxy");
            ensure!(release.has_entry(worker)?, "the engine was not told to ask the new one");
            Ok(())
        })?;
        release.wait_until_ready(worker)?;
        ensure!(release.agent(worker)? == agent, "the agent of {} went with its proxy", worker.name());
        let name = format!("{}-after", worker.name());
        Pod::create(&namespace, &name, worker, &after.reference, "Always")?.wait_until_running()?;
        Ok(())
    })?;
    only_larder_asked(&after.requests()?)
}
