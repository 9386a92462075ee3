//! One node's Larder: what its two processes say of themselves, and how they are hurt.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::http;
use larder_test_node::wait::until;
use serde_json::Value;

use super::{NAMESPACE, Release, SELECTOR};
use crate::cluster::Node;

/// Where the proxy serves its metrics, and where the agent does.
const METRICS: [u16; 2] = [7442, 7444];

impl Release<'_> {
    /// The name of a node's Pod.
    pub fn pod(&self, node: &Node) -> Result<String> {
        let on_node = format!("spec.nodeName={}", node.name());
        let pods = ["pods", "--namespace", NAMESPACE, "--selector", SELECTOR, "--field-selector", &on_node];
        let pods = self.cluster.get(&pods)?;
        let name = pods.pointer("/items/0/metadata/name").and_then(Value::as_str);
        Ok(name.with_context(|| format!("{} has no Pod of Larder", node.name()))?.to_owned())
    }

    /// Deletes a node's Pod, and waits until another one is ready in its place.
    pub fn replace_pod(&self, node: &Node) -> Result<()> {
        let before = self.pod(node)?;
        self.cluster.kubectl(&["delete", "pod", &before, "--namespace", NAMESPACE, "--timeout=90s"])?;
        until("another Pod is there", Duration::from_mins(1), || {
            ensure!(self.pod(node)? != before, "there is only the old one");
            Ok(())
        })?;
        self.wait()?;
        self.wait_until_ready(node)
    }

    /// What `larder-node status` says on a node.
    pub fn status(&self, node: &Node) -> Result<Value> {
        let pod = self.pod(node)?;
        let command = ["exec", &pod, "--namespace", NAMESPACE, "--container", "agent", "--"];
        let status = ["/usr/local/bin/larder-node", "status", "--output", "json"];
        let said = self.cluster.kubectl(&[&command[..], &status].concat())?;
        serde_json::from_str(&said).context("the status is no JSON")
    }

    /// The body of the agent's `/readyz`, whatever its status. It needs no API server.
    pub fn readiness(&self, node: &Node) -> Result<String> {
        self.cluster.node_exec(node, &["curl", "--silent", "--max-time", "3", "http://127.0.0.1:7441/readyz"])
    }

    /// Waits until a node's agent is ready, by its own word. It needs no API server.
    pub fn wait_until_ready(&self, node: &Node) -> Result<()> {
        until(&format!("the agent of {} is ready", node.name()), Duration::from_mins(1), || {
            let url = "http://127.0.0.1:7441/readyz";
            self.cluster.node_exec(node, &["curl", "--silent", "--show-error", "--fail-with-body", url]).map(drop)
        })
    }

    /// The process id of the agent on a node, as the node counts.
    pub fn agent(&self, node: &Node) -> Result<Process> {
        self.process(node, "/agent/pid")
    }

    /// That of the proxy.
    pub fn proxy(&self, node: &Node) -> Result<Process> {
        self.process(node, "/proxy/pid")
    }

    fn process(&self, node: &Node, pointer: &str) -> Result<Process> {
        let status = self.status(node)?;
        let id = status.pointer(pointer).and_then(Value::as_u64);
        Ok(Process(id.with_context(|| format!("{} has none: {status:#}", node.name()))?))
    }

    /// The sum of all samples of a metric whose labels hold all of these, as `name="value"`. Of proxy or agent, whoever has it.
    pub fn metric(&self, node: &Node, name: &str, labels: &[&str]) -> Result<f64> {
        let address = self.cluster.address(node)?;
        let mut sum = None;
        for port in METRICS {
            let reply = http::get(SocketAddr::new(address.parse()?, port), "/metrics", &[])?;
            ensure!(reply.status == 200, "metrics of {} answer {}", node.name(), reply.status);
            for line in reply.text().lines() {
                if let Some(value) = sample(line, name, labels) {
                    *sum.get_or_insert(0.0) += value;
                }
            }
        }
        Ok(sum.unwrap_or(0.0))
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, node: &Node, process: Process, signal: &str) -> Result<()> {
        self.cluster.node_exec(node, &["kill", "-s", signal, &process.0.to_string()]).map(drop)
    }

    /// Whether a process of the node lives, frozen or not.
    pub fn lives(&self, node: &Node, process: Process) -> Result<bool> {
        let path = self.cluster.files(node)?.join(format!("proc/{}/stat", process.0));
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // After the name, in parentheses, comes the state; a zombie is a process that has ended.
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X')))
    }

    /// Whether the engine of a node finds an entry of ours: the links are there, and lead somewhere.
    pub fn has_entry(&self, node: &Node) -> Result<bool> {
        let read = format!("cat {} 2>/dev/null || true", node.engine().entry());
        Ok(self.cluster.node_exec(node, &["sh", "-c", &read])?.contains("127.0.0.1:7439"))
    }
}

/// A process by its id on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u64);

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) fn sample(line: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (described, value) = rest.rsplit_once(' ')?;
    let described = if described.is_empty() { "" } else { described.strip_prefix('{')?.strip_suffix('}')? };
    labels.iter().all(|label| described.contains(label)).then(|| value.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn a_sample_is_found_by_name_and_labels() {
        let line = r#"larder_requests_total{registry="a.example.com",kind="blob"} 3"#;
        assert_eq!(sample(line, "larder_requests_total", &[r#"kind="blob""#]), Some(3.0));
        assert_eq!(sample(line, "larder_requests_total", &[r#"kind="tag""#]), None);
        assert_eq!(sample(line, "larder_requests", &[]), None);
        assert_eq!(sample("larder_agent_announced 1", "larder_agent_announced", &[]), Some(1.0));
    }
}
