//! Running a program to its end: what it printed, or an error that says what was run and what it complained about.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Standard output of a program that succeeds.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, &[])
}

/// The same, with something to read.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = shown(command);
    let mut child = command.spawn().with_context(|| format!("could not run {line}"))?;
    let mut standard_input = child.stdin.take().context("a child without standard input")?;
    let input = input.to_vec();
    // Beside the reading, for a program may print before it has read everything.
    let writer = std::thread::spawn(move || standard_input.write_all(&input));
    let output = child.wait_with_output().with_context(|| format!("could not wait for {line}"))?;
    // A program that does not read to the end says what is wrong by its status.
    let _ = writer.join();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{line}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_is_printed() {
        assert_eq!(run_with_input(&mut Command::new("cat"), b"words").unwrap(), "words");
    }

    #[test]
    fn a_failure_names_command_and_complaint() {
        let error = run(Command::new("sh").args(["-c", "echo bad luck >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("bad luck") && error.contains('3'), "{error}");
    }
}
