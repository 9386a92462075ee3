//! The story, step by step. Each step says what it saw, and fails when that is not what it promises.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::engine::Pulled;
use larder_test_node::wait::until;
use nix::sys::signal::Signal;

use super::asides;
use super::stage::{Stage, image, pulled};
use super::story::{Story, Told, seconds, short};

pub(super) fn tell(story: &mut Story, stage: &Stage, keep: bool) -> Result<()> {
    story.step("What would change on this node? (larder-node plan)", |told| plan(stage, told))?;
    story.step("larder-node run: applied, and proved by asking the engine for an image nobody has", |told| {
        run(stage, told)
    })?;
    if stage.engine.needs_names() {
        story.step("First pull of a registry that the engine was not told of: direct, and learnt from", |told| {
            asides::learnt(stage, told)
        })?;
    }
    story.step("First pull through larder: from the registry, stored on the way", |told| first_pull(stage, told))?;
    story.step("Image removed from the engine, registry stopped: pulls by tag and by digest", |told| {
        registry_gone(stage, told)
    })?;
    story.step("Registry back, with a new image under the same tag", |told| tag_moved(stage, told))?;
    story.step("Proxy killed (SIGKILL) in the middle of a pull", |told| proxy_killed(stage, told))?;
    story.step("Agent killed (SIGKILL): pulls go to the registry itself", |told| agent_killed(stage, told))?;
    story.step("Started again, and stopped in the middle of a pull", |told| started_and_stopped(stage, told))?;
    if !keep {
        story.step("What is left on the node", |told| nothing_left(stage, told))?;
    }
    Ok(())
}

fn plan(stage: &Stage, told: &Told) -> Result<()> {
    let larder = stage.prepare_larder()?;
    let output = larder.command("plan", &["--exit-code"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    told.quote(&text);
    ensure!(
        output.status.code() == Some(3),
        "plan ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stage.engine.must_be_as_before(&stage.before).context("plan changed something")?;
    told.saw("nothing was changed by asking");
    Ok(())
}

fn run(stage: &Stage, told: &Told) -> Result<()> {
    let larder = stage.larder()?;
    told.note(larder.command_line());
    let began = Instant::now();
    larder.start_again()?;
    told.saw(format!("the engine was seen to ask the proxy {} after the start", seconds(began.elapsed())));
    asides::placed(stage, told)
}

fn first_pull(stage: &Stage, told: &Told) -> Result<()> {
    let direct = stage.asked_by_engine("/v2/");
    let pull = stage.engine.pull(&stage.by_tag())?;
    told.saw(format!("{}: {}", stage.by_tag(), pulled(stage.image.host_size(), pull.took)));
    let blobs = &stage.image.host_platform().blobs;
    for digest in blobs {
        let asked = stage.registry.asked(&["GET", &format!("/blobs/{digest}"), "larder/"]);
        ensure!(asked == 1, "the registry was asked {asked} times for {digest}");
    }
    ensure!(stage.asked_by_engine("/v2/") == direct, "the engine went to the registry itself");
    told.saw(format!("the registry was asked once for each of {} blobs, by larder only", blobs.len()));
    Ok(())
}

fn registry_gone(stage: &Stage, told: &Told) -> Result<()> {
    stage.engine.remove(&stage.by_tag())?;
    stage.registry.stop()?;
    told.saw("the registry refuses connections, the engine has no image");
    let by_tag = stage.engine.pull(&stage.by_tag())?;
    told.saw(format!("by tag:    {}", pulled(stage.image.host_size(), by_tag.took)));
    stage.engine.remove(&stage.by_tag())?;
    let by_digest = stage.engine.pull(&stage.by_digest())?;
    told.saw(format!("by digest: {}", pulled(stage.image.host_size(), by_digest.took)));
    stage.engine.remove(&stage.by_digest())
}

fn tag_moved(stage: &Stage, told: &Told) -> Result<()> {
    stage.registry.start_again()?;
    let new = image(2);
    stage.registry.push("shop/frontend:v1", &new)?;
    let digest = format!("{}/shop/frontend@{}", stage.registry.name(), new.index);
    // While the registry was away the proxy stopped waiting for it; it looks again by itself.
    until("the pull gets the new image", Duration::from_secs(30), || {
        stage.engine.pull(&stage.by_tag())?;
        if stage.engine.has(&digest)? {
            return Ok(());
        }
        stage.engine.remove(&stage.by_tag())?;
        anyhow::bail!("it got the old one")
    })?;
    told.saw(format!("shop/frontend:v1 is {} now, and that is what was pulled", short(new.index.as_str())));
    Ok(())
}

/// A disk in memory and an idle machine pull an image in less time than it takes to see that it began: then there is another one.
const TRIES: u64 = 8;

fn proxy_killed(stage: &Stage, told: &Told) -> Result<()> {
    let larder = stage.larder()?;
    for number in 1..=TRIES {
        let new = image(2 + number);
        let proxy = larder.proxy()?;
        let reference = stage.push_another(&format!("backend-{number}"), &new)?;
        let pull = during_a_pull(stage, &reference, || {
            larder.signal_proxy(Signal::SIGKILL)?;
            told.note(format!("proxy {proxy} killed"));
            Ok(())
        })?;
        if let Some(pull) = asides::after_the_kill(stage, told, &reference, pull)? {
            told.saw(format!("pulled in the end: {}", pulled(new.host_size(), pull.took)));
            larder.wait_until_configured(Duration::from_secs(30))?;
            told.saw(format!("the agent has started another proxy: {}", larder.proxy()?));
            return Ok(());
        }
        larder.wait_until_configured(Duration::from_secs(30))?;
        told.note("the pull was not hurt by the kill: another image");
    }
    anyhow::bail!("{TRIES} pulls were over before the proxy was killed: this machine is too quick to show anything")
}

/// Pulls, and calls `meanwhile` once a layer is on its way. What came of the pull.
fn during_a_pull(stage: &Stage, reference: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<Result<Pulled>> {
    let repository = reference.split_once('/').map_or(reference, |(_, rest)| rest);
    let repository = repository.split(':').next().unwrap_or(repository);
    thread::scope(|scope| {
        let pull = scope.spawn(|| stage.engine.pull(reference));
        until("a layer is on its way", Duration::from_secs(20), || {
            let asked = stage.registry.asked(&["GET", &format!("/v2/{repository}/blobs/")]);
            ensure!(asked > 0 || layer_arrives(stage), "none is");
            Ok(())
        })?;
        meanwhile()?;
        pull.join().map_err(|_| anyhow::anyhow!("the pull panicked"))
    })
}

fn agent_killed(stage: &Stage, told: &Told) -> Result<()> {
    let larder = stage.larder()?;
    let agent = larder.agent();
    larder.kill_agent()?;
    asides::orphaned(stage, told, agent)?;
    stage.engine.remove(&stage.by_tag())?;
    let before = stage.asked_by_engine("/v2/shop/frontend/manifests/");
    let pull = stage.engine.pull(&stage.by_tag())?;
    let after = stage.asked_by_engine("/v2/shop/frontend/manifests/");
    ensure!(after > before, "the engine did not go to the registry itself");
    told.saw(format!("a pull goes straight to the registry: {}", pulled(stage.image.host_size(), pull.took)));
    Ok(())
}

fn started_and_stopped(stage: &Stage, told: &Told) -> Result<()> {
    let larder = stage.larder()?;
    let left = if stage.engine.keeps_what_it_read() { Some(std::fs::read(stage.engine.entry())?) } else { None };
    larder.start_again()?;
    asides::taken_over(stage, told, left.as_deref())?;
    let new = image(20);
    let reference = stage.push_another("last", &new)?;
    let mut took = Duration::ZERO;
    let pull = during_a_pull(stage, &reference, || {
        let began = Instant::now();
        larder.stop()?;
        took = began.elapsed();
        Ok(())
    })?;
    let pull = pull.context("a planned stop lets a pull end")?;
    told.saw(format!(
        "stopped in {} (SIGTERM): first the engine asks no more, then what was under way ends",
        seconds(took)
    ));
    told.saw(format!("the pull of that moment succeeded: {}", pulled(new.host_size(), pull.took)));
    Ok(())
}

fn nothing_left(stage: &Stage, told: &Told) -> Result<()> {
    stage.engine.must_be_as_before(&stage.before)?;
    told.saw(format!("every file below {} is byte for byte what it was", stage.folder().display()));
    stage.engine.remove(&stage.by_tag())?;
    let before = stage.asked_by_engine("/v2/shop/frontend/manifests/");
    stage.engine.pull(&stage.by_tag())?;
    ensure!(stage.asked_by_engine("/v2/shop/frontend/manifests/") > before, "the engine asks somebody else");
    told.saw("and a pull goes straight to the registry");
    Ok(())
}

/// Whether a file in the store's folder of unfinished blobs grows: the registry logs a request only at its end.
fn layer_arrives(stage: &Stage) -> bool {
    let partial = stage.store().join("partial");
    std::fs::read_dir(partial)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.metadata().is_ok_and(|file| file.len() > 1 << 20))
}
