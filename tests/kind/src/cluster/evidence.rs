//! Everything that explains a failure, gathered into a folder before it is gone.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Cluster;
use crate::command;
use crate::registry::{ORIGIN, PRIVATE, SYSTEM_REGISTRY};

/// Questions to Kubernetes, each with the file that gets the answer.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("objects.txt", &["get", "all,nodes,configmaps", "--all-namespaces", "--output", "wide"]),
    ("custom-resources.txt", &["get", "larder", "--output", "yaml"]),
    ("events.txt", &["get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"]),
    ("pods.txt", &["describe", "pods", "--all-namespaces"]),
    ("nodes.txt", &["describe", "nodes"]),
];

/// Questions to a node.
const COMMANDS: [(&str, &str); 5] = [
    // What Larder says of itself, when it is there.
    ("agent.txt", "curl --silent --max-time 3 127.0.0.1:7441/readyz; ls -laR /run/larder"),
    (
        "proxy.txt",
        "curl --silent --max-time 3 127.0.0.1:7440/readyz; curl --silent --max-time 3 127.0.0.1:7442/metrics",
    ),
    (
        "engine-files.txt",
        "cd /etc && find containerd crio containers cni -ls 2>/dev/null; find containerd crio containers cni \\( -type f -o -type l \\) 2>/dev/null | while read -r file; do echo \"== $file\"; cat \"$file\"; done",
    ),
    ("images.txt", "ctr --namespace k8s.io images ls || cat /var/lib/containers/storage/overlay-images/images.json"),
    ("network.txt", "ip address; ip route; iptables-save; cat /etc/resolv.conf"),
];

impl Cluster {
    /// Gathers it into a folder named after what failed, in place of what was there. What cannot be had is said in its place.
    pub fn gather(&self, name: &str) -> Result<PathBuf> {
        let folder = self.machine.folder.join("evidence").join(name.replace("::", "-"));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("could not remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        for (file, question) in QUESTIONS {
            put(&folder.join(file), self.kubectl(&[question, &["--request-timeout", "10s"]].concat()))?;
        }
        // Journals, and the logs of every container, from each node.
        put(
            &folder.join("kind.txt"),
            command::run(self.kind(&["export", "logs", "--name", self.name]).arg(folder.join("kind"))),
        )?;
        for node in self.nodes() {
            for (file, script) in COMMANDS {
                put(&folder.join(format!("{}-{file}", node.name())), self.node_exec(node, &["sh", "-c", script]))?;
            }
        }
        for registry in [ORIGIN, PRIVATE, SYSTEM_REGISTRY] {
            put(&folder.join(format!("{registry}.log")), self.docker.log(registry))?;
        }
        Ok(folder)
    }
}

fn put(path: &std::path::Path, answer: Result<String>) -> Result<()> {
    let text = answer.unwrap_or_else(|error| format!("not to be had: {error:#}\n"));
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}
