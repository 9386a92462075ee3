//! Where a path really is, so that a file behind a link is replaced where it lies and the link stays.

use std::{
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use super::{Host, HostError, Kind, Result};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The path without any link in it, in the same root; the last name may be missing, its parents too.
///
/// A link into `/proc` that only the kernel could follow is taken as the text that it is.
pub fn resolve(host: &dyn Host, path: &Path) -> Result<PathBuf> {
    let mut rest: Vec<OsString> = names(path);
    rest.reverse();
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let here = resolved.join(&name);
        match host.link_metadata(&here) {
            Ok(metadata) if metadata.kind == Kind::Link => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(HostError::Loop { path: path.to_owned() });
                }
                let target = host.read_link(&here)?;
                if target.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                rest.extend(names(&target).into_iter().rev());
            }
            Ok(_) | Err(HostError::NotFound { .. }) => resolved = here,
            Err(error) => return Err(error),
        }
    }
    Ok(resolved)
}

fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}
