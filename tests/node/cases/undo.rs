//! Promise 7: the node is left as it was found.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use larder_test_node::containerd::{ConfigPath, Containerd, ContainerdOptions};
use larder_test_node::crio::{Crio, CrioOptions};
use larder_test_node::engine::Engine;
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::{folder, listed};
use larder_test_node::tree::Tree;
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin, OriginBuilder};
use larder_test_parts::{CrioLine, EngineLine, Line};
use nix::sys::signal::Signal;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("stopped_leaves_the_engines_files_as_they_were", stopped).smoke(),
    Case::any("agent_killed_between_two_writes_then_restore", killed_anywhere),
    Case::any("plan_changes_nothing_and_apply_by_hand_is_undone", by_hand),
];

/// An engine with files of an administrator of every kind.
fn furnished(line: EngineLine, folder: &Path, origin: &Origin) -> Result<(Box<dyn Engine>, Vec<Tree>)> {
    let engine: Box<dyn Engine> = match line {
        EngineLine::Containerd(line) => Box::new(furnished_containerd(line, folder, origin)?),
        EngineLine::Crio(line) => Box::new(furnished_crio(line, folder, origin)?),
    };
    // A real one: with a broken one containerd 1.6 refuses the registry's pulls, with or without us.
    let authority = OriginBuilder::default().tls(&["certificates.example.com"]).start();
    engine.trust("certificates.example.com", authority.ca_pem().unwrap_or_default())?;
    let trees = engine.trees()?;
    Ok((engine, trees))
}

fn furnished_containerd(line: Line, folder: &Path, origin: &Origin) -> Result<Containerd> {
    let options = ContainerdOptions { config_path: ConfigPath::List, ..ContainerdOptions::default() };
    let engine = Containerd::start(line, folder, options)?;
    engine
        .write_hosts("mirrored.example.com", "[host.\"https://harbor.example.com\"]\n  capabilities = [\"pull\"]\n")?;
    engine.write_hosts("plain.example.com", "# mine\r\nserver = \"https://plain.example.com\"\r\n\r\n[host.\"https://plain.example.com\"]\r\n  capabilities = [\"pull\", \"resolve\"]")?;
    engine.write_hosts(origin.registry().as_str(), &format!("server = \"{0}\"\n[host.\"{0}\"]\n", origin.url()))?;
    Ok(engine)
}

fn furnished_crio(line: CrioLine, folder: &Path, origin: &Origin) -> Result<Crio> {
    let engine = Crio::start_furnished(line, folder, CrioOptions::default(), |files| {
        let mirrored = "[[registry]]\nlocation = \"mirrored.example.com\"\n[[registry.mirror]]\nlocation = \"harbor.example.com\"\n";
        std::fs::write(files.drop_in("10-mirrored.conf"), mirrored)?;
        let plain = "# mine\r\n[[registry]]\r\nprefix = \"plain.example.com\"\r\nlocation = \"elsewhere.example.com\"";
        std::fs::write(files.drop_in("zz-plain.conf"), plain)?;
        let ours = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", origin.registry());
        std::fs::write(files.drop_in("99-machine.conf"), ours)?;
        // Signatures are looked for at the mirror then, for which a second file of ours is needed.
        let attached = format!("docker:\n  \"{}\":\n    use-sigstore-attachments: true\n", origin.registry());
        Ok(std::fs::write(files.signatures("attached.yaml"), attached)?)
    })?;
    engine.wait_until_ready()?;
    Ok(engine)
}

fn origin() -> Origin {
    let origin = Origin::start();
    origin.push("team/app", "v1", &Image::build(&ImageSpec::default()));
    origin
}

fn stopped(line: EngineLine) -> Result<()> {
    let (folder, origin) = (folder()?, origin());
    let (engine, before) = furnished(line, folder.path(), &origin)?;
    let larder = Larder::start(
        &*engine,
        folder.path(),
        &LarderOptions { registries: listed(&origin), ..LarderOptions::default() },
    )?;
    ensure!(engine.trees()? != before, "nothing was placed: the case shows nothing");
    engine.pull(&format!("{}/team/app:v1", origin.registry()))?;
    larder.stop()?;
    engine.must_be_as_before(&before)
}

fn killed_anywhere(line: EngineLine) -> Result<()> {
    let (folder, origin) = (folder()?, origin());
    let (engine, before) = furnished(line, folder.path(), &origin)?;
    let options = LarderOptions { registries: listed(&origin), ..LarderOptions::default() };
    let larder = Larder::start(&*engine, folder.path(), &options)?;
    larder.kill_agent()?;
    // Killed ever later while it starts: before, between and after its writes; every third time while it takes them back.
    let mut interrupted = 0;
    for round in 0..24_u32 {
        larder.launch()?;
        if round % 3 == 2 {
            larder.wait_until_configured(Duration::from_secs(30))?;
            larder.signal_agent(Signal::SIGTERM)?;
        }
        let began = Instant::now();
        let moment = Duration::from_millis(8) * (round / 3) + Duration::from_millis(u64::from(round % 3));
        until("the moment of the kill", Duration::from_secs(1), || {
            ensure!(began.elapsed() >= moment, "not yet");
            Ok(())
        })?;
        larder.kill_agent()?;
        interrupted += usize::from(engine.trees()? != before);
    }
    ensure!(interrupted > 0, "no kill left anything behind: the case shows nothing");
    larder.start_again()?;
    larder.kill_agent()?;
    let output = larder.command("restore", &[])?;
    ensure!(output.status.success(), "restore failed: {}", String::from_utf8_lossy(&output.stderr));
    engine.must_be_as_before(&before)
}

fn by_hand(line: EngineLine) -> Result<()> {
    let (folder, origin) = (folder()?, origin());
    let (engine, before) = furnished(line, folder.path(), &origin)?;
    let larder = Larder::start(
        &*engine,
        folder.path(),
        &LarderOptions { registries: listed(&origin), ..LarderOptions::default() },
    )?;
    // Beside a running agent neither changes anything.
    let running = engine.trees()?;
    for command in ["restore", "apply"] {
        let refused = larder.command(command, &[])?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            refused.status.code() == Some(1) && words.contains(&format!("process {}", larder.agent())),
            "{command} beside an agent: {:?}: {words}",
            refused.status
        );
        engine.must_be_as_before(&running)?;
    }
    larder.wait_until_configured(Duration::from_secs(10))?;
    larder.stop()?;
    let entry = engine.entry().file_name().unwrap_or_default().display().to_string();
    let plan = larder.command("plan", &["--exit-code"])?;
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    ensure!(
        plan.status.code() == Some(3) && text.contains(&entry),
        "plan: {:?}: {text}{}",
        plan.status,
        String::from_utf8_lossy(&plan.stderr)
    );
    engine.must_be_as_before(&before)?;
    let apply = larder.command("apply", &[])?;
    ensure!(apply.status.success(), "apply: {}", String::from_utf8_lossy(&apply.stderr));
    ensure!(engine.trees()? != before, "apply changed nothing");
    // No proxy runs: the engine is refused and goes on by itself.
    engine.pull(&format!("{}/team/app:v1", origin.registry()))?;
    let plan = larder.command("plan", &["--exit-code"])?;
    ensure!(
        plan.status.code() == Some(0),
        "after apply there is still something to do: {}",
        String::from_utf8_lossy(&plan.stdout)
    );
    let restore = larder.command("restore", &[])?;
    ensure!(restore.status.success(), "restore: {}", String::from_utf8_lossy(&restore.stderr));
    engine.must_be_as_before(&before)
}
