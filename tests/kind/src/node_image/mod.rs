//! The image of a kind node with one engine: Debian, then kind's own files with Kubernetes, then the engine ([`containerd`], [`crio`]), a
//! layer each, so that the images of two engines share what they have in common.
//!
//! The steps are those of kind's own Dockerfile for its base image, with what this repository pins in place of what it downloads.

mod containerd;
mod crio;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use larder_test_parts::EngineLine;

use crate::cache::Key;
use crate::certificate::Certificate;
use crate::debian::Base;
use crate::docker::Docker;
use crate::engine::Engine;
use crate::image::{Configuration, Layer, archive};
use crate::machine::Machine;

/// The part that kubelet and control plane come from.
pub const KUBERNETES: &str = "kubernetes-1.34";

/// Builds node images, or finds them in Docker.
pub struct Builder<'a> {
    /// Where it is built.
    pub machine: &'a Machine,
    /// What keeps the images.
    pub docker: &'a Docker,
    /// Their lowest layer.
    pub base: &'a Base,
    /// Whom the nodes trust.
    pub certificate: &'a Certificate,
    /// `pause` as kubeadm of this version names it.
    pub pause: &'a str,
}

impl Builder<'_> {
    /// The image with an engine.
    pub fn image(&self, engine: Engine) -> Result<String> {
        let part = self.machine.parts.module(&engine.to_string())?;
        let reference = format!("larder-test-node-{engine}:{}", self.key(&part)?);
        if self.docker.has_image(&reference) {
            return Ok(reference);
        }
        self.machine.parts.progress(&format!("making the image of a node with {engine}"));
        let work = tempfile::tempdir_in(&self.machine.folder)?;
        let (common, above) = (work.path().join("common"), work.path().join("engine"));
        self.put_common(&common)?;
        match engine.0 {
            EngineLine::Containerd(line) => self.put_containerd(&above, line)?,
            EngineLine::Crio(line) => self.put_crio(&above, line)?,
        }
        put_wanted(&above, &format!("{}.service", engine.service()))?;
        let layers = [
            self.base.layer.clone(),
            Layer::pack(&common, &work.path().join("common.tar"))?,
            Layer::pack(&above, &work.path().join("engine.tar"))?,
        ];
        let configuration = Configuration {
            entrypoint: &["/usr/local/bin/entrypoint", "/sbin/init"],
            // systemd looks for the first to know where it is, and ends in order on the second only.
            environment: &["container=docker"],
            stop_signal: Some("SIGRTMIN+3"),
        };
        let file = work.path().join("image.tar");
        archive(&reference, &layers, &configuration, &file)?;
        self.docker.load(&file, &reference)?;
        Ok(reference)
    }

    fn key(&self, engine: &Path) -> Result<String> {
        let parts = &self.machine.parts;
        let key = Key::default()
            .with(concat!(include_str!("mod.rs"), include_str!("containerd.rs"), include_str!("crio.rs")))
            .with(parts.version("kind")?);
        let key = key
            .with_part(&self.base.folder)
            .with_part(&self.certificate.folder)
            .with_file(&self.certificate.authority)?;
        let key = key.with_part(&parts.module(KUBERNETES)?).with_part(&parts.module("cni-plugins")?);
        let key = key.with_part(engine).with(self.pause);
        Ok(match &self.machine.runtime {
            Some(runtime) => key.with_file(runtime)?.finish(),
            None => key.finish(),
        })
    }

    fn put_common(&self, root: &Path) -> Result<()> {
        let parts = &self.machine.parts;
        put_kind_files(&parts.source("kind")?.join("images/base/files"), root)?;
        let kubernetes = parts.module(KUBERNETES)?;
        for program in ["kubeadm", "kubectl", "kubelet"] {
            put_program(&kubernetes.join(program), &root.join("usr/bin").join(program))?;
        }
        let plugins = parts.module("cni-plugins")?;
        for program in ["host-local", "loopback", "portmap", "ptp"] {
            put_program(&plugins.join(program), &root.join("opt/cni/bin").join(program))?;
        }
        if let Some(runtime) = &self.machine.runtime {
            // Before Debian's in the search path.
            put_program(runtime, &root.join("usr/local/sbin/runc"))?;
        }
        for folder in ["etc/kubernetes/manifests", "etc/cni/net.d"] {
            fs::create_dir_all(root.join(folder))?;
        }
        put(root, "kind/version", &parts.version(KUBERNETES)?)?;
        // The machine's own kernel log would only confuse.
        put(root, "etc/systemd/journald.conf.d/kind.conf", "[Journal]\nReadKMsg=no\n")?;
        for unit in ["kubelet.service", "undo-mount-hacks.service"] {
            put_wanted(root, unit)?;
        }
        // What it registers holds for the whole machine.
        symlink("/dev/null", root.join("etc/systemd/system/systemd-binfmt.service"))?;
        // Go reads every file of this folder beside the bundle.
        let authority = fs::read_to_string(&self.certificate.authority)?;
        put(root, "etc/ssl/certs/larder-test-authority.pem", &authority)
    }
}

/// Copies a folder; programs are in two of its folders, and everything else is to be read only.
fn put_kind_files(from: &Path, root: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("could not read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = root.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            put_kind_files(&entry.path(), &target)?;
            continue;
        }
        let mode = if from.ends_with("bin") { 0o755 } else { 0o644 };
        copy(&entry.path(), &target, mode)?;
    }
    Ok(())
}

/// Has systemd start a unit.
fn put_wanted(root: &Path, unit: &str) -> Result<()> {
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit))
        .with_context(|| format!("could not have {unit} started"))
}

fn put_program(from: &Path, to: &Path) -> Result<()> {
    copy(from, to, 0o755)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(|| to.display().to_string())
}

fn put(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = root.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}
