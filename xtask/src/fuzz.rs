//! `cargo xtask fuzz`: throws bytes at what reads bytes from outside. The targets are `fuzz/src/bin`, a workspace of its own.
//!
//! Works on a stable toolchain: `fuzz/instrument` has the compiler report to libFuzzer what ran. Without options each target gets
//! the same runs every time, from the corpus that is checked in, and nothing of the clone changes; with `--seconds` new paths are
//! looked for, and `--keep` adds what leads there to the corpus.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use larder_test_parts::{Debian, Parts};

use crate::workspace;

/// Runs of each target when nothing else is asked for: some seconds.
const RUNS: u64 = 100_000;

/// Inputs in the corpus of a target.
const ROOM: usize = 60;

/// Of an input, in bytes.
const LONGEST: u32 = 1024;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these, files in fuzz/src/bin
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// Runs of each target
    #[arg(long, conflicts_with = "seconds")]
    runs: Option<u64>,

    /// Search each target for so long, from another beginning each time
    #[arg(long)]
    seconds: Option<u64>,

    /// Afterwards add to fuzz/corpus the inputs that reached what no other there does
    #[arg(long, requires = "seconds")]
    keep: bool,

    /// Run only this one input, such as one that a failure left behind
    #[arg(long, value_name = "FILE", conflicts_with_all = ["runs", "seconds"])]
    input: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let all = targets()?;
    for wanted in &arguments.targets {
        ensure!(all.contains(wanted), "there is no target {wanted}, but {}", all.join(", "));
    }
    let wanted = if arguments.targets.is_empty() { &all } else { &arguments.targets };
    // The fuzzer's own folder is another one.
    let input = arguments.input.as_deref().map(std::path::absolute).transpose().context("no such --input")?;
    ensure!(input.is_none() || wanted.len() == 1, "--input is for one target: {}", all.join(", "));
    build()?;
    if let Some(seconds) = arguments.seconds {
        eprintln!("searching for {seconds} s a target, {} of them", wanted.len());
    }
    let mut failed = false;
    for target in wanted {
        let began = Instant::now();
        let good = match &input {
            Some(input) => replay(target, input)?,
            None => search(target, arguments)?,
        };
        // The form of Rust's test harness, which `cargo xtask test` counts.
        println!("test fuzz::{target} ... {}", if good { "ok" } else { "FAILED" });
        eprintln!("  {target}: {:.0} s", began.elapsed().as_secs_f64());
        failed |= !good;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The names of all targets.
pub(crate) fn targets() -> Result<Vec<String>> {
    let folder = folder().join("src/bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("could not read {}", folder.display()))?.path();
        if let Some(name) = path.file_stem().filter(|_| path.extension().is_some_and(|end| end == "rs")) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn folder() -> PathBuf {
    workspace::root().join("fuzz")
}

/// A target folder of its own: what is instrumented fits nothing else.
fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(shared) => workspace::root().join(shared).join("fuzz"),
        None => folder().join("target"),
    }
}

/// Where inputs that fail are left.
fn artifacts(target: &str) -> PathBuf {
    folder().join("artifacts").join(target)
}

fn program(target: &str) -> Command {
    let mut command = Command::new(target_folder().join("debug").join(target));
    command.current_dir(folder()).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
    command.arg(format!("-artifact_prefix={}/", artifacts(target).display()));
    command
}

fn build() -> Result<()> {
    // libFuzzer is written in C++.
    Parts::from_environment()?.debian(Debian::CompilerOfCxx)?;
    let mut command = workspace::cargo();
    command.current_dir(folder()).args(["build", "--quiet", "--bins", "--target-dir"]).arg(target_folder());
    command.env("RUSTC_WRAPPER", folder().join("instrument"));
    let status = command.status().context("could not run cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(())
}

/// Runs one input; tells whether it passes.
fn replay(target: &str, input: &Path) -> Result<bool> {
    ensure!(input.is_file(), "there is no file {}", input.display());
    let status = program(target).arg(input).status().with_context(|| format!("could not run {target}"))?;
    Ok(status.success())
}

/// Looks for an input that fails; tells whether there was none.
fn search(target: &str, arguments: &Arguments) -> Result<bool> {
    let corpus = folder().join("corpus").join(target);
    ensure!(corpus.is_dir(), "{target} has no corpus: put some inputs into {}", corpus.display());
    let artifacts = artifacts(target);
    // libFuzzer writes what it finds into the first folder that it is given, so that must not be the one that is checked in.
    let found = tempfile::tempdir().context("could not make a temporary folder")?;
    fs::create_dir_all(&artifacts).with_context(|| format!("could not make {}", artifacts.display()))?;
    let mut command = program(target);
    command.args([format!("-max_len={LONGEST}"), "-timeout=10".to_owned(), "-rss_limit_mb=1024".to_owned()]);
    match arguments.seconds {
        Some(seconds) => command.arg(format!("-max_total_time={seconds}")),
        None => command.args([format!("-runs={}", arguments.runs.unwrap_or(RUNS)), "-seed=1".to_owned()]),
    };
    let output = command.arg(found.path()).arg(&corpus).output().with_context(|| format!("could not run {target}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let last = said.lines().rev().find(|line| line.contains("\tDONE ")).unwrap_or("it does not say what it did");
        eprintln!("  {target}: {last}");
        if arguments.keep {
            keep(target, &corpus, found.path())?;
        }
        return Ok(true);
    }
    eprintln!("{}", said.lines().filter(|line| !is_noise(line)).collect::<Vec<_>>().join("\n"));
    let prefix = "Test unit written to ";
    match said.lines().find_map(|line| Some(line.split_once(prefix)?.1)) {
        Some(path) => eprintln!("failed on {path}\nagain: cargo xtask fuzz {target} --input {path}\n"),
        None => eprintln!("{target} ended with {} and left no input behind\n", output.status),
    }
    Ok(false)
}

/// What libFuzzer prints on the way, and about itself.
fn is_noise(line: &str) -> bool {
    let noise =
        ["#", "\tNEW_FUNC", "INFO: ", "WARNING: Failed to find", "0x", "Base64: ", "MS: ", "NOTE: ", "      Combine"];
    noise.iter().any(|beginning| line.starts_with(beginning))
}

/// Adds to the corpus what reaches code that nothing in it reaches, as far as there is room.
fn keep(target: &str, corpus: &Path, found: &Path) -> Result<()> {
    let chosen = tempfile::tempdir().context("could not make a temporary folder")?;
    let mut command = program(target);
    // By code that is reached and not by how often, and few that reach much: else it would be thousands.
    command.args(["-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={LONGEST}"));
    let output = command.arg(chosen.path()).arg(corpus).arg(found).output();
    let output = output.with_context(|| format!("could not run {target}"))?;
    if !output.status.success() {
        bail!("could not merge what {target} found: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let known = inputs(corpus)?;
    let contents =
        known.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>().context("could not read the corpus")?;
    let mut new = Vec::new();
    for path in inputs(chosen.path())? {
        let bytes = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        if !contents.contains(&bytes) {
            new.push((path, bytes));
        }
    }
    // When there are too many: the longest reach most.
    new.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
    new.truncate(ROOM.saturating_sub(known.len()));
    for (path, bytes) in &new {
        let path = corpus.join(path.file_name().unwrap_or_default());
        fs::write(&path, bytes).with_context(|| format!("could not write {}", path.display()))?;
    }
    eprintln!("  {target}: {} inputs added, {} in all of at most {ROOM}", new.len(), known.len() + new.len());
    Ok(())
}

fn inputs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.with_context(|| format!("could not read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_small_corpus_and_every_corpus_a_target() {
        let mut folders = inputs(&super::folder().join("corpus")).unwrap();
        folders.sort();
        let names: Vec<_> = folders.iter().map(|folder| folder.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, targets().unwrap());
        for folder in folders {
            let inputs = inputs(&folder).unwrap();
            assert!((5..=ROOM).contains(&inputs.len()), "{} has {} inputs", folder.display(), inputs.len());
            assert!(inputs.iter().all(|input| input.metadata().unwrap().len() <= u64::from(LONGEST)));
        }
    }
}
