//! What is remembered on the node until a reboot about edits that take a restart of the engine: which one is under way, so that an
//! agent that comes after a killed one can take it back, and which one failed, so that an agent that is started again and again, as a
//! Pod is, does not restart the engine again and again.

use crate::node::Node;
use larder_node_agent::engine::RestartEdit;
use larder_node_agent::host::{Attributes, Checksum, Host, HostError, Occupant};
use std::path::{Path, PathBuf};

/// More than was ever written.
const LIMIT: u64 = 64 << 10;

/// The two files, in the node's root.
pub(crate) struct Memory<'a> {
    host: &'a dyn Host,
    /// The checksum of an edit that was begun and has not come to an end.
    begun: PathBuf,
    /// The checksum of the last edit that failed, and why.
    failed: PathBuf,
}

impl<'a> Memory<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        let of_restart = |word| node.file_of_restart(word);
        Self { host: &node.host, begun: of_restart("begun"), failed: of_restart("failed") }
    }

    /// From now on this edit is under way.
    pub(crate) fn begin(&self, edit: &RestartEdit) -> Result<(), HostError> {
        self.write(&self.begun, &Checksum::of(&edit.after).to_string())
    }

    /// Whether an edit is under way: in this process, or in one that was killed.
    pub(crate) fn is_begun(&self) -> bool {
        self.read(&self.begun).is_some()
    }

    /// It came to an end.
    pub(crate) fn end(&self) -> Result<(), HostError> {
        self.remove(&self.begun)
    }

    /// It was rolled back.
    pub(crate) fn end_in_failure(&self, reason: &str) -> Result<(), HostError> {
        if let Some(checksum) = self.read(&self.begun) {
            self.write(&self.failed, &format!("{checksum}\n{reason}\n"))?;
        }
        self.end()
    }

    /// Why this very edit failed before, and how to have it tried again.
    pub(crate) fn reason(&self, edit: &RestartEdit) -> Option<String> {
        let text = self.read(&self.failed)?;
        let (checksum, reason) = text.split_once('\n')?;
        (checksum == Checksum::of(&edit.after).to_string()).then(|| {
            let file = self.failed.display();
            format!("tried and rolled back: {}; remove {file} of the node to try again", reason.trim())
        })
    }

    /// Nothing of it is left.
    pub(crate) fn forget(&self) -> Result<(), HostError> {
        self.end()?;
        self.remove(&self.failed)
    }

    fn read(&self, path: &Path) -> Option<String> {
        String::from_utf8(self.host.read(path, LIMIT).ok()?.bytes).ok()
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), HostError> {
        self.host.write(path, text.as_bytes(), &Attributes::new(0o600), &self.host.occupant(path)?)
    }

    fn remove(&self, path: &Path) -> Result<(), HostError> {
        match self.host.occupant(path)? {
            Occupant::Absent => Ok(()),
            there @ Occupant::Is(_) => self.host.remove(path, &there),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;
    use crate::engine_restart::tests::edit;
    use larder_node_agent::host::RootedHost;

    #[test]
    fn an_edit_that_failed_is_remembered_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let host = RootedHost::open(folder.path()).unwrap();
        let memory = Memory { host: &host, begun: "/begun".into(), failed: "/failed".into() };
        assert_eq!((memory.is_begun(), memory.reason(&edit("a"))), (false, None));
        memory.begin(&edit("a")).unwrap();
        assert!(memory.is_begun());
        memory.end_in_failure("it did not come back").unwrap();
        assert!(!memory.is_begun());
        assert!(memory.reason(&edit("a")).unwrap().contains("it did not come back"));
        assert_eq!(memory.reason(&edit("b")), None);
        // One that succeeds changes nothing of what is known.
        memory.begin(&edit("b")).unwrap();
        memory.end().unwrap();
        assert!(!memory.is_begun() && memory.reason(&edit("a")).is_some());
        memory.begin(&edit("b")).unwrap();
        memory.end_in_failure("nor did this").unwrap();
        assert!(memory.reason(&edit("b")).unwrap().contains("nor did this"));
        memory.forget().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
