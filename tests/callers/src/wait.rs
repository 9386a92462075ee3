//! Waiting for what a process does, and for its end.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use larder_test_node::wait;

/// For anything that is waited for. A status that was written twice is written again a minute later.
const PATIENCE: Duration = Duration::from_mins(3);

/// Waits until something is so; the error is what it was last.
pub fn until<T>(what: &str, is: impl FnMut() -> Result<T>) -> Result<T> {
    wait::until(what, PATIENCE, is)
}

/// Standard output of a program that succeeds.
pub fn output(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write as _;

    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not run {command:?}"))?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
