//! podman, skopeo and buildah of the distribution: they read the same files as CRI-O, so they pull through us as well.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::crio::Crio;
use larder_test_node::node::Node;
use larder_test_parts::{CrioLine, Debian, Parts};

use crate::Case;
use crate::crio_files::node;

pub(crate) const CASES: &[Case] = &[
    Case::crio("skopeo_pulls_by_the_same_files_as_root_and_as_anybody", skopeo),
    Case::crio("podman_pulls_by_the_same_files", podman),
    Case::crio("buildah_pulls_by_the_same_files", buildah),
];

/// In a mount namespace where `/etc/containers` is the engine's.
const AS_ON_A_NODE: &str = "mkdir -p /etc/containers && mount --bind \"$1\" /etc/containers && shift && exec \"$@\"";

/// Runs a client as `user`; `words` are its arguments.
fn run(node: &Node<Crio>, program: Debian, user: &str, words: &[&str]) -> Result<()> {
    let program = Parts::from_environment()?.debian(program)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", AS_ON_A_NODE, "sh"]);
    command.arg(node.engine.files().containers());
    command.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    let home = node.folder.path().join(format!("home-{user}"));
    std::fs::create_dir_all(&home)?;
    let id = user.parse()?;
    std::os::unix::fs::chown(&home, Some(id), Some(id))?;
    command.env("HOME", &home).env("XDG_RUNTIME_DIR", &home).current_dir(&home);
    let output = command.arg(program).args(words).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Pulls through us without the origin, and from the origin without us. `pull` has a number, to have a place of its own each time.
fn both_ways(line: CrioLine, pull: impl Fn(&Node<Crio>, &str, usize) -> Result<()>) -> Result<()> {
    let node = node(line, |files, origin| {
        // These have to be told that it has no TLS; CRI-O knows that of loopback.
        let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", origin.registry());
        Ok(std::fs::write(files.drop_in("50-mine.conf"), text)?)
    })?;
    node.warm()?;
    let reference = node.by_tag();
    pull(&node, &reference, 1).context("through us")?;
    let agents: Vec<_> =
        node.origin.log().iter().filter_map(|access| access.header("user-agent").map(str::to_owned)).collect();
    ensure!(agents.iter().all(|agent| agent.starts_with("larder")), "the origin was asked by {agents:?}");
    node.larder.kill_agent()?;
    node.origin.clear_log();
    pull(&node, &reference, 2).context("without us")?;
    ensure!(!node.origin.log().is_empty(), "the origin was not asked: we are still there");
    Ok(())
}

fn skopeo(line: CrioLine) -> Result<()> {
    both_ways(line, |node, reference, number| {
        for user in ["0", "65534"] {
            let words = ["copy", &format!("docker://{reference}"), &format!("dir:copy-{number}")];
            run(node, Debian::Skopeo, user, &words).with_context(|| format!("as user {user}"))?;
        }
        Ok(())
    })
}

fn podman(line: CrioLine) -> Result<()> {
    both_ways(line, |node, reference, number| {
        let place = node.folder.path().join(format!("podman-{number}"));
        let [root, run_root] = places(&place);
        run(
            node,
            Debian::Podman,
            "0",
            &["--root", &root, "--runroot", &run_root, "--storage-driver", "vfs", "pull", reference],
        )
    })
}

fn buildah(line: CrioLine) -> Result<()> {
    both_ways(line, |node, reference, number| {
        let place = node.folder.path().join(format!("buildah-{number}"));
        let [root, run_root] = places(&place);
        run(
            node,
            Debian::Buildah,
            "0",
            &["--root", &root, "--runroot", &run_root, "--storage-driver", "vfs", "pull", reference],
        )
    })
}

fn places(folder: &Path) -> [String; 2] {
    ["root", "run"].map(|name| folder.join(name).display().to_string())
}
