//! `cargo xtask chart-readme`: the table of values in `chart/README.md`, from the comments of `chart/values.yaml`.
//!
//! A comment that begins with `# -- ` describes the key below it, as in helm-docs. Every value has to be described, itself or
//! by what it is a part of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace;

const BEGIN: &str = "<!-- The table is made by `cargo xtask chart-readme`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when the table that is checked in differs
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let chart = workspace::root().join("chart");
    let (values, path) = (read(&chart.join("values.yaml"))?, chart.join("README.md"));
    let known = read(&path)?;
    let page = with_table(&known, &table(&values).context("chart/values.yaml")?)?;
    if page == known {
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        bail!("chart/README.md does not say what chart/values.yaml says: run `cargo xtask chart-readme`");
    }
    fs::write(&path, page).with_context(|| format!("could not write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

/// The page with this table where the old one is.
fn with_table(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("no line {BEGIN:?} in the page"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no line {END:?} in the page"))?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn table(values: &str) -> Result<String> {
    let defaults: Value = serde_saphyr::from_str(values)?;
    let descriptions = descriptions(values);
    let described: BTreeMap<&str, &str> =
        descriptions.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let undescribed = undescribed(&defaults, "", &described);
    ensure!(undescribed.is_empty(), "no comment \"# -- …\" describes {}", undescribed.join(", "));
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for (name, text) in &descriptions {
        let pointer = format!("/{}", name.replace('.', "/"));
        let default = defaults.pointer(&pointer).with_context(|| format!("{name} is described and not there"))?;
        writeln!(table, "| `{name}` | `{default}` | {} |", text.replace('|', "\\|"))?;
    }
    Ok(table)
}

/// What is described, in the file's order: the dotted name and the text.
fn descriptions(values: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // The keys that the line is inside of, with their columns.
    let mut inside: Vec<(usize, &str)> = Vec::new();
    let mut text: Option<String> = None;
    for line in values.lines() {
        let words = line.trim_start();
        let column = line.len() - words.len();
        if let Some(begin) = words.strip_prefix("# -- ") {
            text = Some(begin.to_owned());
        } else if let Some(more) = words.strip_prefix('#') {
            if let Some(text) = &mut text {
                text.push(' ');
                text.push_str(more.trim());
            }
        } else if let Some((key, _)) = words.split_once(':').filter(|_| !words.starts_with("- ")) {
            inside.retain(|(outer, _)| *outer < column);
            inside.push((column, key));
            if let Some(text) = text.take() {
                let names: Vec<&str> = inside.iter().map(|(_, key)| *key).collect();
                found.push((names.join("."), text));
            }
        } else {
            text = None;
        }
    }
    found
}

/// The names of values that no description is about.
fn undescribed(value: &Value, name: &str, described: &BTreeMap<&str, &str>) -> Vec<String> {
    if described.contains_key(name) {
        return Vec::new();
    }
    match value {
        Value::Object(parts) if !parts.is_empty() => {
            let full = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            parts.iter().flat_map(|(key, part)| undescribed(part, &full(key), described)).collect()
        }
        _ => vec![name.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "\
# About the file.

# -- The engine.
engine: auto
store:
  # -- How large,
  # or so.
  size: 20GiB
  # Not for the table.
  # -- a | b
  type: \"\"
# -- All of them.
agent:
  resources:
    limits: {}
# -- Taints.
tolerations:
  - operator: Exists
";

    #[test]
    fn every_description_is_a_row_in_the_order_of_the_file() {
        let expected = "\
| value | default | meaning |
|---|---|---|
| `engine` | `\"auto\"` | The engine. |
| `store.size` | `\"20GiB\"` | How large, or so. |
| `store.type` | `\"\"` | a \\| b |
| `agent` | `{\"resources\":{\"limits\":{}}}` | All of them. |
| `tolerations` | `[{\"operator\":\"Exists\"}]` | Taints. |
";
        assert_eq!(table(VALUES).unwrap(), expected);
    }

    #[test]
    fn a_value_that_nobody_describes_is_an_error() {
        let error = table(&format!("{VALUES}new: 1\nouter:\n  inner: {{}}\n")).unwrap_err().to_string();
        assert!(error.ends_with("new, outer.inner"), "{error}");
    }

    #[test]
    fn only_the_table_is_replaced() {
        let page = format!("# Head\n{BEGIN}old\n{END}tail\n");
        assert_eq!(with_table(&page, "new\n").unwrap(), format!("# Head\n{BEGIN}new\n{END}tail\n"));
        assert!(with_table("# Head\n", "new\n").is_err());
    }
}
