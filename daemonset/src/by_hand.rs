//! `plan`, `apply`, `restore`: one step each, by a person, with no agent around. Links lead into `/run` then, which a
//! reboot empties, and whether the proxy lives is for that person to see to.

use crate::apply_once::apply_what_can_be;
use crate::args::{ByHandArgs, Output, PlanArgs, RestoreArgs};
use crate::config::{Engine, Listen, named};
use crate::engine_restart::{self, Outcome};
use crate::kubernetes::last_known;
use crate::node::{self, Node};
use crate::status::word;
use crate::{engine_reload, in_use};
use anyhow::Context as _;
use larder_node_agent::change::{self, Change, Colour, Expected, Plan, Restored};
use larder_node_agent::engine::{Proposal, Reload, TargetFile};
use larder_node_agent::placement::Placement;
use larder_oci::Registry;
use larder_proxy::settings::Settings;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Stands for the folder that `apply` would make.
const TO_BE_MADE: &str = "/run/larder/larder-to-be-made";

/// Where a folder of targets is made in the node's root, as the engine sees it.
pub(crate) fn run_folder(run_dir: &Path) -> PathBuf {
    // Links are known as ours by where they lead, and only /run is emptied by a reboot.
    if run_dir.starts_with("/run") { run_dir.to_owned() } else { PathBuf::from("/run/larder") }
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}

fn node_and_proposal(args: &ByHandArgs) -> anyhow::Result<(Node, Proposal)> {
    let config = Engine::from_args(&args.run.agent.engine)?;
    let (listen, settings) = wish(args)?;
    let runtime = runtime()?;
    let node = runtime.block_on(Node::by_hand(&config))?;
    let targets = targets_in_use(&node)?.unwrap_or_else(|| PathBuf::from(TO_BE_MADE));
    let desired = node::desired(&listen, &settings, runtime.block_on(registries(args, &node))?);
    let proposal = node.propose(&node.observe()?, &desired, &targets)?;
    Ok((node, proposal))
}

/// The folder that links of ours lead into already, if it is there: planning again after applying finds nothing to do.
pub(crate) fn targets_in_use(node: &Node) -> anyhow::Result<Option<PathBuf>> {
    let there = |folder: &PathBuf| folder.strip_prefix("/").is_ok_and(|inside| node.root.join(inside).is_dir());
    Ok(folders_in_use(&node.leftovers()?).into_iter().find(there))
}

/// Those that a person named, and those that are in use.
pub(crate) async fn registries(args: &ByHandArgs, node: &Node) -> anyhow::Result<BTreeSet<Registry>> {
    let mut registries = named(&args.run.agent.named)?;
    registries.extend(in_use::now(node).await);
    Ok(registries)
}

fn wish(args: &ByHandArgs) -> anyhow::Result<(Listen, Settings)> {
    let settings = node::settings(args.run.agent.registries.registries.as_deref())?;
    Ok((Listen::from_args(&args.run.agent.listen)?, settings))
}

/// `larder-node plan`.
pub(crate) fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let (node, proposal) = node_and_proposal(&args.by_hand)?;
    let permitted = Engine::from_args(&args.by_hand.run.agent.engine)?.restart.is_some();
    show(&node, &proposal, permitted, args.by_hand.output.output)?;
    let something = !proposal.plan.is_empty() || (permitted && proposal.restart.is_some());
    Ok(if something && args.exit_code { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn show(node: &Node, proposal: &Proposal, permitted: bool, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&json_page(node, proposal, permitted)?)?),
        Output::Text => print!("{}", text_page(node, proposal, permitted, colour())?),
    }
    Ok(())
}

fn colour() -> Colour {
    if std::io::stdout().is_terminal() { Colour::Always } else { Colour::Never }
}

/// For scripts. What an administrator keeps secret is in neither page.
fn json_page(node: &Node, proposal: &Proposal, permitted: bool) -> anyhow::Result<serde_json::Value> {
    let text = |target: &TargetFile| change::masked(&String::from_utf8_lossy(&target.bytes));
    let targets: Vec<_> =
        proposal.targets.iter().map(|target| json!({"path": target.path, "text": text(target)})).collect();
    let edit = proposal.restart.as_ref().map(|edit| node.config_plan(edit)).transpose()?;
    let restart = json!({"plan": edit.map(|plan| plan.masked()), "permitted": permitted});
    Ok(json!({"plan": proposal.plan.masked(), "targets": targets, "report": proposal.report, "restart": restart}))
}

/// For people.
fn text_page(node: &Node, proposal: &Proposal, permitted: bool, colour: Colour) -> anyhow::Result<String> {
    let report = &proposal.report;
    let mut page = String::new();
    writeln!(page, "# {}: {}: {}", node.engine.name(), word(&report.readiness), report.reason)?;
    for left in &report.left_alone {
        let registry = left.registry.as_ref().map_or_else(|| "every other registry".to_owned(), ToString::to_string);
        writeln!(page, "# left alone: {registry}: {} ({})", left.reason, left.path.display())?;
    }
    for condition in &report.conditions {
        writeln!(page, "# {}: {}", condition.kind, condition.message)?;
    }
    if let Some(edit) = &proposal.restart {
        if permitted {
            writeln!(page, "# with a restart of the engine:")?;
        } else {
            writeln!(page, "# not done without permission: {}", engine_restart::advice(edit))?;
        }
        page.push_str(&change::diff(&node.host, &node.config_plan(edit)?, colour)?);
    }
    let diff = change::diff(&node.host, &proposal.plan, colour)?;
    if diff.is_empty() && !(permitted && proposal.restart.is_some()) {
        writeln!(page, "# nothing to change")?;
        return Ok(page);
    }
    page.push_str(&diff);
    for target in &proposal.targets {
        writeln!(page, "# behind the links: {}", target.path.display())?;
        for line in change::masked(&String::from_utf8_lossy(&target.bytes)).lines() {
            writeln!(page, "#   {line}")?;
        }
    }
    Ok(page)
}

/// The folder of targets that an apply works with. One that it made goes again unless the apply came to its end; one that
/// links lead into already stays.
struct Folder {
    placement: Placement,
    made_here: bool,
}

impl Folder {
    fn of(node: &Node, run: &Path) -> anyhow::Result<Self> {
        // Applying twice changes nothing the second time: the folder that the links lead to is used again.
        Ok(match targets_in_use(node)? {
            Some(known) => Self { placement: Placement::in_run_folder_again(&node.root, &known)?, made_here: false },
            None => Self { placement: Placement::in_run_folder(&node.root, run)?, made_here: true },
        })
    }

    /// Puts new ones beside those that links may lead to still.
    fn add(&self, targets: &[TargetFile]) -> anyhow::Result<()> {
        for target in targets {
            if self.placement.read(&target.path)?.as_deref() != Some(target.bytes.as_ref()) {
                self.placement.write(&target.path, &target.bytes)?;
            }
        }
        Ok(())
    }

    /// The links lead to exactly these now.
    fn finish(mut self, targets: &[TargetFile]) -> anyhow::Result<()> {
        if targets.is_empty() {
            self.made_here = false;
            return Ok(self.placement.remove()?);
        }
        self.placement.write_all(targets.iter().map(|target| (target.path.as_path(), target.bytes.as_ref())))?;
        self.placement.announce()?;
        self.made_here = false;
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.made_here
            && let Err(error) = self.placement.remove()
        {
            tracing::warn!(%error, "a folder that is not needed stays");
        }
    }
}

/// `larder-node apply`.
pub(crate) fn apply(args: &ByHandArgs) -> anyhow::Result<()> {
    let config = Engine::from_args(&args.run.agent.engine)?;
    let runtime = runtime()?;
    let (listen, settings) = wish(args)?;
    let mut node = Arc::new(runtime.block_on(Node::by_hand(&config))?);
    let desired = node::desired(&listen, &settings, runtime.block_on(registries(args, &node))?);
    let _no_agent = node.refuse_beside_an_agent()?;
    let edit = node.propose(&node.observe()?, &desired, Path::new(TO_BE_MADE))?.restart;
    if let (Some(edit), Some(permission)) = (&edit, &config.restart) {
        match runtime.block_on(engine_restart::edit_and_restart(&config, permission, &node, edit))? {
            Outcome::Restarted => node = Arc::new(runtime.block_on(Node::by_hand(&config))?),
            Outcome::RolledBack(why) => anyhow::bail!("{why}"),
        }
    }
    let run = run_folder(&config.run_dir);
    let folder = Folder::of(&node, &run)?;
    let proposal = node.propose(&node.observe()?, &desired, folder.placement.targets())?;
    folder.add(&proposal.targets)?;
    let applied = node.apply(&proposal.plan)?;
    folder.finish(&proposal.targets)?;
    // Also when nothing changed: whoever changed it may have been killed before the engine was told.
    engine_reload::reload(&node).context("the files are in place, and the engine does not know of them yet")?;
    match args.output.output {
        Output::Json => {
            println!("{}", serde_json::to_string_pretty(&json!({"applied": applied, "report": proposal.report}))?);
        }
        Output::Text => {
            for path in &applied.changed {
                println!("changed {}", path.display());
            }
            println!("{}: {}", word(&proposal.report.readiness), proposal.report.reason);
            if let Some(edit) = &proposal.restart {
                println!("to do: {}", engine_restart::advice(edit));
            }
        }
    }
    Ok(())
}

/// `/run/larder/larder-<nonce>` of `/run/larder/larder-<nonce>/_default`.
fn folder_of_targets(target: &Path) -> Option<PathBuf> {
    let named =
        |path: &&Path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("larder-"));
    target.starts_with("/run").then(|| target.ancestors().find(named).map(Path::to_owned))?
}

/// `larder-node restore`.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let config = Engine::from_args(&args.by_hand.run.agent.engine)?;
    let runtime = runtime()?;
    let node = runtime.block_on(Node::to_restore(&config))?;
    if args.dry_run {
        let plan = node.undoing()?;
        match args.by_hand.output.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&json!({"plan": plan.masked()}))?),
            Output::Text if plan.is_empty() => println!("# nothing of ours is there"),
            Output::Text => print!("{}", change::diff(&node.host, &plan, colour())?),
        }
        return Ok(());
    }
    let no_agent = node.refuse_beside_an_agent()?;
    let folders = folders_in_use(&node.leftovers()?);
    let mut restored = node.restore()?;
    let (removed, mut not_removed, _) = apply_what_can_be(&mut node.leftovers()?, |plan| node.apply(plan))?;
    let configuration = node.restore_config().unwrap_or_else(|error| {
        not_removed.push(format!("{error:#}"));
        Restored::default()
    });
    let restart_needed = !configuration.undone.is_empty();
    restored.undone.extend(configuration.undone);
    restored.left.extend(configuration.left);
    for folder in folders {
        remove_folder(&node, &folder)?;
    }
    if no_agent.is_some() {
        node.remove_agent_lock()?;
    }
    engine_restart::Memory::of(&node).forget()?;
    in_use::forget(&node)?;
    last_known::forget(&node.host, &node.state_dir)?;
    // Also when nothing was there any more: whoever took it away may have been killed before the engine was told.
    let told =
        engine_reload::reload(&node).context("the files are as they were, and the engine does not know of it yet")?;
    let undone = !restored.undone.is_empty() || !removed.changed.is_empty();
    let reload_needed = undone && !told && matches!(node.engine.reload(), Reload::Signal(_));
    let restarted = match &config.restart {
        // Also one that does not run, maybe because of what was just taken back.
        Some(permission) if restart_needed => {
            let old = node.running.as_ref().map(|running| &running.found.process);
            let before = engine_restart::before(&node);
            runtime.block_on(engine_restart::restart(&config, permission, old, &before))?;
            true
        }
        _ => false,
    };
    match args.by_hand.output.output {
        Output::Json => {
            let restart_needed = restart_needed && !restarted;
            let page = json!({
                "restored": restored,
                "removed": removed,
                "not_removed": not_removed,
                "restart_needed": restart_needed,
                "reload_needed": reload_needed,
            });
            println!("{}", serde_json::to_string_pretty(&page)?);
        }
        Output::Text => {
            for path in restored.undone.iter().chain(&removed.changed) {
                println!("restored {}", path.display());
            }
            for conflict in &restored.left {
                println!("left as it is: {conflict}");
            }
            for reason in restored.failed.iter().map(|failed| &failed.reason).chain(&not_removed) {
                println!("not undone: {reason}");
            }
            if restarted {
                println!("the engine was restarted and answers");
            } else if restart_needed {
                println!(
                    "the engine notices its configuration when it is restarted; until then it reads an empty folder"
                );
            }
            if reload_needed {
                println!("if the engine runs, have it read its files again: systemctl reload {}", node.engine.name());
            }
            let nothing = restored.undone.is_empty() && restored.left.is_empty() && restored.failed.is_empty();
            if nothing && removed.changed.is_empty() && not_removed.is_empty() {
                println!("nothing of ours was there");
            }
        }
    }
    anyhow::ensure!(
        restored.failed.is_empty() && not_removed.is_empty(),
        "not everything could be undone; restore again goes on with it"
    );
    anyhow::ensure!(restored.left.is_empty(), "{} paths were changed by someone else since", restored.left.len());
    Ok(())
}

/// The folders of targets below `/run` that links of ours lead into.
fn folders_in_use(removal: &Plan) -> BTreeSet<PathBuf> {
    let target = |change: &Change| match &change.before {
        Expected::Link { target } => folder_of_targets(target),
        _ => None,
    };
    removal.changes.iter().filter_map(target).collect()
}

fn remove_folder(node: &Node, folder: &Path) -> anyhow::Result<()> {
    let folder = node.root.join(folder.strip_prefix("/")?);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{TO_BE_MADE, folder_of_targets, json_page, run_folder, text_page};
    use crate::args::{Command, parse};
    use crate::config::Engine;
    use crate::node::{self, Node};
    use larder_node_agent::change::Colour;
    use larder_node_agent::engine::{Proposal, TargetFile};
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    /// A node with a registry that takes a password, and one that is redirected.
    fn planned(root: &Path, roots: &str) -> (Node, Proposal) {
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let registry = format!("[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{roots}'\n");
        write("etc/containerd/config.toml", &format!("version = 3\n{registry}"));
        let chain = |host: &str| {
            let header = format!("[host.\"https://{host}\".header]\n    authorization = [\"Basic s3cret\"]\n");
            format!("server = \"https://{host}\"\n[host.\"https://{host}\"]\n  {header}")
        };
        write("etc/containerd/certs.d/reg.example.com/hosts.toml", &chain("reg.example.com"));
        write("etc/docker/certs.d/later.example.com/hosts.toml", &chain("later.example.com"));
        let redirected = chain("harbor.example.com").replace("server = \"https://harbor.example.com\"\n", "");
        write("etc/containerd/certs.d/docker.io/hosts.toml", &redirected);
        let line = ["larder-node", "plan", "--host-root", root.to_str().unwrap()].map(OsString::from);
        let Command::Plan(args) = parse(line).unwrap().0.command else { panic!("no plan") };
        let config = Engine::from_args(&args.by_hand.run.agent.engine).unwrap();
        let node = super::runtime().unwrap().block_on(Node::by_hand(&config)).unwrap();
        let (listen, settings) = super::wish(&args.by_hand).unwrap();
        let desired = node::desired(&listen, &settings, std::collections::BTreeSet::new());
        let proposal = node.propose(&node.observe().unwrap(), &desired, Path::new(TO_BE_MADE)).unwrap();
        (node, proposal)
    }

    #[test]
    fn a_plan_shows_no_secret_of_the_administrator() {
        let root = tempfile::tempdir().unwrap();
        let (node, mut proposal) = planned(root.path(), "/etc/containerd/certs.d");
        // A file of ours repeats what he said.
        let repeated = b"[header]\nauthorization = \"Basic s3cret\"\n".to_vec().into();
        proposal.targets.push(TargetFile { path: PathBuf::from("registries/later.example.com"), bytes: repeated });
        let text = text_page(&node, &proposal, false, Colour::Never).unwrap();
        let json = serde_json::to_string_pretty(&json_page(&node, &proposal, false).unwrap()).unwrap();
        for page in [&text, &json] {
            assert_eq!(page.matches("authorization").count(), 2, "in his file and in ours: {page}");
            assert!(!page.contains("s3cret"), "{page}");
        }
        insta::assert_snapshot!("plan", text);
    }

    #[test]
    fn the_folder_of_a_link_made_by_hand_is_found_again() {
        let found = |target: &str| folder_of_targets(Path::new(target));
        assert_eq!(found("/run/larder/larder-9f/_default"), Some(PathBuf::from("/run/larder/larder-9f")));
        assert_eq!(found("/proc/7/root/run/larder-agent/larder-9f/_default"), None);
        assert_eq!(found("/run/other/_default"), None);
    }

    #[test]
    fn targets_by_hand_lie_where_a_reboot_empties() {
        assert_eq!(run_folder(Path::new("/run/larder-2")), Path::new("/run/larder-2"));
        assert_eq!(run_folder(Path::new("/tmp/x")), Path::new("/run/larder"));
    }
}
