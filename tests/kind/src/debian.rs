//! The file system that every node begins with: a small Debian with systemd, made by debootstrap once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use larder_test_parts::Debian;

use crate::cache::{Key, once};
use crate::command;
use crate::image::Layer;
use crate::machine::Machine;

const SUITE: &str = "bookworm";

/// What a node needs beyond the smallest Debian: kind's own list without network storage and other architectures, and for CRI-O what
/// watches containers and what puts an archive into its storage (with the plug-ins that Debian wants beside it).
const PACKAGES: [&str; 17] = [
    "ca-certificates",
    "conmon",
    "containernetworking-plugins",
    "conntrack",
    "curl",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "libseccomp2",
    "mount",
    "nftables",
    "procps",
    "runc",
    "skopeo",
    "systemd",
    "systemd-sysv",
];

/// Units that would act on the machine rather than on the node; the list is that of kind's base image.
const UNWANTED: [(&str, &str); 6] = [
    ("lib/systemd/system/sysinit.target.wants", "systemd-tmpfiles-setup.service"),
    ("lib/systemd/system/multi-user.target.wants", ""),
    ("lib/systemd/system/local-fs.target.wants", ""),
    ("lib/systemd/system/sockets.target.wants", "udev"),
    ("lib/systemd/system/sockets.target.wants", "initctl"),
    ("lib/systemd/system/basic.target.wants", ""),
];

/// Folders of which a node has no use.
const DISPENSABLE: [&str; 6] =
    ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log"];

/// The packet filter's programs, for the image of kube-proxy. Its plug-ins are loaded by name, so all of them come along.
const PACKET_FILTER: [&str; 2] = ["usr/sbin/xtables-nft-multi", "usr/lib/x86_64-linux-gnu/xtables"];

/// What was made.
pub struct Base {
    /// The nodes' lowest layer.
    pub layer: Layer,
    /// A layer with iptables and the libraries that it needs.
    pub packet_filter: Layer,
    /// The folder, whose name ends in a key over what is in it.
    pub folder: PathBuf,
}

/// Found in the cache, or made, which downloads some 60 MB.
pub fn base(machine: &Machine) -> Result<Base> {
    // A number to be raised when the steps below change.
    let key = PACKAGES.iter().fold(Key::default().with("2").with(SUITE), Key::with).finish();
    let folder = once(&machine.folder, "debian", &key, |folder| {
        machine.parts.progress("making the file system of the nodes with debootstrap, which takes half a minute");
        make(machine, folder)
    })?;
    let layer = Layer::read(&folder.join("base.tar"))?;
    Ok(Base { layer, packet_filter: Layer::read(&folder.join("packet-filter.tar"))?, folder })
}

fn make(machine: &Machine, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    let mut debootstrap = Command::new(machine.parts.debian(Debian::Debootstrap)?);
    debootstrap.args(["--variant=minbase", &format!("--include={}", PACKAGES.join(",")), SUITE]).arg(&root);
    // What went wrong is in its log only.
    command::run(&mut debootstrap).with_context(|| end_of(&root.join("debootstrap/debootstrap.log")))?;
    for (wants, name) in UNWANTED {
        remove_links(&root.join(wants), name)?;
    }
    for entry in fs::read_dir(root.join("etc/systemd/system"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wants") {
            remove_links(&path, "")?;
        }
    }
    for dispensable in DISPENSABLE {
        let path = root.join(dispensable);
        fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).with_context(|| path.display().to_string())?;
    }
    Layer::pack(&root, &folder.join("base.tar"))?;
    let filter = folder.join("packet-filter");
    collect_packet_filter(&root, &filter)?;
    Layer::pack(&filter, &folder.join("packet-filter.tar"))?;
    for done in [root, filter] {
        fs::remove_dir_all(&done).with_context(|| format!("could not remove {}", done.display()))?;
    }
    Ok(())
}

/// The last lines of a file that may be there.
fn end_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
    format!("{} ends with\n{end}", file.display())
}

fn remove_links(folder: &Path, name: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(name) {
            fs::remove_file(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

fn collect_packet_filter(root: &Path, target: &Path) -> Result<()> {
    for folder in ["usr/sbin", "usr/lib", "usr/lib64", "tmp", "run", "etc"] {
        fs::create_dir_all(target.join(folder))?;
    }
    for (link, to) in [("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(to, target.join(link))?;
    }
    for path in PACKET_FILTER {
        let files = walk(&root.join(path))?;
        for file in files {
            copy(root, target, file.strip_prefix(root)?)?;
            for library in libraries(root, file.strip_prefix(root)?) {
                copy(root, target, &library)?;
            }
        }
    }
    for family in ["iptables", "ip6tables"] {
        for use_of_it in ["", "-save", "-restore"] {
            let link = target.join("usr/sbin").join(format!("{family}{use_of_it}"));
            std::os::unix::fs::symlink("xtables-nft-multi", link)?;
        }
    }
    Ok(())
}

/// The files in a folder, or the file itself. Links count: some plug-ins are found under a second name only.
fn walk(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("could not read {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// What the node's own loader would load for a program or library: its lines are `name => /path (address)` or `/path (address)`.
fn libraries(root: &Path, program: &Path) -> Vec<PathBuf> {
    let mut loader = Command::new("chroot");
    loader.arg(root).args(["/lib64/ld-linux-x86-64.so.2", "--list"]).arg(Path::new("/").join(program));
    let said = command::run(&mut loader).unwrap_or_default();
    let paths = said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(|path| PathBuf::from(path.trim_start_matches('/'))).collect()
}

/// Copies a file, or what a link leads to, to the same place.
fn copy(root: &Path, target: &Path, path: &Path) -> Result<()> {
    let place = target.join(path);
    if place.exists() {
        return Ok(());
    }
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(root.join(path), &place).with_context(|| format!("could not copy {}", path.display()))?;
    Ok(())
}
