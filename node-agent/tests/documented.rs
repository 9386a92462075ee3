//! Every condition that an engine's adapter can tell of is explained in `docs/troubleshooting.md`.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The words that begin right after `mark`, as texts in quotation marks.
fn words<'text>(text: &'text str, mark: &str) -> Vec<&'text str> {
    let after = text.split(mark).skip(1).filter_map(|after| after.trim_start().strip_prefix('"'));
    after.filter_map(|after| Some(after.split_once('"')?.0)).collect()
}

#[test]
fn every_condition_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/troubleshooting.md")).unwrap();
    let mut kinds = BTreeSet::new();
    for path in sources(&root.join("src/engine")) {
        let text = std::fs::read_to_string(path).unwrap();
        kinds.extend(["kind:", "Leave::new("].iter().flat_map(|mark| words(&text, mark)).map(str::to_owned));
    }
    for known in ["Redirected", "MirrorBlocked", "LegacyMirrors", "Malformed"] {
        assert!(kinds.contains(known), "{known} is not found any more: {kinds:?}");
    }
    let rows: String = page.lines().filter(|line| line.starts_with("| `")).collect();
    for kind in &kinds {
        assert!(rows.contains(&format!("`{kind}`")), "docs/troubleshooting.md has no row of {kind}");
    }
}
