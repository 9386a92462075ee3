//! Every condition that the agent's `/readyz` can have is explained in `docs/troubleshooting.md`.
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

#[test]
fn every_line_of_the_agent_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/troubleshooting.md")).unwrap();
    let mut names = BTreeSet::new();
    for path in sources(&root.join("src")) {
        let text = std::fs::read_to_string(path).unwrap();
        for mark in ["readiness.condition(\"", "readiness.requirement(\""] {
            names.extend(text.split(mark).skip(1).filter_map(|after| Some(after.split_once('"')?.0.to_owned())));
        }
    }
    for known in ["engine", "registries file", "api server", "node mirror"] {
        assert!(names.contains(known), "{known} is not found any more: {names:?}");
    }
    for name in &names {
        let is_explained = [": ", "`"].iter().any(|end| page.contains(&format!(": {name}{end}")));
        assert!(is_explained, "docs/troubleshooting.md has no row of {name}");
    }
}
