//! An engine's file as it may be shown: a person or a script that reads a plan learns no password from it.
//!
//! Hidden are the values below a `header` or `auth` table, those of keys that say themselves that they are secret, and the
//! user part of a URL. Lines stay lines, so that a diff of two masked texts lies where the real one does.

use std::borrow::Cow;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

const HIDDEN: &str = "***";

/// `text` with its secrets hidden.
pub fn masked(text: &str) -> String {
    let values = match Document::parse(text) {
        Ok(document) => {
            let mut spans = Vec::new();
            collect(document.as_table(), false, &mut spans);
            without(text, spans)
        }
        // Whatever it is, no engine reads it as what it should be.
        Err(_) => by_lines(text),
    };
    values.split_inclusive('\n').map(|line| urls(&comment(line))).collect()
}

/// As [`masked`]; what is no text is not shown at all.
pub(super) fn masked_bytes(bytes: &[u8]) -> Cow<'static, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => masked(text).into(),
        Err(_) => "(no text)\n".into(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(key.as_str(), "header" | "headers" | "auth")
        || ["password", "token", "secret", "authorization"].iter().any(|word| key.contains(word))
}

fn collect(table: &dyn TableLike, secret: bool, spans: &mut Vec<Range<usize>>) {
    for (key, item) in table.iter() {
        let secret = secret || is_secret(key);
        match item {
            Item::None => {}
            Item::Value(value) => leaves(value, secret, spans),
            Item::Table(table) => collect(table, secret, spans),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| collect(table, secret, spans)),
        }
    }
}

fn leaves(value: &Value, secret: bool, spans: &mut Vec<Range<usize>>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| leaves(value, secret, spans)),
        Value::InlineTable(table) => collect(table, secret, spans),
        leaf if secret => spans.extend(leaf.span()),
        _ => {}
    }
}

fn without(text: &str, mut spans: Vec<Range<usize>>) -> String {
    spans.sort_by_key(|span| span.start);
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for span in spans {
        shown.push_str(text.get(at..span.start).unwrap_or_default());
        shown.extend(["\"", HIDDEN, "\""]);
        let lines = text.get(span.clone()).unwrap_or_default().matches('\n').count();
        shown.push_str(&"\n".repeat(lines));
        at = span.end;
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

/// For a text that is no TOML: below a secret heading nothing but names is shown.
fn by_lines(text: &str) -> String {
    let mut secret = false;
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let words = line.trim();
        if words.starts_with('[') && words.ends_with(']') {
            secret = words.split(['.', '[', ']', '"', '\'']).any(is_secret);
            shown.push_str(line);
        } else if secret && !words.is_empty() {
            shown.push_str(&hidden_value(line).unwrap_or_else(|| format!("{HIDDEN}{}", end_of(line))));
        } else {
            match key_of(line) {
                Some(key) if is_secret(key) => shown.push_str(&hidden_value(line).unwrap_or_default()),
                _ => shown.push_str(line),
            }
        }
    }
    shown
}

/// A value that was switched off is a secret still.
fn comment(line: &str) -> Cow<'_, str> {
    let Some(words) = line.trim_start().strip_prefix('#') else { return line.into() };
    match key_of(words) {
        Some(key) if is_secret(key) => hidden_value(line).unwrap_or_default().into(),
        _ => line.into(),
    }
}

fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim().trim_start_matches(['#', ' ']);
    let key = ['"', '\''].iter().find_map(|quote| key.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(key);
    key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter)).then_some(key)
}

fn hidden_value(line: &str) -> Option<String> {
    key_of(line)?;
    let (key, _) = line.split_once('=')?;
    Some(format!("{key}= {HIDDEN}{}", end_of(line)))
}

fn end_of(line: &str) -> &str {
    line.get(line.trim_end_matches(['\r', '\n']).len()..).unwrap_or_default()
}

/// `https://user:password@host` without user and password.
fn urls(line: &str) -> String {
    let mut pieces = line.split("://");
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        shown.push_str("://");
        let end = piece.find(['/', '"', '\'', ' ', '\t', ']', '\n']).unwrap_or(piece.len());
        let (authority, rest) = piece.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => shown.extend([HIDDEN, "@", host]),
            None => shown.push_str(authority),
        }
        shown.push_str(rest);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn no_password_is_left_and_every_line_is() {
        let text = r#"server = "https://user:s3cret@reg.example.com/x"
[header]
  authorization = ["Basic s3cret==",
    "Bearer s3cret"]
  "x-team" = """
s3cret"""
[host."https://user:s3cret@mirror.example.com"]
  capabilities = ["pull"]
  # authorization = "Basic s3cret"
  header = { authorization = "Basic s3cret" }
[plugins.cri.registry.configs."a.example".auth]
  password = "s3cret"
  username = 's3cret'
  # who to ask: https://wiki.example.com
"#;
        let shown = masked(text);
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(shown.lines().count(), text.lines().count());
        for kept in ["reg.example.com/x", "\"x-team\" = ", "capabilities = [\"pull\"]", "wiki.example.com"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    }

    #[test]
    fn what_is_no_toml_keeps_its_secrets_too() {
        let text = "[host.\"x\".header]\n  authorization = \"Basic s3cret\"\n \"s3cret=\"\n[other]\nnot toml\npassword = s3cret\r\n";
        let shown = masked(text);
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("not toml") && shown.ends_with("password = ***\r\n"), "{shown}");
        assert_eq!(shown.lines().count(), text.lines().count());
    }

    #[test]
    fn what_holds_no_secret_is_shown_as_it_is() {
        let text = "version = 3\r\n[plugins.\"io.containerd.cri.v1.images\".registry]\r\n  config_path = \"/a:/b\"";
        assert_eq!(masked(text), text);
    }
}
