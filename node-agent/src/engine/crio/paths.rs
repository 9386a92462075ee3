//! Which files count, and in which order (`newConfigWrapper`): decided by names alone.

use std::path::{Path, PathBuf};

use super::Crio;

pub(super) const MAIN: &str = "/etc/containers/registries.conf";
const DIRECTORY: &str = "/etc/containers/registries.conf.d";
const HOME: &str = ".config/containers/registries.conf";

/// What is read: one main file, then the `*.conf` of each directory by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The main file.
    pub main: PathBuf,
    /// CRI-O was told to read it: not being there is an error then.
    pub main_is_named: bool,
    /// Directories of drop-ins, in order; a later one counts more. Never empty.
    pub directories: Vec<PathBuf>,
    /// The main file is that in the home of CRI-O's user, which replaces the system's files.
    pub is_home: bool,
}

impl Paths {
    /// `home_file_exists` says so of [`home_file`].
    pub(super) fn of(engine: &Crio, home_file_exists: bool) -> Self {
        let home = home_file(&engine.home);
        let home_directory = home.with_extension("conf.d");
        let is_home = engine.registries_conf.is_none() && home_file_exists;
        let main = engine.registries_conf.clone().unwrap_or_else(|| if is_home { home } else { PathBuf::from(MAIN) });
        let directories = match &engine.registries_conf_dir {
            Some(directory) => vec![directory.clone()],
            None if is_home => vec![home_directory],
            None => vec![PathBuf::from(DIRECTORY), home_directory],
        };
        Self { main, main_is_named: engine.registries_conf.is_some(), directories, is_home }
    }

    /// Where our drop-in goes: the first, which is the system's unless only the home's is read.
    pub(super) fn ours(&self) -> &Path {
        self.directories.first().map_or(Path::new(DIRECTORY), PathBuf::as_path)
    }
}

/// The file in the home of CRI-O's user.
pub(super) fn home_file(home: &Path) -> PathBuf {
    home.join(HOME)
}

/// The name that our drop-in has so that it is read after all `others` of its directory.
pub(super) fn drop_in_name<'name>(others: impl Iterator<Item = &'name str>) -> String {
    const NAME: &str = "zz-larder.conf";
    match others.max() {
        Some(last) if last >= NAME => format!("{}.zz-larder.conf", last.strip_suffix(".conf").unwrap_or(last)),
        _ => NAME.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_the_user_replaces_what_the_system_says() {
        let engine = Crio::at(None);
        let paths = Paths::of(&engine, true);
        assert_eq!(paths.main, Path::new("/root/.config/containers/registries.conf"));
        assert_eq!(paths.directories, [Path::new("/root/.config/containers/registries.conf.d")]);
        let paths = Paths::of(&engine, false);
        assert_eq!((paths.main.as_path(), paths.directories.len()), (Path::new(MAIN), 2));
        let named = Crio { registries_conf: Some("/x.conf".into()), ..engine.clone() };
        assert_eq!(Paths::of(&named, true).directories.len(), 2);
        let named = Crio { registries_conf_dir: Some("/x.d".into()), ..engine };
        assert_eq!(Paths::of(&named, true).directories, [Path::new("/x.d")]);
    }

    #[test]
    fn ours_is_read_last() {
        for (others, name) in [
            (vec![], "zz-larder.conf"),
            (vec!["000-shortnames.conf", "zy.conf"], "zz-larder.conf"),
            (vec!["zz.conf"], "zz.zz-larder.conf"),
            (vec!["zz-more.conf"], "zz-more.zz-larder.conf"),
            (vec!["~x.conf", "zzz.conf"], "~x.zz-larder.conf"),
        ] {
            assert_eq!(drop_in_name(others.iter().copied()), name);
            assert!(others.iter().all(|other| *other < name));
        }
    }
}
