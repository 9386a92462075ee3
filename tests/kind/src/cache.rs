//! Folders that are built once, below the cache of the parts.
//!
//! Invariant: a folder with its final name is complete, for it gets that name, by rename, when everything is in it. Its name ends in a key
//! over all that went into it, so nothing old is ever found for something new; the old is removed when the new is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// A hash over everything that a thing is made of.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds an ingredient.
    #[must_use]
    pub fn with(mut self, ingredient: impl AsRef<[u8]>) -> Self {
        let bytes = ingredient.as_ref();
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds the last part of a path, which for a part ends in a key over what it is.
    #[must_use]
    pub fn with_part(self, folder: &Path) -> Self {
        self.with(folder.file_name().unwrap_or_default().as_encoded_bytes())
    }

    /// Adds the content of a file.
    pub fn with_file(self, path: &Path) -> Result<Self> {
        Ok(self.with(fs::read(path).with_context(|| format!("could not read {}", path.display()))?))
    }

    /// Twelve digits: enough to tell a developer's builds apart.
    pub fn finish(self) -> String {
        let mut text = hexadecimal(&self.0.finalize());
        text.truncate(12);
        text
    }
}

/// Bytes as people write a hash.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The folder `NAME-KEY` below `root`, built by `build` when it is not there.
pub fn once(root: &Path, name: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = root.join(format!("{name}-{key}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = root.join(format!(".{name}.unfinished"));
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).with_context(|| format!("could not make {}", unfinished.display()))?;
    build(&unfinished)?;
    for entry in fs::read_dir(root).with_context(|| format!("could not read {}", root.display()))? {
        let entry = entry?;
        let file_name = entry.file_name();
        let other_key = file_name.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('-'));
        if other_key.is_some_and(|key| !key.contains('-')) {
            remove(&entry.path())?;
        }
    }
    fs::rename(&unfinished, &folder).with_context(|| format!("could not move {} to its name", unfinished.display()))?;
    Ok(folder)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_built_once_and_replaces_what_is_older() {
        let root = tempfile::tempdir().unwrap();
        let put = |text: &'static str| move |folder: &Path| Ok(fs::write(folder.join("file"), text)?);
        let first = once(root.path(), "base", "1", put("first")).unwrap();
        assert_eq!(once(root.path(), "base", "1", put("again")).unwrap(), first);
        assert_eq!(fs::read_to_string(first.join("file")).unwrap(), "first");
        let second = once(root.path(), "base", "2", put("second")).unwrap();
        assert!(second.is_dir() && !first.exists());
    }

    #[test]
    fn a_failure_leaves_nothing_under_the_name() {
        let root = tempfile::tempdir().unwrap();
        assert!(once(root.path(), "base", "1", |_| anyhow::bail!("no")).is_err());
        assert!(!root.path().join("base-1").exists());
    }

    #[test]
    fn a_key_is_over_every_ingredient_by_itself() {
        let key = |parts: &[&str]| parts.iter().fold(Key::default(), Key::with).finish();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 12);
    }
}
