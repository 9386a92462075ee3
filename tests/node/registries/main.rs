//! What CRI-O's adapter writes, judged by the containers/image library itself and not by our idea of it.
//!
//! Over thousands of generated sets of files: whatever the library makes of a reference with our drop-in is our mirror followed by
//! exactly what it made of it without, and where that was nothing or elsewhere, exactly what it was. `LARDER_IMAGE_LIBRARIES` names the
//! lines of the library; `cargo xtask test` sets it.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod files;
mod library;
mod node;
mod signatures;

use std::cell::RefCell;

use files::{FileSet, REFERENCES};
use larder_test_parts::LibraryLine;
use library::{Answer, Library, Resolution};
use node::{MIRROR, Node};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};

/// Cases for each line of the library.
const CASES: u32 = 3000;

fn lines() -> Vec<LibraryLine> {
    let lines = std::env::var("LARDER_IMAGE_LIBRARIES").unwrap_or_else(|_| "5.27,5.35".to_owned());
    let words = lines.split(',').filter(|line| !line.is_empty());
    words.map(|line| line.parse().unwrap_or_else(|error| panic!("LARDER_IMAGE_LIBRARIES: {error}"))).collect()
}

/// Since 5.42 the library reads no first version of the format.
fn reads_first_version(line: LibraryLine) -> bool {
    line < LibraryLine::V5_42
}

/// How often the generated sets came to what matters.
#[derive(Debug, Default)]
struct Seen {
    malformed: u32,
    /// Asked through us.
    ours: u32,
    /// The same, and somebody's mirrors after us.
    before_mirrors: u32,
    /// The same, by an entry for less than a whole registry.
    narrower: u32,
    blocked: u32,
    not_ours: u32,
}

impl Seen {
    fn count(&mut self, was: &Resolution, is: &Resolution) {
        let is_ours = is.sources.len() > was.sources.len();
        self.ours += u32::from(is_ours);
        self.before_mirrors += u32::from(is_ours && was.sources.len() > 1);
        self.narrower += u32::from(is_ours && is.prefix.contains('/'));
        self.blocked += u32::from(was.blocked);
        self.not_ours += u32::from(!is_ours && !was.blocked);
    }
}

/// What our planner and the library say of one set of files has to agree.
fn agree(library: &mut Library, set: &FileSet, seen: &mut Seen) -> TestCaseResult {
    let node = Node::with(set);
    let references: Vec<String> = REFERENCES.iter().map(|reference| (*reference).to_owned()).collect();
    let before = library.ask(&node.main(), &node.directory(), &references);
    let proposal = node.plan(set);
    let cannot = proposal.report.readiness != larder_node_agent::engine::Readiness::Ready;
    prop_assert_eq!(
        before.error.is_some(),
        cannot,
        "the library says {:?}, and we say {}",
        before.error,
        proposal.report.reason
    );
    if cannot {
        seen.malformed += 1;
        prop_assert!(proposal.plan.is_empty(), "something is planned beside a malformed file");
        return Ok(());
    }
    node.apply(&proposal.plan);
    let after = library.ask(&node.main(), &node.directory(), &references);
    prop_assert_eq!(&after.error, &None, "the library refuses what we wrote");
    prop_assert_eq!(&after.unqualified, &before.unqualified, "names without a host go elsewhere");
    // The last reference is one to our mirror.
    let mirror_is_blocked = before.resolutions.last().is_some_and(|mirror| mirror.blocked);
    for (position, reference) in references.iter().enumerate() {
        let (was, is) = (&before.resolutions[position], &after.resolutions[position]);
        seen.count(was, is);
        let verdict = compare(set, reference, was, is, mirror_is_blocked);
        verdict.map_err(|reason| {
            TestCaseError::fail(format!(
                "{reference}: {reason}\nwithout us: {was:#?}\nwith us: {is:#?}\n{}",
                proposal.report
            ))
        })?;
    }
    let again = node.plan(set);
    prop_assert!(again.plan.is_empty(), "a second plan is not empty: {:?}", again.plan);
    node.remove();
    prop_assert_eq!(
        library.ask(&node.main(), &node.directory(), &references),
        before,
        "taking ours away leads elsewhere"
    );
    Ok(())
}

fn compare(
    set: &FileSet,
    reference: &str,
    was: &Resolution,
    is: &Resolution,
    mirror_is_blocked: bool,
) -> Result<(), String> {
    if was.error.is_some() || is.error.is_some() {
        return if was.error == is.error { Ok(()) } else { Err("an error comes or goes".to_owned()) };
    }
    if was.blocked != is.blocked {
        return Err("what was blocked is not, or the other way round".to_owned());
    }
    let host = reference.split('/').next().unwrap_or_default();
    let primary = was.sources.last().ok_or("nothing is asked at all")?;
    // One host has two names, and names of hosts have no case.
    let origin = |reference: &str| reference.to_ascii_lowercase().replace("registry-1.docker.io/", "docker.io/");
    let is_redirected = origin(&primary.reference) != origin(&full(reference)) && !set.has_endpoints(host);
    if is.sources == was.sources {
        // By the settings' endpoints; it gives way to an entry that says other things of the same place.
        if origin(&primary.reference) != origin(&full(reference)) {
            return Ok(());
        }
        let exempt = was.blocked || is_redirected || set.names_us() || wildcard_wins(was, host) || mirror_is_blocked;
        return if exempt || !set.wants(host) { Ok(()) } else { Err("we are not asked".to_owned()) };
    }
    let (first, rest) = is.sources.split_first().ok_or("nothing is asked at all")?;
    let ours = format!("{MIRROR}/{}{}", segment(host), &full(reference)[host.len()..]);
    if first.reference != ours || !first.insecure || first.blocked {
        return Err(format!("the first asked is not {ours}"));
    }
    if rest != was.sources {
        return Err("what is asked after us is not what was asked".to_owned());
    }
    if was.blocked { Err("something that was blocked is asked through us".to_owned()) } else { Ok(()) }
        .and(if is_redirected { Err("something that was redirected is asked through us".to_owned()) } else { Ok(()) })
}

/// As the library writes it: with a tag.
fn full(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

fn segment(host: &str) -> String {
    host.to_ascii_lowercase().replace(':', "__")
}

/// A wildcard counts more than a prefix of the same length.
fn wildcard_wins(was: &Resolution, host: &str) -> bool {
    was.prefix.starts_with("*.") && was.prefix.len() >= host.len()
}

#[test]
fn what_is_resolved_is_ours_and_then_what_was_resolved() {
    for line in lines() {
        let library = RefCell::new(Library::start(line).expect("the library of the line"));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let sets = files::set(reads_first_version(line));
        let seen = RefCell::new(Seen::default());
        let outcome =
            TestRunner::new(config).run(&sets, |set| agree(&mut library.borrow_mut(), &set, &mut seen.borrow_mut()));
        if let Err(error) = outcome {
            panic!("c/image {line}: {error}");
        }
        let seen = seen.into_inner();
        let Seen { malformed, ours, before_mirrors, narrower, blocked, not_ours } = seen;
        let enough = [malformed, ours, before_mirrors, narrower, blocked, not_ours].iter().all(|number| *number > 300);
        assert!(enough, "hardly anything is generated of what matters: {seen:?}");
        println!("c/image {line}: {seen:?}");
    }
}

/// The two things that the library does not let us keep, so that we learn when it does.
#[test]
fn what_cannot_be_kept() {
    for line in lines() {
        let mut library = Library::start(line).expect("the library of the line");
        let set = FileSet::in_use(&["quay.io"]);
        let node = Node::with(&set);
        node.apply(&node.plan(&set).plan);
        // A name that is too long with the mirror before it, and a port that nobody told us of or could expect.
        let long = format!("quay.io/{}/b:1", vec!["a".repeat(77); 3].join("/"));
        for reference in [long, "quay.io:4321/a:1".to_owned()] {
            let Answer { resolutions, .. } =
                library.ask(&node.main(), &node.directory(), std::slice::from_ref(&reference));
            assert!(resolutions[0].error.is_some(), "c/image {line} resolves {reference}");
        }
        let expected = "quay.io:5000/a:1".to_owned();
        let Answer { resolutions, .. } = library.ask(&node.main(), &node.directory(), std::slice::from_ref(&expected));
        assert_eq!(resolutions[0].sources[0].reference, expected, "c/image {line}");
        let told = FileSet::in_use(&["quay.io", "quay.io:4321"]);
        node.apply(&node.plan(&told).plan);
        let Answer { resolutions, .. } = library.ask(&node.main(), &node.directory(), &["quay.io:4321/a:1".to_owned()]);
        assert_eq!(resolutions[0].sources[0].reference, format!("{MIRROR}/quay.io__4321/a:1"), "c/image {line}");
    }
}

/// By which an administrator switches off what a package brought. For us the same is shown on engines, with the root of a node.
#[test]
fn a_link_to_the_null_device_is_an_empty_file() {
    for line in lines() {
        let mut library = Library::start(line).expect("the library of the line");
        let set = FileSet::in_use(&["quay.io"]);
        let node = Node::with(&set);
        node.apply(&node.plan(&set).plan);
        let references = ["quay.io/a:1".to_owned()];
        let before = library.ask(&node.main(), &node.directory(), &references);
        assert_eq!(before.error, None, "c/image {line}");
        std::os::unix::fs::symlink("/dev/null", node.directory().join("50-off.conf")).expect("a link");
        assert_eq!(library.ask(&node.main(), &node.directory(), &references), before, "c/image {line}");
        std::fs::remove_file(node.main()).expect("no file");
        std::os::unix::fs::symlink("/dev/null", node.main()).expect("a link");
        let after = library.ask(&node.main(), &node.directory(), &references);
        assert_eq!((after.error, after.resolutions), (None, before.resolutions), "c/image {line}");
    }
}

/// Why ours is a file: up to 5.32 a link that leads nowhere fails every pull.
#[test]
fn a_link_that_leads_nowhere() {
    for line in lines() {
        let mut library = Library::start(line).expect("the library of the line");
        let node = Node::with(&FileSet::in_use(&[]));
        std::os::unix::fs::symlink("/nowhere/at/all", node.directory().join("zz.conf")).expect("a link");
        let answer = library.ask(&node.main(), &node.directory(), &["quay.io/a:1".to_owned()]);
        assert_eq!(answer.error.is_some(), line < LibraryLine::V5_34, "c/image {line}");
    }
}
