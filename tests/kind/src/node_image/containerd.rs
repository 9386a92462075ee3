//! What a node with containerd has of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use larder_test_parts::Line;
use serde_json::Value;

use super::{Builder, put, put_program};
use crate::command;
use crate::registry::SYSTEM_REGISTRY;

impl Builder<'_> {
    /// containerd's programs and files.
    pub(super) fn put_containerd(&self, root: &Path, line: Line) -> Result<()> {
        let containerd = self.machine.parts.containerd(line)?;
        for program in ["containerd", "ctr", "containerd-shim-runc-v2"] {
            put_program(&containerd.shim_folder.join(program), &root.join("usr/local/bin").join(program))?;
        }
        let path = self.machine.parts.source("kind")?.join("images/base/files/etc/containerd/config.toml");
        let theirs = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        put(root, "etc/containerd/config.toml", &configuration(&theirs, self.pause, self.machine.runtime.is_some()))?;
        let specification = command::run(Command::new(&containerd.ctr).args(["oci", "spec"]))?;
        put(root, "etc/containerd/cri-base.json", &without_limits(&specification)?)?;
        // The control plane's images are in a registry of ours; nothing here reaches the one that their names say.
        let mirror = format!("[host.\"http://{SYSTEM_REGISTRY}:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        put(root, "etc/containerd/certs.d/registry.k8s.io/hosts.toml", &mirror)
    }
}

/// kind's configuration, with the sandbox image that there is, the folder for hosts.toml (the default is none up to containerd 2.1), and
/// no score that the machine would refuse.
fn configuration(theirs: &str, pause: &str, bounded: bool) -> String {
    let mut text = String::new();
    for line in theirs.lines() {
        let value = match line.trim_start().split_once(" = ") {
            Some(("sandbox_image", _)) => Some(format!("  sandbox_image = \"{pause}\"")),
            Some(("restrict_oom_score_adj", _)) => Some(format!("  restrict_oom_score_adj = {bounded}")),
            _ => None,
        };
        text.push_str(value.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n");
    text
}

/// The base of every container's configuration, as kind makes it: no limits of its own, which a machine may refuse to raise.
fn without_limits(specification: &str) -> Result<String> {
    let mut document: Value = serde_json::from_str(specification).context("ctr oci spec prints no JSON")?;
    if let Some(process) = document.get_mut("process").and_then(Value::as_object_mut) {
        process.remove("rlimits");
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_kinds_but_for_what_differs_here() {
        let theirs = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"registry.k8s.io/pause:3.10\"\n  restrict_oom_score_adj = false\n";
        let ours = configuration(theirs, "registry.k8s.io/pause:3.10.1", true);
        assert!(
            ours.starts_with("version = 2\n") && ours.contains("pause:3.10.1\"") && !ours.contains("3.10\""),
            "{ours}"
        );
        assert!(ours.contains("restrict_oom_score_adj = true\n") && ours.contains("config_path"), "{ours}");
        assert!(configuration(theirs, "x", false).contains("restrict_oom_score_adj = false"));
    }

    #[test]
    fn the_base_has_no_limits() {
        let text = without_limits(r#"{"process":{"rlimits":[1],"cwd":"/"}}"#).unwrap();
        assert_eq!(text, r#"{"process":{"cwd":"/"}}"#);
    }
}
