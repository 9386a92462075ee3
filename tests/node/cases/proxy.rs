//! Promise 1: whatever happens to the proxy, a pull that would succeed without Larder succeeds.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use larder_test_node::engine::{self, Engine, Pulled};
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::{Node, folder, listed};
use larder_test_node::programs::larder_node;
use larder_test_node::wait::{Hopeless, until};
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher, Origin};
use larder_test_parts::EngineLine;
use nix::sys::signal::{Signal, kill};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("proxy_killed_before_a_pull", killed_before).smoke(),
    Case::any("proxy_killed_during_a_pull", killed_during).smoke(),
    Case::any("agent_killed_during_a_pull", agent_killed_during),
    Case::any("proxy_frozen_before_a_pull", frozen_before),
    Case::any("proxy_frozen_during_a_pull", frozen_during),
    Case::any("proxy_and_agent_frozen_then_killed", both_frozen),
    Case::any("proxy_frozen_and_agent_killed_during_a_pull", frozen_and_orphaned),
    Case::any("a_stranger_on_the_port", stranger),
    Case::any("a_stranger_that_closes_without_a_word_is_named_and_stays_named", mute_stranger),
    Case::any("a_silent_stranger_that_takes_the_port_of_a_dead_proxy", silent_stranger_takes_over),
    Case::any("a_stranger_that_takes_the_port_of_a_dead_proxy", stranger_takes_over),
    Case::any("a_planned_stop_during_a_pull", planned_stop),
    Case::any("check_pull_goes_through_the_proxy", check_pull),
];

/// A layer that takes some seconds.
fn slow_node(line: EngineLine) -> Result<Node<dyn Engine>> {
    let spec = ImageSpec { layers: vec![6_000_000], ..ImageSpec::default() };
    let node = Node::on_with_image(line, &spec)?;
    node.origin.behave(Matcher::path("/blobs/"), Behaviour::Shape(3_000_000));
    Ok(node)
}

/// Pulls on another thread and calls `meanwhile` once the largest layer is on its way, after which the pull has to succeed, at the second
/// try with an engine that stays with whoever gave it the manifest. How long it took after `meanwhile`.
fn broken_pull(node: &Node<dyn Engine>, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
    pull_and_meanwhile(node, meanwhile, |engine, reference| engine.pull_in_the_end(reference))
}

/// The same, and the first try has to succeed.
fn during_a_pull(node: &Node<dyn Engine>, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
    pull_and_meanwhile(node, meanwhile, |engine, reference| engine.pull(reference))
}

fn pull_and_meanwhile(
    node: &Node<dyn Engine>,
    meanwhile: impl FnOnce() -> Result<()>,
    pull: impl FnOnce(&dyn Engine, &str) -> Result<Pulled> + Send,
) -> Result<Duration> {
    let layer = node.image.largest_layer();
    thread::scope(|scope| {
        let pull = scope.spawn(|| pull(&*node.engine, &node.by_tag()));
        until("the layer is on its way", Duration::from_secs(20), || {
            ensure!(node.origin.blob_bytes(&layer) > 500_000, "it is not");
            Ok(())
        })?;
        let started = Instant::now();
        meanwhile()?;
        pull.join().expect("pull does not panic")?;
        Ok(started.elapsed())
    })
}

fn killed_before(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    let proxy = node.larder.proxy()?;
    node.larder.signal_proxy(Signal::SIGKILL)?;
    let pulled = node.engine.pull(&node.by_tag())?;
    ensure!(pulled.took < Duration::from_secs(3), "took {:?}", pulled.took);
    node.larder.wait_until_configured(Duration::from_secs(30))?;
    until("the agent has started another proxy", Duration::from_secs(10), || {
        ensure!(node.larder.proxy()? != proxy, "it is the killed one");
        Ok(())
    })
}

fn killed_during(line: EngineLine) -> Result<()> {
    let node = slow_node(line)?;
    broken_pull(&node, || node.larder.signal_proxy(Signal::SIGKILL))?;
    // The rest came from the origin to the engine itself, or, at the next try, through the next proxy.
    let shown = node.asked_by_engine() > 0 || node.origin.blob_gets(&node.image.largest_layer()) > 1;
    ensure!(shown, "the proxy was killed too late for the case to show anything");
    Ok(())
}

/// Its proxy ends with it.
fn agent_killed_during(line: EngineLine) -> Result<()> {
    let node = slow_node(line)?;
    broken_pull(&node, || node.larder.kill_agent())?;
    ensure!(node.asked_by_engine() > 0, "the agent was killed too late for the case to show anything");
    node.larder.start_again()?;
    node.engine.remove(&node.by_tag())?;
    node.origin.clear_log();
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "with the next agent the engine goes to the origin itself");
    Ok(())
}

fn frozen_before(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.larder.signal_proxy(Signal::SIGSTOP)?;
    let pulled = node.engine.pull(&node.by_tag())?;
    // Three seconds to be withdrawn and killed, the rest is the pull itself.
    ensure!(pulled.took < Duration::from_secs(5), "took {:?}\n{}", pulled.took, node.larder.last_lines());
    Ok(())
}

fn frozen_during(line: EngineLine) -> Result<()> {
    let node = slow_node(line)?;
    let took = broken_pull(&node, || node.larder.signal_proxy(Signal::SIGSTOP))?;
    ensure!(took < Duration::from_secs(9), "took {took:?} after the proxy froze\n{}", node.larder.last_lines());
    Ok(())
}

/// Nobody is left to withdraw: the pull waits as long as the engine does. It goes on as soon as the two are gone.
fn both_frozen(line: EngineLine) -> Result<()> {
    let node = slow_node(line)?;
    let proxy = node.larder.proxy()?;
    broken_pull(&node, || {
        node.larder.signal_agent(Signal::SIGSTOP)?;
        kill(proxy, Signal::SIGSTOP)?;
        kill(proxy, Signal::SIGKILL)?;
        node.larder.kill_agent()
    })?;
    ensure!(node.asked_by_engine() > 0, "the engine did not go on to the origin");
    Ok(())
}

/// A frozen proxy cannot see that its agent is gone, and nobody else is left to free the pull.
fn frozen_and_orphaned(line: EngineLine) -> Result<()> {
    let node = slow_node(line)?;
    let proxy = node.larder.proxy()?;
    broken_pull(&node, || {
        kill(proxy, Signal::SIGSTOP)?;
        node.larder.kill_agent()?;
        until("the pull is on its way to the origin", Duration::from_secs(3), || {
            ensure!(node.asked_by_engine() > 0, "the engine still waits for the proxy");
            Ok(())
        })
    })?;
    node.larder.start_again()
}

/// Accepts connections, and never answers on them. It holds as many as come.
fn never_answer(listener: TcpListener) {
    thread::spawn(move || {
        let mut held = Vec::new();
        for socket in listener.incoming() {
            let Ok(socket) = socket else { return };
            held.push(socket);
        }
    });
}

/// A pull that reaches the stranger before the entry is withdrawn must not wait for it.
fn silent_stranger_takes_over(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    until("the entry is placed", Duration::from_secs(10), || {
        ensure!(node.engine.is_told_to_ask_us(), "it is not: the case shows nothing");
        Ok(())
    })?;
    // Stopped first, so that the agent cannot start another proxy, nor withdraw, before the pull asks the stranger.
    node.larder.signal_agent(Signal::SIGSTOP)?;
    node.larder.signal_proxy(Signal::SIGKILL)?;
    let listener = until("the port is free", Duration::from_secs(5), || Ok(TcpListener::bind(node.larder.listen)?))?;
    let asked = listener.try_clone()?;
    thread::scope(|scope| {
        let pull = scope.spawn(|| node.engine.pull(&node.by_tag()));
        asked.set_nonblocking(true)?;
        let (first, _) = until("the pull asks the stranger", Duration::from_secs(10), || Ok(asked.accept()?))?;
        asked.set_nonblocking(false)?;
        never_answer(listener);
        let began = Instant::now();
        node.larder.signal_agent(Signal::SIGCONT)?;
        pull.join().expect("pull does not panic")?;
        ensure!(began.elapsed() < Duration::from_secs(5), "took {:?}\n{}", began.elapsed(), node.larder.last_lines());
        drop(first);
        Ok(())
    })
}

/// Accepts, and answers every request with something that is not ours.
fn answer_as_a_stranger(listener: TcpListener) {
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
        }
    });
}

/// The port is free for a moment when the proxy dies: whoever takes it then must not be asked for long.
fn stranger_takes_over(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    until("the entry is placed", Duration::from_secs(10), || {
        ensure!(node.engine.is_told_to_ask_us(), "it is not: the case shows nothing");
        Ok(())
    })?;
    // Stopped first, so that the agent cannot start another proxy before the stranger is there.
    node.larder.signal_agent(Signal::SIGSTOP)?;
    node.larder.signal_proxy(Signal::SIGKILL)?;
    let listener = until("the port is free", Duration::from_secs(5), || Ok(TcpListener::bind(node.larder.listen)?))?;
    answer_as_a_stranger(listener);
    let began = Instant::now();
    node.larder.signal_agent(Signal::SIGCONT)?;
    until("the entry is withdrawn", Duration::from_secs(3), || {
        ensure!(!node.engine.is_told_to_ask_us(), "{} still leads somewhere", node.engine.entry().display());
        Ok(())
    })?;
    let withdrawn = began.elapsed();
    let pid = std::process::id().to_string();
    until("the status names the stranger", Duration::from_secs(10), || {
        let status = node.larder.status()?;
        let (health, detail) = (status["proxy"]["health"].to_string(), status["proxy"]["detail"].to_string());
        ensure!(health.contains("stranger") && detail.contains(&pid), "it says {health}: {detail}");
        Ok(())
    })?;
    // An engine that keeps what it read asks the stranger until it has read again, a moment after it was told to.
    let pull = || match node.engine.pull(&node.by_tag()) {
        Err(error) if !node.engine.keeps_what_it_read() => Err(Hopeless(format!("{error:#}")).into()),
        pull => pull,
    };
    let pulled = until("the engine goes on without the stranger", Duration::from_secs(1), pull)?;
    ensure!(pulled.took < Duration::from_secs(3), "withdrawn after {withdrawn:?}, but the pull took {:?}", pulled.took);
    Ok(())
}

fn stranger(line: EngineLine) -> Result<()> {
    let folder = folder()?;
    let origin = Origin::start();
    origin.push("team/app", "v1", &Image::build(&ImageSpec::default()));
    let engine = engine::start(line, folder.path())?;
    let before = engine.trees()?;
    let squatter = TcpListener::bind(("127.0.0.1", 0))?;
    let address = squatter.local_addr()?;
    let options = LarderOptions { registries: listed(&origin), listen: Some(address), ..LarderOptions::default() };
    let larder = Larder::start_unconfirmed(&*engine, folder.path(), &options)?;
    let pid = std::process::id().to_string();
    until("Larder names the stranger", Duration::from_secs(20), || {
        let log = larder.last_lines();
        ensure!(log.contains(&pid), "the log does not hold {pid}: {log}");
        Ok(())
    })?;
    engine.must_be_as_before(&before)?;
    engine.pull(&format!("{}/team/app:v1", origin.registry()))?;
    Ok(())
}

/// Nobody whose silence is taken for a hang of our proxy: what to do about it is to be read for as long as it stays.
fn mute_stranger(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    // Stopped first, so that the agent cannot start another proxy before the stranger is there.
    node.larder.signal_agent(Signal::SIGSTOP)?;
    node.larder.signal_proxy(Signal::SIGKILL)?;
    let listener = until("the port is free", Duration::from_secs(5), || Ok(TcpListener::bind(node.larder.listen)?))?;
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heard);
    thread::spawn(move || {
        for socket in listener.incoming() {
            drop(socket);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    node.larder.signal_agent(Signal::SIGCONT)?;
    let pid = std::process::id().to_string();
    let named = || {
        let status = node.larder.status()?;
        let (health, detail) = (status["proxy"]["health"].to_string(), status["proxy"]["detail"].to_string());
        ensure!(health.contains("stranger") && detail.contains(&pid), "it says {health}: {detail}");
        Ok(())
    };
    // Each time after it has been probed again: what was said once was taken back by the next probe.
    for _ in 0..5 {
        let before = heard.load(Ordering::Relaxed);
        until("the stranger was probed twice more", Duration::from_secs(10), || {
            ensure!(heard.load(Ordering::Relaxed) >= before + 2, "it was not");
            Ok(())
        })?;
        until("the status names the stranger", Duration::from_secs(3), named)?;
    }
    let status = node.larder.status()?;
    ensure!(status["proxy"]["kills"] == 0, "somebody was killed: {status}");
    node.engine.pull(&node.by_tag())?;
    Ok(())
}

fn planned_stop(line: EngineLine) -> Result<()> {
    let node = slow_node(line)?;
    during_a_pull(&node, || node.larder.stop())?;
    ensure!(node.engine.has(&node.by_tag())?, "the engine does not have the image");
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself: {:#?}", node.origin.log());
    Ok(())
}

fn check_pull(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    let proxy = node.larder.listen.to_string();
    let check = |reference: &str, limit: &str| -> Result<std::process::Output> {
        let words = ["check", "pull", "--image", reference, "--proxy", &proxy, "--limit", limit];
        Ok(std::process::Command::new(larder_node()?).args(words).output()?)
    };
    let pulled = check(&node.by_tag(), "30")?;
    let said = String::from_utf8_lossy(&pulled.stdout).into_owned();
    ensure!(pulled.status.success(), "{said}{}", String::from_utf8_lossy(&pulled.stderr));
    ensure!(said.contains(&format!("{} bytes", node.image.host_size())), "it says {said}");
    let missing = check(&format!("{}/team/nothing:v1", node.origin.registry()), "1")?;
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    ensure!(missing.status.code() == Some(1) && said.contains("404"), "{:?}: {said}", missing.status);
    Ok(())
}
