//! Files that people and other programs write for us: tokens, certificates. Read whole, or refused with a reason.
//!
//! One that is cut would be worse than none: half of a bundle of certificates distrusts whom its other half vouches for.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The largest such file, in bytes.
const LARGEST: u64 = 1 << 20;

/// All of it. Blocks, but for a pipe, which somebody may never fill: that is no file.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB: is it the right file?"));
    }
    Ok(bytes)
}

/// The same of a text.
pub fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_all_of_a_small_file_or_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let said = |path: &Path| read_text(path).map(|text| text.len()).map_err(|error| error.to_string());
        assert!(said(&path).unwrap_err().starts_with("No such file"));
        for (bytes, expected) in [
            (vec![b'a'; 1 << 20], Ok(1 << 20)),
            (vec![b'a'; (1 << 20) + 1], Err("it is larger than 1 MiB: is it the right file?".to_owned())),
            (vec![0xff], Err("it is no text".to_owned())),
            (Vec::new(), Ok(0)),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(said(&path), expected);
        }
        let no_file = Err("it is no regular file".to_owned());
        assert_eq!(said(folder.path()), no_file);
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(said(&pipe), no_file, "and nobody waits for who may write to it");
    }
}
