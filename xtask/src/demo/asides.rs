//! Where engines differ: what the story says there, and checks.
//!
//! containerd reads its folder at every pull, and asks the next host for whatever the first does not deliver: one link into the agent is
//! enough, and it is gone with it. CRI-O reads its files when it is told to, needs each registry by name, and stays with whoever gave it the
//! manifest.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::engine::Pulled;
use larder_test_node::http;
use larder_test_node::wait::until;

use super::stage::{Stage, pulled};
use super::story::{Told, seconds};

/// What is placed.
pub(super) fn placed(stage: &Stage, told: &Told) -> Result<()> {
    let entry = stage.engine.entry();
    let name = entry.file_name().unwrap_or_default().display().to_string();
    if stage.engine.keeps_what_it_read() {
        let text = std::fs::read_to_string(&entry).with_context(|| format!("read {}", entry.display()))?;
        ensure!(!text.contains(&stage.registry.name()), "nobody named the registry yet, but {name} does:\n{text}");
        told.saw(format!("one file in the engine's folder, {name}, and the engine was told to read again (SIGHUP)"));
        told.saw(format!("it names registries one by one: {}", prefixes(&text).join(", ")));
        return Ok(());
    }
    let target = std::fs::read_link(&entry).with_context(|| format!("{} is no link", entry.display()))?;
    told.saw(format!("one link in the engine's folder: {name} → {}", target.display()));
    Ok(())
}

/// An engine that needs names was told of no registry but by its own files.
pub(super) fn learnt(stage: &Stage, told: &Told) -> Result<()> {
    let reference = stage.by_tag();
    let before = stage.asked_by_engine("/v2/shop/");
    let pull = stage.engine.pull(&reference)?;
    ensure!(stage.asked_by_engine("/v2/shop/") > before, "the engine did not go to the registry itself");
    told.saw(format!("straight from the registry, as without larder: {}", pulled(stage.image.host_size(), pull.took)));
    let began = std::time::Instant::now();
    let entry = stage.engine.entry();
    until("the registry is named", Duration::from_secs(30), || {
        let text = std::fs::read_to_string(&entry)?;
        ensure!(text.contains(&stage.registry.name()), "it is not:\n{text}");
        Ok(())
    })?;
    told.saw(format!(
        "{} later the file names {}, by an image that is there",
        seconds(began.elapsed()),
        stage.registry.name()
    ));
    until("the engine was seen to ask the proxy for it", Duration::from_secs(20), || {
        let status = stage.larder()?.status()?.to_string();
        ensure!(status.contains(&stage.registry.name()), "the status does not name it: {status}");
        stage.larder()?.wait_until_configured(Duration::from_secs(20))
    })?;
    // The proxy reads what it is told a moment after the engine does, and this registry has a loopback address, which has to be allowed.
    let tags = format!("/v2/shop/frontend/tags/list?ns={}", stage.registry.name());
    until("the proxy may reach the registry", Duration::from_secs(20), || {
        let reply = http::get(stage.larder()?.listen, &tags, &[])?;
        ensure!(reply.status == 200, "it answers {}", reply.status);
        Ok(())
    })?;
    stage.engine.remove(&reference)
}

/// A pull during which the proxy was killed. `None`: it was over before, and shows nothing.
pub(super) fn after_the_kill(
    stage: &Stage,
    told: &Told,
    reference: &str,
    first: Result<Pulled>,
) -> Result<Option<Pulled>> {
    let repository = reference.split_once('/').map_or(reference, |(_, rest)| rest);
    let repository = repository.split(':').next().unwrap_or(repository);
    if stage.engine.stays_after_the_manifest() {
        let Err(error) = first else { return Ok(None) };
        told.saw("the pull failed: this engine stays with whoever gave it the manifest");
        told.note(error.root_cause().to_string().chars().take(150).collect::<String>());
        let again = stage.engine.pull(reference).context("the second try, which has to succeed")?;
        told.saw("kubelet tries again, and the next one succeeds");
        return Ok(Some(again));
    }
    let pull = first?;
    let direct = stage.asked_by_engine(&format!("/v2/{repository}/"));
    if direct == 0 {
        return Ok(None);
    }
    told.saw("the pull succeeded all the same");
    told.saw(format!("the engine fetched the rest from the registry itself ({direct} requests)"));
    Ok(Some(pull))
}

/// What is left in the engine's folder when the agent was killed.
pub(super) fn orphaned(stage: &Stage, told: &Told, agent: nix::unistd::Pid) -> Result<()> {
    let entry = stage.engine.entry();
    let name = entry.file_name().unwrap_or_default().display().to_string();
    if stage.engine.keeps_what_it_read() {
        ensure!(entry.is_file(), "{} is gone", entry.display());
        let address = stage.larder()?.listen;
        until("the proxy has ended with its agent", Duration::from_secs(10), || {
            let refused = std::net::TcpStream::connect(address).err().context("somebody listens")?;
            ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, "{refused}");
            Ok(())
        })?;
        told.saw(format!("agent {agent} killed; {name} stays, and leads to a port that refuses at once"));
        return Ok(());
    }
    ensure!(entry.is_symlink() && !entry.exists(), "{} still leads somewhere", entry.display());
    told.saw(format!("agent {agent} killed; {name} leads nowhere, which the engine takes for \"not there\""));
    Ok(())
}

/// What the next agent makes of it.
pub(super) fn taken_over(stage: &Stage, told: &Told, left: Option<&[u8]>) -> Result<()> {
    let Some(left) = left else {
        told.saw("started: proved again");
        return Ok(());
    };
    ensure!(std::fs::read(stage.engine.entry())? == left, "the new agent wrote the file anew");
    told.saw("started: the new agent has taken the file over as it was, and proved it again");
    Ok(())
}

/// What each entry of the file is for.
fn prefixes(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("prefix = \"")?.strip_suffix('"')).collect()
}
