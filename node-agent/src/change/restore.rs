//! Back to what was found, from the journal alone: no network, no engine.
//!
//! Each path on its own, deepest first: what is as we left it goes back byte for byte; what someone changed since is his,
//! and only our block is taken out of it. A kill in between is followed by another restore, which finds the paths that
//! are done and goes on; so is what could not be changed, which keeps nothing else from going back.

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Change, ChangeError, Conflict, Expected, Plan, Reason, Unsplice, Wanted,
    journal::{Journal, Original, Record, copy_of},
    present::Present,
    put_back::put_back,
};
use crate::host::{Attributes, Host, HostError, Kind, parent, path_as_text};

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// What is again as it was found, or (a file that was edited since) without our block.
    pub undone: Vec<PathBuf>,
    /// What someone changed since, and what was therefore left as it is. What was there before us is kept for those
    /// with a `backup`.
    pub left: Vec<Conflict>,
    /// What could not be changed. It stays in the journal: doing it again goes on with it.
    pub failed: Vec<Failed>,
}

/// Something that could not be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Where.
    #[serde(with = "path_as_text")]
    pub path: PathBuf,
    /// Why; names the path.
    pub reason: String,
}

/// Undoes everything that the journal in `folder` knows. Doing it again is fine.
pub fn restore(host: &dyn Host, folder: &Path, unsplice: &Unsplice<'_>) -> Result<Restored, ChangeError> {
    if !host.exists(folder)? {
        return Ok(Restored::default());
    }
    let journal = Journal::open(host, folder)?;
    let Some(mut latest) = journal.latest()? else {
        journal.close(None)?;
        return Ok(Restored::default());
    };
    let mut restored = Restored::default();
    let mut records: Vec<Record> = latest.manifest.records.clone();
    records.reverse();
    records.sort_by_key(|record| Reverse(record.path.components().count()));
    let mut unresolved = Vec::new();
    let mut directories = Vec::new();
    for record in records {
        let found = match host.discard(&record.path).and_then(|()| undo(host, &record, unsplice)) {
            Ok(Undo::Nothing) => continue,
            Ok(Undo::Done) => {
                restored.undone.push(record.path);
                continue;
            }
            // It holds what could not be undone.
            Ok(Undo::Left(Some(Expected::Directory)))
                if restored.failed.iter().any(|failed| failed.path.starts_with(&record.path)) =>
            {
                directories.push(record);
                continue;
            }
            Ok(Undo::Left(found)) => found,
            Err(error) => {
                restored.failed.push(Failed { path: record.path.clone(), reason: error.to_string() });
                unresolved.push(record);
                continue;
            }
        };
        let backup = copy_of(folder, latest.number, &record.original).filter(|_| !record.splice);
        let reason = Reason::EditedByOther;
        restored.left.push(Conflict { path: record.path.clone(), found, reason, backup: backup.clone() });
        if backup.is_some() {
            unresolved.push(record);
        } else if record.placed.contains(&Expected::Directory) {
            directories.push(record);
        }
    }
    if unresolved.is_empty() {
        journal.close(Some(&latest.manifest))?;
        return Ok(restored);
    }
    // They go when what is unresolved in them is.
    unresolved.extend(directories);
    unresolved.reverse();
    if latest.manifest.records != unresolved {
        latest.manifest.records = unresolved;
        journal.save(&latest)?;
    }
    journal.keep_only(Some(latest.number))?;
    Ok(restored)
}

/// What [`restore`] would do now, as a plan to be shown. Looks only, without a lock.
pub fn undoing(host: &dyn Host, folder: &Path, unsplice: &Unsplice<'_>) -> Result<Plan, ChangeError> {
    let Some(latest) = Journal::peek_all(host, folder)? else { return Ok(Plan::default()) };
    let mut records = latest.manifest.records;
    records.reverse();
    records.sort_by_key(|record| Reverse(record.path.components().count()));
    let mut plan = Plan::default();
    for record in records {
        let present = Present::look(host, &record.path)?;
        let (Some(before), false) = (present.expected(), present.is(&record.original.expected())) else { continue };
        let as_we_left_it = record.expects(&present) || (present == Present::Absent && record.volatile);
        let after = match (&present, record.original) {
            (Present::File { bytes, .. }, _) if record.splice && !as_we_left_it => match unsplice(bytes) {
                Some(bytes) => Wanted::Splice { bytes },
                None => continue,
            },
            (_, Original::Absent) if as_we_left_it => Wanted::Absent,
            (_, Original::Link { target, .. }) if as_we_left_it => Wanted::Link { target },
            (_, Original::File { bytes, attributes, .. }) if as_we_left_it => {
                Wanted::File { bytes, mode: attributes.mode }
            }
            _ => continue,
        };
        plan.changes.push(Change::new(record.path, before, after, format!("undone: {}", record.why)));
    }
    Ok(plan)
}

enum Undo {
    Nothing,
    Done,
    Left(Option<Expected>),
}

fn undo(host: &dyn Host, record: &Record, unsplice: &Unsplice<'_>) -> Result<Undo, HostError> {
    let present = Present::look(host, &record.path)?;
    let occupant = present.occupant();
    let as_we_left_it = record.expects(&present);
    let only_dressed_otherwise = match (&present, &record.original) {
        (Present::File { attributes, .. }, Original::File { attributes: was, .. }) => {
            as_we_left_it && attributes != was
        }
        _ => false,
    };
    if present.is(&record.original.expected()) && !only_dressed_otherwise {
        return Ok(Undo::Nothing);
    }
    match (&present, &record.original) {
        (Present::Directory, Original::Absent) if as_we_left_it => return remove_directory(host, &record.path),
        (Present::File { attributes, .. }, Original::File { bytes, attributes: was, .. })
            if as_we_left_it && record.splice =>
        {
            // A splice keeps mode, owner and the rest, so what differs now is someone's later wish.
            let attributes = Attributes { modified: was.modified, ..attributes.clone() };
            host.write(&record.path, bytes, &attributes, &occupant)?;
        }
        (Present::File { bytes, attributes, .. }, _) if record.splice && !as_we_left_it => {
            let Some(bytes) = unsplice(bytes) else { return Ok(Undo::Left(present.expected())) };
            let attributes = Attributes { modified: None, ..attributes.clone() };
            host.write(&record.path, &bytes, &attributes, &occupant)?;
        }
        // What was volatile may have vanished by itself, and says nothing about anyone's wish.
        (Present::Absent, original) if record.volatile => put_back(host, &record.path, original, &occupant)?,
        (_, original) if as_we_left_it => put_back(host, &record.path, original, &occupant)?,
        _ => return Ok(Undo::Left(present.expected())),
    }
    Ok(Undo::Done)
}

fn remove_directory(host: &dyn Host, path: &Path) -> Result<Undo, HostError> {
    match host.remove_directory(path) {
        Ok(()) => {
            host.sync_directory(parent(path)?)?;
            Ok(Undo::Done)
        }
        Err(HostError::NotEmpty { .. }) if host.link_metadata(path)?.kind == Kind::Directory => {
            Ok(Undo::Left(Some(Expected::Directory)))
        }
        Err(error) => Err(error),
    }
}
