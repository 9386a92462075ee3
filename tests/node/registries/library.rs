//! The containers/image library of one line, asked over a pipe.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use larder_test_parts::{LibraryLine, Parts};
use serde::Deserialize;

/// What came of one set of files.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) error: Option<String>,
    pub(crate) unqualified: Option<Vec<String>>,
    #[serde(deserialize_with = "or_none")]
    pub(crate) resolutions: Vec<Resolution>,
    pub(crate) pulled: String,
}

/// What came of one reference.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Resolution {
    pub(crate) error: Option<String>,
    pub(crate) found: bool,
    pub(crate) prefix: String,
    pub(crate) blocked: bool,
    #[serde(deserialize_with = "or_none")]
    pub(crate) sources: Vec<Source>,
}

/// What is asked, in order.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Source {
    pub(crate) reference: String,
    pub(crate) insecure: bool,
    pub(crate) blocked: bool,
}

/// Go writes an empty list as null.
fn or_none<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A process that answers.
pub(crate) struct Library {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Library {
    pub(crate) fn start(line: LibraryLine) -> Result<Self> {
        let program = Parts::from_environment()?.image_library(line)?;
        let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, stdin, stdout })
    }

    pub(crate) fn ask(&mut self, main: &Path, directory: &Path, references: &[String]) -> Answer {
        self.exchange(&serde_json::json!({ "conf": main, "conf_dir": directory, "references": references }))
    }

    /// Pulls an image as CRI-O does, with its signatures looked for as `signatures` (registries.d) says, and accepts it.
    pub(crate) fn pull(&mut self, main: &Path, directory: &Path, signatures: &Path, reference: &str) -> Answer {
        let folder = tempfile::tempdir().expect("a folder");
        let pull = serde_json::json!({
            "reference": reference, "into": folder.path().join("image"), "registries_d": signatures,
        });
        self.exchange(&serde_json::json!({ "conf": main, "conf_dir": directory, "pull": pull }))
    }

    fn exchange(&mut self, request: &serde_json::Value) -> Answer {
        writeln!(self.stdin, "{request}").expect("the library reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the library answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
