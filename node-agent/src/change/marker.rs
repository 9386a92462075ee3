//! The first line of every file that is ours as a whole: who wrote it, and the checksum of the rest.
//!
//! With it a file is known to be ours, and unedited, also when the journal is lost. A block inside an administrator's
//! file has marks of its own, which belong to the engine's adapter.

use crate::host::Checksum;

const BEGIN: &str = "# Written by Larder; `larder-node restore` removes it. sha256:";

/// Whose file it is, by its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Not ours.
    Foreign,
    /// Ours, as we wrote it.
    Ours,
    /// Ours, and edited by someone since.
    Edited,
}

/// The file with the marker as its first line. For formats in which `#` begins a comment (TOML, YAML).
pub fn sealed(body: &str) -> Vec<u8> {
    format!("{BEGIN}{}\n{body}", Checksum::of(body.as_bytes())).into_bytes()
}

/// Whose file this is.
pub fn ownership(bytes: &[u8]) -> Ownership {
    let Some(rest) = bytes.strip_prefix(BEGIN.as_bytes()) else { return Ownership::Foreign };
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let checksum = parts.next().and_then(|line| std::str::from_utf8(line).ok()).and_then(Checksum::parse);
    let body = parts.next();
    match (checksum, body) {
        (Some(checksum), Some(body)) if Checksum::of(body) == checksum => Ownership::Ours,
        _ => Ownership::Edited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_is_ours_until_a_byte_changes() {
        let sealed = sealed("[host]\n");
        assert_eq!(ownership(&sealed), Ownership::Ours);
        for position in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[position] ^= 1;
            assert_ne!(ownership(&edited), Ownership::Ours, "byte {position}");
        }
        assert_eq!(ownership(&sealed[..sealed.len() - 1]), Ownership::Edited);
        assert_eq!(ownership(b"[host]\n"), Ownership::Foreign);
        assert_eq!(ownership(b""), Ownership::Foreign);
    }
}
