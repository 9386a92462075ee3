//! The real helm, run on the chart of this clone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use larder_test_parts::Parts;

use crate::chart;

/// What is rendered for unless a case says otherwise. A helm that was built without its project's Makefile takes the cluster
/// for an ancient one.
const KUBERNETES: &str = "1.34.0";

/// Where helm is.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
}

impl Helm {
    /// `LARDER_HELM`, or else the part.
    pub fn from_environment() -> Result<Self> {
        let program = match std::env::var_os("LARDER_HELM") {
            Some(program) => PathBuf::from(program),
            None => Parts::from_environment()?.helm()?,
        };
        Ok(Self { program })
    }

    /// Everything that `helm install` would send, as YAML, for a version of Kubernetes.
    pub fn template(&self, values: &Path, kubernetes: Option<&str>, more: &[&str]) -> Result<String> {
        let mut command = self.command("template", kubernetes);
        command.arg("larder").arg(chart()).args(["--namespace", "larder-system", "--values"]).arg(values).args(more);
        said(&mut command)
    }

    /// What helm says after an install. `helm template` says nothing of it and an install wants a cluster, so it is rendered as a part of
    /// the objects, from a copy of the chart.
    pub fn notes(&self, values: &str) -> Result<String> {
        let copy = tempfile::tempdir().context("make a folder")?;
        copied(&chart(), copy.path())?;
        std::fs::rename(copy.path().join("templates/NOTES.txt"), copy.path().join("notes"))?;
        let template = "notes: {{ tpl (.Files.Get \"notes\") . | toJson }}\n";
        std::fs::write(copy.path().join("templates/notes.yaml"), template)?;
        let file = copy.path().join("typed.yaml");
        std::fs::write(&file, values)?;
        let mut command = self.command("template", None);
        command.arg("larder").arg(copy.path()).args(["--namespace", "larder-system", "--values"]).arg(&file);
        let rendered = said(command.args(["--show-only", "templates/notes.yaml"]))?;
        let page: serde_json::Value = serde_saphyr::from_str(&rendered).context("the notes are no YAML")?;
        let text = page.get("notes").and_then(serde_json::Value::as_str).context("no notes")?;
        Ok(text.to_owned())
    }

    /// Fails with what helm finds wrong; a warning is wrong.
    pub fn lint(&self, values: &Path, kubernetes: Option<&str>) -> Result<()> {
        let mut command = self.command("lint", kubernetes);
        said(command.arg(chart()).args(["--strict", "--values"]).arg(values)).map(drop)
    }

    fn command(&self, verb: &str, kubernetes: Option<&str>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).args(["--kube-version", kubernetes.unwrap_or(KUBERNETES)]);
        // Whoever runs this may have a cluster, which is none of its business.
        command.env("KUBECONFIG", "/nonexistent").stdin(Stdio::null());
        command
    }
}

fn copied(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copied(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("could not run helm")?;
    let text = String::from_utf8(output.stdout).context("helm says something that is not text")?;
    if !output.status.success() {
        bail!("{}{text}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
