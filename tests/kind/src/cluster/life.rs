//! How a cluster comes and goes.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Cluster, NAME, Node};
use crate::cache::Key;
use crate::certificate::certificate;
use crate::command;
use crate::debian;
use crate::docker::{Docker, NETWORK};
use crate::engine::Engine;
use crate::machine::Machine;
use crate::node_image::{Builder, KUBERNETES};
use crate::registry::{self, ORIGIN, PRIVATE, Registry, SYSTEM_REGISTRY};
use crate::room::must_have_room;
use crate::system_images;

/// What every Kubernetes has by itself.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

impl Cluster {
    /// A cluster that is ready. Minutes when nothing was built before, else half of one.
    pub fn start(machine: Machine) -> Result<Self> {
        let parts = &machine.parts;
        let kubernetes = parts.module(KUBERNETES)?;
        let kind = parts.module("kind")?.join("kind");
        let base = debian::base(&machine)?;
        let certificate = certificate(&machine, &[ORIGIN, PRIVATE, "127.0.0.1"])?;
        let names = system_images::names(&machine)?;
        let docker = Docker::find_or_start(&machine)?;
        for folder in docker.folder()?.iter().chain([&machine.folder]) {
            must_have_room(folder)?;
        }

        let pause = system_images::pause(&names)?;
        let builder = Builder { machine: &machine, docker: &docker, base: &base, certificate: &certificate, pause };
        let engines = Engine::of_workers()?;
        let images = engines.iter().map(|engine| builder.image(*engine)).collect::<Result<Vec<_>>>()?;
        let configuration = configuration(&of_all(&engines, &images)).to_string();
        let cluster = Self {
            name: NAME,
            nodes: nodes(&engines),
            kind,
            kubectl: kubernetes.join("kubectl"),
            kubeconfig: machine.folder.join("kubeconfig"),
            certificate,
            keep: std::env::var_os("LARDER_KIND_KEEP").is_some_and(|value| !value.is_empty()),
            second: false,
            docker: Arc::new(docker),
            machine: Arc::new(machine),
        };
        if cluster.usable(&configuration).is_ok() {
            cluster.machine.parts.progress("using the cluster that an earlier run left");
        } else {
            cluster.delete()?;
            system_images::registry(&cluster.machine, &cluster.docker, &base, &names)?;
            cluster.create(&configuration)?;
            let mark = json!({"configuration": configuration, "files": cluster.first_files()?});
            fs::write(cluster.mark(), mark.to_string()).context("could not note what the cluster is made of")?;
        }
        for options in [cluster.origin_options(), cluster.private_options()] {
            Registry::start(&cluster.machine, &cluster.docker, &options)?;
        }
        Ok(cluster)
    }

    /// Why what an earlier run left is of no use, when it is not.
    fn usable(&self, configuration: &str) -> Result<()> {
        let mark = fs::read_to_string(self.mark()).context("no cluster was left")?;
        let mark: Value = serde_json::from_str(&mark).context("it was not noted what the cluster is made of")?;
        ensure!(mark.get("configuration").and_then(Value::as_str) == Some(configuration), "it is another one");
        for container in self.nodes.iter().map(Node::name).chain([SYSTEM_REGISTRY]) {
            ensure!(self.docker.image_of_running(container).is_some(), "{container} does not run");
        }
        self.kubectl(&["get", "--raw", "/readyz", "--request-timeout", "5s"])?;
        let namespaces = self.get(&["namespaces"])?;
        for namespace in namespaces.pointer("/items").and_then(Value::as_array).into_iter().flatten() {
            let name = namespace.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            ensure!(NAMESPACES.contains(&name), "namespace {name} was left in it");
        }
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=5s"])?;
        ensure!(
            mark.get("files") == Some(&self.first_files()?.into()),
            "the nodes' files are not what they were at first"
        );
        Ok(())
    }

    /// A hash over what is in the nodes' `/etc`, but for what Docker writes into it at every start.
    fn first_files(&self) -> Result<String> {
        let mut key = Key::default();
        for node in self.nodes() {
            let tree = self.snapshot(node)?.without(&["hostname", "hosts", "resolv.conf"]);
            key = key.with(format!("{tree:?}"));
        }
        Ok(key.finish())
    }

    pub(super) fn create(&self, configuration: &str) -> Result<()> {
        self.machine.parts.progress("creating a cluster");
        let mut command = self.kind(&["create", "cluster", "--name", self.name, "--config", "-"]);
        // Kept for a look at it; the next run removes it.
        command::run_with_input(command.arg("--retain"), configuration.as_bytes()).with_context(|| {
            format!("kind could not create a cluster; its nodes are still there: {}", self.gathered("create"))
        })?;
        let ready = self.connect_pods().and_then(|()| self.wait_until_ready());
        ready.with_context(|| format!("the cluster did not come up: {}", self.gathered("create")))
    }

    fn wait_until_ready(&self) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"])?;
        // Before both, names that Pods and nodes ask for would leave the cluster.
        for workload in ["daemonset/kube-proxy", "deployment/coredns"] {
            self.kubectl(&["rollout", "status", workload, "--namespace", "kube-system", "--timeout=120s"])?;
        }
        Ok(())
    }

    fn delete(&self) -> Result<()> {
        let _ = fs::remove_file(self.mark());
        self.delete_nodes()?;
        for name in [ORIGIN, PRIVATE, SYSTEM_REGISTRY] {
            registry::remove(&self.docker, name)?;
        }
        Ok(())
    }

    pub(super) fn delete_nodes(&self) -> Result<()> {
        command::run(&mut self.kind(&["delete", "cluster", "--name", self.name])).map(drop)
    }

    /// Says what a cluster was made of, from when it was ready until it is deleted.
    fn mark(&self) -> std::path::PathBuf {
        self.machine.folder.join("cluster.json")
    }

    fn gathered(&self, name: &str) -> String {
        self.gather(name).map_or_else(|error| format!("{error:#}"), |folder| folder.display().to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep {
            let docker = self.docker.address().map(|address| format!("DOCKER_HOST={address} ")).unwrap_or_default();
            eprintln!("kept, as LARDER_KIND_KEEP says: {docker}KUBECONFIG={}", self.kubeconfig.display());
            self.docker.keep();
            return;
        }
        let deleted = if self.second {
            self.delete_nodes()
        } else {
            self.delete().and_then(|()| self.docker.run(&["network", "rm", NETWORK])).map(drop)
        };
        if let Err(error) = deleted {
            eprintln!("could not delete the cluster: {error:#}");
        }
    }
}

/// kind's names of nodes, in its own order.
fn nodes(workers: &[Engine]) -> Vec<Node> {
    let control_plane = workers.first().map(|engine| Node::new(format!("{NAME}-control-plane"), *engine, false));
    let workers = (1_u32..).zip(workers).map(|(number, engine)| {
        let number = if number == 1 { String::new() } else { number.to_string() };
        Node::new(format!("{NAME}-worker{number}"), *engine, true)
    });
    control_plane.into_iter().chain(workers).collect()
}

/// What kind is told of a node.
pub(super) fn of_one(role: &str, engine: Engine, image: &str) -> Value {
    // kubeadm would look for containerd.
    let patches: Vec<String> = ["InitConfiguration", "JoinConfiguration"]
        .map(|kind| format!("kind: {kind}\nnodeRegistration:\n  criSocket: unix://{}\n", engine.socket()))
        .into();
    json!({"role": role, "image": image, "kubeadmConfigPatches": patches})
}

fn of_all(workers: &[Engine], images: &[String]) -> Vec<Value> {
    let made = || workers.iter().zip(images);
    let control_plane = made().next().map(|(engine, image)| of_one("control-plane", *engine, image));
    control_plane.into_iter().chain(made().map(|(engine, image)| of_one("worker", *engine, image))).collect()
}

/// What kind is told of a cluster.
pub(super) fn configuration(nodes: &[Value]) -> Value {
    json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        // kind's own network plug-in is an image that cannot be had; `network` does without.
        "networking": {"disableDefaultCNI": true},
        // kubelet refuses pulls that come too quickly without asking the engine, which says nothing about Larder.
        "kubeadmConfigPatches": ["kind: KubeletConfiguration\nregistryPullQPS: 0\n"],
        "nodes": nodes,
    })
}
