//! The real programs that tests, demo and benchmarks run against: engines, registries, peers.
//!
//! A Go program is a folder under `modules/`: `go.mod` and `go.sum` pin the module and everything that it depends on, `tools.go` names
//! the commands ([`pin`]). It is built once into a cache outside the clone and found again by a key over the pin files, the flags
//! and Go's version ([`build`]), so a clean clone builds nothing anew and a changed pin never finds the old program. What Debian has
//! comes from Debian ([`debian`]). Larder's own programs are [`own`].
//!
//! Callers ask [`Parts`] for a program and get paths; whatever is missing is built or installed first, which may take minutes.

pub mod build;
pub mod debian;
#[cfg(test)]
mod documented;
pub mod line;
pub mod own;
pub mod pin;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

pub use debian::Debian;
pub use line::{CrioLine, EngineLine, LibraryLine, Line};
use pin::Pin;

/// Where the programs are, and where they are put when missing. Clones are cheap.
#[derive(Clone)]
pub struct Parts {
    modules: PathBuf,
    cache: PathBuf,
    progress: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A containerd of one line. Its shim is of the same line: another one's fails with "unsupported protocol".
#[derive(Clone, Debug)]
pub struct Containerd {
    /// Which line.
    pub line: Line,
    /// For example `2.4.2`.
    pub version: String,
    /// The daemon.
    pub containerd: PathBuf,
    /// The client.
    pub ctr: PathBuf,
    /// Holds `containerd-shim-runc-v2`: to be first in the daemon's `PATH`.
    pub shim_folder: PathBuf,
}

/// A CRI-O of one line, and the programs that it does not start without.
#[derive(Clone, Debug)]
pub struct Crio {
    /// Which line.
    pub line: CrioLine,
    /// For example `1.34.0`.
    pub version: String,
    /// The daemon.
    pub crio: PathBuf,
    /// Holds the namespaces of Pods.
    pub pinns: PathBuf,
    /// Watches a container.
    pub conmon: PathBuf,
    /// Starts a container. Debian's crun, which is CRI-O's own choice, is too old for it.
    pub runc: PathBuf,
}

impl Parts {
    /// With the cache that `LARDER_PARTS` names, or else `larder/parts` in the user's cache folder. Progress goes to standard error.
    pub fn from_environment() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = match (set("LARDER_PARTS"), set("XDG_CACHE_HOME"), set("HOME")) {
            (Some(parts), _, _) => parts,
            (None, Some(cache), _) => cache.join("larder/parts"),
            (None, None, Some(home)) => home.join(".cache/larder/parts"),
            (None, None, None) => anyhow::bail!("no folder for the parts: set LARDER_PARTS"),
        };
        ensure!(cache.is_absolute(), "the folder for the parts must be absolute, not {}", cache.display());
        Ok(Self::new(cache))
    }

    /// With the cache in this folder, which is made when needed.
    pub fn new(cache: PathBuf) -> Self {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("modules");
        Self { modules, cache, progress: Arc::new(|line| eprintln!("{line}")) }
    }

    /// Tells whoever waits what is being built.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// The names of all Go programs, which are those of the folders under `modules/`.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries =
            std::fs::read_dir(&self.modules).with_context(|| format!("could not read {}", self.modules.display()))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The folder that holds the commands of a Go program, built if need be.
    pub fn module(&self, name: &str) -> Result<PathBuf> {
        Ok(self.built(name)?.1)
    }

    /// containerd with `ctr` and shim.
    pub fn containerd(&self, line: Line) -> Result<Containerd> {
        let (pin, folder) = self.built(&format!("containerd-{line}"))?;
        Ok(Containerd {
            line,
            version: pin.version.trim_start_matches('v').to_owned(),
            containerd: folder.join("containerd"),
            ctr: folder.join("ctr"),
            shim_folder: folder,
        })
    }

    /// CRI-O with what it needs.
    pub fn crio(&self, line: CrioLine) -> Result<Crio> {
        ensure!(CrioLine::ALL.contains(&line), "of CRI-O's library {line} there is no daemon");
        let (pin, folder) = self.built(&EngineLine::Crio(line).to_string())?;
        Ok(Crio {
            line,
            version: pin.version.trim_start_matches('v').to_owned(),
            crio: folder.join("crio"),
            pinns: folder.join("pinns"),
            conmon: self.debian(Debian::Conmon)?,
            runc: self.debian(Debian::Runc)?,
        })
    }

    /// What answers how the library that CRI-O, podman, skopeo and buildah share reads their files, and pulls by them.
    pub fn image_library(&self, line: LibraryLine) -> Result<PathBuf> {
        Ok(self.module(&format!("cimage-{line}"))?.join("cimage"))
    }

    /// Has an engine built, with all that it needs.
    pub fn engine(&self, line: EngineLine) -> Result<()> {
        match line {
            EngineLine::Containerd(line) => self.containerd(line).map(drop),
            EngineLine::Crio(CrioLine::Library(line)) => self.image_library(line).map(drop),
            EngineLine::Crio(line) => self.crio(line).map(drop),
        }
    }

    /// The CNCF distribution registry, 3.x.
    pub fn registry(&self) -> Result<PathBuf> {
        Ok(self.module("distribution-3")?.join("registry"))
    }

    /// A client of registries.
    pub fn crane(&self) -> Result<PathBuf> {
        Ok(self.module("crane")?.join("crane"))
    }

    /// What installs charts.
    pub fn helm(&self) -> Result<PathBuf> {
        Ok(self.module("helm")?.join("helm"))
    }

    /// The folder with the source of the module that a Go program is of.
    pub fn source(&self, name: &str) -> Result<PathBuf> {
        build::source(&self.pin(name)?)
    }

    /// The version of a Go program, with its `v`.
    pub fn version(&self, name: &str) -> Result<String> {
        Ok(self.pin(name)?.version)
    }

    /// The folder with what was built, and room for what tests make of it and want to find again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Tells whoever waits what takes so long.
    pub fn progress(&self, line: &str) {
        (self.progress)(line);
    }

    /// A program from a Debian package, installed if need be.
    pub fn debian(&self, program: Debian) -> Result<PathBuf> {
        debian::installed(program, &*self.progress)
    }

    fn pin(&self, name: &str) -> Result<Pin> {
        let folder = self.modules.join(name);
        ensure!(folder.join("go.mod").is_file(), "no part is called {name}; there are {}", self.names()?.join(", "));
        Pin::read(&folder)
    }

    fn built(&self, name: &str) -> Result<(Pin, PathBuf)> {
        let pin = self.pin(name)?;
        for needed in pin.needs() {
            self.debian(*needed)?;
        }
        let folder = build::built(&pin, &self.cache, &*self.progress)?;
        Ok((pin, folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_pin_and_every_line_has_one() {
        let parts = Parts::new(PathBuf::from("/nonexistent"));
        let names = parts.names().unwrap();
        for name in &names {
            let pin = Pin::read(&parts.modules.join(name)).unwrap();
            assert!(pin.version.starts_with('v') && !pin.packages.is_empty(), "{name}");
        }
        for line in EngineLine::all_that_pull() {
            let pin = Pin::read(&parts.modules.join(line.to_string())).unwrap();
            let numbers = line.to_string().rsplit_once('-').unwrap().1.to_owned();
            assert!(pin.version.starts_with(&format!("v{numbers}.")), "{line} is pinned at {}", pin.version);
        }
    }

    #[test]
    fn the_daemons_library_is_the_one_that_it_was_released_with() {
        let parts = Parts::new(PathBuf::from("/nonexistent"));
        for line in CrioLine::ALL {
            let sums = std::fs::read_to_string(parts.modules.join(EngineLine::Crio(line).to_string()).join("go.sum"));
            let sums = sums.unwrap();
            let version = sums.lines().find_map(|line| line.strip_prefix("github.com/containers/image/v5 v"));
            let expected = format!("{}.", line.library());
            assert!(version.is_some_and(|version| version.starts_with(&expected)), "{line}: {version:?}");
        }
    }

    #[test]
    fn an_unknown_part_is_refused_with_the_names_of_those_that_exist() {
        let error = Parts::new(PathBuf::from("/nonexistent")).module("containerd-9").unwrap_err();
        assert!(error.to_string().contains("containerd-2.4"), "{error}");
    }
}
