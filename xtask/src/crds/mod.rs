//! `cargo xtask crds`: the definitions of the custom resources (`chart/files/crds`) and what people read of them (`docs/api.md`), from the
//! types of `crates/api`.

mod reference;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when what is checked in differs
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    for (path, text) in generated()? {
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            continue;
        }
        let shown = path.display();
        ensure!(!arguments.check, "{shown} is not what the types of crates/api say: run `cargo xtask crds`");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("could not write {shown}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every file, with its text.
fn generated() -> Result<Vec<(PathBuf, String)>> {
    let definitions = larder_api::definition::all()?;
    let root = workspace::root();
    let mut files = vec![(root.join("docs/api.md"), reference::page(&definitions)?)];
    for definition in &definitions {
        let plural =
            definition.pointer("/spec/names/plural").and_then(Value::as_str).context("a definition's plural")?;
        files.push((root.join(format!("chart/files/crds/{plural}.yaml")), yaml(definition)?));
    }
    Ok(files)
}

fn yaml(definition: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(definition, options)?;
    let read: Value = serde_saphyr::from_str(&text)?;
    ensure!(read == *definition, "what was written as YAML is read as something else");
    Ok(format!("# Made by `cargo xtask crds` from crates/api.\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_in_is_what_the_types_say() {
        run(&Arguments { check: true }).unwrap();
    }
}
