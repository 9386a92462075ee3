//! Programs that Debian packages, and what others are compiled with, installed with apt-get when missing.
//!
//! Installing a daemon's package would start the daemon, on ports that the machine may need. So starting is forbidden meanwhile, by the
//! file that Debian has for it, which is removed again unless it was there before.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

/// A program, or the headers of a library, from a Debian package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debian {
    /// `buildah`: builds images, and pulls by registries.conf.
    Buildah,
    /// `c++`: what libFuzzer is compiled with.
    CompilerOfCxx,
    /// `conmon`: what CRI-O watches each container with, and does not start without.
    Conmon,
    /// `curl`: what people ask a registry with by hand.
    Curl,
    /// `debootstrap`: makes the file system of a Debian.
    Debootstrap,
    /// `docker`, with its daemon `dockerd`: what kind's nodes are containers of, where no Docker runs already.
    Docker,
    /// `docker-registry`: distribution 2.8, the registry that most pull-through caches are.
    DockerRegistry,
    /// `gpg`: signs images in the older of the two ways.
    Gnupg,
    /// `nginx`: a peer in the benchmarks.
    Nginx,
    /// `pkg-config`: says how a library is linked.
    PkgConfig,
    /// `podman`: runs containers, and pulls by registries.conf.
    Podman,
    /// `runc`: what engines start containers with.
    Runc,
    /// `seccomp.h`: the library that CRI-O is compiled with.
    Seccomp,
    /// `skopeo`: copies images, and pulls by registries.conf.
    Skopeo,
    /// `tc` of iproute2: shaped networks.
    Tc,
    /// `varnishd`: a peer in the benchmarks. Needs a C compiler at run time, which the package brings.
    Varnish,
    /// `wrk`: load.
    Wrk,
}

impl Debian {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Buildah,
        Self::CompilerOfCxx,
        Self::Conmon,
        Self::Curl,
        Self::Debootstrap,
        Self::Docker,
        Self::DockerRegistry,
        Self::Gnupg,
        Self::Nginx,
        Self::PkgConfig,
        Self::Podman,
        Self::Runc,
        Self::Seccomp,
        Self::Skopeo,
        Self::Tc,
        Self::Varnish,
        Self::Wrk,
    ];

    /// The package's name.
    pub fn package(self) -> &'static str {
        match self {
            Self::Buildah => "buildah",
            Self::CompilerOfCxx => "g++",
            Self::Conmon => "conmon",
            Self::Curl => "curl",
            Self::Debootstrap => "debootstrap",
            Self::Docker => "docker.io",
            Self::DockerRegistry => "docker-registry",
            Self::Gnupg => "gnupg",
            Self::Nginx => "nginx",
            Self::PkgConfig => "pkg-config",
            Self::Podman => "podman",
            Self::Runc => "runc",
            Self::Seccomp => "libseccomp-dev",
            Self::Skopeo => "skopeo",
            Self::Tc => "iproute2",
            Self::Varnish => "varnish",
            Self::Wrk => "wrk",
        }
    }

    /// The name of the program, or of the library's header.
    pub fn program(self) -> &'static str {
        match self {
            Self::Buildah => "buildah",
            Self::CompilerOfCxx => "c++",
            Self::Conmon => "conmon",
            Self::Curl => "curl",
            Self::Debootstrap => "debootstrap",
            Self::Docker => "dockerd",
            Self::DockerRegistry => "docker-registry",
            Self::Gnupg => "gpg",
            Self::Nginx => "nginx",
            Self::PkgConfig => "pkg-config",
            Self::Podman => "podman",
            Self::Runc => "runc",
            Self::Seccomp => "seccomp.h",
            Self::Skopeo => "skopeo",
            Self::Tc => "tc",
            Self::Varnish => "varnishd",
            Self::Wrk => "wrk",
        }
    }
}

/// Where Debian and its administrators put programs (a plain user's `PATH` often lacks the `sbin` folders), and headers.
const FOLDERS: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/include"];
const POLICY: &str = "/usr/sbin/policy-rc.d";
const OURS: &str = "#!/bin/sh\n# Written by Larder's tests: packages that they install start no daemons.\nexit 101\n";

/// Path of the program, or of the library's header.
pub fn installed(program: Debian, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if let Some(path) = find(program.program()) {
        return Ok(path);
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = find(program.program()) {
        return Ok(path);
    }
    install(program.package(), progress)?;
    find(program.program()).with_context(|| format!("package {} brought no {}", program.package(), program.program()))
}

fn find(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

fn install(package: &str, progress: &dyn Fn(&str)) -> Result<()> {
    ensure!(find("apt-get").is_some(), "{package} is missing, and without apt-get it is not installed from here");
    // The effective user, by the owner of what this process is in /proc.
    let owner = fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    ensure!(
        owner.is_ok_and(|uid| uid == 0),
        "{package} is missing, and only root installs packages: apt-get install {package}"
    );
    progress(&format!("installing {package} with apt-get"));
    let _no_daemons = NoDaemons::begin()?;
    if apt_get(&["install", package]).is_err() {
        // The list of packages may be missing or too old to be true.
        apt_get(&["update"])?;
        apt_get(&["install", package])?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["--yes", "--quiet", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("could not run apt-get")?;
    if !output.status.success() {
        bail!("apt-get {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// While it lives, installing a package starts nothing.
struct NoDaemons {
    ours: bool,
}

impl NoDaemons {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match opened {
            Ok(mut file) => {
                file.write_all(OURS.as_bytes()).with_context(|| format!("could not write {POLICY}"))?;
                Ok(Self { ours: true })
            }
            // One of ours is the leftover of a run that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(Self { ours: fs::read(POLICY).is_ok_and(|bytes| bytes == OURS.as_bytes()) })
            }
            Err(error) => Err(error).with_context(|| format!("could not make {POLICY}")),
        }
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if self.ours {
            // Should it stay, the next run takes it for its own.
            let _ = fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_program_that_is_there() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program"), None);
    }
}
