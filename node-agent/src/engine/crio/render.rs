//! Our drop-in as text. It says what the library would have read elsewhere, plus one mirror; keys that only newer releases
//! know are repeated as they were.

use std::fmt::Write as _;

use toml_edit::Value;

use super::entry::{Endpoint, Entries, Entry};
use crate::change::marker;

/// The file, sealed so that it is known to be ours.
pub(super) fn drop_in(entries: &Entries) -> Vec<u8> {
    let mut body =
        "# An entry here replaces those of other files for the same prefix: it repeats them, with the proxy first.\n"
            .to_owned();
    for entry in entries.values() {
        registry(&mut body, entry);
    }
    marker::sealed(&body)
}

fn registry(body: &mut String, entry: &Entry) {
    let Entry { prefix, primary, mirrors, blocked, mirror_by_digest_only } = entry;
    body.push_str("\n[[registry]]\n");
    text(body, "prefix", prefix);
    endpoint(body, primary);
    flag(body, "blocked", *blocked);
    flag(body, "mirror-by-digest-only", *mirror_by_digest_only);
    for mirror in mirrors {
        body.push_str("[[registry.mirror]]\n");
        endpoint(body, mirror);
    }
}

fn endpoint(body: &mut String, endpoint: &Endpoint) {
    let Endpoint { location, insecure, pull_from_mirror, other } = endpoint;
    text(body, "location", location);
    flag(body, "insecure", *insecure);
    text(body, "pull-from-mirror", pull_from_mirror);
    for (key, value) in other {
        let key = Value::from(key.as_str()).to_string();
        let _ = writeln!(body, "{key} = {value}");
    }
}

fn text(body: &mut String, key: &str, value: &str) {
    if !value.is_empty() {
        let _ = writeln!(body, "{key} = {}", Value::from(value));
    }
}

fn flag(body: &mut String, key: &str, value: bool) {
    if value {
        let _ = writeln!(body, "{key} = true");
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Form, parse};
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let theirs = r#"
            [[registry]]
            prefix = "quoted\"\\.example"
            location = 'm.example/"x"'
            insecure = true
            namespace-proxy = "a"
            [[registry.mirror]]
            location = "n.example"
            pull-from-mirror = "tag-only"
            "odd key" = { a = ["x\ny"], b = 1979-05-27 }
            [[registry]]
            prefix = "*.example"
            blocked = true
            mirror-by-digest-only = true
        "#;
        let document = parse(theirs.as_bytes(), Form::DropIn).unwrap();
        let written = drop_in(&document.entries);
        assert_eq!(parse(&written, Form::DropIn).unwrap(), document);
        insta::assert_snapshot!(String::from_utf8(written).unwrap());
    }
}
