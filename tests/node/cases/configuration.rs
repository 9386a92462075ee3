//! Promise 7: what the administrator put there keeps working, and nothing becomes pullable that was not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use larder_test_node::containerd::{ConfigPath, Containerd, ContainerdOptions};
use larder_test_node::engine::Engine as _;
use larder_test_node::http;
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::{Node, folder, listed};
use larder_test_node::programs::larder_node;
use larder_test_node::tree::Tree;
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin, OriginBuilder};
use larder_test_parts::{EngineLine, Line};

use crate::Case;

/// Why an engine with no folder of registries is a thing of the past.
const DEFAULT: &str = "later lines read their default folders even when config_path is empty";

pub(crate) const CASES: &[Case] = &[
    Case::new("an_administrators_ca_serves_us_too", private_ca),
    Case::new("a_redirect_of_the_administrators_is_left_alone", redirected),
    Case::new("a_server_of_the_administrators_is_left_alone", server_elsewhere),
    Case::new("a_colon_list_reaches_us", list).smoke(),
    Case::new("the_second_folder_of_a_list_is_not_hidden", second_folder),
    Case::new("no_configuration_at_all", default_path).since(Line::V2_2, "earlier lines have no default config_path"),
    Case::any("a_registry_that_is_skipped", skipped),
    Case::new("one_registry_that_the_engine_cannot_pull_from_is_news_about_that_registry", broken_authority),
    Case::any("a_damaged_certificate_in_the_settings_is_news_about_its_registry", damaged_in_the_settings),
    Case::new("config_toml_without_permission_is_told_and_not_touched", config_toml_told).before(Line::V2_2, DEFAULT),
    Case::new("config_toml_with_permission_is_edited_and_restored", config_toml_edited).before(Line::V2_2, DEFAULT),
    Case::new("config_toml_takes_one_restart_of_an_engine_that_runs_for_a_while", config_toml_one_restart)
        .before(Line::V2_2, DEFAULT),
    Case::new("config_toml_is_rolled_back_by_the_next_agent_when_the_first_was_killed", config_toml_agent_killed)
        .before(Line::V2_2, DEFAULT),
    Case::new("config_toml_by_hand", config_toml_by_hand).before(Line::V2_2, DEFAULT),
    Case::new("config_toml_is_rolled_back_when_the_command_fails", config_toml_command_fails)
        .before(Line::V2_2, DEFAULT),
    Case::new("config_toml_is_rolled_back_when_the_engine_does_not_come_back", config_toml_engine_gone)
        .before(Line::V2_2, DEFAULT),
    Case::new("config_toml_is_rolled_back_when_the_command_forks_an_engine_with_our_few_rights", config_toml_forked)
        .before(Line::V2_2, DEFAULT),
];

fn start(engine: &Containerd, folder: &std::path::Path, registries: String) -> Result<Larder> {
    Larder::start(engine, folder, &LarderOptions { registries, ..LarderOptions::default() })
}

fn private_ca(line: Line) -> Result<()> {
    let folder = folder()?;
    let origin = OriginBuilder::default().tls(&["127.0.0.1"]).start();
    let image = Image::build(&ImageSpec::default());
    origin.push("team/app", "v1", &image);
    let engine = Containerd::start(line, folder.path(), ContainerdOptions::default())?;
    let registry = origin.registry().to_string();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, origin.ca_pem().unwrap_or_default())?;
    engine.write_hosts(
        &registry,
        &format!(
            "# the administrator's\nserver = \"{0}\"\n\n[host.\"{0}\"]\n  ca = \"{1}\"\n",
            origin.url(),
            ca.display()
        ),
    )?;
    // Listed because it is on loopback; its CA comes from the engine's own file.
    let larder = start(&engine, folder.path(), format!("[registries.\"{registry}\"]\n"))?;
    engine.pull(&format!("{registry}/team/app:v1"))?;
    let agents: Vec<_> =
        origin.log().iter().filter_map(|access| access.header("user-agent").map(str::to_owned)).collect();
    ensure!(
        agents.iter().all(|agent| agent.starts_with("larder")),
        "the engine did not come through us: {agents:?}\n{}",
        larder.last_lines()
    );
    engine.remove(&format!("{registry}/team/app:v1"))?;
    larder.stop()?;
    engine.pull(&format!("{registry}/team/app:v1"))?;
    Ok(())
}

/// An origin, and a second registry that the administrator sends its pulls to.
fn vetted(line: Line, hosts: impl Fn(&Origin, &Origin) -> String) -> Result<()> {
    let folder = folder()?;
    let (origin, vetting) = (Origin::start(), Origin::start());
    let image = Image::build(&ImageSpec::default());
    origin.push("team/app", "v1", &image);
    let vetted = Image::build(&ImageSpec { seed: 9, ..ImageSpec::default() });
    vetting.push("team/app", "v1", &vetted);
    let engine = Containerd::start(line, folder.path(), ContainerdOptions::default())?;
    let file = engine.write_hosts(origin.registry().as_str(), &hosts(&origin, &vetting))?;
    let before = std::fs::read(&file)?;
    let larder = start(&engine, folder.path(), listed(&origin))?;
    let reference = format!("{}/team/app:v1", origin.registry());
    engine.pull(&reference)?;
    ensure!(
        engine.has(&format!("{}/team/app@{}", origin.registry(), vetted.index))?,
        "what was pulled is not the vetted image"
    );
    ensure!(origin.log().is_empty(), "the origin was asked behind the administrator's back: {:#?}", origin.log());
    ensure!(std::fs::read(&file)? == before, "the administrator's file was changed");
    let status = larder.status()?.to_string();
    ensure!(status.contains(origin.registry().as_str()), "status does not say that it was left alone: {status}");
    Ok(())
}

fn redirected(line: Line) -> Result<()> {
    vetted(line, |_, vetting| format!("[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", vetting.url()))
}

fn server_elsewhere(line: Line) -> Result<()> {
    // 1.6 refuses a file without a host table.
    vetted(line, |_, vetting| {
        format!("server = \"{0}\"\n[host.\"{0}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", vetting.url())
    })
}

fn list(line: Line) -> Result<()> {
    let options = ContainerdOptions { config_path: ConfigPath::List, ..ContainerdOptions::default() };
    let node = Node::with(line, options, &ImageSpec::default(), |_, _| Ok(LarderOptions::default()))?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    Ok(())
}

fn second_folder(line: Line) -> Result<()> {
    let folder = folder()?;
    let (origin, vetting) = (Origin::start(), Origin::start());
    let vetted = Image::build(&ImageSpec { seed: 9, ..ImageSpec::default() });
    vetting.push("team/app", "v1", &vetted);
    // What makes 2.1 and later split the list; 1.x and 2.0 always do.
    let image_settings = if line >= Line::V2_1 { "use_local_image_pull = true" } else { "" };
    let options = ContainerdOptions {
        config_path: ConfigPath::List,
        image_settings: image_settings.into(),
        ..ContainerdOptions::default()
    };
    let engine = Containerd::start(line, folder.path(), options)?;
    let hosts = engine.second_certs_folder().join(origin.registry().as_str());
    std::fs::create_dir_all(&hosts)?;
    std::fs::write(
        hosts.join("hosts.toml"),
        format!("[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", vetting.url()),
    )?;
    let reference = format!("{}/team/app:v1", origin.registry());
    engine.pull(&reference)?;
    engine.remove(&reference)?;
    ensure!(!vetting.log().is_empty(), "without Larder the second folder was not used: the case shows nothing");
    vetting.clear_log();
    let _larder = start(&engine, folder.path(), listed(&origin))?;
    engine.pull(&reference)?;
    ensure!(!vetting.log().is_empty() && origin.log().is_empty(), "our entry in the first folder hid the second");
    Ok(())
}

fn default_path(line: Line) -> Result<()> {
    let options = ContainerdOptions { config_path: ConfigPath::Default, ..ContainerdOptions::default() };
    let node = Node::with(line, options, &ImageSpec::default(), |_, _| Ok(LarderOptions::default()))?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    Ok(())
}

fn skipped(line: EngineLine) -> Result<()> {
    let node = Node::on_with(line, &ImageSpec::default(), |_, origin| {
        Ok(LarderOptions { registries: format!("{}skip = true\n", listed(origin)), ..LarderOptions::default() })
    })?;
    let pulled = node.engine.pull(&node.by_tag())?;
    ensure!(pulled.took < Duration::from_secs(5), "took {:?}", pulled.took);
    ensure!(node.asked_by_larder() == 0, "a skipped registry was asked by us");
    Ok(())
}

fn damaged_in_the_settings(line: EngineLine) -> Result<()> {
    let node = Node::on_with(line, &ImageSpec::default(), |_, origin| {
        let damaged = "[registries.\"damaged.example\"]\nca_pem = \"damaged\"\n";
        Ok(LarderOptions { registries: format!("{}{damaged}", listed(origin)), ..LarderOptions::default() })
    })?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    let ready = http::get(node.larder.agent_admin, "/readyz", &[])?.text();
    ensure!(ready.contains("ca_pem of damaged.example: it holds no certificate"), "/readyz: {ready}");
    ensure!(ready.contains("until then damaged.example is left to the engine"), "/readyz: {ready}");
    Ok(())
}

fn broken_authority(line: Line) -> Result<()> {
    let node = Node::with(line, ContainerdOptions::default(), &ImageSpec::default(), |engine, _| {
        let ca = engine.certs_folder().join("broken.pem");
        std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n")?;
        engine.write_hosts(
            "broken.example.com",
            &format!(
                "server = \"https://broken.example.com\"\n[host.\"https://broken.example.com\"]\n  ca = \"{}\"\n",
                ca.display()
            ),
        )?;
        Ok(LarderOptions::default())
    })?;
    // It is ready: Node::with has waited for that.
    let ready = http::get(node.larder.agent_admin, "/readyz", &[])?.text();
    ensure!(ready.contains("degraded: single registries: broken.example.com"), "/readyz: {ready}");
    let status = node.larder.status()?;
    let placed = status["placed"].as_array().expect("a list");
    let broken = placed.iter().find(|placed| placed["registry"] == "broken.example.com");
    ensure!(broken.is_some_and(|broken| broken["failed_by_itself"] == true), "status: {status:#}");
    let metrics = http::get(node.larder.agent_admin, "/metrics", &[])?.text();
    ensure!(metrics.contains("larder_agent_registries_unproved 1"), "metrics: {metrics}");
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    Ok(())
}

/// An engine that reads no folder of registries, and an origin.
struct Unset {
    // In the order in which they are dropped.
    engine: Containerd,
    origin: Origin,
    config: Vec<u8>,
    trees: Vec<Tree>,
    folder: tempfile::TempDir,
}

impl Unset {
    fn start(line: Line) -> Result<Self> {
        let folder = folder()?;
        let origin = Origin::start();
        origin.push("team/app", "v1", &Image::build(&ImageSpec::default()));
        // Without us it can pull from an origin without TLS because that is on loopback.
        let options = ContainerdOptions { config_path: ConfigPath::Unset, ..ContainerdOptions::default() };
        let engine = Containerd::start(line, folder.path(), options)?;
        let config = std::fs::read(engine.config_file())?;
        let trees = trees(&engine)?;
        Ok(Self { engine, origin, config, trees, folder })
    }

    /// `command` restarts the engine; without one it must not be.
    fn options(&self, command: Option<&str>) -> LarderOptions {
        let arguments = command.map(|command| {
            ["--allow-engine-restart", "--engine-restart-limit=4", "--engine-restart-command", command]
                .map(str::to_owned)
                .to_vec()
        });
        LarderOptions {
            registries: listed(&self.origin),
            arguments: arguments.unwrap_or_default(),
            ..LarderOptions::default()
        }
    }

    fn reference(&self) -> String {
        format!("{}/team/app:v1", self.origin.registry())
    }

    fn asked_by_engine(&self) -> bool {
        self.origin
            .log()
            .iter()
            .any(|access| access.header("user-agent").is_some_and(|agent| agent.starts_with("containerd")))
    }

    fn must_pull(&self, through_us: bool) -> Result<()> {
        // A restart has cut the connection that the test itself has.
        until("the engine answers", Duration::from_secs(10), || self.engine.has(&self.reference()))?;
        self.origin.clear_log();
        self.engine.pull(&self.reference())?;
        ensure!(self.asked_by_engine() != through_us, "asked by the engine itself: {}", self.asked_by_engine());
        self.engine.remove(&self.reference())
    }

    fn must_be_untouched(&self) -> Result<()> {
        let now = std::fs::read(self.engine.config_file())?;
        ensure!(now == self.config, "config.toml is not as it was: {}", String::from_utf8_lossy(&now));
        trees(&self.engine)?.iter().zip(&self.trees).try_for_each(|(now, before)| now.must_equal(before))?;
        let left = self.engine.config_file().with_file_name("larder-certs.d");
        ensure!(!left.exists(), "{} is still there", left.display());
        Ok(())
    }

    fn is_edited(&self) -> Result<bool> {
        Ok(std::fs::read_to_string(self.engine.config_file())?.contains("larder-certs.d"))
    }
}

fn trees(engine: &Containerd) -> Result<Vec<Tree>> {
    engine.own_folders().iter().map(|folder| Tree::read(folder)).collect()
}

/// Waits until the running agent's status holds these words.
fn wait_until_told(larder: &Larder, words: &[&str]) -> Result<()> {
    until("the status says it", Duration::from_secs(30), || {
        let status = larder.status()?.to_string();
        for word in words {
            ensure!(status.contains(word), "no {word:?} in {status}\n{}", larder.last_lines());
        }
        Ok(())
    })
}

fn config_toml_told(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    let larder = Larder::start_unconfirmed(&unset.engine, unset.folder.path(), &unset.options(None))?;
    let words = ["needs-config-toml", "\"announced\":true", "config_path = ", "--allow-engine-restart"];
    wait_until_told(&larder, &words)?;
    unset.must_pull(false)?;
    unset.must_be_untouched()?;
    larder.stop()?;
    unset.must_be_untouched()
}

fn config_toml_edited(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    let script = unset.engine.restart_script("true")?;
    let options = unset.options(Some(&script.display().to_string()));
    let larder = Larder::start(&unset.engine, unset.folder.path(), &options)?;
    unset.must_pull(true)?;
    // The edit outlives a stop, because undoing it is another restart; it leads nowhere then.
    larder.stop()?;
    ensure!(unset.is_edited()?, "a stop undid what needs a restart");
    unset.must_pull(false)?;
    larder.start_again()?;
    unset.must_pull(true)?;
    larder.stop()?;
    let restored = larder.command("restore", &[])?;
    let words = String::from_utf8_lossy(&restored.stdout).into_owned();
    ensure!(
        restored.status.success() && words.contains("the engine was restarted"),
        "restore: {:?}: {words}{}",
        restored.status,
        String::from_utf8_lossy(&restored.stderr)
    );
    unset.must_be_untouched()?;
    unset.must_pull(false)
}

fn config_toml_one_restart(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    // The kernel's and the disk's clock agree within two seconds: only after that is a process known to be older than a file.
    let started = Instant::now();
    until("the engine is older than the clocks differ", Duration::from_secs(10), || {
        ensure!(started.elapsed() > Duration::from_secs(3), "not yet");
        Ok(())
    })?;
    let script = unset.engine.restart_script("true")?;
    let larder =
        Larder::start(&unset.engine, unset.folder.path(), &unset.options(Some(&script.display().to_string())))?;
    unset.must_pull(true)?;
    ensure!(unset.engine.restarts() == 1, "{} restarts\n{}", unset.engine.restarts(), larder.last_lines());
    larder.stop()
}

/// The edit is what keeps the engine from starting, and the agent that would have taken it back is killed.
fn config_toml_agent_killed(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    let config = unset.engine.config_file();
    let script = unset.engine.restart_script(&format!("! grep -q larder-certs.d {}", config.display()))?;
    let larder = Larder::start_unconfirmed(
        &unset.engine,
        unset.folder.path(),
        &unset.options(Some(&script.display().to_string())),
    )?;
    until("the command was run", Duration::from_secs(20), || {
        ensure!(unset.engine.restarts() == 1, "{} restarts\n{}", unset.engine.restarts(), larder.last_lines());
        Ok(())
    })?;
    larder.kill_agent()?;
    ensure!(unset.is_edited()?, "the agent was killed too late to show anything");
    larder.launch()?;
    wait_until_told(&larder, &["tried and rolled back"])?;
    unset.must_be_untouched()?;
    unset.must_pull(false)?;
    larder.stop()?;
    unset.must_be_untouched()
}

fn config_toml_by_hand(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    let script = unset.engine.restart_script("true")?;
    let options = unset.options(Some(&script.display().to_string()));
    let larder = Larder::prepare(&unset.engine, unset.folder.path(), &options)?;
    let run = |larder: &Larder, name: &str, code: i32, more: &[&str]| {
        let output = larder.command(name, more)?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.code() == Some(code), "{name}: {:?}: {text}", output.status);
        Ok(text)
    };
    let plan = run(&larder, "plan", 3, &["--exit-code"])?;
    ensure!(plan.contains("config_path = ") && plan.contains("config.toml"), "plan: {plan}");
    unset.must_be_untouched()?;
    run(&larder, "apply", 0, &[])?;
    ensure!(unset.is_edited()?, "apply did not edit config.toml");
    run(&larder, "plan", 0, &["--exit-code"])?;
    // Nobody listens: the engine is refused and goes on by itself.
    unset.must_pull(false)?;
    let without = Larder::prepare(&unset.engine, unset.folder.path(), &unset.options(None))?;
    let words = run(&without, "restore", 0, &[])?;
    ensure!(words.contains("when it is restarted"), "restore: {words}");
    unset.must_be_untouched()?;
    unset.must_pull(false)
}

/// Tried, rolled back, told, and not tried again.
fn rolled_back(unset: &Unset, command: &str) -> Result<()> {
    let larder = Larder::start_unconfirmed(&unset.engine, unset.folder.path(), &unset.options(Some(command)))?;
    wait_until_told(&larder, &["needs-config-toml", "rolled back", "the engine answers"])?;
    unset.must_be_untouched()?;
    unset.must_pull(false)?;
    larder.stop()?;
    let again = Larder::start_unconfirmed(&unset.engine, unset.folder.path(), &unset.options(Some(command)))?;
    wait_until_told(&again, &["\"announced\":true", "tried and rolled back", "to try again"])?;
    unset.must_be_untouched()?;
    again.stop()?;
    unset.must_be_untouched()
}

fn config_toml_command_fails(line: Line) -> Result<()> {
    rolled_back(&Unset::start(line)?, "/bin/false")
}

fn config_toml_engine_gone(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    // An engine that does not start with what we wrote.
    let script = unset.engine.restart_script("! grep -q larder-certs.d \"$(dirname \"$0\")/config.toml\"")?;
    rolled_back(&unset, &script.display().to_string())
}

/// An agent in a container has few capabilities, and so has what its restart command forks.
fn config_toml_forked(line: Line) -> Result<()> {
    let unset = Unset::start(line)?;
    let script = unset.engine.restart_script("true")?;
    let program = unset.folder.path().join("larder-node-of-few-rights");
    let real = larder_node()?;
    std::fs::write(&program, format!("#!/bin/sh\nexec setpriv --bounding-set=-sys_time {} \"$@\"\n", real.display()))?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let options = LarderOptions { program: Some(program), ..unset.options(Some(&script.display().to_string())) };
    let larder = Larder::start_unconfirmed(&unset.engine, unset.folder.path(), &options)?;
    let words =
        ["tried and rolled back", "it lacks 1 of the capabilities", "RESTART IT ON THE NODE", "was not run again"];
    wait_until_told(&larder, &words)?;
    ensure!(unset.engine.restarts() == 1, "{} restarts\n{}", unset.engine.restarts(), larder.last_lines());
    unset.must_be_untouched()?;
    unset.must_pull(false)?;
    larder.stop()
}
