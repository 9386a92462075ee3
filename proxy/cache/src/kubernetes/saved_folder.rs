//! The folder of `--saved-keys`: what is there of Kubernetes while Kubernetes is not.
//!
//! Invariant: a file is there in full or as it was before, and only our user reads it.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use larder_proxy::small_file;
use zeroize::Zeroizing;

/// A folder of our own.
#[derive(Debug, Clone)]
pub(crate) struct SavedFolder(PathBuf);

impl SavedFolder {
    /// What is in it can be read, and is worth as much where nothing can be written.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether it can be written: better known now than in a day without the API server. Blocks.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.make()?;
        tempfile::NamedTempFile::new_in(&self.0).map(drop)
    }

    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if !self.0.is_dir() => Err(error),
            _ => Ok(()),
        }
    }

    /// The text of a file; `None` if there is none. Blocks.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Zeroizing<String>>> {
        match small_file::read_text(&self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a file that is no secret and may be as large as that; `None` if there is none. Blocks.
    pub(crate) fn read_large(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Replaces a file; what was written is there after a power cut, too. Blocks.
    pub(crate) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        self.make()?;
        // 0600, whatever the umask.
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.path(name)).map_err(|error| error.error)?;
        File::open(&self.0)?.sync_all()
    }

    /// Removes a file, if it is there. Blocks.
    #[cfg(test)]
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Where a file is, for what is said of it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        let saved = SavedFolder::new(&path);
        saved.check().unwrap();
        assert!(saved.read("keys").unwrap().is_none() && saved.read_large("keys", 3).unwrap().is_none());
        saved.write("keys", "one").unwrap();
        SavedFolder::new(&path).write("keys", "two").unwrap();
        assert_eq!(saved.read("keys").unwrap().unwrap().as_str(), "two");
        assert_eq!(saved.read_large("keys", 3).unwrap().unwrap(), b"two");
        assert_eq!(saved.read_large("keys", 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&saved.path("keys"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing is left of writing");
        let nowhere = SavedFolder::new(&folder.path().join("no/such"));
        for error in [nowhere.check(), nowhere.write("keys", "one")] {
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
