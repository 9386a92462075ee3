//! The engine's own opinion of an edited configuration, before a byte of the real one changes.
//!
//! Its very binary reads the candidate, in its own view of the files and in the place of the real file: in a mount
//! namespace that ends with this look, the candidate is mounted over it. So imports, relative paths and links mean what
//! they will mean.

use super::command::wait;
use super::namespace::as_seen_by;
use crate::node::Node;
use anyhow::Context as _;
use larder_node_agent::engine::RestartEdit;
use larder_node_agent::host::{Attributes, Host as _, Occupant};
use larder_node_agent::placement::Nonce;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Reading a configuration takes some ten milliseconds.
const LIMIT: Duration = Duration::from_secs(20);
/// A dumped configuration has some ten kilobytes.
const LONGEST_DUMP: u64 = 1 << 20;

/// An error when the engine would not read the edited file, or would read another directory than the edit means.
pub(super) fn validate(node: &Node, edit: &RestartEdit) -> anyhow::Result<()> {
    let running = node.running.as_ref().context("no engine runs that could read the edited configuration first")?;
    let engine = running.found.process.pid;
    let folder = Path::new(crate::node::RUN);
    let nonce = Nonce::fresh().context("read /dev/urandom")?;
    let candidate = folder.join(format!("config-candidate-{nonce}.toml"));
    node.host.make_parents(&candidate)?;
    node.host.write(&candidate, &edit.after, &Attributes::new(0o600), &Occupant::Absent)?;
    let dump = as_seen_by(engine, || dump(engine, &candidate, edit));
    node.host.remove(&candidate, &node.host.occupant(&candidate)?)?;
    let dump = dump.with_context(|| format!("let the engine itself read {} with the edit", edit.path.display()))?;
    let directory = edit.directory.display().to_string();
    anyhow::ensure!(
        dump.contains(&directory),
        "the engine read the edited configuration and does not see {directory} in it"
    );
    Ok(())
}

/// What `containerd config dump` says, in its own words when it fails.
fn dump(engine: u32, candidate: &Path, edit: &RestartEdit) -> anyhow::Result<String> {
    let main: PathBuf = if edit.before.is_some() {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for a look")?;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).context("make mounts private")?;
        mount(Some(candidate), &edit.path, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("mount the candidate over {}", edit.path.display()))?;
        edit.main.clone()
    } else {
        candidate.to_owned()
    };
    // In memory, so that no amount of output blocks it.
    let mut output: File = memfd_create("config-dump", MemfdFlags::CLOEXEC)?.into();
    let mut errors: File = memfd_create("config-dump-errors", MemfdFlags::CLOEXEC)?.into();
    let mut child = Command::new(format!("/proc/{engine}/exe"))
        .arg("-c")
        .arg(main)
        .args(["config", "dump"])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()
        .context("start the engine's program")?;
    let status = wait(&mut child, LIMIT).context("config dump")?;
    anyhow::ensure!(status.success(), "{status}: {}", shortened(&text(&mut errors)?));
    text(&mut output)
}

fn text(file: &mut File) -> anyhow::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(LONGEST_DUMP).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Its last words; a line that is quoted from the file may hold a password, but it is the administrator who reads this.
fn shortened(words: &str) -> String {
    const LIMIT: usize = 300;
    let plain: String = words.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let skip = plain.chars().count().saturating_sub(LIMIT);
    plain.chars().skip(skip).collect()
}
