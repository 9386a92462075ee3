//! `docs/api.md`: every kind with what `kubectl get` prints, every field, and every reason of a condition.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use larder_api::condition::Reason;
use larder_api::{cached_image, node_mirror, upstream_registry};
use serde_json::Value;

/// What no type says.
const BEGINNING: &str = include_str!("beginning.md");

pub(super) fn page(definitions: &[Value]) -> Result<String> {
    let mut page = BEGINNING.to_owned();
    for definition in definitions {
        let kind = text(definition, "/spec/names/kind")?;
        let short = text(definition, "/spec/names/shortNames/0")?;
        let schema = "/spec/versions/0/schema/openAPIV3Schema";
        writeln!(page, "\n## {kind}\n\n{}\n", text(definition, &format!("{schema}/description"))?)?;
        writeln!(page, "`kubectl get {short}` prints (those in italics with `--output wide` only):\n")?;
        writeln!(page, "| column | from | means |\n|---|---|---|")?;
        for column in list(definition, "/spec/versions/0/additionalPrinterColumns")? {
            let (name, path) = (text(column, "/name")?.to_uppercase(), text(column, "/jsonPath")?);
            let name = if column.pointer("/priority") == Some(&Value::from(1)) { format!("*{name}*") } else { name };
            writeln!(page, "| {name} | `{path}` | {} |", text(column, "/description")?)?;
        }
        writeln!(page, "\n| field | what it is | means |\n|---|---|---|")?;
        let properties = definition.pointer(&format!("{schema}/properties")).context("properties")?;
        for part in ["spec", "status"] {
            if let Some(part_schema) = properties.get(part) {
                fields(&mut page, part, part_schema)?;
            }
        }
        page.push_str(
            &match kind {
                "CachedImage" => [
                    reasons::<cached_image::Cached>(),
                    reasons::<cached_image::UpstreamAvailable>(),
                    reasons::<cached_image::UpToDate>(),
                ],
                "UpstreamRegistry" => [
                    reasons::<upstream_registry::Reachable>(),
                    reasons::<upstream_registry::AllCached>(),
                    reasons::<upstream_registry::Accepted>(),
                ],
                _ => [
                    reasons::<node_mirror::Configured>(),
                    reasons::<node_mirror::Withdrawn>(),
                    reasons::<node_mirror::Conflict>(),
                ],
            }
            .concat(),
        );
    }
    Ok(page)
}

fn reasons<R: Reason>() -> String {
    let row = |reason: &R| format!("| `{}` | {} | {} |\n", reason.as_str(), reason.truth().as_str(), reason.meaning());
    let rows: String = R::ALL.iter().map(row).collect();
    format!("\n**{}**: {}\n\n| reason | it is | means |\n|---|---|---|\n{rows}", R::CONDITION, R::ABOUT)
}

/// The rows of what a schema has within, in the order of their names.
fn fields(page: &mut String, path: &str, schema: &Value) -> Result<()> {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    for (name, property) in properties {
        let (path, description) = (format!("{path}.{name}"), text(property, "/description").unwrap_or_default());
        let mut meaning = description.to_owned();
        if required.contains(&name.as_str()) && path.starts_with("spec") {
            meaning.push_str(" Has to be there.");
        }
        if let Some(default) = property.get("default") {
            write!(meaning, " Default: `{default}`.")?;
        }
        writeln!(page, "| `{path}` | {} | {} |", what(property), meaning.replace('|', "\\|"))?;
        // Conditions are the same everywhere, and have a table of their own.
        if name == "conditions" {
            continue;
        }
        match property.get("items") {
            Some(items) => fields(page, &format!("{path}[]"), items)?,
            None => fields(page, &path, property)?,
        }
    }
    Ok(())
}

/// A schema in a few words.
fn what(schema: &Value) -> String {
    let number = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
        "string" if schema.get("format").is_some() => "time".to_owned(),
        "string" => format!("text, up to {} characters", number("maxLength").unwrap_or_default()),
        "array" => {
            let items = schema.get("items").map(what).unwrap_or_default();
            format!("up to {} of: {items}", number("maxItems").unwrap_or_default())
        }
        "integer" => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("number, {least} to {most}"),
            _ => "number".to_owned(),
        },
        other => other.to_owned(),
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a [Value]> {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).with_context(|| format!("no list at {pointer}"))
}
