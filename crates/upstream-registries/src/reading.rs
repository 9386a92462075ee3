//! How far the reading is, for whoever tells a person.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Where what is known is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The API server has not answered yet, and nobody before this process kept anything.
    Nothing,
    /// A process before this one read it.
    Disk,
    /// The API server.
    ApiServer,
}

impl Source {
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
pub struct Reading(Arc<Mutex<(Source, Option<SystemTime>)>>);

impl Reading {
    /// Nobody was heard yet.
    pub(crate) fn new(from_disk: bool) -> Self {
        let source = if from_disk { Source::Disk } else { Source::Nothing };
        Self(Arc::new(Mutex::new((source, None))))
    }

    /// Where what is known is from.
    pub fn source(&self) -> Source {
        self.lock().0
    }

    /// When the API server last said something.
    pub fn at(&self) -> Option<SystemTime> {
        self.lock().1
    }

    /// Whether it ever did: what comes from the disk need not be written there again.
    pub fn has_read(&self) -> bool {
        self.source() == Source::ApiServer
    }

    /// It has just said something.
    pub(crate) fn read(&self) {
        *self.lock() = (Source::ApiServer, Some(SystemTime::now()));
    }

    fn lock(&self) -> MutexGuard<'_, (Source, Option<SystemTime>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
