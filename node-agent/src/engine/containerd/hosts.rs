//! One `hosts.toml`, read as containerd reads it: which hosts, in which order, and what the registry itself is reached with.
//!
//! What containerd would not take is an error here too, for containerd ignores such a file and so must we. Forms that its
//! release lines read differently (inline or dotted `host` tables) are errors as well: what cannot be read for certain is
//! left alone. `intent` says what a chain means, `render` writes one down again, `splice` adds ours to a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use toml_edit::{Document, Item, Table, Value};

use crate::engine::version::Version;

/// Larger files are not read: the largest real ones have some kilobytes.
pub const MAX_HOSTS_FILE: usize = 1 << 20;

/// A client certificate, and its key where that is another file.
pub type ClientPair = (PathBuf, Option<PathBuf>);

/// One `[host."…"]` table, or the keys at the root, which belong to the registry itself (or to `server`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was written; `None` for the registry itself.
    pub url: Option<String>,
    /// Lower case; empty means all.
    pub capabilities: Vec<String>,
    /// Absolute.
    pub ca: Vec<PathBuf>,
    /// Absolute.
    pub client: Vec<ClientPair>,
    /// Certificates are not checked.
    pub skip_verify: Option<bool>,
    /// Sent with every request; often a password.
    pub header: BTreeMap<String, Vec<String>>,
    /// The path of the URL is the API's root as it is.
    pub override_path: bool,
    /// A Go duration, as it was written.
    pub dial_timeout: Option<String>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, capabilities, ca, client, skip_verify, header, override_path, dial_timeout } = self;
        formatter
            .debug_struct("Endpoint")
            .field("url", url)
            .field("capabilities", capabilities)
            .field("ca", ca)
            .field("client", client)
            .field("skip_verify", skip_verify)
            .field("header", &header.keys().collect::<Vec<_>>())
            .field("override_path", override_path)
            .field("dial_timeout", dial_timeout)
            .finish()
    }
}

impl Endpoint {
    /// It may be asked for `capability` (`pull` or `resolve`).
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.is_empty() || self.capabilities.iter().any(|known| known == capability)
    }
}

/// What a directory tells containerd about a registry: hosts in order, then the registry itself or its `server`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminChain {
    /// `[host]` tables in the order in which they are tried.
    pub hosts: Vec<Endpoint>,
    /// `server` and the keys at the root: tried last.
    pub server: Endpoint,
}

impl AdminChain {
    /// All endpoints, in order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.hosts.iter().chain(std::iter::once(&self.server))
    }
}

/// Why a file means nothing to containerd, or nothing certain to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// Not UTF-8, or larger than any real one.
    #[error("is no text of a reasonable size")]
    NotText,
    /// TOML that does not parse, or a value of the wrong type.
    #[error("does not parse: {0}")]
    Malformed(String),
    /// A value that containerd refuses, and the whole file with it.
    #[error("has a value that this containerd refuses: {0}")]
    Refused(String),
    /// Release lines of containerd disagree about what it means.
    #[error("writes host {0:?} in a form that not every containerd reads (inline or dotted)")]
    Ambiguous(String),
}

fn malformed(what: impl Into<String>) -> HostsError {
    HostsError::Malformed(what.into())
}

/// Reads `bytes` as the `hosts.toml` of the directory `directory`, against which relative paths are resolved.
///
/// `version` decides what is refused: `referrers` before 2.2, a file without any `[host]` in 1.6, a byte order mark from 2.0
/// on. Unknown versions are taken for the strictest.
pub fn parse(bytes: &[u8], directory: &Path, version: Option<Version>) -> Result<AdminChain, HostsError> {
    if bytes.len() > MAX_HOSTS_FILE {
        return Err(HostsError::NotText);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| HostsError::NotText)?;
    let document = Document::parse(text).map_err(|error| malformed(first_line(&error.to_string())))?;
    let root = document.as_table();
    if text.starts_with('\u{feff}') && version.is_none_or(|version| version.major >= 2) {
        return Err(HostsError::Refused("a byte order mark".to_owned()));
    }
    let mut chain = AdminChain { server: endpoint(root, directory, version)?, hosts: Vec::new() };
    chain.server.url = text_of(root, "server")?.filter(|server| !server.is_empty());
    for (name, table) in sorted_hosts(root)? {
        let mut host = endpoint(table, directory, version)?;
        host.url = Some(name.to_owned());
        chain.hosts.push(host);
    }
    if chain.hosts.is_empty() && version.is_none_or(|version| version < Version::new(1, 7, 0)) {
        return Err(HostsError::Refused("no [host] table".to_owned()));
    }
    for endpoint in chain.endpoints() {
        if let Some(timeout) = &endpoint.dial_timeout
            && !is_go_duration(timeout)
        {
            return Err(HostsError::Refused(format!("dial_timeout {timeout:?}")));
        }
        if let Some(url) = &endpoint.url
            && super::intent::Address::parse(url).is_none()
        {
            return Err(HostsError::Refused(format!("host {url:?}")));
        }
    }
    Ok(chain)
}

/// The `[host."…"]` tables by their place in the file (containerd `getSortedHosts`).
pub(super) fn sorted_hosts(root: &Table) -> Result<Vec<(&str, &Table)>, HostsError> {
    let hosts = match root.get("host") {
        None => return Ok(Vec::new()),
        Some(Item::Table(hosts)) if !hosts.is_dotted() => hosts,
        Some(_) => return Err(HostsError::Ambiguous("host".to_owned())),
    };
    let mut found = Vec::new();
    for (name, item) in hosts {
        match item {
            Item::Table(table) if !table.is_dotted() => {
                found.push((first_position(table).unwrap_or(isize::MAX), name, table));
            }
            _ => return Err(HostsError::Ambiguous(name.to_owned())),
        }
    }
    found.sort_by_key(|(position, ..)| *position);
    Ok(found.into_iter().map(|(_, name, table)| (name, table)).collect())
}

/// Where the table, or the first of its subtables, has its header.
fn first_position(table: &Table) -> Option<isize> {
    let own = if table.is_implicit() { None } else { table.position() };
    let below = table.iter().filter_map(|(_, item)| item.as_table()).filter_map(first_position);
    own.into_iter().chain(below).min()
}

fn endpoint(table: &Table, directory: &Path, version: Option<Version>) -> Result<Endpoint, HostsError> {
    let mut capabilities = Vec::new();
    if let Some(value) = get(table, "capabilities") {
        for capability in strings(value, "capabilities")? {
            let capability = capability.to_ascii_lowercase();
            let known = match capability.as_str() {
                "pull" | "resolve" | "push" => true,
                "referrers" => version.is_some_and(|version| version >= Version::new(2, 2, 0)),
                _ => false,
            };
            if !known {
                return Err(HostsError::Refused(format!("capability {capability:?}")));
            }
            capabilities.push(capability);
        }
    }
    let mut header = BTreeMap::new();
    if let Some(item) = get(table, "header") {
        let fields = item.as_table_like().ok_or_else(|| malformed("header is no table"))?;
        for (name, value) in fields.iter() {
            header.insert(name.to_owned(), string_or_strings(value, "header")?);
        }
    }
    Ok(Endpoint {
        url: None,
        capabilities,
        ca: match get(table, "ca") {
            Some(value) => string_or_strings(value, "ca")?.iter().map(|path| absolute(directory, path)).collect(),
            None => Vec::new(),
        },
        client: client_pairs(table, directory)?,
        skip_verify: boolean(table, "skip_verify")?,
        header,
        override_path: boolean(table, "override_path")?.unwrap_or(false),
        dial_timeout: text_of(table, "dial_timeout")?,
    })
}

fn client_pairs(table: &Table, directory: &Path) -> Result<Vec<ClientPair>, HostsError> {
    let Some(item) = get(table, "client") else { return Ok(Vec::new()) };
    if let Some(path) = item.as_str() {
        return Ok(vec![(absolute(directory, path), None)]);
    }
    let mut pairs = Vec::new();
    for entry in item.as_array().ok_or_else(|| malformed("client is neither a path nor a list"))? {
        match entry {
            Value::String(path) => pairs.push((absolute(directory, path.value()), None)),
            Value::Array(pair) => {
                let paths: Vec<&str> = pair.iter().filter_map(Value::as_str).collect();
                let [certificate, key] = paths.as_slice() else {
                    return Err(malformed("client holds a list that is no pair of paths"));
                };
                pairs.push((absolute(directory, certificate), Some(absolute(directory, key))));
            }
            _ => return Err(malformed("client holds something else than paths")),
        }
    }
    Ok(pairs)
}

/// By its exact name, else by a name that differs in case only: containerd's decoder takes both.
fn get<'table>(table: &'table Table, key: &str) -> Option<&'table Item> {
    table.get(key).or_else(|| table.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, item)| item))
}

fn text_of(table: &Table, key: &str) -> Result<Option<String>, HostsError> {
    match get(table, key) {
        None => Ok(None),
        Some(item) => {
            item.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| malformed(format!("{key} is no text")))
        }
    }
}

fn boolean(table: &Table, key: &str) -> Result<Option<bool>, HostsError> {
    match get(table, key) {
        None => Ok(None),
        Some(item) => item.as_bool().map(Some).ok_or_else(|| malformed(format!("{key} is neither true nor false"))),
    }
}

fn strings(item: &Item, key: &str) -> Result<Vec<String>, HostsError> {
    item.as_array()
        .and_then(|list| list.iter().map(|value| value.as_str().map(str::to_owned)).collect())
        .ok_or_else(|| malformed(format!("{key} is no list of texts")))
}

fn string_or_strings(item: &Item, key: &str) -> Result<Vec<String>, HostsError> {
    match item.as_str() {
        Some(text) => Ok(vec![text.to_owned()]),
        None => strings(item, key),
    }
}

/// What Go's `time.ParseDuration` takes: `1m30s`, `1.5h`, `-2us`, `0`; the empty text means that none was set.
fn is_go_duration(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text.is_empty() || text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.len()
            - rest.trim_start_matches(|character: char| character.is_ascii_digit() || character == '.').len();
        let (digits, after) = rest.split_at(number);
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let unit = units.into_iter().filter(|unit| after.starts_with(unit)).max_by_key(|unit| unit.len());
        let Some(unit) =
            unit.filter(|_| digits.contains(|c: char| c.is_ascii_digit()) && digits.matches('.').count() < 2)
        else {
            return false;
        };
        rest = after.strip_prefix(unit).unwrap_or_default();
    }
    true
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// `path` below `directory` unless it is absolute, without `.` and `..` (Go `filepath.Join`).
pub fn absolute(directory: &Path, path: &str) -> PathBuf {
    if Path::new(path).is_absolute() {
        return PathBuf::from(path);
    }
    let mut clean = PathBuf::new();
    for component in directory.join(path).components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Option<Version> = Some(Version::new(2, 2, 0));

    fn read(text: &str, version: Option<Version>) -> Result<AdminChain, HostsError> {
        parse(text.as_bytes(), Path::new("/certs.d/reg"), version)
    }

    fn order(text: &str) -> Vec<String> {
        read(text, NOW).unwrap().hosts.into_iter().filter_map(|host| host.url).collect()
    }

    #[test]
    fn hosts_are_tried_in_the_order_of_their_headers() {
        let text =
            "[host.'https://b'.header]\nx='y'\n[host.'https://a']\n[header]\nq='r'\n[host.'https://b']\nca='x'\n";
        assert_eq!(order(text), ["https://b", "https://a"]);
        assert_eq!(order("server='https://s'\n[host]\n[host.'z']\n[host.'y']\n"), ["z", "y"]);
    }

    #[test]
    fn what_a_release_line_refuses_is_refused_whole() {
        let referrers = "[host.'https://a']\ncapabilities=['pull', 'Resolve', 'referrers']\n";
        assert!(read(referrers, NOW).is_ok());
        assert!(matches!(read(referrers, Some(Version::new(2, 1, 9))), Err(HostsError::Refused(_))));
        assert!(matches!(read(referrers, None), Err(HostsError::Refused(_))));
        let bare = "server='https://a'\n";
        assert!(read(bare, Some(Version::new(1, 7, 0))).is_ok());
        assert!(matches!(read(bare, Some(Version::new(1, 6, 38))), Err(HostsError::Refused(_))));
        for text in ["dial_timeout='soon'", "server='https://a:port'", "[host.'https://a b']"] {
            assert!(matches!(read(text, NOW), Err(HostsError::Refused(_))), "{text}");
        }
        for text in
            ["ca=1", "client=[['a']]", "client=[1]", "skip_verify='yes'", "header=1", "capabilities='pull'", "server=1"]
        {
            assert!(matches!(read(text, NOW), Err(HostsError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn keys_count_in_any_case_and_unknown_ones_do_not() {
        let chain = read("Server='https://a'\nSkip_Verify=true\nfuture=1\n", NOW).unwrap();
        assert_eq!(chain.server.url.as_deref(), Some("https://a"));
        assert_eq!(chain.server.skip_verify, Some(true));
    }

    #[test]
    fn relative_paths_start_at_the_directory() {
        let chain = read("ca=['a.pem', '../b.pem', '/c.pem']\nclient='both.pem'\n", NOW).unwrap();
        assert_eq!(chain.server.ca, ["/certs.d/reg/a.pem", "/certs.d/b.pem", "/c.pem"].map(PathBuf::from));
        assert_eq!(chain.server.client, [(PathBuf::from("/certs.d/reg/both.pem"), None)]);
    }

    #[test]
    fn durations_are_those_of_go() {
        for good in ["30s", "1m30s", "1.5h", ".5s", "0", "-2us", "", "100ms", "1µs"] {
            assert!(is_go_duration(good), "{good}");
        }
        for bad in ["30", "s", "1 s", "1x", "1..5s", ".s"] {
            assert!(!is_go_duration(bad), "{bad}");
        }
    }

    #[test]
    fn passwords_in_headers_are_not_shown() {
        let chain = read("[header]\nauthorization='Basic c2VjcmV0'\n", NOW).unwrap();
        let shown = format!("{chain:?}");
        assert!(shown.contains("authorization") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}
