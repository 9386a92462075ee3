//! The network of Pods, with the standard plug-ins alone: on each node a point-to-point link per Pod, between the nodes static routes, to
//! the outside the node's own address. What the kernel holds of it is lost when a node restarts.

use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use super::{Cluster, Node};
use crate::command;

/// What kind gives to Pods unless told otherwise.
const PODS: &str = "10.244.0.0/16";

/// A node as the network sees it.
struct Host {
    name: String,
    address: String,
    pods: String,
}

impl Cluster {
    /// Connects the Pods of all nodes. It changes nothing where all is as it should be.
    pub fn connect_pods(&self) -> Result<()> {
        let hosts = self.hosts()?;
        for host in &hosts {
            let mut put = self.docker.command();
            put.args(["exec", "--interactive", &host.name, "tee", "/etc/cni/net.d/10-pods.conflist"]);
            command::run_with_input(&mut put, configuration(&host.pods).to_string().as_bytes())?;
            let masquerade = ["POSTROUTING", "--source", PODS, "!", "--destination", PODS, "--jump", "MASQUERADE"];
            let iptables = |action| {
                [&["exec", host.name.as_str(), "iptables", "--wait", "--table", "nat", action], &masquerade[..]]
                    .concat()
            };
            if self.docker.run(&iptables("--check")).is_err() {
                self.docker.run(&iptables("--append"))?;
            }
            for other in hosts.iter().filter(|other| other.name != host.name) {
                self.docker.run(&["exec", &host.name, "ip", "route", "replace", &other.pods, "via", &other.address])?;
            }
        }
        Ok(())
    }

    /// A node's address among the other nodes, and as the machine reaches it; another one after a restart, maybe. It is Docker's word:
    /// Kubernetes may still hold the one from before.
    pub fn address(&self, node: &Node) -> Result<String> {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}", crate::docker::NETWORK);
        let address = self.docker.run(&["container", "inspect", "--format", &format, node.name()])?;
        Ok(address.trim().to_owned())
    }

    fn hosts(&self) -> Result<Vec<Host>> {
        let mut hosts = Vec::new();
        for node in self.nodes() {
            // A control plane that has just begun gives them out a moment later.
            let pods = until(&format!("{} has addresses for Pods", node.name()), Duration::from_mins(1), || {
                let object = self.get(&["node", node.name()])?;
                let pods = object.pointer("/spec/podCIDR").and_then(Value::as_str);
                Ok(pods.context("it has none")?.to_owned())
            })?;
            hosts.push(Host { name: node.name().to_owned(), address: self.address(node)?, pods });
        }
        Ok(hosts)
    }
}

fn configuration(pods: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    // Forgotten at a restart, as the Pods that had the addresses are.
                    "dataDir": "/run/cni-addresses",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": pods}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}
