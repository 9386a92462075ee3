//! The one change that takes a restart of the engine: `config_path` in its main configuration, only with a person's
//! permission.
//!
//! The order is the promise: the engine's own binary reads the candidate; what was there is durable; the file is replaced;
//! the command runs; the engine has to answer as a new process. When it does not, the file goes back, the command runs
//! again, and the same edit is not tried again by itself. An engine that the command forked itself, and that has our control group
//! or our rights, is no success either: the file goes back, and that command is not run again. The edit has a journal of its own ([`Node::restore_config`]),
//! because it outlives a planned stop: taking it back means another restart.

mod command;
mod forked;
mod memory;
mod namespace;
mod validate;

use crate::config::{Engine as Config, Permission};
use crate::node::{self, Node};
use anyhow::{Context as _, bail};
use larder_cri::Cri;
use larder_node_agent::engine::RestartEdit;
use larder_node_agent::engine::detect::{Process, Surroundings};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) use command::RestartCommand;
use forked::Forked;
pub(crate) use forked::before;
pub(crate) use memory::Memory;

const LOOK: Duration = Duration::from_millis(100);
/// For one answer of an engine that may be starting.
const ANSWER: Duration = Duration::from_secs(2);

/// What became of an edit after the file was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The engine runs with it.
    Restarted,
    /// The file is as it was, and why.
    RolledBack(String),
}

/// Makes the edit and restarts the engine. An error: nothing was changed.
pub(crate) async fn edit_and_restart(
    config: &Config,
    permission: &Permission,
    node: &Arc<Node>,
    edit: &RestartEdit,
) -> anyhow::Result<Outcome> {
    let (node_of_step, edit_of_step) = (Arc::clone(node), edit.clone());
    let step = tokio::task::spawn_blocking(move || {
        validate::validate(&node_of_step, &edit_of_step)?;
        // Before the first change: whoever comes after us, should we be killed, knows that a restart is under way.
        Memory::of(&node_of_step).begin(&edit_of_step)?;
        node_of_step.apply_config(&edit_of_step)
    });
    step.await.context("edit the engine's configuration")??;
    tracing::warn!(path = %edit.path.display(), command = %permission.command, "config_path was set: the engine is restarted");
    finish(config, permission, node).await
}

/// The second half: the edit is on the disk, the engine does not know of it yet.
pub(crate) async fn finish(config: &Config, permission: &Permission, node: &Arc<Node>) -> anyhow::Result<Outcome> {
    let old = node.running.as_ref().map(|running| running.found.process.clone());
    let before = before(node);
    match restart(config, permission, old.as_ref(), &before).await {
        Ok(()) => {
            Memory::of(node).end()?;
            Ok(Outcome::Restarted)
        }
        Err(why) => roll_back(config, permission, node, &before, why).await,
    }
}

/// Puts the file back, runs the command, and remembers that this edit failed, and `why`. `before` is what the engine had when all was well.
pub(crate) async fn roll_back(
    config: &Config,
    permission: &Permission,
    node: &Arc<Node>,
    before: &Surroundings,
    why: anyhow::Error,
) -> anyhow::Result<Outcome> {
    // Once more would end a second engine, for one that is no better.
    let forks = why.is::<Forked>();
    let why = format!("{why:#}");
    tracing::error!(why, "the engine's configuration is put back");
    let of_step = Arc::clone(node);
    let restored = tokio::task::spawn_blocking(move || of_step.restore_config()).await.context("put back")?;
    let restored = restored.with_context(|| format!("{why}; and putting the configuration back failed"))?;
    if let Some(conflict) = restored.left.first() {
        bail!("{why}; and the configuration was changed by someone else meanwhile: {conflict}");
    }
    let then = if forks {
        "the file is as it was, and the command was not run again".to_owned()
    } else {
        match restart(config, permission, None, before).await {
            Ok(()) => "the file is as it was, and the engine answers".to_owned(),
            Err(error) => match answers(config, None, permission.limit).await {
                Ok(_) => format!(
                    "the file is as it was, and the engine answers although the second restart failed too: {error:#}"
                ),
                Err(_) => format!("the file is as it was, but THE ENGINE DOES NOT ANSWER; start it by hand: {error:#}"),
            },
        }
    };
    let why = format!("{why}; {then}");
    if let Err(error) = Memory::of(node).end_in_failure(&why) {
        tracing::warn!(%error, "another agent may try that edit again");
    }
    Ok(Outcome::RolledBack(why))
}

/// Runs the command, and waits until the engine answers as another process than `old`, with all that it had `before`.
pub(crate) async fn restart(
    config: &Config,
    permission: &Permission,
    old: Option<&Process>,
    before: &Surroundings,
) -> anyhow::Result<()> {
    let (command, limit) = (permission.command.clone(), permission.limit);
    tokio::task::spawn_blocking(move || command.run(limit)).await.context("the restart command")??;
    let now = answers(config, old, limit).await?;
    Ok(forked::check(before, &now)?)
}

async fn answers(config: &Config, old: Option<&Process>, limit: Duration) -> anyhow::Result<Process> {
    let deadline = Instant::now() + limit;
    loop {
        let error = match answers_now(config, old).await {
            Ok(process) => return Ok(process),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("the engine did not come back within {limit:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn answers_now(config: &Config, old: Option<&Process>) -> anyhow::Result<Process> {
    let found = node::found(config)?;
    if let Some(old) = old.filter(|old| (old.pid, old.start_ticks) == (found.process.pid, found.process.start_ticks)) {
        bail!("it was not restarted: it is process {} as before", old.pid);
    }
    let cri = Cri::connect(&found.socket)?;
    tokio::time::timeout(ANSWER, cri.version()).await.context("it gives no answer")??;
    Ok(found.process)
}

/// What a person can do instead of us, or to permit it.
pub(crate) fn advice(edit: &RestartEdit) -> String {
    format!(
        "set {} of {} and restart the engine, or start larder-node with --allow-engine-restart \
         --engine-restart-command \"systemctl restart containerd\"",
        edit.setting,
        edit.path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::advice;
    use larder_node_agent::engine::RestartEdit;

    pub(super) fn edit(after: &str) -> RestartEdit {
        RestartEdit {
            path: "/etc/containerd/config.toml".into(),
            main: "/etc/containerd/config.toml".into(),
            before: None,
            after: after.as_bytes().to_vec().into(),
            directory: "/etc/containerd/larder-certs.d".into(),
            setting: "config_path = \"/x\" in [plugins.\"cri\".registry]".to_owned(),
        }
    }

    #[test]
    fn a_person_is_told_exactly_what_to_type() {
        insta::assert_snapshot!(advice(&edit("a")), @r#"set config_path = "/x" in [plugins."cri".registry] of /etc/containerd/config.toml and restart the engine, or start larder-node with --allow-engine-restart --engine-restart-command "systemctl restart containerd""#);
    }
}
