//! A cluster with everything beside it, and what a case does with it.
//!
//! Invariant: whoever gets a [`Cluster`] gets one whose nodes are ready and whose names resolve. It ends with the value, with Docker when
//! that is ours too, unless `LARDER_KIND_KEEP` is set. A case may have a second, small one beside it ([`second`]). One that an earlier run
//! left is used again only if it is the same and healthy ([`life`]).

mod evidence;
mod life;
mod namespace;
mod network;
mod node;
mod pod;
mod second;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use larder_test_parts::EngineLine;
use serde_json::Value;

use crate::at_once::at_once;
use crate::certificate::Certificate;
use crate::command;
use crate::docker::Docker;
use crate::machine::Machine;
use crate::registry::{ORIGIN, Options, PRIVATE, Registry};
pub use namespace::Namespace;
pub use node::Node;
pub use pod::Pod;

/// The name of the one that all cases share, which the names of its nodes begin with.
const NAME: &str = "larder-test";

/// One control plane, and some workers, each with an engine of its own.
pub struct Cluster {
    // Docker last: the rest cannot be removed without it.
    name: &'static str,
    nodes: Vec<Node>,
    kind: PathBuf,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    certificate: Certificate,
    /// What is beside it, registries and network, is another one's.
    second: bool,
    keep: bool,
    docker: Arc<Docker>,
    machine: Arc<Machine>,
}

impl Cluster {
    /// Runs `kubectl`; standard output is what it gives back.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, &[])
    }

    /// The same, with something for `--filename -`.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        command::run_with_input(command.args(arguments).env("KUBECONFIG", &self.kubeconfig), input)
    }

    /// What `kubectl get` says of some objects, as a value.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[&["get", "--output", "json"], arguments].concat())?;
        serde_json::from_str(&said).context("kubectl prints no JSON")
    }

    /// Runs helm.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.helm_with_input(arguments, &[])
    }

    /// The same, with something for `--values -`.
    pub fn helm_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let mut command = Command::new(self.machine.parts.helm()?);
        command::run_with_input(command.args(arguments).env("KUBECONFIG", &self.kubeconfig), input)
    }

    /// Runs a program on a node, as root, in the node's own namespaces.
    pub fn node_exec(&self, node: &Node, arguments: &[&str]) -> Result<String> {
        self.docker.run(&[&["exec", node.name()], arguments].concat())
    }

    /// Puts the image of an archive in the format of `docker save` into the engine of every node.
    pub fn load_image_archive(&self, archive: &Path, reference: &str) -> Result<()> {
        let (by_kind, by_hand): (Vec<_>, Vec<_>) =
            self.nodes.iter().partition(|node| matches!(node.engine().0, EngineLine::Containerd(_)));
        if !by_kind.is_empty() {
            let names: Vec<_> = by_kind.iter().map(|node| node.name()).collect();
            let mut command = self.kind(&["load", "image-archive", "--name", self.name, "--nodes", &names.join(",")]);
            command::run(command.arg(archive))?;
        }
        // kind knows containerd only.
        at_once(by_hand, |node| {
            let there = "/root/archive.tar";
            self.docker.run(&["cp", &archive.to_string_lossy(), &format!("{}:{there}", node.name())])?;
            let (from, to) = (format!("docker-archive:{there}"), format!("containers-storage:{reference}"));
            self.node_exec(node, &["skopeo", "copy", "--quiet", &from, &to])?;
            self.node_exec(node, &["rm", there]).map(drop)
        })?;
        Ok(())
    }

    /// The registry that images of cases come from. The nodes trust it by their system's list of authorities, so no engine knows of it.
    pub fn origin(&self) -> Result<Registry<'_>> {
        Registry::of(&self.machine, &self.docker, &self.origin_options())
    }

    /// One that wants an account, with a certificate of the same authority.
    pub fn private_registry(&self) -> Result<Registry<'_>> {
        Registry::of(&self.machine, &self.docker, &self.private_options())
    }

    /// The authority that [`Self::origin`] has its certificate from, in PEM.
    pub fn authority(&self) -> &Path {
        &self.certificate.authority
    }

    /// The machine below.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What a person types to have `kubectl` and `docker` speak to it.
    pub fn environment(&self) -> String {
        let docker = self.docker.address().map(|address| format!(" DOCKER_HOST={address}")).unwrap_or_default();
        format!("export KUBECONFIG={}{docker}", self.kubeconfig.display())
    }

    /// Docker, for what the methods here do not do.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    fn origin_options(&self) -> Options<'_> {
        Options { name: ORIGIN, certificate: Some(&self.certificate), storage: None, private: false }
    }

    fn private_options(&self) -> Options<'_> {
        Options { name: PRIVATE, private: true, ..self.origin_options() }
    }

    /// Whether it outlives this value.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    fn kind(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kind);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        // Its own way to say that nodes belong to a network that is not the developer's.
        command
            .env("KIND_EXPERIMENTAL_DOCKER_NETWORK", crate::docker::NETWORK)
            .env("KIND_EXPERIMENTAL_PROVIDER", "docker");
        self.docker.environment(&mut command);
        command
    }
}
