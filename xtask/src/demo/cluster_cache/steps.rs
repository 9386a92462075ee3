//! The story, step by step. Each step says what it saw, and fails when that is not what it promises.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::cluster::Member;
use larder_test_node::engine::Pulled;
use larder_test_node::wait::until;

use super::super::stage::{mebibytes, pulled};
use super::super::story::{Story, Told, seconds, short};
use super::stage::Stage;

pub(super) fn tell(story: &mut Story, stage: &mut Stage) -> Result<()> {
    story.step("Three nodes pull one image at the same moment", |told| at_once(stage, told))?;
    story.step("The registry goes away, and a new node pulls the image", |told| new_node(stage, told))?;
    story
        .step("A replica of the cluster cache killed (SIGKILL) in the middle of a pull", |told| killed(stage, told))?;
    story.step("The registry is back with a new image under the same tag, and one replica is left", |told| {
        moved(stage, told)
    })
}

fn at_once(stage: &Stage, told: &Told) -> Result<()> {
    let start = Barrier::new(stage.nodes.len());
    let pulls = thread::scope(|scope| {
        let pull = |node: &Member| {
            start.wait();
            node.engine.pull(&stage.by_tag())
        };
        let pulls: Vec<_> = stage.nodes.iter().map(|node| scope.spawn(move || pull(node))).collect();
        let joined = pulls.into_iter().map(|pull| pull.join().map_err(|_| anyhow::anyhow!("a pull panicked"))?);
        joined.collect::<Result<Vec<Pulled>>>()
    })?;
    for (node, pull) in pulls.iter().enumerate() {
        told.saw(format!("node {}: {}", node + 1, pulled(stage.image.host_size(), pull.took)));
    }
    let platform = stage.image.host_platform();
    for digest in &platform.blobs {
        let asked = stage.registry.asked(&["GET", &format!("/blobs/{digest}")]);
        ensure!(asked == 1, "the registry was asked {asked} times for {digest}");
        let size = stage.image.blobs.get(digest).map_or(0, |blob| blob.len() as u64);
        told.saw(format!("registry: {} ({}) fetched once", short(digest.as_str()), shown(size)));
    }
    let manifests = stage.registry.asked(&["GET", "/manifests/"]);
    ensure!(manifests == 2, "an index and a manifest were fetched {manifests} times");
    for node in &stage.nodes {
        ensure!(node.asked_the_registry()? == 0.0, "a node's proxy went to the registry itself");
    }
    ensure!(stage.registry.asked(&["/shop/frontend/", &stage.agent()]) == 0, "an engine went to the registry itself");
    told.saw(format!(
        "so {:.0} MiB crossed from the registry, index and manifest once too, and {:.0} MiB were delivered to engines",
        mebibytes(stage.image.host_size()),
        mebibytes(stage.image.host_size() * stage.nodes.len() as u64)
    ));
    Ok(())
}

fn shown(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{bytes} bytes") } else { format!("{:.0} MiB", mebibytes(bytes)) }
}

fn new_node(stage: &mut Stage, told: &Told) -> Result<()> {
    for replica in &stage.replicas {
        replica.wait_until_stored()?;
    }
    stage.registry.stop()?;
    told.saw("the registry refuses connections");
    let number = stage.nodes.len() + 1;
    let node = stage.node(number)?;
    let pull = node.engine.pull(&stage.by_tag())?;
    told.saw(format!(
        "node {number}, which never saw it, pulls it by tag: {}",
        pulled(stage.image.host_size(), pull.took)
    ));
    ensure!(node.questions("stale")? > 0.0, "nothing says that the tag was not confirmed");
    told.saw("and the answer is marked: the tag is what it was when the registry answered last");
    stage.nodes.push(node);
    Ok(())
}

/// An idle machine pulls an image in less time than it takes to see that it began.
const TRIES: usize = 12;

fn killed(stage: &Stage, told: &Told) -> Result<()> {
    let node = stage.nodes.last().context("there is no node")?;
    let replica = stage.who_delivers(&stage.image.largest_layer())?;
    for _ in 0..TRIES {
        node.engine.remove(&stage.by_tag())?;
        let before = resumes(node)?;
        let arrived = loopback()?;
        let pull = thread::scope(|scope| {
            let pull = scope.spawn(|| node.engine.pull(&stage.by_tag()));
            while loopback()?.saturating_sub(arrived) < UNDER_WAY && !pull.is_finished() {
                thread::sleep(Duration::from_millis(2));
            }
            replica.kill()?;
            pull.join().map_err(|_| anyhow::anyhow!("the pull panicked"))?
        });
        let pull = pull.context("the registry is gone, and the other replica did not help")?;
        if resumes(node)? > before {
            told.saw(format!("{} was killed while it delivered a layer", replica.listen));
            told.saw(
                "the node's proxy went on at the other one, from that byte: what one keeps is on the bucket for all",
            );
            told.saw(format!(
                "the engine noticed nothing, and there was no registry to ask: {}",
                pulled(stage.image.host_size(), pull.took)
            ));
            return Ok(());
        }
        told.note("it was killed, and no layer was under way at that moment: once more");
        replica.start_again()?;
    }
    anyhow::bail!("{TRIES} pulls were over before a replica was killed: this machine is too quick to show anything")
}

/// When so much has crossed the machine's loopback, layers are on their way.
const UNDER_WAY: u64 = 16 << 20;

/// Bytes that have crossed this machine's loopback: what a node's proxy delivers is counted nowhere else before its end.
fn loopback() -> Result<u64> {
    let counters = std::fs::read_to_string("/proc/net/dev").context("read /proc/net/dev")?;
    let line = counters.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let received = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    received.context("/proc/net/dev has no loopback")
}

fn resumes(node: &Member) -> Result<f64> {
    Ok(larder_test_node::http::metric(&node.larder.metrics()?, "larder_fetch_resumes_total").unwrap_or_default())
}

fn moved(stage: &Stage, told: &Told) -> Result<()> {
    stage.registry.start_again()?;
    let new = super::super::stage::image(2);
    stage.registry.push("shop/frontend:v1", &new)?;
    let by_digest = stage.by_tag().replace(":v1", &format!("@{}", new.index));
    let began = Instant::now();
    // While the registry was away the cache stopped waiting for it; it looks again by itself.
    until("a pull gets the new image", Duration::from_secs(30), || {
        for node in &stage.nodes {
            node.engine.pull(&stage.by_tag())?;
            ensure!(node.engine.has(&by_digest)?, "it got the old one");
        }
        Ok(())
    })?;
    told.saw(format!("{} later every node pulls {}", seconds(began.elapsed()), short(new.index.as_str())));
    for digest in &new.host_platform().blobs {
        let asked = stage.registry.asked(&["GET", &format!("/blobs/{digest}")]);
        ensure!(asked == 1, "the registry was asked {asked} times for {digest}");
    }
    told.saw("each of its blobs was fetched from the registry once");
    Ok(())
}
