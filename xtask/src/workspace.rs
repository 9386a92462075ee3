//! Where this clone is, and Cargo as it was called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The clone.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The same Cargo that runs this program, in the clone, without a terminal's input.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Builds a program of the workspace. The path is what Cargo says it is, wherever its target folder lies.
pub(crate) fn build_program(package: &str, profile: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", package, "--bins", "--profile", profile]);
    command.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.output().context("could not run cargo")?;
    if !output.status.success() {
        bail!("{package} does not build");
    }
    let said = String::from_utf8(output.stdout).context("cargo says something that is not text")?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from));
    programs.next().with_context(|| format!("{package} has no program"))
}
