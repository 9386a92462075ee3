//! The values that host calls take and give.

use std::{collections::BTreeMap, ffi::OsString, os::fd::OwnedFd};

use serde::{Deserialize, Serialize};

use super::Checksum;

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket or a pipe, which we never open.
    Other,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Other => "special file",
        })
    }
}

/// Seconds since 1970 (negative before) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// Tells one version of a file from another without reading it: any write, rename or change of mode changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last write to the bytes.
    pub modified: Timestamp,
    /// Last change of bytes, mode, owner or name.
    pub changed: Timestamp,
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky, without the kind.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
    /// Which version of which file it is.
    pub stamp: Stamp,
    /// It is the null device, which whoever opens it takes for an empty file: a link to it is how a file is switched off.
    pub is_null_device: bool,
}

/// User and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A file's bytes and what `stat` said while they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// All of them.
    pub bytes: Vec<u8>,
    /// Of the file, not of a link that led to it.
    pub metadata: Metadata,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The last component only.
    pub name: OsString,
    /// Of the name itself: a link is [`Kind::Link`].
    pub kind: Kind,
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

/// What a file has beside its bytes. `None` leaves it as the kernel made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: Option<Owner>,
    /// Last write.
    pub modified: Option<Timestamp>,
    /// All extended attributes, POSIX ACLs and the `SELinux` label among them.
    #[serde(with = "super::xattrs_as_text")]
    pub xattrs: Option<BTreeMap<OsString, Vec<u8>>>,
}

impl Attributes {
    /// Those of a new file of ours.
    pub fn new(mode: u32) -> Self {
        Self { mode, owner: None, modified: None, xattrs: None }
    }
}

/// Which file, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Which version of which file.
    pub stamp: Stamp,
    /// Of its bytes.
    pub sha256: Checksum,
}

/// What has a name when it is about to be replaced or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing.
    Absent,
    /// Exactly this version of this file or link.
    Is(Stamp),
}

/// Holds a lock until it is dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Lock {
    pub(super) _file: OwnedFd,
}
