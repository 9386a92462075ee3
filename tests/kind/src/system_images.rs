//! The images of the control plane, made from the programs that this repository pins, in a registry that stands in for registry.k8s.io.
//!
//! kubeadm fixes their names, and is asked for them. The registry's content is kept in the cache, so that a cluster is quick to come.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use larder_test_parts::Debian;

use crate::cache::Key;
use crate::command;
use crate::debian::Base;
use crate::docker::Docker;
use crate::image::{Configuration, Layer, archive};
use crate::machine::Machine;
use crate::node_image::KUBERNETES;
use crate::registry::{Options, Registry, SYSTEM_REGISTRY};

/// What says that everything is in the registry.
const COMPLETE: &str = "complete";

/// What kubeadm of the pinned version pulls, by the names that it uses.
pub fn names(machine: &Machine) -> Result<Vec<String>> {
    let kubeadm = machine.parts.module(KUBERNETES)?.join("kubeadm");
    let version = machine.parts.version(KUBERNETES)?;
    let mut command = Command::new(kubeadm);
    let said = command::run(command.args(["config", "images", "list", "--kubernetes-version", &version]))?;
    Ok(said.lines().map(|line| line.trim().to_owned()).collect())
}

/// The name of `pause` among them.
pub fn pause(names: &[String]) -> Result<&str> {
    let pause = names.iter().map(String::as_str).find(|name| name.contains("/pause:"));
    pause.context("kubeadm names no image for Pod sandboxes")
}

/// Starts the registry, with every image in it.
pub fn registry<'a>(machine: &Machine, docker: &'a Docker, base: &Base, names: &[String]) -> Result<Registry<'a>> {
    let parts = &machine.parts;
    let mut key = Key::default().with(include_str!("system_images.rs")).with_part(&base.folder);
    for part in [KUBERNETES, "etcd", "coredns"] {
        key = key.with_part(&parts.module(part)?);
    }
    let storage = machine.folder.join(format!("system-images-{}", key.finish()));
    fs::create_dir_all(&storage).with_context(|| format!("could not make {}", storage.display()))?;
    let options = Options { name: SYSTEM_REGISTRY, certificate: None, storage: Some(&storage), private: false };
    let registry = Registry::start(machine, docker, &options)?;
    let complete = storage.join(COMPLETE);
    if !complete.exists() {
        parts.progress("making the images of the control plane");
        for name in names {
            push(machine, &registry, base, name)?;
        }
        fs::write(&complete, "").with_context(|| format!("could not write {}", complete.display()))?;
        remove_older(&machine.folder, &storage)?;
    }
    Ok(registry)
}

fn push(machine: &Machine, registry: &Registry<'_>, base: &Base, name: &str) -> Result<()> {
    let work = tempfile::tempdir_in(&machine.folder)?;
    let (_, image) = name.split_once('/').with_context(|| format!("{name} names no registry"))?;
    let (repository, _) = image.rsplit_once(':').with_context(|| format!("{name} has no tag"))?;
    let program = repository.rsplit('/').next().unwrap_or(repository);
    let root = work.path().join("root");
    let target = root.join("usr/local/bin").join(program);
    fs::create_dir_all(root.join("usr/local/bin"))?;
    fs::create_dir_all(root.join("tmp"))?;
    if program == "pause" {
        compile_pause(machine, &target)?;
    } else {
        let source = source(machine, program)?;
        fs::copy(&source, &target).with_context(|| format!("could not copy {}", source.display()))?;
    }
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    let mut layers = vec![Layer::pack(&root, &work.path().join("layer.tar"))?];
    if program == "kube-proxy" {
        layers.insert(0, base.packet_filter.clone());
    }
    let entrypoint = format!("/usr/local/bin/{program}");
    let configuration = Configuration {
        entrypoint: &[&entrypoint],
        // The control plane's manifests name programs without a folder.
        environment: &["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        stop_signal: None,
    };
    let file = work.path().join("image.tar");
    archive(name, &layers, &configuration, &file)?;
    registry.push(&file, image)
}

fn source(machine: &Machine, program: &str) -> Result<PathBuf> {
    Ok(match program {
        "etcd" => machine.parts.module("etcd")?.join("server"),
        "coredns" => machine.parts.module("coredns")?.join("coredns"),
        "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kube-proxy" => {
            machine.parts.module(KUBERNETES)?.join(program)
        }
        unknown => bail!("kubeadm wants an image {unknown}, which nothing here is made for"),
    })
}

/// Kubernetes' own `pause`, which holds a Pod's namespaces: 40 lines of C, and the only program here that is no Go.
pub(crate) fn compile_pause(machine: &Machine, target: &Path) -> Result<()> {
    let compiler = machine.parts.debian(Debian::CompilerOfCxx)?;
    let source = machine.parts.source(KUBERNETES)?.join("build/pause/linux/pause.c");
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-Os", "-static", "-s", "-DVERSION=larder-test", "-o"]).arg(target).arg(source);
    command::run(&mut command).map(drop)
}

fn remove_older(folder: &Path, current: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("system-images-") && path != current {
            fs::remove_dir_all(&path).with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}
