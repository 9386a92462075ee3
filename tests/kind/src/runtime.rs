//! What `runc-within-bounds` changes before runc sees it: a container's configuration asks for nothing that this machine cannot give.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::bounds::Capabilities;

/// Options before the command that take a value.
const GLOBAL_WITH_VALUE: [&str; 5] = ["--root", "--log", "--log-format", "--criu", "--rootless"];

/// Which file says what the process of a container may do, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A bundle's `config.json`, in its object `process`.
    Bundle(PathBuf),
    /// The file of `runc exec --process`, which is such an object.
    Process(PathBuf),
}

impl Target {
    /// Reads runc's command line; nothing for commands that start no process.
    pub fn of(arguments: &[String]) -> Option<Self> {
        let mut words = arguments.iter().map(String::as_str);
        let command = loop {
            let word = words.next()?;
            if GLOBAL_WITH_VALUE.contains(&word) {
                words.next();
            } else if !word.starts_with('-') {
                break word;
            }
        };
        let rest: Vec<&str> = words.collect();
        match command {
            "create" | "run" => {
                let bundle = value(&rest, "--bundle", "-b").unwrap_or(".");
                Some(Self::Bundle(Path::new(bundle).join("config.json")))
            }
            "exec" => value(&rest, "--process", "-p").map(|file| Self::Process(file.into())),
            _ => None,
        }
    }

    /// Rewrites the file.
    pub fn bound(&self, capabilities: Capabilities, least_score: i64) -> Result<()> {
        let (Self::Bundle(path) | Self::Process(path)) = self;
        let text = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let mut document: Value =
            serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        let process = match self {
            Self::Bundle(_) => document.get_mut("process"),
            Self::Process(_) => Some(&mut document),
        };
        if let Some(process) = process {
            bound(process, capabilities, least_score);
        }
        std::fs::write(path, document.to_string()).with_context(|| format!("could not write {}", path.display()))
    }
}

fn value<'a>(words: &[&'a str], long: &str, short: &str) -> Option<&'a str> {
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word == long || word == short {
            return words.next();
        }
        if let Some(value) = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value);
        }
    }
    None
}

fn bound(process: &mut Value, capabilities: Capabilities, least_score: i64) {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| name.as_str().is_some_and(|name| capabilities.has(name)));
    }
    if let Some(score) = process.get_mut("oomScoreAdj")
        && score.as_i64().is_some_and(|wanted| wanted < least_score)
    {
        *score = least_score.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(line: &str) -> Option<Target> {
        Target::of(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn finds_the_file_as_engines_name_it() {
        let docker = "--root /run/create --log /l --log-format json create --bundle /b --pid-file /p id";
        assert_eq!(target(docker), Some(Target::Bundle("/b/config.json".into())));
        assert_eq!(target("--systemd-cgroup run --bundle=/b id"), Some(Target::Bundle("/b/config.json".into())));
        assert_eq!(target("exec --process /p.json --detach id"), Some(Target::Process("/p.json".into())));
        assert_eq!(target("--root /r delete --force create"), None);
        assert_eq!(target("--version"), None);
    }

    #[test]
    fn nothing_is_asked_for_that_cannot_be_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let asked = r#"{"process":{"capabilities":{"bounding":["CAP_KILL","CAP_SYS_RESOURCE"]},"oomScoreAdj":-998}}"#;
        std::fs::write(&path, asked).unwrap();
        // Only CAP_KILL, whose number is 5.
        let bounded = Capabilities::only(5);
        Target::Bundle(path.clone()).bound(bounded, 0).unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            written,
            serde_json::json!({"process": {"capabilities": {"bounding": ["CAP_KILL"]}, "oomScoreAdj": 0}})
        );
    }
}
