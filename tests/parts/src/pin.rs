//! What a folder under `modules/` says: module, version, commands, and how to build them.
//!
//! Whoever changes a version edits `go.mod`, runs `go build -mod=mod` on the packages of `tools.go` in that folder (which completes
//! `go.sum`), and commits both. A folder without `tools.go` pins a library: what is built with it is a program of ours, whose folder under
//! `programs/` has the name without the line.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::debian::Debian;

/// A Go module at one version and the commands of it that are built.
#[derive(Clone, Debug)]
pub struct Pin {
    /// The folder's name.
    pub name: String,
    /// Holds the pin files.
    pub folder: PathBuf,
    /// Import path of the module.
    pub module: String,
    /// With its `v`.
    pub version: String,
    /// Import paths of the commands.
    pub packages: Vec<String>,
    /// The files of a program of ours that is built with the module: names and texts.
    pub program: Vec<(String, String)>,
    /// SHA-256 over the pin files and the build's flags, hexadecimal.
    pub hash: String,
}

/// A program in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InC {
    /// Its name.
    pub name: &'static str,
    /// The folder of its `.c` files, in that of the module.
    pub sources: &'static str,
    /// Arguments of `cc`.
    pub flags: &'static [&'static str],
}

impl Pin {
    /// Reads `go.mod`, `go.sum` and `tools.go` of `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
        };
        let (requirements, sums) = (read("go.mod")?, read("go.sum")?);
        let is_library = !folder.join("tools.go").exists();
        let (packages, module, version, texts) = if is_library {
            let (module, version) = first_required(&requirements)
                .with_context(|| format!("{} requires no module", folder.join("go.mod").display()))?;
            let mut files = program(folder)?;
            for (_, text) in &mut files {
                *text = with_paths_of(&module, text);
            }
            let own = own_name(&requirements).with_context(|| format!("{} has no name", folder.display()))?;
            (vec![own], module, version, files)
        } else {
            let tools = read("tools.go")?;
            let packages = commands(&tools);
            let first =
                packages.first().with_context(|| format!("{} names no command", folder.join("tools.go").display()))?;
            let (module, version) = required(&requirements, first).with_context(|| {
                format!("{} requires no module that holds {first}", folder.join("go.mod").display())
            })?;
            (packages, module, version, vec![("tools.go".to_owned(), tools)])
        };
        let mut pin = Self {
            name: folder.file_name().context("the folder of a part has a name")?.to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            module,
            version,
            packages,
            program: if is_library { texts.clone() } else { Vec::new() },
            hash: String::new(),
        };
        let mut hasher = Sha256::new();
        let in_c = pin.in_c().into_iter().flat_map(|program| program.flags.iter().map(|flag| (*flag).to_owned()));
        let texts = texts.into_iter().map(|(_, text)| text);
        for text in [requirements, sums].into_iter().chain(texts).chain(pin.flags()).chain(in_c) {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        pin.hash = hexadecimal(&hasher.finalize());
        Ok(pin)
    }

    /// Arguments of `go build`.
    pub fn flags(&self) -> Vec<String> {
        let mut linker = "-s -w".to_owned();
        let mut flags = vec!["-mod=readonly".to_owned(), "-trimpath".to_owned(), "-buildvcs=false".to_owned()];
        if self.module.starts_with("github.com/containerd/containerd") {
            // As the project's own Makefile builds it: `btrfs` wants C headers.
            flags.push("-tags=no_btrfs".to_owned());
        }
        if self.is_crio() {
            // As distributions build it, without what would need more libraries: PGP in C, and file systems that nobody here has.
            let tags = [
                "containers_image_openpgp",
                "exclude_graphdriver_btrfs",
                "exclude_graphdriver_devicemapper",
                "seccomp",
            ];
            flags.push(format!("-tags={}", tags.join(",")));
        }
        if !self.program.is_empty() {
            // Without what would need C or could not be used here.
            let tags = "containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper";
            flags.push(format!("-tags={tags}"));
        }
        for (variable, value) in self.versions() {
            linker = format!("{linker} -X {variable}={value}");
        }
        flags.push(format!("-ldflags={linker}"));
        flags
    }

    /// Whether it is linked with libraries in C. Everything else is not, and runs on any Linux.
    pub fn links_c(&self) -> bool {
        self.is_crio()
    }

    /// What Debian must have for it to be built.
    pub fn needs(&self) -> &'static [Debian] {
        if self.is_crio() { &[Debian::PkgConfig, Debian::Seccomp] } else { &[] }
    }

    /// A program in C that the module's source holds and that belongs to the part.
    pub fn in_c(&self) -> Option<InC> {
        // As in the module's own `pinns/Makefile`.
        self.is_crio().then_some(InC {
            name: "pinns",
            sources: "pinns/src",
            flags: &["-std=c99", "-Os", "-static", "-s"],
        })
    }

    fn is_crio(&self) -> bool {
        self.module == "github.com/cri-o/cri-o"
    }

    /// What tells a program its own version, for those that do not learn it from their module: containerd would call itself
    /// "2.4.2+unknown", and a kubelet "v0.0.0", which kubeadm refuses.
    fn versions(&self) -> Vec<(String, String)> {
        if self.module.starts_with("github.com/containerd/containerd") {
            return vec![(format!("{}/version.Version", self.module), self.version.clone())];
        }
        if self.module != "k8s.io/kubernetes" {
            return Vec::new();
        }
        let mut numbers = self.version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        // The programs read the first; what they say of themselves to the API server is the second.
        let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
        let variables = [("gitVersion", self.version.as_str()), ("gitMajor", major), ("gitMinor", minor)];
        let pairs = packages.into_iter().flat_map(|package| variables.map(|(name, value)| (package, name, value)));
        pairs.map(|(package, name, value)| (format!("{package}.{name}"), value.to_owned())).collect()
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The files of our own program that a folder pins the library for, in the order of their names.
fn program(folder: &Path) -> Result<Vec<(String, String)>> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("the folder of a part has a name")?;
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    let programs = folder.parent().and_then(Path::parent).context("the folder of a part is in another")?;
    let path = programs.join("programs").join(name);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&path).with_context(|| format!("could not read {}", path.display()))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text));
    }
    files.sort();
    Ok(files)
}

/// The program is written for the import paths that its libraries had first; those that moved did so together.
fn with_paths_of(module: &str, text: &str) -> String {
    let storage =
        if module.starts_with("go.podman.io/") { "go.podman.io/storage" } else { "github.com/containers/storage" };
    text.replace("github.com/containers/image/v5", module).replace("github.com/containers/storage", storage)
}

/// The module that `go.mod` is of.
fn own_name(requirements: &str) -> Option<String> {
    requirements.lines().find_map(|line| line.strip_prefix("module ")).map(|name| name.trim().to_owned())
}

/// The first module that `go.mod` requires, and its version.
fn first_required(requirements: &str) -> Option<(String, String)> {
    let line =
        requirements.lines().find_map(|line| line.strip_prefix("require ").filter(|line| !line.starts_with('(')))?;
    let mut words = line.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

/// The imports of `tools.go`.
fn commands(tools: &str) -> Vec<String> {
    let imports = tools.lines().filter_map(|line| line.trim().strip_prefix("_ \"")?.strip_suffix('"'));
    imports.map(str::to_owned).collect()
}

/// The module of `go.mod`'s `require` lines that holds a package, and its version.
fn required(requirements: &str, package: &str) -> Option<(String, String)> {
    let modules = requirements.lines().filter(|line| !line.contains("=>")).filter_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        Some((words.next()?, words.next()?))
    });
    let mut holding = modules.filter(|(module, version)| {
        version.starts_with('v')
            && package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    holding.next().map(|(module, version)| (module.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(requirements: &str, tools: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("go.mod", requirements), ("go.sum", ""), ("tools.go", tools)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const TOOLS: &str = "package tools\n\nimport (\n\t_ \"example.com/a/cmd/one\"\n\t_ \"example.com/a/cmd/two\"\n)\n";

    #[test]
    fn reads_module_version_and_commands() {
        let pinned = folder(
            "module x\n\ngo 1.26\n\nreplace example.com/a/b => example.com/c v1.0.0\n\nrequire (\n\texample.com/ab v0.1.0\n\texample.com/a v1.2.3\n)\n",
            TOOLS,
        );
        let pin = Pin::read(pinned.path()).unwrap();
        assert_eq!((pin.module.as_str(), pin.version.as_str()), ("example.com/a", "v1.2.3"));
        assert_eq!(pin.packages, ["example.com/a/cmd/one", "example.com/a/cmd/two"]);
    }

    #[test]
    fn another_version_has_another_hash() {
        let hash =
            |version| Pin::read(folder(&format!("require example.com/a {version}\n"), TOOLS).path()).unwrap().hash;
        assert_eq!(hash("v1.2.3"), hash("v1.2.3"));
        assert_ne!(hash("v1.2.3"), hash("v1.2.4"));
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let tools = TOOLS.replace("example.com/a/", "k8s.io/kubernetes/");
        let pin = Pin::read(folder("require k8s.io/kubernetes v1.34.4\n", &tools).path()).unwrap();
        let flags = pin.flags().join(" ");
        for wanted in ["component-base/version.gitVersion=v1.34.4", "client-go/pkg/version.gitMinor=34"] {
            assert!(flags.contains(&format!("-X k8s.io/{wanted}")), "{flags}");
        }
    }

    #[test]
    fn crio_is_linked_with_c_and_brings_pinns() {
        let tools = TOOLS.replace("example.com/a/", "github.com/cri-o/cri-o/");
        let pin = Pin::read(folder("require github.com/cri-o/cri-o v1.34.0\n", &tools).path()).unwrap();
        assert!(
            pin.links_c() && pin.flags().iter().any(|flag| flag.starts_with("-tags=") && flag.ends_with("seccomp"))
        );
        assert_eq!(pin.in_c().map(|program| program.name), Some("pinns"));
    }

    #[test]
    fn a_command_of_no_required_module_is_an_error() {
        let error = Pin::read(folder("require example.com/b v1.0.0\n", TOOLS).path()).unwrap_err();
        assert!(error.to_string().contains("example.com/a/cmd/one"), "{error}");
    }
}
