//! The release's cluster cache: where its replicas are, what they say of themselves, and how they are hurt.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use super::node::sample;
use super::{NAME, NAMESPACE, Release};
use crate::cluster::Node;

/// What selects its Pods.
const SELECTOR: &str = "app.kubernetes.io/name=larder,app.kubernetes.io/component=cache";

/// A volume, for the cluster has nobody who would make one. Its path is on a node.
const VOLUME: (&str, &str) = ("larder-cache", "/var/lib/larder-cache-volume");

/// A replica that runs.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The Pod's name.
    pub pod: String,
    /// The Pod's address.
    address: String,
    /// The name of its node.
    node: String,
}

impl Release<'_> {
    /// The cluster cache as everybody gets it, on [a volume](Self::make_volume).
    pub fn with_cache() -> Value {
        json!({"cache": {"store": {"size": "1GiB", "reserve": "0"}}})
    }

    /// Makes the volume that its claim waits for, on the first worker, unless there is one.
    pub fn make_volume(&self) -> Result<()> {
        let (name, path) = VOLUME;
        let node = self.cluster.workers().next().context("there is no worker")?;
        // A disk of its own, so that nothing depends on how full the machine's is.
        let script = format!("mkdir -p {path} && (mountpoint -q {path} || mount -t tmpfs -o size=2g tmpfs {path})");
        self.cluster.node_exec(node, &["sh", "-c", &script])?;
        let host =
            [("key", json!("kubernetes.io/hostname")), ("operator", json!("In")), ("values", json!([node.name()]))];
        let host: serde_json::Map<String, Value> =
            host.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                // As much as the chart asks for by itself, or the claim would be given another volume.
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": NAMESPACE, "name": format!("{NAME}-cache")},
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
            },
        });
        self.cluster.kubectl_with_input(&["apply", "--filename", "-"], volume.to_string().as_bytes()).map(drop)
    }

    /// Takes the volume away; its claim went with the namespace.
    pub(super) fn delete_volume(&self) -> Result<()> {
        let (name, path) = VOLUME;
        self.cluster.kubectl(&["delete", "persistentvolume", name, "--ignore-not-found", "--timeout=60s"])?;
        let node = self.cluster.workers().next().context("there is no worker")?;
        let script = format!("! mountpoint -q {path} || umount {path}; rm -rf {path}");
        self.cluster.node_exec(node, &["sh", "-c", &script]).map(drop)
    }

    /// Waits until every replica is of the newest revision and ready, and every node's proxy knows it.
    pub fn wait_for_cache(&self) -> Result<()> {
        let set = format!("statefulset/{NAME}-cache");
        let status = ["rollout", "status", &set, "--namespace", NAMESPACE, "--timeout=150s"];
        let said = self.cluster.kubectl(&status);
        said.with_context(|| format!("the cluster cache is not ready:\n{}", self.cache_pods()))?;
        self.cluster
            .on_each_worker(|worker| {
                until("the proxy knows the cluster cache", Duration::from_mins(2), || {
                    self.look_after_pods()?;
                    let url = "http://127.0.0.1:7440/readyz";
                    let said = self.cluster.node_exec(worker, &["curl", "--silent", "--max-time", "3", url])?;
                    ensure!(!said.contains("cluster cache") && !said.contains("--cache"), "{said}");
                    Ok(())
                })
            })
            .map(drop)
    }

    /// Kubelet writes a changed `ConfigMap` into a Pod when it next looks after it, which is a minute later, or when the Pod changes.
    pub fn look_after_pods(&self) -> Result<()> {
        let now = format!("larder.test/looked-after={:?}", SystemTime::UNIX_EPOCH.elapsed()?);
        self.cluster.kubectl(&["annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", &now]).map(drop)
    }

    /// Those that run.
    pub fn replicas(&self) -> Result<Vec<Replica>> {
        let pods = self.cluster.get(&["pods", "--namespace", NAMESPACE, "--selector", SELECTOR])?;
        let pods = pods.pointer("/items").and_then(Value::as_array).context("there is no list")?;
        let text = |pod: &Value, pointer: &str| Some(pod.pointer(pointer)?.as_str()?.to_owned());
        let replica = |pod: &Value| {
            let (name, address) = (text(pod, "/metadata/name")?, text(pod, "/status/podIP")?);
            Some(Replica { pod: name, address, node: text(pod, "/spec/nodeName")? })
        };
        Ok(pods.iter().filter_map(replica).collect())
    }

    /// The sum of all samples of a metric of a replica.
    pub fn cache_metric(&self, replica: &Replica, name: &str, labels: &[&str]) -> Result<f64> {
        let url = format!("http://{}:7444/metrics", replica.address);
        let said = self.cluster.node_exec(self.node_of(replica)?, &["curl", "--silent", "--max-time", "3", &url])?;
        ensure!(!said.is_empty(), "{} does not answer", replica.pod);
        Ok(said.lines().filter_map(|line| sample(line, name, labels)).sum())
    }

    /// What every replica says of itself, for people.
    pub fn caches_say(&self) -> Result<String> {
        let mut said = String::new();
        for replica in self.replicas()? {
            let url = format!("http://{}:7444/readyz", replica.address);
            let own = self.cluster.node_exec(self.node_of(&replica)?, &["curl", "--silent", "--max-time", "3", &url]);
            let own = own.unwrap_or_else(|error| format!("{error:#}"));
            said.extend([replica.pod.as_str(), " says ", own.trim(), "\n"]);
        }
        Ok(said)
    }

    /// Ends a replica without a word. Kubelet starts it again.
    pub fn kill_replica(&self, replica: &Replica) -> Result<()> {
        // There is one on a node.
        self.cluster.node_exec(self.node_of(replica)?, &["pkill", "-KILL", "-x", "larder-cache"]).map(drop)
    }

    /// Runs `larder-cache` in the Pod of a replica, with the variables that it has.
    pub fn in_cache(&self, replica: &Replica, arguments: &[&str]) -> Result<String> {
        let exec = ["exec", &replica.pod, "--namespace", NAMESPACE, "--", "/usr/local/bin/larder-cache"];
        self.cluster.kubectl(&[&exec[..], arguments].concat())
    }

    /// So many replicas, however many there were; waits until those that are too many are gone.
    pub fn scale_cache(&self, replicas: usize) -> Result<()> {
        let (set, count) = (format!("statefulset/{NAME}-cache"), format!("--replicas={replicas}"));
        self.cluster.kubectl(&["scale", &set, &count, "--namespace", NAMESPACE])?;
        until("the other replicas are gone", Duration::from_secs(90), || {
            let there = self.replicas()?;
            ensure!(there.len() <= replicas, "there are {there:?}");
            Ok(())
        })
    }

    /// What the cache sends reaches its nodes no faster than so many kilobytes in a second, until [`Self::hurry`].
    pub fn slow_down(&self, kilobytes: u32) -> Result<()> {
        self.each_rule("--insert", kilobytes)
    }

    /// The end of it.
    pub fn hurry(&self, kilobytes: u32) -> Result<()> {
        self.each_rule("--delete", kilobytes)
    }

    /// How many packets [`Self::slow_down`] has taken away where a replica sends.
    pub fn held_back(&self, replica: &Replica) -> Result<u64> {
        let list =
            ["iptables", "--wait", "--table", "raw", "--list", "PREROUTING", "--verbose", "--numeric", "--exact"];
        let said = self.cluster.node_exec(self.node_of(replica)?, &list)?;
        let packets = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
        Ok(said.lines().filter(|line| line.contains("spt:7443")).filter_map(packets).sum())
    }

    fn each_rule(&self, action: &str, kilobytes: u32) -> Result<()> {
        // iptables wants a burst of more than a second.
        let (above, burst) = (format!("{kilobytes}kb/s"), format!("{}kb", kilobytes + kilobytes / 4));
        for node in self.cluster.nodes() {
            let rule =
                ["iptables", "--wait", "--table", "raw", action, "PREROUTING", "--protocol", "tcp", "--sport", "7443"];
            let limit = ["--match", "hashlimit", "--hashlimit-above", &above, "--hashlimit-burst", &burst];
            let drop = ["--hashlimit-mode", "dstip", "--hashlimit-name", "larder-cache", "--jump", "DROP"];
            self.cluster.node_exec(node, &[&rule[..], &limit, &drop].concat())?;
        }
        Ok(())
    }

    fn node_of(&self, replica: &Replica) -> Result<&Node> {
        let node = self.cluster.nodes().iter().find(|node| node.name() == replica.node);
        node.with_context(|| format!("{} is on no node of ours", replica.pod))
    }

    fn cache_pods(&self) -> String {
        let describe = ["describe", "pods,persistentvolumeclaims", "--namespace", NAMESPACE, "--selector", SELECTOR];
        self.cluster.kubectl(&describe).unwrap_or_else(|error| format!("{error:#}"))
    }
}
