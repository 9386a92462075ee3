//! What the documentation says of engines is what the tests run.

use std::path::{Path, PathBuf};

use crate::pin::Pin;
use crate::{CrioLine, LibraryLine, Line, Parts};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of each row of the first table of `docs/engines.md`.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let table = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_of_engines_names_exactly_what_is_pinned() {
    let modules = Parts::new(PathBuf::from("/nonexistent")).modules;
    let containerd = Line::ALL.map(|line| ("containerd", line.as_str(), format!("containerd-{line}")));
    let crio = CrioLine::ALL.map(|line| ("CRI-O", line.as_str(), format!("crio-{line}")));
    let libraries = LibraryLine::ALL.map(|line| ("containers/image", line.as_str(), format!("cimage-{line}")));
    let run: Vec<[String; 3]> = containerd
        .into_iter()
        .chain(crio)
        .chain(libraries)
        .map(|(engine, line, pin)| {
            let version = Pin::read(&modules.join(pin)).unwrap().version;
            [engine.to_owned(), line.to_owned(), version.trim_start_matches('v').to_owned()]
        })
        .collect();
    let page = read("docs/engines.md");
    let said: Vec<[String; 3]> = rows(&page)
        .iter()
        .map(|cells| match cells.as_slice() {
            [engine, line, release, _] => [engine, line, release].map(|cell| (*cell).to_owned()),
            other => panic!("a row of docs/engines.md is not of four cells: {other:?}"),
        })
        .collect();
    for row in &run {
        assert!(said.contains(row), "docs/engines.md does not have the row {row:?}");
    }
    assert_eq!(said, run, "docs/engines.md");
}

#[test]
fn the_ranges_that_people_read_are_those_of_the_table() {
    let page = read("docs/engines.md");
    let [Some(first), Some(last)] = [Line::ALL.first(), Line::ALL.last()] else { panic!("no line of containerd") };
    // The releases of CRI-O that a library is said to be in.
    let libraries = rows(&page).into_iter().filter(|cells| cells.first() == Some(&"containers/image"));
    let words: Vec<&str> = libraries.filter_map(|cells| cells.last()?.split_once("CRI-O ")).map(|(_, of)| of).collect();
    let minors =
        words.iter().flat_map(|of| of.split([' ', ','])).filter_map(|word| word.strip_prefix("1.")?.parse().ok());
    let minors: Vec<u32> = minors.collect();
    let [Some(oldest), Some(newest)] = [minors.iter().min(), minors.iter().max()] else { panic!("no line of CRI-O") };
    let ranges = [format!("containerd {first} to {last}"), format!("CRI-O 1.{oldest} to 1.{newest}")];
    for name in ["docs/engines.md", "docs/install.md", "README.md"] {
        let text = read(name);
        for range in &ranges {
            assert!(text.contains(range), "{name} does not say {range:?}");
        }
    }
    // None is left out between the two.
    let all: std::collections::BTreeSet<u32> = minors.iter().copied().collect();
    assert!((*oldest..=*newest).eq(all), "{minors:?}");
}
