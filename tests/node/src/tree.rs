//! A folder's names, bytes, modes, owners and links as a value, to see that nothing was left changed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    mode: u32,
    owner: (u32, u32),
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Folder,
    Link(PathBuf),
    File(Vec<u8>),
    Other,
}

impl Tree {
    /// Reads a folder without following links. A folder that is not there is empty.
    pub fn read(root: &Path) -> Result<Self> {
        let mut nodes = BTreeMap::new();
        if !root.exists() {
            return Ok(Self(nodes));
        }
        for entry in walkdir::WalkDir::new(root) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let content = if metadata.is_symlink() {
                Content::Link(std::fs::read_link(entry.path())?)
            } else if metadata.is_dir() {
                Content::Folder
            } else if metadata.is_file() {
                Content::File(std::fs::read(entry.path())?)
            } else {
                Content::Other
            };
            let path = entry.path().strip_prefix(root)?.to_owned();
            nodes.insert(path, Node { mode: metadata.mode(), owner: (metadata.uid(), metadata.gid()), content });
        }
        Ok(Self(nodes))
    }

    /// The same without these paths.
    #[must_use]
    pub fn without(mut self, paths: &[&str]) -> Self {
        self.0.retain(|path, _| !paths.iter().any(|without| path == Path::new(without)));
        self
    }

    /// Fails with the names of what differs.
    pub fn must_equal(&self, other: &Self) -> Result<()> {
        let paths: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differences: Vec<_> = paths
            .into_iter()
            .map(|path| (path, self.0.get(path), other.0.get(path)))
            .filter(|(_, now, before)| now != before)
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        bail!("trees differ: {differences:#?}")
    }

    /// The links in it, with their targets.
    pub fn links(&self) -> Vec<(&Path, &Path)> {
        self.0
            .iter()
            .filter_map(|(path, node)| match &node.content {
                Content::Link(target) => Some((path.as_path(), target.as_path())),
                _ => None,
            })
            .collect()
    }
}
