//! CRI-O, whose entry is a file: what is learnt for it, what a dead agent leaves, and what takes that back.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::crio::{Crio, CrioOptions};
use larder_test_node::engine::Engine as _;
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::{Node, folder};
use larder_test_node::process::Process;
use larder_test_node::programs::larder_node;
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, OriginBuilder};
use larder_test_parts::CrioLine;

use crate::Case;
use crate::crio_files::{node, reloads_of};

pub(crate) const CASES: &[Case] = &[
    Case::crio("a_registry_that_nobody_named_is_learnt_and_stays_known", learnt).smoke(),
    Case::crio("it_starts_with_our_file_and_without_us", starts_without_us),
    Case::crio("restore_without_an_agent_takes_the_file_back_and_reloads", restored),
    Case::crio("a_second_agent_is_refused_and_changes_nothing", second_agent),
];

fn learnt(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    // With an authority that only the engine's files name: whatever Larder's settings said of it would name it.
    let origin = OriginBuilder::default().tls(&["127.0.0.1"]).start();
    origin.push("team/app", "v1", &Image::build(&ImageSpec::default()));
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    engine.trust(origin.registry().as_str(), origin.ca_pem().unwrap_or_default())?;
    let larder = Larder::start(&engine, folder.path(), &LarderOptions::default())?;
    let is_named = || -> Result<()> {
        let text = std::fs::read_to_string(engine.entry())?;
        ensure!(text.contains(origin.registry().as_str()), "it is not: {text}");
        Ok(())
    };
    ensure!(is_named().is_err(), "it was named before anything was pulled: the case shows nothing");
    engine.pull(&reference)?;
    let of_engine = |access: &larder_test_origin::Access| {
        access.header("user-agent").is_some_and(|agent| agent.starts_with(engine.user_agent()))
    };
    ensure!(origin.log().iter().any(of_engine), "the first pull was not direct");
    until("the registry is named", Duration::from_secs(20), is_named)?;
    let through_us = || {
        origin.clear_log();
        engine.remove(&reference)?;
        engine.pull(&reference)?;
        ensure!(!origin.log().iter().any(of_engine), "the engine goes to the origin itself: {}", larder.last_lines());
        Ok(())
    };
    until("the pull goes through us", Duration::from_secs(10), through_us)?;
    engine.remove(&reference)?;
    origin.stop();
    engine.pull(&reference).context("from Larder, without the origin")?;
    engine.remove(&reference)?;
    // No image is left to learn from.
    larder.stop()?;
    ensure!(!engine.entry().exists(), "the file is left");
    larder.start_again()?;
    is_named().with_context(|| format!("after a restart of the agent\n{}", larder.last_lines()))?;
    engine.pull(&reference).context("from Larder, after its restart")?;
    Ok(())
}

/// The agent killed, and its proxy with it.
fn orphan(node: &Node<Crio>) -> Result<()> {
    node.larder.kill_agent()?;
    until("nobody has the port", Duration::from_secs(10), || {
        ensure!(TcpStream::connect(node.larder.listen).is_err(), "somebody has");
        Ok(())
    })
}

fn starts_without_us(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.warm()?;
    orphan(&node)?;
    let left = std::fs::read(node.engine.entry())?;
    node.engine.restart()?;
    let pulled = node.engine.pull(&node.by_tag())?;
    ensure!(pulled.took < Duration::from_secs(3), "took {:?}", pulled.took);
    ensure!(node.asked_by_engine() > 0, "it was not pulled from the origin");
    node.engine.remove(&node.by_tag())?;
    node.larder.start_again()?;
    ensure!(std::fs::read(node.engine.entry())? == left, "the next agent wrote the file anew");
    node.origin.stop();
    node.engine.pull(&node.by_tag()).context("through the next agent's proxy")?;
    Ok(())
}

fn restored(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    orphan(&node)?;
    let before = reloads_of(&node.engine);
    let restore = node.larder.command("restore", &[])?;
    ensure!(restore.status.success(), "restore: {}", String::from_utf8_lossy(&restore.stderr));
    ensure!(!node.engine.entry().exists(), "the file is left");
    until("CRI-O was told to read again", Duration::from_secs(5), || {
        ensure!(reloads_of(&node.engine) == before + 1, "{} reloads after {before}", reloads_of(&node.engine));
        Ok(())
    })?;
    // A listener in our place is not asked any more.
    let listener = std::net::TcpListener::bind(node.larder.listen)?;
    listener.set_nonblocking(true)?;
    node.engine.pull(&node.by_tag())?;
    ensure!(listener.accept().is_err(), "CRI-O still asks our address");
    Ok(())
}

/// As a service of the machine and a Pod would be, with the same folder of state.
fn second_agent(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.warm()?;
    let (before, reloads) = (node.engine.trees()?, reloads_of(&node.engine));
    let mut command = std::process::Command::new(larder_node()?);
    command.args(node.larder.command_line().split_whitespace().skip(1));
    let mut second = Process::start("second", node.folder.path(), &mut command)?;
    let ended = second.wait(Duration::from_secs(10))?;
    let words = second.output();
    ensure!(!ended.success(), "the second one ran to its end: {words}");
    ensure!(words.contains(&format!("process {}", node.larder.agent())), "it does not say who is there: {words}");
    node.engine.must_be_as_before(&before)?;
    ensure!(reloads_of(&node.engine) == reloads, "CRI-O was told to read again for nothing");
    node.larder.wait_until_configured(Duration::from_secs(10))?;
    node.origin.stop();
    node.engine.pull(&node.by_tag())?;
    Ok(())
}
