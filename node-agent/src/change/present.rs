//! What a name holds at this moment, read once, so that all decisions about it are about the same thing.

use std::path::{Path, PathBuf};

use super::Expected;
use crate::host::{Attributes, Host, HostError, Kind, Metadata, Occupant, Result};

/// More than any configuration file of an engine has.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

/// What is there, with all that it takes to put it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Present {
    Absent,
    Link { target: PathBuf, metadata: Metadata },
    File { bytes: Vec<u8>, attributes: Attributes, metadata: Metadata },
    Directory,
    Other,
}

impl Present {
    pub(super) fn look(host: &dyn Host, path: &Path) -> Result<Self> {
        let metadata = match host.link_metadata(path) {
            Err(HostError::NotFound { .. }) => return Ok(Self::Absent),
            other => other?,
        };
        Ok(match metadata.kind {
            Kind::Link => Self::Link { target: host.read_link(path)?, metadata },
            Kind::Directory => Self::Directory,
            Kind::Other => Self::Other,
            Kind::File => {
                let contents = host.read(path, LARGEST_FILE)?;
                let attributes = host.attributes(path)?;
                if host.link_metadata(path)?.stamp != contents.metadata.stamp {
                    return Err(HostError::Changed { path: path.to_owned() });
                }
                Self::File { bytes: contents.bytes, attributes, metadata: contents.metadata }
            }
        })
    }

    pub(super) fn is(&self, expected: &Expected) -> bool {
        self.expected().as_ref() == Some(expected)
    }

    /// In the words of a plan; a device or socket has none.
    pub(super) fn expected(&self) -> Option<Expected> {
        match self {
            Self::Absent => Some(Expected::Absent),
            Self::Link { target, .. } => Some(Expected::Link { target: target.clone() }),
            Self::File { bytes, .. } => Some(Expected::file(bytes)),
            Self::Directory => Some(Expected::Directory),
            Self::Other => None,
        }
    }

    /// To be named when it is replaced; a directory or device never is.
    pub(super) fn occupant(&self) -> Occupant {
        match self {
            Self::Link { metadata, .. } | Self::File { metadata, .. } => Occupant::Is(metadata.stamp),
            Self::Absent | Self::Directory | Self::Other => Occupant::Absent,
        }
    }
}
