//! What a person types: flags, variables, and a `--config` file with the same words.
//!
//! Invariant: a flag beats a variable, a variable beats the file, the file beats the default; an unknown word in the file is an error, as
//! an unknown flag is.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

/// What was typed makes no sense: exit status 2, as for a flag that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("wrong usage")
    }
}

/// Reads the command line, and the file that it (or `LARDER_CONFIG`) names. Says which file that was.
pub fn parse<T: CommandFactory + FromArgMatches>(
    line: impl IntoIterator<Item = OsString>,
) -> Result<(T, Option<PathBuf>), clap::Error> {
    let line: Vec<OsString> = line.into_iter().collect();
    let mut command = T::command();
    let file = file_named_in(&line);
    if let Some(file) = &file {
        command = with_defaults_of(command, file).map_err(|reason| {
            T::command().error(ErrorKind::InvalidValue, format!("--config {}: {reason}", file.display()))
        })?;
    }
    let matches = command.try_get_matches_from(line)?;
    Ok((T::from_arg_matches(&matches)?, file))
}

/// The file has to be known before everything else can be read.
fn file_named_in(line: &[OsString]) -> Option<PathBuf> {
    let mut words = line.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(value) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(PathBuf::from(value));
        }
    }
    std::env::var_os("LARDER_CONFIG").map(PathBuf::from)
}

fn with_defaults_of(command: clap::Command, file: &Path) -> Result<clap::Command, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut values = Vec::new();
    for (name, value) in table {
        if name == "config" {
            return Err("config: a file cannot name another one".to_owned());
        }
        let words = match value {
            toml::Value::Array(values) => values.iter().map(|value| word(&name, value)).collect::<Result<_, _>>()?,
            value => vec![word(&name, &value)?],
        };
        values.push((name, words));
    }
    let mut command = command;
    for (name, words) in values {
        let mut known = false;
        command = set_default(command, &name, &words, &mut known);
        if !known {
            return Err(format!("{name}: there is no such option"));
        }
    }
    Ok(command)
}

fn word(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        _ => Err(format!("{name}: it must be a text, a number, true or false, or a list of these")),
    }
}

/// The same file serves all commands, so an option of any of them is known.
fn set_default(command: clap::Command, name: &str, words: &[String], known: &mut bool) -> clap::Command {
    let mut command = command;
    let ids: Vec<_> = command
        .get_arguments()
        .filter(|argument| argument.get_long() == Some(name) && argument.get_action().takes_values())
        .map(|argument| argument.get_id().clone())
        .collect();
    for id in ids {
        *known = true;
        let words = words.to_vec();
        command =
            command.mut_arg(id, |argument| argument.default_values(words.into_iter().map(clap::builder::OsStr::from)));
    }
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for subcommand in names {
        command = command.mut_subcommand(subcommand, |subcommand| set_default(subcommand, name, words, known));
    }
    command
}
