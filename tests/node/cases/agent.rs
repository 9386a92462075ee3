//! The agent: what it does when it dies, when the engine restarts, and when somebody else writes.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use larder_test_node::engine;
use larder_test_node::http;
use larder_test_node::node::{Node, folder, listed};
use larder_test_node::process::Process;
use larder_test_node::programs::larder_node;
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin};
use larder_test_parts::EngineLine;
use nix::sys::signal::Signal;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("agent_killed_pulls_go_to_the_origin_at_once", killed).smoke(),
    Case::any("engine_restarted_is_noticed_and_proved_again", engine_restarted),
    Case::any("drift_is_repaired", drift),
    Case::any("agent_and_proxy_started_by_others", apart),
];

fn killed(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.larder.kill_agent()?;
    let entry = node.engine.entry();
    // A file, which is in force until the next reload, stays, and leads to a port that nobody has: the proxy ends with its agent.
    let left = if node.engine.keeps_what_it_read() { entry.is_file() } else { entry.is_symlink() && !entry.exists() };
    ensure!(left, "{} is not what a dead agent leaves", entry.display());
    let pulled = node.engine.pull(&node.by_tag())?;
    ensure!(pulled.took < Duration::from_secs(3), "took {:?}", pulled.took);
    ensure!(node.asked_by_engine() > 0, "the engine still came through us");
    node.engine.remove(&node.by_tag())?;
    node.larder.start_again()?;
    node.origin.stop();
    node.engine.pull(&node.by_tag())?;
    Ok(())
}

fn engine_restarted(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.engine.restart()?;
    node.larder.wait_until_configured(Duration::from_secs(30))?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "after its restart the engine went to the origin itself");
    Ok(())
}

fn drift(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    std::fs::remove_file(node.engine.entry())?;
    until("the entry is back", Duration::from_secs(20), || {
        ensure!(node.engine.is_told_to_ask_us(), "it is not");
        Ok(())
    })?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    Ok(())
}

/// As two containers of one Pod: nobody is anybody's child, and either may come first.
fn apart(line: EngineLine) -> Result<()> {
    let folder = folder()?;
    let origin = Origin::start();
    origin.push("team/app", "v1", &Image::build(&ImageSpec::default()));
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = engine::start(line, folder.path())?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let registries = folder.path().join("registries.toml");
    std::fs::write(&registries, "")?;
    let listen = http::free_address()?.to_string();
    let (agent_admin, proxy_admin) = (http::free_address()?, http::free_address()?);
    let proxy = |name: &str| {
        let mut command = Command::new(larder_node()?);
        command.args(["proxy", "--listen", &listen, "--admin", &proxy_admin.to_string()]);
        command.args([
            "--run-folder",
            &path("run/proxy"),
            "--store",
            &format!("directory:{}", path("store")),
            "--store-reserve",
            "0",
        ]);
        Process::start(name, folder.path(), &mut command)
    };
    // The proxy is there first, as a native sidecar is.
    let mut first = proxy("proxy-1")?;
    let mut command = Command::new(larder_node()?);
    command.args(["agent", "--listen", &listen, "--admin", &agent_admin.to_string(), "--cri-socket"]);
    command.arg(engine.socket()).args(["--run-dir", &path("run"), "--state-dir", &path("state")]);
    let mut agent = Process::start("agent", folder.path(), command.arg("--registries").arg(&registries))?;
    let mut wait_until_ready = || {
        until("the agent has seen the engine ask the proxy", Duration::from_secs(30), || {
            agent.check_running()?;
            let reply = http::get(agent_admin, "/readyz", &[])?;
            ensure!(reply.status == 200, "{}\n{}", reply.text(), agent.last_lines(20));
            Ok(())
        })
    };
    wait_until_ready()?;
    let through_us = || {
        let engines = |access: &larder_test_origin::Access| {
            access.header("user-agent").is_some_and(|agent| agent.starts_with(engine.user_agent()))
        };
        !origin.log().iter().any(engines)
    };
    // What the agent hands over later reaches a proxy that is no longer root.
    std::fs::write(&registries, listed(&origin))?;
    until("the proxy may reach the origin", Duration::from_secs(20), || {
        origin.clear_log();
        engine.pull(&reference)?;
        engine.remove(&reference)?;
        ensure!(through_us(), "the engine still goes to the origin itself\n{}", first.last_lines(20));
        Ok(())
    })?;
    first.signal(Signal::SIGSTOP)?;
    let pulled = engine.pull(&reference)?;
    ensure!(pulled.took < Duration::from_secs(5), "took {:?}", pulled.took);
    engine.remove(&reference)?;
    let ended = first.wait(Duration::from_secs(5))?;
    ensure!(ended.signal() == Some(9), "the frozen proxy ended with {ended}");
    let entry = engine.entry();
    // A file outlasts a short absence of the proxy, whose port refuses.
    ensure!(engine.keeps_what_it_read() || !entry.exists(), "{} still leads somewhere", entry.display());
    let _second = proxy("proxy-2")?;
    wait_until_ready()?;
    origin.clear_log();
    engine.pull(&reference)?;
    ensure!(through_us(), "with another proxy the engine goes to the origin itself");
    ensure!(agent.terminate(Duration::from_secs(20))?.success(), "the agent: {}", agent.last_lines(20));
    ensure!(entry.symlink_metadata().is_err(), "{} is left", entry.display());
    Ok(())
}
