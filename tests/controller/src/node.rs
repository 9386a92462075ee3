//! `larder-node agent --kubernetes`, as it was just built, for a node without an engine: what it has to do with the API server needs none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_callers::ControlPlane;
use larder_test_callers::wait::until;
use larder_test_node::http::{self, free_address};
use larder_test_node::process::Process;
use larder_test_parts::own::larder_node;
use serde_json::Value;
use tempfile::TempDir;

/// What the documentation says that the agent needs.
pub const NODE_RIGHTS: &str = include_str!("../../../docs/node-rights.yaml");

/// A node: its root, and the agent on it.
pub struct Node {
    root: TempDir,
    kubeconfig: PathBuf,
    name: String,
    admin: SocketAddr,
    arguments: Vec<String>,
    agent: Option<Process>,
}

impl Node {
    /// A Node of Kubernetes, and a Pod on it whose token the agent will have. Starts nothing.
    pub fn new(plane: &ControlPlane, name: &str, words: &[&str]) -> Result<Self> {
        plane.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}"))?;
        let pod = format!("agent-{name}");
        plane.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: larder}}, \
             spec: {{nodeName: {name}, serviceAccountName: node, containers: [{{name: agent, image: a}}]}}}}"
        ))?;
        let uid =
            plane.kubectl(&["get", "pod", &pod, "--namespace=larder", "--output=jsonpath={.metadata.uid}"], "")?;
        let (of_pod, of_uid) = (format!("--bound-object-name={pod}"), format!("--bound-object-uid={uid}"));
        let words_of_token =
            ["create", "token", "node", "--namespace=larder", "--bound-object-kind=Pod", &of_pod, &of_uid];
        let token = plane.kubectl(&words_of_token, "")?;
        let kubeconfig = plane.kubeconfig_with_token(&format!("node-{name}"), token.trim())?;
        let root = tempfile::tempdir()?;
        let (admin, listen) = (free_address()?, free_address()?);
        let path = |inside: &str| root.path().join(inside).display().to_string();
        let mut arguments: Vec<String> = [
            "agent",
            "--kubernetes",
            "--node-name",
            name,
            "--placement",
            "run",
            "--host-root",
            &path(""),
            "--run-dir",
            &path("run"),
            "--cri-socket",
            &path("none.sock"),
            "--listen",
            &listen.to_string(),
            "--admin",
            &admin.to_string(),
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        Ok(Self { root, kubeconfig, name: name.to_owned(), admin, arguments, agent: None })
    }

    /// Starts the agent, and waits for nothing.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(larder_node()?);
        command.args(&self.arguments).env("KUBECONFIG", &self.kubeconfig);
        command.env("LARDER_LOG", "info,larder_node=debug");
        self.agent = Some(Process::start("larder-node", self.root.path(), &mut command)?);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.agent.take().context("it runs")?.kill()
    }

    /// SIGTERM, and its end. What it logged.
    pub fn terminate(&mut self) -> Result<String> {
        let mut agent = self.agent.take().context("it runs")?;
        let status = agent.terminate(Duration::from_mins(1))?;
        ensure!(status.success(), "{status}: {}", agent.last_lines(40));
        Ok(agent.output())
    }

    /// What the proxy is told of registries.
    pub fn registries_file(&self) -> PathBuf {
        self.root.path().join("run/proxy/registries.toml")
    }

    /// Waits until it holds a text.
    pub fn until_the_proxy_is_told(&self, text: &str) -> Result<String> {
        until(&format!("the proxy is told {text:?}"), || {
            let told = std::fs::read_to_string(self.registries_file())?;
            ensure!(told.contains(text), "{told}\n{}", self.last_lines());
            Ok(told)
        })
    }

    /// What the agent keeps of Kubernetes on the node's disk.
    pub fn last_known(&self) -> PathBuf {
        self.root.path().join("var/lib/larder/node-kubernetes.json")
    }

    /// The agent's own status.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&http::get(self.admin, "/status", &[])?.body)?)
    }

    /// Waits until `/readyz` holds a text.
    pub fn until_it_says(&self, text: &str) -> Result<()> {
        until(&format!("/readyz says {text:?}"), || {
            let page = http::get(self.admin, "/readyz", &[])?.text();
            ensure!(page.contains(text), "{page}\n{}", self.last_lines());
            Ok(())
        })
    }

    /// A number that the agent counts.
    pub fn metric(&self, name: &str) -> Result<f64> {
        http::metric(&http::get(self.admin, "/metrics", &[])?.text(), name)
    }

    /// Its `NodeMirror`.
    pub fn mirror(&self, plane: &ControlPlane) -> Result<Value> {
        Ok(serde_json::from_str(&plane.kubectl(&["get", "nodemirror", &self.name, "--output=json"], "")?)?)
    }

    /// What a person runs: `larder-node status`.
    pub fn printed_status(&self) -> Result<String> {
        let output = Command::new(larder_node()?).args(["status", "--admin", &self.admin.to_string()]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        self.agent.as_ref().map(|agent| agent.last_lines(20)).unwrap_or_default()
    }

    /// A folder that goes with it.
    pub fn folder(&self) -> &Path {
        self.root.path()
    }
}
