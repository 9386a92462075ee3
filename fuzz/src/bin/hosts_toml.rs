//! An administrator's `hosts.toml`: reading never panics, and our block in it can be cut out byte for byte and changes nothing else.
//!
//! The input: a byte that chooses containerd's version and what our mirror may be asked for, then the file.

#![no_main]

use std::path::Path;

use larder_node_agent::engine::containerd::Version;
use larder_node_agent::engine::containerd::hosts::{self, Endpoint};
use larder_node_agent::engine::containerd::splice::{Block, SpliceError, is_edited, splice, unsplice};
use libfuzzer_sys::fuzz_target;

const MIRROR: &str = "http://127.0.0.1:7439";

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, file)) = bytes.split_first() else {
        return;
    };
    // The line that is strictest, and those between which the rules changed; a digit chooses in files that people write.
    let versions = [
        None,
        Some(Version::new(1, 6, 38)),
        Some(Version::new(1, 7, 0)),
        Some(Version::new(2, 1, 9)),
        Some(Version::new(2, 4, 0)),
    ];
    let version = versions[usize::from(choice.wrapping_sub(b'0')) % versions.len()];
    let capabilities: &[&str] = if *choice < b'5' { &["pull", "resolve"] } else { &["pull"] };
    read(file, version);
    cut(file);
    put(file, &Block { mirror: MIRROR, capabilities }, version);
});

fn read(file: &[u8], version: Option<Version>) {
    let Ok(chain) = hosts::parse(file, Path::new("/etc/containerd/certs.d/a.example"), version) else {
        return;
    };
    for endpoint in chain.endpoints() {
        let client = endpoint.client.iter().flat_map(|(certificate, key)| [Some(certificate), key.as_ref()]).flatten();
        assert!(endpoint.ca.iter().chain(client).all(|path| path.is_absolute()), "{endpoint:?}");
        assert!(endpoint.capabilities.iter().all(|name| *name == name.to_ascii_lowercase()), "{endpoint:?}");
    }
}

/// Whatever is cut out of a file was one piece of it, and one that names us.
fn cut(file: &[u8]) {
    let Some(rest) = unsplice(file) else { return };
    let head = rest.iter().zip(file).take_while(|(left, right)| left == right).count();
    let tail = rest.iter().rev().zip(file.iter().rev()).take_while(|(left, right)| left == right).count();
    assert!(rest.len() < file.len() && head + tail >= rest.len(), "what is left is not what was around the block");
}

fn put(file: &[u8], block: &Block<'_>, version: Option<Version>) {
    let here = Path::new("/");
    let Ok(spliced) = splice(file, block, version) else {
        return;
    };
    assert_eq!(unsplice(&spliced).as_deref(), Some(file), "not undone byte for byte");
    assert!(!is_edited(&spliced));
    assert_eq!(splice(&spliced, block, version), Err(SpliceError::AlreadyThere));
    edit(&spliced, block);
    append(&spliced, file);

    let mut expected = hosts::parse(file, here, version).expect("what was spliced was read");
    let ours = Endpoint {
        url: Some(MIRROR.to_owned()),
        capabilities: block.capabilities.iter().map(ToString::to_string).collect(),
        ..Endpoint::default()
    };
    expected.hosts.insert(0, ours);
    assert_eq!(hosts::parse(&spliced, here, version), Ok(expected), "it means something else now");
}

/// An administrator who edits our block keeps his edit.
fn edit(spliced: &[u8], block: &Block<'_>) {
    let text = str::from_utf8(spliced).expect("what was spliced is text");
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let table = block.table().replace('\n', line_end);
    // His file may quote the table in a text of its own; then the first is not ours.
    if text.matches(&table).count() == 1 {
        let edited = text.replace(&table, &table.replace("pull", "push"));
        assert!(unsplice(edited.as_bytes()).is_none() && is_edited(edited.as_bytes()), "an edit would be lost");
    }
}

/// What an administrator adds at the end stays a line of its own when our block goes.
fn append(spliced: &[u8], file: &[u8]) {
    let later = b"# later\n".as_slice();
    let whole = file.is_empty() || file.ends_with(b"\n");
    let line_end: &[u8] = match spliced {
        // The block is not last: it is his own last line that he goes on with.
        _ if whole || !spliced.ends_with(b"\n") => b"",
        [.., b'\r', b'\n'] => b"\r\n",
        _ => b"\n",
    };
    assert_eq!(unsplice(&[spliced, later].concat()), Some([file, line_end, later].concat()), "lines run together");
}
