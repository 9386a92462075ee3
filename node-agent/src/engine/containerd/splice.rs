//! Our block inside an administrator's `hosts.toml`: the last resort, for it outlives us until it is cut out.
//!
//! His bytes, line ends, comments and order stay as they are: `toml_edit` says where the first host begins and whether the
//! outcome means what was intended, but never writes. Cutting out is byte for byte, which is checked before anything is
//! proposed: `unsplice(splice(x)) == x`, or splicing is refused.

use std::path::Path;

use toml_edit::Document;

use super::hosts::{self, HostsError};
use crate::engine::version::Version;
use crate::host::Checksum;

const BEGIN: &str = "# BEGIN larder, until `larder-node restore` removes it. sha256:";
const END: &str = "# END larder";
/// On the first line when a line end before it is ours too, because the file had none at its end.
const JOINED: &str = " joined";
const MARK: &str = "\u{feff}";

/// Why there is no block of ours in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// containerd ignores the file, or its release lines disagree about it.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// A block of ours is in it.
    #[error("has our block already")]
    AlreadyThere,
    /// A block of ours is in it that somebody changed.
    #[error("has a block of ours that was edited")]
    Edited,
    /// The host that would be added is there already.
    #[error("names {0} already")]
    Named(String),
    /// What came out would not mean what was there with our mirror first, or could not be undone byte for byte.
    #[error("cannot take our block without changing what it means")]
    Unfaithful,
}

/// The mirror and what it may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'text> {
    /// `http://127.0.0.1:7439`.
    pub mirror: &'text str,
    /// `pull`, and `resolve` where somebody else may resolve too.
    pub capabilities: &'text [&'text str],
}

impl Block<'_> {
    /// The table as it is written into every file.
    pub fn table(&self) -> String {
        let capabilities: Vec<String> = self.capabilities.iter().map(|known| format!("\"{known}\"")).collect();
        format!("[host.\"{}\"]\n  capabilities = [{}]\n", self.mirror, capabilities.join(", "))
    }

    fn render(&self, line_end: &str, joined: bool) -> String {
        let body = self.table().replace('\n', line_end);
        let checksum = Checksum::of(body.as_bytes());
        let (before, flag) = if joined { (line_end, JOINED) } else { ("", "") };
        format!("{before}{BEGIN}{checksum}{flag}{line_end}{body}{END}{line_end}")
    }
}

/// Puts `block` before the first host of the `hosts.toml` in `bytes`, or at its end when it has none.
pub fn splice(bytes: &[u8], block: &Block<'_>, version: Option<Version>) -> Result<Vec<u8>, SpliceError> {
    match find(bytes) {
        Found::Block { .. } => return Err(SpliceError::AlreadyThere),
        Found::Edited => return Err(SpliceError::Edited),
        Found::Nothing => {}
    }
    let anywhere = Path::new("/");
    let before = hosts::parse(bytes, anywhere, version)?;
    if before.endpoints().any(|endpoint| endpoint.url.as_deref() == Some(block.mirror)) {
        return Err(SpliceError::Named(block.mirror.to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| HostsError::NotText)?;
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let (at, joined) = match first_host(text)? {
        Some(at) => (at, false),
        None => (text.len(), !text.is_empty() && !text.ends_with('\n')),
    };
    let (head, tail) = text.split_at_checked(at).ok_or(SpliceError::Unfaithful)?;
    let spliced = [head, &block.render(line_end, joined), tail].concat().into_bytes();

    let mut expected = before;
    expected.hosts.insert(
        0,
        hosts::Endpoint {
            url: Some(block.mirror.to_owned()),
            capabilities: block.capabilities.iter().map(|known| (*known).to_owned()).collect(),
            ..hosts::Endpoint::default()
        },
    );
    let faithful = hosts::parse(&spliced, anywhere, version).is_ok_and(|after| after == expected);
    if faithful && unsplice(&spliced).as_deref() == Some(bytes) { Ok(spliced) } else { Err(SpliceError::Unfaithful) }
}

/// The file without our block; `None` when it holds none that is as we wrote it.
pub fn unsplice(bytes: &[u8]) -> Option<Vec<u8>> {
    match find(bytes) {
        Found::Block { start, end } => Some([bytes.get(..start)?, bytes.get(end..)?].concat()),
        Found::Edited | Found::Nothing => None,
    }
}

/// A block of ours was begun here, but it is not as we wrote it.
pub fn is_edited(bytes: &[u8]) -> bool {
    matches!(find(bytes), Found::Edited)
}

enum Found {
    Nothing,
    Edited,
    Block { start: usize, end: usize },
}

/// The first block that is whole and unedited.
fn find(bytes: &[u8]) -> Found {
    let mut found = Found::Nothing;
    // A byte order mark is no part of the first line.
    let (mark, lines) = match bytes.strip_prefix(MARK.as_bytes()) {
        Some(lines) => (MARK.len(), lines),
        None => (0, bytes),
    };
    let mut at = mark;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(BEGIN.as_bytes()) {
            if let Some((start, end)) = block_at(bytes, at) {
                return Found::Block { start, end };
            }
            found = Found::Edited;
        }
        at += line.len();
    }
    found
}

/// The extent of the block whose first line begins at `begin`.
fn block_at(bytes: &[u8], begin: usize) -> Option<(usize, usize)> {
    let rest = std::str::from_utf8(bytes.get(begin..)?).ok()?;
    let (first, after) = rest.split_once('\n')?;
    let (first, line_end) = match first.strip_suffix('\r') {
        Some(first) => (first, "\r\n"),
        None => (first, "\n"),
    };
    let sum = first.strip_prefix(BEGIN)?;
    let (sum, joined) = match sum.strip_suffix(JOINED) {
        Some(sum) => (sum, true),
        None => (sum, false),
    };
    let last = format!("{END}{line_end}");
    let body = after.get(..after.find(&last)?)?;
    if !body.ends_with('\n') || Checksum::parse(sum)? != Checksum::of(body.as_bytes()) {
        return None;
    }
    let end = begin + (rest.len() - after.len()) + body.len() + last.len();
    // A line that was added below since needs the line end before it.
    let start = if joined && end == bytes.len() { begin.checked_sub(line_end.len())? } else { begin };
    let before = bytes.get(start..begin)?;
    (before.is_empty() || before == line_end.as_bytes()).then_some((start, end))
}

/// Where the line of the first header begins that belongs to `host`.
fn first_host(text: &str) -> Result<Option<usize>, SpliceError> {
    let document = Document::parse(text).map_err(|error| HostsError::Malformed(error.to_string()))?;
    let root = document.as_table();
    let hosts = hosts::sorted_hosts(root)?;
    let own = root.get("host").and_then(toml_edit::Item::as_table);
    let tables = hosts.iter().map(|(_, table)| *table).chain(own);
    let Some(header) = tables.filter_map(first_header).min() else { return Ok(None) };
    let line = text.get(..header).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    // A byte order mark has to stay in front.
    Ok(Some(if line == 0 && text.starts_with(MARK) { MARK.len() } else { line }))
}

/// Where the header of the table, or of the first of its subtables, begins.
fn first_header(table: &toml_edit::Table) -> Option<usize> {
    let own = if table.is_implicit() { None } else { table.span().map(|span| span.start) };
    let below = table.iter().filter_map(|(_, item)| item.as_table()).filter_map(first_header);
    own.into_iter().chain(below).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Block<'static> = Block { mirror: "http://127.0.0.1:7439", capabilities: &["pull", "resolve"] };
    const MODERN: Option<Version> = Some(Version::new(2, 2, 0));
    const OLD: Option<Version> = Some(Version::new(1, 7, 0));

    fn spliced(text: &str) -> String {
        let out = splice(text.as_bytes(), &OURS, OLD).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(unsplice(&out).as_deref(), Some(text.as_bytes()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_goes_before_the_first_host_and_leaves_the_rest() {
        let theirs =
            "server = \"https://a.example\"\n\n# the office\n[host.\"https://a.example\"] # here\n  ca = 'x'\n";
        insta::assert_snapshot!(spliced(theirs), @r#"
        server = "https://a.example"

        # the office
        # BEGIN larder, until `larder-node restore` removes it. sha256:fcce5ed363d14a336589b3059051cc6a90ac134da141f77e39ced27d9697a707
        [host."http://127.0.0.1:7439"]
          capabilities = ["pull", "resolve"]
        # END larder
        [host."https://a.example"] # here
          ca = 'x'
        "#);
    }

    #[test]
    fn line_ends_marks_and_missing_newlines_stay() {
        let crlf = spliced("# c\r\n[host.\"https://a\"]\r\nca=\"x\"");
        assert!(!crlf.replace("\r\n", "").contains('\n'), "{crlf:?}");
        assert!(spliced("\u{feff}[host.\"https://a\"]\n").starts_with("\u{feff}# BEGIN"));
        assert!(spliced("skip_verify = true").starts_with("skip_verify = true\n# BEGIN"));
        spliced("skip_verify = true\r\n# no end");
        let longer = spliced("skip_verify = true") + "# later\n";
        assert_eq!(unsplice(longer.as_bytes()).as_deref(), Some(&b"skip_verify = true\n# later\n"[..]));
        spliced("");
        spliced("[header]\nx = \"1\"\n  [ host . 'https://a' ]\n");
        spliced("[host]\n[host.\"https://a\"]\n");
        spliced("[host.\"https://a\".header]\nx = \"y\"\n[host.\"https://a\"]\n");
        spliced("x = \"\"\"\n[host.\"https://decoy\"]\n\"\"\"\n[host.\"https://a\"]\n");
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        let refused = |text: &str, version| splice(text.as_bytes(), &OURS, version).unwrap_err();
        for text in [
            "host = { \"https://a\" = { ca = \"x\" } }\n",
            "host.\"https://a\".ca = \"x\"\n",
            "[host]\n\"https://a\".ca = \"x\"\n",
            "[host]\n\"https://a\" = { ca = \"x\" }\n",
        ] {
            assert!(matches!(refused(text, MODERN), SpliceError::Hosts(HostsError::Ambiguous(_))), "{text}");
        }
        assert!(matches!(refused("[[host]]\n", MODERN), SpliceError::Hosts(_)));
        assert!(matches!(refused("server = \n", MODERN), SpliceError::Hosts(HostsError::Malformed(_))));
        assert!(matches!(refused("capabilities = [\"referrers\"]\n", OLD), SpliceError::Hosts(HostsError::Refused(_))));
        assert_eq!(refused("[host.\"http://127.0.0.1:7439\"]\n", MODERN), SpliceError::Named(OURS.mirror.to_owned()));
        assert!(matches!(
            refused("\u{feff}[host.\"https://a\"]\n", MODERN),
            SpliceError::Hosts(HostsError::Refused(_))
        ));
        let once = splice(b"", &OURS, MODERN).unwrap();
        assert_eq!(splice(&once, &OURS, MODERN), Err(SpliceError::AlreadyThere));
        let edited = String::from_utf8(once).unwrap().replace("resolve", "push");
        assert!(is_edited(edited.as_bytes()));
        assert_eq!(unsplice(edited.as_bytes()), None);
        assert_eq!(splice(edited.as_bytes(), &OURS, MODERN), Err(SpliceError::Edited));
    }

    /// Files that administrators might write, and some that nobody should.
    fn hosts_files() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("server = \"https://a.example\"".to_owned()),
            Just("# a comment".to_owned()),
            Just(String::new()),
            Just("[header]".to_owned()),
            Just("[host]".to_owned()),
            Just("capabilities = [\"pull\",".to_owned()),
            Just("\"resolve\"]".to_owned()),
            Just("x = '''".to_owned()),
            Just("# BEGIN larder, until `larder-node restore` removes it. sha256:00".to_owned()),
            Just("# END larder".to_owned()),
            "[a-d]{1}".prop_map(|host| format!("[host.\"https://{host}\"]")),
            "[a-d]{1}".prop_map(|host| format!("  [host.\"https://{host}\".header]")),
            "[a-z]{1,3}".prop_map(|key| format!("{key} = \"v\"")),
            ".{0,20}",
        ];
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        (proptest::collection::vec((line, end), 0..12), any::<bool>(), any::<bool>()).prop_map(|(lines, mark, end)| {
            let mut text: String = lines.into_iter().flat_map(|(line, end)| [line, end.to_owned()]).collect();
            if !end {
                text.truncate(text.trim_end().len());
            }
            if mark { format!("\u{feff}{text}") } else { text }
        })
    }

    proptest! {
        #[test]
        fn cutting_out_gives_back_every_byte(text in hosts_files()) {
            if let Ok(out) = splice(text.as_bytes(), &OURS, OLD) {
                prop_assert_eq!(unsplice(&out), Some(text.into_bytes()));
                prop_assert_eq!(splice(&out, &OURS, OLD), Err(SpliceError::AlreadyThere));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = splice(&bytes, &OURS, MODERN);
            let _ = unsplice(&bytes);
        }
    }
}
