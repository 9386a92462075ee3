//! What the readers of a blob that is being fetched share.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::progress::Progress;
use crate::store::Name;

/// A blob on its way into the store. Its readers outlive its entry in the list of assemblies; its file outlives eviction.
#[derive(Debug)]
pub(super) struct Assembly {
    /// The repository that it is fetched from.
    pub(super) name: Name,
    /// Written by the course and its threads only.
    pub(super) progress: watch::Sender<Progress>,
    /// There before the progress says that anything was written.
    pub(super) file: OnceLock<Arc<File>>,
    readers: watch::Sender<usize>,
    /// Repositories of which the origin said, with bytes or with a 200 to a HEAD, that they have this blob.
    proven: Mutex<HashSet<Name>>,
}

impl Assembly {
    pub(super) fn new(name: Name) -> Arc<Self> {
        Arc::new(Self {
            progress: watch::Sender::new(Progress::starting()),
            file: OnceLock::new(),
            readers: watch::Sender::new(0),
            proven: Mutex::new(HashSet::from([name.clone()])),
            name,
        })
    }

    pub(super) fn is_proven(&self, name: &Name) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    pub(super) fn prove(&self, name: &Name) {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
    }

    /// All repositories through which it is, or was, delivered.
    pub(super) fn proven(&self) -> Vec<Name> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Somebody waits for it, until the presence is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Presence {
        self.readers.send_modify(|readers| *readers += 1);
        Presence { assembly: Arc::clone(self) }
    }

    pub(super) fn readers(&self) -> watch::Receiver<usize> {
        self.readers.subscribe()
    }
}

/// One who waits for, or reads, an assembly.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) assembly: Arc<Assembly>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.assembly.readers.send_modify(|readers| *readers = readers.saturating_sub(1));
    }
}
