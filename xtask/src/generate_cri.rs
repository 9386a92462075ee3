//! `cargo xtask generate-cri`: runs the generator beside `crates/cri`, which is a workspace of its own so that nobody else compiles it.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when the file that is checked in differs
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let crate_folder = workspace::root().join("crates/cri");
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(crate_folder.join("generate/Cargo.toml"));
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.arg("--target-dir").arg(workspace::root().join("target/generate-cri"));
    }
    command.arg("--");
    if arguments.check {
        command.arg("--check");
    }
    let status = command.arg(crate_folder.join("src/runtime_v1.rs")).status().context("could not run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
