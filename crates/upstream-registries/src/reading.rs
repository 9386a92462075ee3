//! How far the reading is, for whoever tells a person.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Where what is known is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownFrom {
    /// The API server has not answered yet, and nobody before this process kept anything.
    Nothing,
    /// A process before this one read it.
    Disk,
    /// The API server.
    ApiServer,
}

impl KnownFrom {
    /// As it is written in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Disk => "disk",
            Self::ApiServer => "api-server",
        }
    }
}

/// Of one process. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reading(Arc<Mutex<(KnownFrom, Option<SystemTime>)>>);

impl Reading {
    /// Nobody was heard yet.
    pub(crate) fn new(from_disk: bool) -> Self {
        let from = if from_disk { KnownFrom::Disk } else { KnownFrom::Nothing };
        Self(Arc::new(Mutex::new((from, None))))
    }

    /// Where what is known is from.
    pub fn known_from(&self) -> KnownFrom {
        self.lock().0
    }

    /// When the API server last said something.
    pub fn at(&self) -> Option<SystemTime> {
        self.lock().1
    }

    /// Whether it ever did: what comes from the disk need not be written there again.
    pub fn has_read(&self) -> bool {
        self.known_from() == KnownFrom::ApiServer
    }

    /// It has just said something.
    pub(crate) fn read(&self) {
        *self.lock() = (KnownFrom::ApiServer, Some(SystemTime::now()));
    }

    fn lock(&self) -> MutexGuard<'_, (KnownFrom, Option<SystemTime>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
