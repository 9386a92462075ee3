//! Sets of configuration files as administrators, distributions and people who mean no good write them.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Registries with a dot, a port, one letter, upper case, an address; and what mirrors are called.
const HOSTS: [&str; 12] = [
    "docker.io",
    "quay.io",
    "a.example",
    "a.example:5000",
    "reg.example",
    "b.reg.example",
    "REG.example",
    "localhost:5000",
    "10.0.0.1",
    "10.0.0.1:5000",
    "xn--p-1ga.example",
    "mirror.corp:8443",
];
const PATHS: [&str; 8] = ["", "", "", "/", "/library", "/library/nginx", "/ns/sub//", "/Upper"];
const ODD: [&str; 12] = [
    "*.example",
    "*.reg.example",
    "*.io",
    "*.example/x",
    "*.",
    "127.0.0.1:7439",
    "127.0.0.1",
    "localhost:7439/quay.io",
    "[::1]:5000",
    "https://quay.io",
    "registry-1.docker.io",
    "a.example:5000:1",
];
const SEARCH: [&str; 6] = ["docker.io", "quay.io/", "a.example:5000", "search.example", "bad_host.example", "x/y"];

/// What is looked up in each set.
pub(crate) const REFERENCES: [&str; 26] = [
    "docker.io/library/nginx",
    "docker.io/library/nginx:1.25",
    "docker.io/library/redis@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "docker.io/ns/sub/x:1",
    "quay.io/ns/sub/x:1",
    "quay.io/library/nginx:1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "quay.io/nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a.example/library/nginx:1",
    "a.example/ns/sub:1",
    "a.example:5000/library/nginx:1",
    "a.example:5000/x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "reg.example/library:1",
    "reg.example/librarynginx:1",
    "b.reg.example/x:1",
    "b.reg.example/library/nginx/y:1",
    "c.reg.example/x:1",
    "REG.example/library/x:1",
    "localhost:5000/library/x:1",
    "10.0.0.1/x:1",
    "10.0.0.1:5000/ns/sub/x:1",
    "xn--p-1ga.example/x:1",
    "mirror.corp:8443/library/nginx:1",
    "mirror.corp:8443/quay.io/x:1",
    "other.example/x:1",
    "search.example/x:1",
    "127.0.0.1:7439/docker.io/library/nginx:1",
];

/// The files of a node, and the registries that images of it come from.
#[derive(Clone)]
pub(crate) struct FileSet {
    pub(crate) main: String,
    pub(crate) drop_ins: Vec<(&'static str, String)>,
    pub(crate) in_use: Vec<&'static str>,
    /// Registries for which the settings name endpoints.
    pub(crate) endpoints: Vec<&'static str>,
}

impl FileSet {
    /// No files.
    pub(crate) fn in_use(registries: &[&'static str]) -> Self {
        Self { main: String::new(), drop_ins: Vec::new(), in_use: registries.to_vec(), endpoints: Vec::new() }
    }

    /// Whether the engine has to be told of this host. One in upper case is another prefix to the library.
    pub(crate) fn wants(&self, host: &str) -> bool {
        (self.in_use.contains(&host) || self.endpoints.contains(&host)) && host == host.to_ascii_lowercase()
    }

    /// Whether what was redirected may be asked through us.
    pub(crate) fn has_endpoints(&self, host: &str) -> bool {
        self.endpoints.contains(&host.to_ascii_lowercase().as_str())
    }
}

impl FileSet {
    /// Whether somebody else's hand wrote of our mirror: such an entry is left alone.
    pub(crate) fn names_us(&self) -> bool {
        self.drop_ins.iter().map(|(_, text)| text).chain([&self.main]).any(|text| text.contains(":7439"))
    }
}

/// As files, to be tried by hand.
impl std::fmt::Debug for FileSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "\nin use: {:?}\nendpoints: {:?}", self.in_use, self.endpoints)?;
        writeln!(formatter, "--- registries.conf\n{}", self.main)?;
        self.drop_ins.iter().try_for_each(|(name, text)| writeln!(formatter, "--- registries.conf.d/{name}\n{text}"))
    }
}

fn name() -> impl Strategy<Value = String> {
    let usual = (select(&HOSTS[..]), select(&PATHS[..])).prop_map(|(host, path)| format!("{host}{path}"));
    prop_oneof![20 => usual, 2 => select(&ODD[..]).prop_map(str::to_owned)]
}

/// Mostly no, because what conflicts is malformed and stops a set there.
fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.12)
}

fn pull_from_mirror() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just(""), 3 => Just("all"), 3 => Just("digest-only"), 3 => Just("tag-only"), 1 => Just("never")]
}

/// A key in the case that the documentation has, or another that is read just the same.
fn key(odd: bool, key: &str) -> String {
    if odd { key.to_ascii_uppercase() } else { key.to_owned() }
}

fn mirror() -> impl Strategy<Value = String> {
    (name(), rarely(), pull_from_mirror(), rarely()).prop_map(|(location, insecure, from, odd)| {
        let mut text = format!("[[registry.mirror]]\n{} = {location:?}\n", key(odd, "location"));
        if insecure {
            text.push_str("insecure = true\n");
        }
        if !from.is_empty() {
            let _ = writeln!(text, "pull-from-mirror = {from:?}");
        }
        text
    })
}

#[derive(Debug, Clone, Copy)]
enum Where {
    Same,
    NoPrefix,
    NoLocation,
    Elsewhere,
}

fn entry() -> impl Strategy<Value = String> {
    let place = prop_oneof![
        8 => Just(Where::Same),
        8 => Just(Where::NoPrefix),
        1 => Just(Where::NoLocation),
        2 => Just(Where::Elsewhere),
    ];
    let flags = (rarely(), rarely(), rarely(), rarely(), prop::bool::weighted(0.03));
    (name(), name(), place, flags, vec(mirror(), 0..3)).prop_map(|(prefix, other, place, flags, mirrors)| {
        let (insecure, blocked, by_digest, odd, unknown) = flags;
        // A wildcard without a location is what the format has it for.
        let place = if prefix.starts_with("*.") && matches!(place, Where::Same | Where::NoPrefix) {
            Where::NoLocation
        } else {
            place
        };
        let mut text = "[[registry]]\n".to_owned();
        if !matches!(place, Where::NoPrefix) {
            let _ = writeln!(text, "{} = {prefix:?}", key(odd, "prefix"));
        }
        match place {
            Where::Same | Where::NoPrefix => drop(writeln!(text, "{} = {prefix:?}", key(odd, "location"))),
            Where::Elsewhere => drop(writeln!(text, "location = {other:?}")),
            Where::NoLocation => {}
        }
        for (set, line) in [
            (insecure, "insecure = true\n"),
            (blocked, "blocked = true\n"),
            (by_digest, "mirror-by-digest-only = true\n"),
            (unknown, "some-new-key = { a = ['x'] }\n"),
        ] {
            if set {
                text.push_str(line);
            }
        }
        // Old releases fail on a mirror that ends with a slash, where newer ones take it off. It stays as it is in an entry of the same
        // prefix, and not in one that is made of it for a narrower prefix, as hosts with a port and wildcards have.
        let plain = ["docker.io", "quay.io/"].iter().any(|name| prefix.starts_with(name));
        text + &if plain { mirrors.concat() } else { mirrors.concat().replace("/\"\n", "\"\n") }
    })
}

/// What stands before the entries of a file.
fn head() -> impl Strategy<Value = String> {
    let search =
        vec(select(&SEARCH[..4]), 0..3).prop_map(|names| format!("unqualified-search-registries = {names:?}\n"));
    let odd_search =
        vec(select(&SEARCH[..]), 1..3).prop_map(|names| format!("unqualified-search-registries = {names:?}\n"));
    let other = select(
        &[
            "short-name-mode = \"enforcing\"\n",
            "credential-helpers = []\n",
            "unknown = 1\n",
            "short-name-mode = \"never\"\n",
            "aliases = { 'x' = 'docker.io/library/x', 'y/z' = '' }\n",
            "aliases = { 'quay.io/x' = 'docker.io/library/x' }\n",
            "aliases = { 'x' = 'library/x' }\n",
            "registry = 1\n",
            "broken = \n",
        ][..],
    );
    prop_oneof![24 => Just(String::new()), 8 => search, 1 => odd_search, 2 => other.prop_map(str::to_owned)]
}

fn second_version() -> impl Strategy<Value = String> {
    (head(), vec(entry(), 0..4)).prop_map(|(head, entries)| head + &entries.concat())
}

fn first_version() -> impl Strategy<Value = String> {
    let list = |of: &'static [&'static str]| vec(select(of), 0..3);
    let names = (list(&SEARCH[..4]), vec(name(), 0..3), vec(name(), 0..2), head());
    names.prop_map(|(search, insecure, block, head)| {
        format!(
            "{head}[registries.search]\nregistries = {search:?}\n[registries.insecure]\nregistries = {insecure:?}\n\
             [registries.block]\nregistries = {block:?}\n"
        )
    })
}

fn drop_ins() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let names = select(
        &["000-shortnames.conf", "01-x.conf", "zy.conf", "zz-mine.conf", "~last.conf", "ignored.txt", ".conf"][..],
    );
    vec((names, second_version()), 0..4).prop_map(|mut files| {
        files.sort();
        files.dedup_by_key(|(name, _)| *name);
        files
    })
}

/// Any set; with `first` also such with the first version of the format.
pub(crate) fn set(first: bool) -> impl Strategy<Value = FileSet> {
    let main = prop_oneof![8 => second_version().boxed(), u32::from(first) => first_version().boxed()];
    // Every host with a port is known, as it is when an image was pulled from it: `what_cannot_be_kept` is about others.
    let ported: Vec<&str> = HOSTS.iter().copied().filter(|host| host.contains(':')).collect();
    let others = vec(
        select(&["docker.io", "quay.io", "a.example", "reg.example", "b.reg.example", "10.0.0.1", "other.example"][..]),
        0..5,
    );
    let endpoints = vec(select(&["quay.io", "reg.example", "a.example:5000", "other.example"][..]), 0..2);
    (main, drop_ins(), others, endpoints).prop_map(move |(main, drop_ins, mut in_use, endpoints)| {
        in_use.extend(ported.iter().copied());
        FileSet { main, drop_ins, in_use, endpoints }
    })
}
