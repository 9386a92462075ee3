//! The programs of the image, static and without a trace of the machine that built them.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

/// Packages whose programs are in the image.
const PACKAGES: [&str; 3] = ["larder-cache", "larder-controller", "larder-node"];

/// A processor that images are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub(crate) fn of_this_machine() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// As images have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// For whom the programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// People: as small and quick as can be, the same bytes from every machine.
    Use,
    /// Tests and the demo, which are here to be gone soon: quick to compile, and what the last clone compiled of the dependencies is used again,
    /// for no flag names this clone's folder.
    Tests,
}

impl Purpose {
    /// In the root `Cargo.toml`.
    fn profile(self) -> &'static str {
        match self {
            Self::Use => "release",
            Self::Tests => "image-test",
        }
    }
}

/// A program by its name in the image.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn build(architecture: Architecture, purpose: Purpose) -> Result<Vec<Program>> {
    let mut command = workspace::cargo();
    command.args(["build", "--quiet", "--locked", "--profile", purpose.profile(), "--bins"]);
    command.args(["--target", architecture.target()]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    // In this form a path may hold spaces. The flags of whoever calls are left out: they would change what comes out.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(purpose)?.join("\u{1f}")).env_remove("RUSTFLAGS");
    let output = command.output().context("could not run cargo")?;
    ensure!(output.status.success(), "the programs of the image do not build");
    let said = String::from_utf8(output.stdout).context("cargo says something that is not text")?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = Vec::new();
    for message in messages {
        let Some(path) = message.get("executable").and_then(serde_json::Value::as_str).map(PathBuf::from) else {
            continue;
        };
        let name = path.file_name().context("cargo names a program without a name")?.to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        must_be_static(&name, &bytes)?;
        programs.push(Program { name, bytes });
    }
    ensure!(!programs.is_empty(), "cargo built no program");
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

/// Static, and for people with the paths of this machine replaced: they would be in panic messages.
fn flags(purpose: Purpose) -> Result<Vec<String>> {
    let is_static = "-Ctarget-feature=+crt-static".to_owned();
    if purpose == Purpose::Tests {
        return Ok(vec![is_static]);
    }
    let cargo_home = match std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
    };
    let replaced = |from: PathBuf, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![
        is_static,
        replaced(cargo_home, "/cargo"),
        replaced(target_folder()?, "/target"),
        replaced(workspace::root().to_owned(), "/larder"),
    ])
}

/// Cargo's target folder, wherever it lies.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["metadata", "--quiet", "--no-deps", "--format-version", "1"]).stderr(Stdio::inherit());
    let output = command.output().context("could not run cargo")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let folder = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    Ok(PathBuf::from(folder.context("cargo metadata names no target folder")?))
}

/// There is nothing in the image that could load a program that is not.
fn must_be_static(name: &str, bytes: &[u8]) -> Result<()> {
    let interpreter = b"/lib64/ld-linux-";
    let interpreter_of_arm = b"/lib/ld-linux-aarch64";
    let asks_for = |path: &[u8]| bytes.windows(path.len()).take(4096).any(|window| window == path);
    if asks_for(interpreter) || asks_for(interpreter_of_arm) {
        bail!("{name} wants a dynamic linker, which the image does not have");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::must_be_static;

    #[test]
    fn a_program_that_needs_a_linker_is_refused() {
        let dynamic = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(must_be_static("xtask", &dynamic).unwrap_err().to_string().contains("dynamic linker"));
        assert!(must_be_static("nothing", b"\x7fELF").is_ok());
    }
}
