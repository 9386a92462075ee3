//! Makes a plan true, or leaves everything as it was.
//!
//! First all is looked at and decided, and any conflict ends it there; then what is there goes into the journal; then
//! everything that needs space is written under temporary names; only then do names change, one atomic step each. A
//! failure takes back what was done. A kill leaves a journal from which the next apply, or [`super::restore`], goes on.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Change, ChangeError, Conflict, Expected, Plan, Reason, Unsplice, Wanted,
    journal::{Apply, Journal, Original, Progress, Record, copy_of},
    present::Present,
    put_back::put_back,
    verify::satisfied,
};
use crate::host::{Attributes, Host, HostError, Kind, parent};

/// Of a directory that no change names but that one needs.
const PARENT_MODE: u32 = 0o755;

/// What an apply did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// In the order in which they were changed; empty when all was as wanted.
    pub changed: Vec<PathBuf>,
    /// Directories of ours that were to go and hold something of others.
    pub kept: Vec<PathBuf>,
}

/// Makes the plan true. `folder` is the journal's, on the host (`/var/lib/larder/node-agent`).
///
/// Applying a plan again, also after a kill in the middle of it, does what is left of it.
pub fn apply(host: &dyn Host, folder: &Path, plan: &Plan, unsplice: &Unsplice<'_>) -> Result<Applied, ChangeError> {
    if plan.is_empty() && !host.exists(folder)? {
        return Ok(Applied::default());
    }
    let journal = Journal::open(host, folder)?;
    let outcome = journaled(host, folder, &journal, plan, unsplice);
    if matches!(journal.number(), Ok(None)) {
        // Nothing came of it: the journal's folder is no more needed than before. What cannot go now, goes with restore.
        drop(journal.close(None));
    }
    outcome
}

fn journaled(
    host: &dyn Host,
    folder: &Path,
    journal: &Journal<'_>,
    plan: &Plan,
    unsplice: &Unsplice<'_>,
) -> Result<Applied, ChangeError> {
    let previous = journal.latest()?;
    journal.keep_only(previous.as_ref().map(|apply| apply.number))?;
    let records = previous.as_ref().map(|apply| apply.manifest.records.clone()).unwrap_or_default();
    let interrupted = previous.as_ref().is_some_and(|apply| apply.manifest.progress == Progress::Started);
    if interrupted {
        for record in &records {
            host.discard(&record.path)?;
        }
    }
    let backup_of = |original: &Original| previous.as_ref().and_then(|apply| copy_of(folder, apply.number, original));
    let mut draft = Draft { host, unsplice, records, steps: Vec::new(), conflicts: Vec::new() };
    for change in &plan.changes {
        draft.decide(change, &backup_of)?;
    }
    let Draft { records, steps, conflicts, .. } = draft;
    if !conflicts.is_empty() {
        return Err(ChangeError::Conflicts { conflicts });
    }
    let unchanged = previous.as_ref().map_or(records.is_empty(), |apply| apply.manifest.records == records);
    if steps.is_empty() && unchanged && !interrupted {
        return Ok(Applied::default());
    }
    let started = match journal.start(previous.as_ref(), records) {
        Ok(started) => started,
        Err(error) => {
            // Without a manifest it means nothing; the next one removes what cannot be removed now.
            drop(journal.keep_only(previous.as_ref().map(|apply| apply.number)));
            return Err(error.into());
        }
    };
    match carry_out(host, &steps) {
        Ok(applied) => {
            finish(journal, started, &steps);
            Ok(applied)
        }
        Err(error) => {
            if !matches!(error, ChangeError::HalfDone { .. }) {
                // The one before is the truth again. If this one stays, it says the same and more.
                drop(journal.keep_only(previous.as_ref().map(|apply| apply.number)));
            }
            Err(error)
        }
    }
}

/// One name to change.
struct Step {
    path: PathBuf,
    present: Present,
    act: Act,
}

enum Act {
    Link(PathBuf),
    File(Vec<u8>, Attributes),
    Directory(u32),
    Remove,
    RemoveDirectory { mode: u32 },
}

/// The decisions so far. Nothing is touched while it is made.
struct Draft<'a> {
    host: &'a dyn Host,
    unsplice: &'a Unsplice<'a>,
    records: Vec<Record>,
    steps: Vec<Step>,
    conflicts: Vec<Conflict>,
}

impl Draft<'_> {
    fn decide(&mut self, change: &Change, backup_of: &dyn Fn(&Original) -> Option<String>) -> Result<(), HostError> {
        let present = Present::look(self.host, &change.path)?;
        let record = self.records.iter().position(|record| record.path == change.path);
        if satisfied(self.host, change, &present)? {
            // Found as we would have made it: undone only if it is known to be ours.
            let ours = change.adopt && record.is_none() && !matches!(change.after, Wanted::Splice { .. });
            if let (true, Some(found)) = (ours, present.expected().filter(|found| *found != Expected::Absent)) {
                self.records.push(recorded(change, Original::Absent, vec![found]));
            }
            return Ok(());
        }
        let original = match self.original(change, &present, record.and_then(|index| self.records.get(index))) {
            Ok(original) => original,
            Err(reason) => {
                let backup =
                    record.and_then(|index| self.records.get(index)).and_then(|record| backup_of(&record.original));
                let path = change.path.clone();
                self.conflicts.push(Conflict { path, found: present.expected(), reason, backup });
                return Ok(());
            }
        };
        if change.after != Wanted::Absent {
            self.make_parents(change)?;
        }
        let act = match (&change.after, &present) {
            (Wanted::Link { target }, _) => Act::Link(target.clone()),
            (Wanted::Directory { mode }, _) => Act::Directory(*mode),
            (Wanted::Absent, Present::Directory) => {
                Act::RemoveDirectory { mode: self.host.link_metadata(&change.path)?.mode }
            }
            (Wanted::Absent, _) => Act::Remove,
            (Wanted::Splice { bytes }, Present::File { attributes, .. }) => {
                Act::File(bytes.clone(), Attributes { modified: None, ..attributes.clone() })
            }
            (Wanted::File { bytes, mode }, Present::File { attributes, .. }) => {
                Act::File(bytes.clone(), Attributes { mode: *mode, modified: None, ..attributes.clone() })
            }
            (Wanted::File { bytes, mode }, _) => Act::File(bytes.clone(), Attributes::new(*mode)),
            (Wanted::Splice { bytes }, _) => Act::File(bytes.clone(), Attributes::new(0o644)),
        };
        // What one before us left there may still be there when this one is killed before its step.
        let left = record.and_then(|index| self.records.get(index)).is_some_and(|old| old.expects(&present));
        let mut placed: Vec<Expected> = present.expected().filter(|_| left || change.adopt).into_iter().collect();
        placed.push(change.after.expected());
        let mut new = recorded(change, original, placed);
        // A file that we had replaced as a whole has a mode of our choosing, which undoing a splice would keep.
        new.splice &= record.and_then(|index| self.records.get(index)).is_none_or(|old| old.splice || !left);
        match record.and_then(|index| self.records.get_mut(index)) {
            Some(old) => *old = new,
            None => self.records.push(new),
        }
        self.steps.push(Step { path: change.path.clone(), present, act });
        Ok(())
    }

    /// What undoing this change has to lead to, or why the change must not be made.
    fn original(&self, change: &Change, present: &Present, record: Option<&Record>) -> Result<Original, Reason> {
        if self.steps.iter().any(|step| step.path == change.path) || !present.is(&change.before) {
            return Err(Reason::NotAsObserved);
        }
        let made_by_us = record.is_some_and(|record| record.expects(present)) || change.adopt;
        match (&change.after, present) {
            (_, Present::Other)
            | (Wanted::Link { .. } | Wanted::File { .. }, Present::Directory)
            | (Wanted::Directory { .. }, Present::File { .. } | Present::Link { .. })
            | (Wanted::Splice { .. }, Present::Absent | Present::Link { .. } | Present::Directory) => {
                return Err(Reason::WrongKind);
            }
            // The way back would not be one atomic step.
            (Wanted::Directory { .. }, _) if record.is_some_and(|record| record.original != Original::Absent) => {
                return Err(Reason::WrongKind);
            }
            (Wanted::Absent, Present::Directory) if !made_by_us => return Err(Reason::NotOurs),
            _ => {}
        }
        let without_us = || match (&change.after, Original::of(present)) {
            (Wanted::Splice { .. }, Original::File { bytes, attributes, .. }) => {
                Original::file((self.unsplice)(&bytes).unwrap_or(bytes), attributes)
            }
            (_, original) => original,
        };
        match record {
            Some(record) if record.expects(present) => Ok(record.original.clone()),
            // Ours has vanished. What was there before us is still what to go back to.
            Some(record) if *present == Present::Absent => Ok(record.original.clone()),
            Some(record) if present.is(&record.original.expected()) => Ok(without_us()),
            Some(record) if record.splice && matches!(change.after, Wanted::Splice { .. }) => Ok(without_us()),
            Some(_) => Err(Reason::EditedByOther),
            None if change.adopt && !matches!(change.after, Wanted::Splice { .. }) => Ok(Original::Absent),
            None => Ok(without_us()),
        }
    }

    /// Directories that the change needs and that are not there, nor made by a change before it.
    fn make_parents(&mut self, change: &Change) -> Result<(), HostError> {
        let mut missing = Vec::new();
        for directory in change.path.ancestors().skip(1) {
            if self.steps.iter().any(|step| step.path == directory && matches!(step.act, Act::Directory(_))) {
                break;
            }
            match self.host.metadata(directory) {
                Ok(metadata) if metadata.kind == Kind::Directory => break,
                Ok(metadata) => {
                    return Err(HostError::WrongKind { path: directory.to_owned(), found: metadata.kind });
                }
                Err(HostError::NotFound { .. }) => missing.push(directory),
                Err(error) => return Err(error),
            }
        }
        for directory in missing.into_iter().rev() {
            let path = directory.to_owned();
            let found = Present::look(self.host, directory)?.expected();
            let record = self.records.iter_mut().find(|record| record.path == directory);
            // A dangling link, whose target is not ours to make; or a file of the administrator's that we removed.
            if found != Some(Expected::Absent) || record.as_ref().is_some_and(|it| it.original != Original::Absent) {
                self.conflicts.push(Conflict { path, found, reason: Reason::WrongKind, backup: None });
                return Ok(());
            }
            let act = Act::Directory(PARENT_MODE);
            if let Some(record) = record {
                if !record.placed.contains(&Expected::Directory) {
                    record.placed.push(Expected::Directory);
                }
            } else {
                let change = Change { path: path.clone(), ..change.clone() };
                self.records.push(recorded(&change, Original::Absent, vec![Expected::Directory]));
            }
            self.steps.push(Step { path, present: Present::Absent, act });
        }
        Ok(())
    }
}

fn recorded(change: &Change, original: Original, placed: Vec<Expected>) -> Record {
    Record {
        path: change.path.clone(),
        original,
        placed,
        splice: matches!(change.after, Wanted::Splice { .. }),
        volatile: change.volatile,
        why: change.why.clone(),
    }
}

/// Does the steps, or takes back those that were done.
fn carry_out(host: &dyn Host, steps: &[Step]) -> Result<Applied, ChangeError> {
    let mut applied = Applied::default();
    let mut done = Vec::new();
    let outcome = steps
        .iter()
        .try_for_each(|step| prepare(host, step, &mut done))
        .and_then(|()| steps.iter().try_for_each(|step| commit(host, step, &mut done, &mut applied)));
    let Err(cause) = outcome else {
        applied.changed =
            steps.iter().map(|step| step.path.clone()).filter(|path| !applied.kept.contains(path)).collect();
        return Ok(applied);
    };
    let mut left = Vec::new();
    let mut first = None;
    for step in steps {
        // A temporary file hides nothing from an engine; restore removes what cannot be removed now.
        drop(host.discard(&step.path));
    }
    for step in done.into_iter().rev() {
        if let Err(error) = take_back(host, step) {
            left.push(step.path.clone());
            first.get_or_insert(error);
        }
    }
    match first {
        None => Err(cause.into()),
        Some(undo) => Err(ChangeError::HalfDone { cause: cause.into(), undo: undo.into(), left }),
    }
}

/// All that needs space. Of this, only new directories can be seen.
fn prepare<'a>(host: &dyn Host, step: &'a Step, done: &mut Vec<&'a Step>) -> Result<(), HostError> {
    match &step.act {
        Act::Link(target) => host.stage_link(&step.path, target, None),
        Act::File(bytes, attributes) => host.stage_file(&step.path, bytes, attributes),
        Act::Directory(mode) => {
            host.create_directory(&step.path, *mode).map_err(|error| match error {
                HostError::AlreadyExists { path } => HostError::Changed { path },
                other => other,
            })?;
            done.push(step);
            host.sync_directory(parent(&step.path)?)
        }
        Act::Remove | Act::RemoveDirectory { .. } => Ok(()),
    }
}

/// The names.
fn commit<'a>(
    host: &dyn Host,
    step: &'a Step,
    done: &mut Vec<&'a Step>,
    applied: &mut Applied,
) -> Result<(), HostError> {
    match &step.act {
        Act::Link(_) | Act::File(..) => host.commit(&step.path, &step.present.occupant())?,
        Act::Directory(_) => return Ok(()),
        Act::Remove => host.remove(&step.path, &step.present.occupant())?,
        Act::RemoveDirectory { .. } => match host.remove_directory(&step.path) {
            Err(HostError::NotEmpty { path }) => {
                applied.kept.push(path);
                return Ok(());
            }
            other => other?,
        },
    }
    done.push(step);
    host.sync_directory(parent(&step.path)?)
}

fn take_back(host: &dyn Host, step: &Step) -> Result<(), HostError> {
    match &step.act {
        Act::Directory(_) => {
            host.remove_directory(&step.path)?;
            host.sync_directory(parent(&step.path)?)
        }
        Act::RemoveDirectory { mode } => {
            host.create_directory(&step.path, *mode)?;
            host.sync_directory(parent(&step.path)?)
        }
        Act::Link(_) | Act::File(..) | Act::Remove => {
            put_back(host, &step.path, &Original::of(&step.present), &host.occupant(&step.path)?)
        }
    }
}

/// Says that all of it is done. If even that cannot be written, the next apply finds everything done and says it then.
fn finish(journal: &Journal<'_>, mut apply: Apply, steps: &[Step]) {
    apply.manifest.progress = Progress::Applied;
    for record in &mut apply.manifest.records {
        if steps.iter().any(|step| step.path == record.path) {
            record.placed.drain(..record.placed.len().saturating_sub(1));
        }
    }
    apply
        .manifest
        .records
        .retain(|record| record.placed != [record.original.expected()] || record.original.has_bytes());
    let finished = journal.save(&apply).and_then(|()| journal.keep_only(Some(apply.number)));
    if let Err(error) = finished {
        tracing::warn!(%error, "everything was applied, but the journal could not be closed; the next apply does");
    }
}
