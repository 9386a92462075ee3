//! Which engine is meant when nobody names its socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::engine;
use larder_test_node::http;
use larder_test_node::node::folder;
use larder_test_node::programs::larder_node;
use larder_test_parts::{CrioLine, EngineLine, Line};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("found_by_its_usual_socket", usual_socket),
    Case::crio("of_two_engines_a_person_says_which", two_engines),
];

/// In a mount namespace of its own, so that the machine's `/run` is as it was: an empty one, with engines' sockets where a distribution has
/// them. Pairs of both up to `--`, then what is run.
const AS_ON_A_NODE: &str = r#"
set -e
mount -t tmpfs larder-test /run
while [ "$1" != -- ]; do
    mkdir -p "$(dirname "$2")"
    touch "$2"
    mount --bind "$1" "$2"
    shift 2
done
shift
exec "$@"
"#;

/// Where distributions have an engine's socket.
fn usual(line: EngineLine) -> &'static [&'static str] {
    match line {
        EngineLine::Containerd(_) => &["/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"],
        EngineLine::Crio(_) => &["/run/crio/crio.sock"],
    }
}

/// `larder-node status` where these sockets are these.
fn status(folder: &Path, sockets: &[(PathBuf, &str)], more: &[&str]) -> Result<Output> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", AS_ON_A_NODE, "sh"]);
    for (socket, usual) in sockets {
        command.arg(socket).arg(usual);
    }
    command.arg("--").arg(larder_node()?).args(["status", "--output", "json"]).args(more);
    command.arg("--state-dir").arg(folder.join("state"));
    // Nobody answers there, so what is told is what this command finds itself.
    command.args(["--admin", &http::free_address()?.to_string()]);
    command.output().context("could not run unshare")
}

fn must_be(output: &Output, socket: &str) -> Result<()> {
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{socket}: {words}{}", String::from_utf8_lossy(&output.stderr));
    let status: serde_json::Value = serde_json::from_str(&words).with_context(|| format!("no JSON: {words}"))?;
    ensure!(status["engine"]["socket"] == socket, "{socket}: {status}");
    Ok(())
}

fn usual_socket(line: EngineLine) -> Result<()> {
    let folder = folder()?;
    let engine = engine::start(line, folder.path())?;
    for usual in usual(line) {
        must_be(&status(folder.path(), &[(engine.socket(), usual)], &[])?, usual)?;
    }
    Ok(())
}

fn two_engines(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let lines = [EngineLine::Containerd(Line::V2_4), EngineLine::Crio(line)];
    let engines = lines.map(|line| engine::start(line, folder.path()));
    let mut sockets = Vec::new();
    for (engine, line) in engines.iter().zip(lines) {
        let engine = engine.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        sockets.push((engine.socket(), usual(line)[0]));
    }
    let output = status(folder.path(), &sockets, &[])?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for word in ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "--engine", "--cri-socket"] {
        ensure!(words.contains(word), "it does not say {word}: {words}");
    }
    for (name, (_, socket)) in ["containerd", "crio"].into_iter().zip(&sockets) {
        must_be(&status(folder.path(), &sockets, &["--engine", name])?, socket)?;
    }
    Ok(())
}
