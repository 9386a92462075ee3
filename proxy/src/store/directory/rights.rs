//! What to say of a folder that this process may not use: who it is, whose the folder is, and what to type.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::folder::Owner;
use crate::store::StoreError;

/// Makes the folder in which a store's is to be. Blocks.
pub fn make_parent(root: &Path) -> Result<(), StoreError> {
    let parent = root.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(|error| explained(StoreError::from_io(parent, error), root))
}

/// The same error; where rights are missing, with what a person needs to mend that.
pub(super) fn explained(error: StoreError, root: &Path) -> StoreError {
    match error {
        StoreError::Io { path, error } if error.kind() == io::ErrorKind::PermissionDenied => {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let reason = explanation(&path, root, Owner { uid, gid });
            StoreError::Io { path, error: io::Error::new(error.kind(), format!("{error}: {reason}")) }
        }
        other => other,
    }
}

fn explanation(path: &Path, root: &Path, process: Owner) -> String {
    let Owner { uid, gid } = process;
    // What does not let us in is the innermost one that can be looked at.
    let found = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.metadata().ok()?)));
    let whose = found.map_or_else(String::new, |(folder, facts)| {
        let mode = facts.mode() & 0o7777;
        format!(", and {} is of user {}, group {}, mode {mode:03o}", folder.display(), facts.uid(), facts.gid())
    });
    let root_shown = root.display();
    let command = if root.exists() {
        format!("chown -R {uid}:{gid} {root_shown}")
    } else {
        format!("install -d -m 700 -o {uid} -g {gid} {root_shown}")
    };
    format!(
        "this process is user {uid}, group {gid}{whose}; give it the folder ({command}, as root), or name one of its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(path: &Path, root: &Path) -> String {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
        explained(StoreError::from_io(path, error), root).to_string()
    }

    #[test]
    fn it_says_who_whose_and_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let facts = folder.path().metadata().unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let root = folder.path().join("store");
        let shown = root.display();
        let whose = format!("this process is user {uid}, group {gid}, and {}", folder.path().display());
        let text = denied(&root, &root);
        assert!(text.starts_with(&format!("{shown}: Permission denied")), "{text}");
        let mode = facts.mode() & 0o7777;
        let of = format!("{whose} is of user {}, group {}, mode {mode:o}", facts.uid(), facts.gid());
        assert!(text.contains(&of), "{text}");
        assert!(text.contains(&format!("install -d -m 700 -o {uid} -g {gid} {shown}")), "{text}");
        std::fs::create_dir(&root).unwrap();
        let text = denied(&root.join("blobs/sha256"), &root);
        assert!(text.contains(&format!("chown -R {uid}:{gid} {shown}")), "{text}");
    }

    #[test]
    fn other_errors_are_as_they_were() {
        let full = StoreError::from_io("/store", io::Error::from(io::ErrorKind::NotADirectory));
        let before = full.to_string();
        assert_eq!(explained(full, Path::new("/store")).to_string(), before);
    }
}
