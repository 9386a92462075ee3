//! Larder on a cluster, put there by helm as a person would.
//!
//! The same names are used for every installation, so whoever has the cluster has the release, installed or not. What a node's Larder says
//! of itself is asked in [`node`], what the cluster cache does in [`cluster_cache`], and
//! what it is told to keep in [`control`].

mod cluster_cache;
mod control;
mod node;

pub use cluster_cache::Replica;
pub use node::Process;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::registry::{ORIGIN, PRIVATE};

/// The name of the release and of its objects.
pub const NAME: &str = "larder";
/// Where it is installed.
pub const NAMESPACE: &str = "larder-system";
/// The repository that `helm test` pulls from at the registry beside the cluster, by the tag `1`.
pub const TESTED: &str = "cases/helm-test";
/// What the chart calls our image when no value says otherwise.
pub const IMAGE: &str = concat!("registry.example/larder:", env!("CARGO_PKG_VERSION"));
/// What selects its Pods.
const SELECTOR: &str = "app.kubernetes.io/name=larder,app.kubernetes.io/component=node";

/// All of them, whatever they are for.
const OF_LARDER: &str = "app.kubernetes.io/name=larder";

/// The release.
pub struct Release<'a> {
    cluster: &'a Cluster,
}

impl<'a> Release<'a> {
    /// The one of a cluster.
    pub fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Values without which no case can work: the registries beside the cluster have private addresses and a private authority, so the
    /// proxy speaks to them only when they are named.
    pub fn values(&self) -> Result<Value> {
        let path = self.cluster.authority();
        let authority = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        Ok(json!({
            "registries": {ORIGIN: {"ca": authority}, PRIVATE: {"ca": authority}},
            // Nothing depends on how full the machine's own disk is.
            "store": {"reserve": "0"},
            "metrics": {"agent": {"enabled": true}},
            // A quarter of the default's patience, for there is a case that waits until it is lost.
            "agent": {"livenessProbe": {"periodSeconds": 5, "failureThreshold": 3}},
            // Cases are about what a node does by itself, but for those that say so ([`Self::with_cache`]).
            "cache": {"enabled": false},
            // Each installation begins without the objects of the one before.
            "crds": {"keep": false},
            "test": Self::tested(60),
        }))
    }

    /// What `helm test` pulls, and for how many seconds it tries.
    pub fn tested(seconds: u32) -> Value {
        json!({"image": format!("{ORIGIN}/{TESTED}:1"), "limitSeconds": seconds})
    }

    /// Puts our image into every node, in place of what a registry would do.
    pub fn load_image(&self) -> Result<()> {
        let archive = std::env::var_os("LARDER_IMAGE").context("LARDER_IMAGE names no archive of our image")?;
        self.cluster.load_image_archive(archive.as_ref(), IMAGE)
    }

    /// Installs it, with `more` beside [`Self::values`], and waits for no Pod.
    pub fn install_only(&self, more: &Value) -> Result<()> {
        self.helm(&["install", NAME, &Self::chart(), "--create-namespace"], more)
    }

    /// Installs it, and waits until every node's engine was seen to ask the proxy.
    pub fn install(&self, more: &Value) -> Result<()> {
        self.install_only(more)?;
        self.wait()
    }

    /// Upgrades it. Waits for no Pod.
    pub fn upgrade(&self, more: &Value) -> Result<()> {
        self.helm(&["upgrade", NAME, &Self::chart()], more)
    }

    /// Goes back to the revision before. Waits for no Pod.
    pub fn roll_back(&self) -> Result<()> {
        self.cluster.helm(&["rollback", NAME, "--namespace", NAMESPACE]).map(drop)
    }

    /// Waits until the Pod of every node is of the newest revision and ready, which is more than that it runs.
    pub fn wait(&self) -> Result<()> {
        let status = ["rollout", "status", &format!("daemonset/{NAME}-node"), "--namespace", NAMESPACE];
        let said = self.cluster.kubectl(&[&status[..], &["--timeout=150s"]].concat());
        said.with_context(|| format!("not every Pod of Larder is ready:\n{}", self.pods()))?;
        Ok(())
    }

    /// Deletes every Pod of its namespace, the cluster cache's as well; others are made in their place.
    pub fn delete_all_pods(&self) -> Result<()> {
        self.cluster.kubectl(&["delete", "pods", "--all", "--namespace", NAMESPACE, "--timeout=90s"]).map(drop)
    }

    /// Deletes its Pods; others are made in their place.
    pub fn delete_pods(&self) -> Result<()> {
        let delete = ["delete", "pods", "--namespace", NAMESPACE, "--selector", SELECTOR, "--timeout=90s"];
        self.cluster.kubectl(&delete).map(drop)
    }

    /// Uninstalls it, waits until its last Pod is gone, and checks that nothing of it is left where engines look.
    pub fn uninstall(&self) -> Result<()> {
        self.uninstall_only()?;
        // The cache and the controller too: as long as one of them ends its work it may write.
        until("every Pod of Larder is gone", Duration::from_secs(90), || {
            let pods = self.cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, "--selector", OF_LARDER])?;
            ensure!(pods.trim().is_empty(), "there are still\n{pods}");
            Ok(())
        })
    }

    /// Uninstalls it. Waits for no Pod.
    pub fn uninstall_only(&self) -> Result<()> {
        self.cluster.helm(&["uninstall", NAME, "--namespace", NAMESPACE, "--ignore-not-found"]).map(drop)
    }

    /// The chart of this clone.
    pub fn chart() -> String {
        format!("{}/../../chart", env!("CARGO_MANIFEST_DIR"))
    }

    /// Runs `helm test`.
    pub fn test(&self) -> Result<()> {
        // Without `--logs`: helm asks for them after it has deleted the Pod that passed.
        let test = ["test", NAME, "--namespace", NAMESPACE, "--timeout", "150s"];
        self.cluster.helm(&test).map(drop)
    }

    /// What the Pods of a `helm test` that failed say: those that pull, one on each node.
    pub fn test_says(&self) -> Result<String> {
        let which = ["--selector", "app.kubernetes.io/component=test", "--container", "pull", "--prefix", "--tail=-1"];
        self.cluster.kubectl(&[&["logs", "--namespace", NAMESPACE], &which[..]].concat())
    }

    /// Makes the namespace, if it is not there.
    pub fn create_namespace(&self) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string();
        self.cluster.kubectl_with_input(&["apply", "--filename", "-"], namespace.as_bytes()).map(drop)
    }

    /// Deletes the namespace, which helm leaves.
    pub fn delete_namespace(&self) -> Result<()> {
        self.cluster.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"])?;
        self.delete_volume()
    }

    /// What helm would send for some other release of the chart.
    pub fn template(&self, name: &str, more: &Value) -> Result<String> {
        let values = self.with(more)?.to_string();
        // Helm asks no cluster for its version here.
        let template = [
            "template",
            name,
            &Self::chart(),
            "--kube-version",
            "1.34.0",
            "--no-hooks",
            "--namespace",
            NAMESPACE,
            "--values",
            "-",
        ];
        self.cluster.helm_with_input(&template, values.as_bytes())
    }

    /// No admission webhook is in the cluster.
    pub fn has_no_webhook(&self) -> Result<()> {
        let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
        let said = self.cluster.kubectl(&["get", kinds, "--output", "name"])?;
        ensure!(said.trim().is_empty(), "there are webhooks: {said}");
        Ok(())
    }

    fn helm(&self, arguments: &[&str], more: &Value) -> Result<()> {
        let values = self.with(more)?.to_string();
        let arguments = [arguments, &["--namespace", NAMESPACE, "--values", "-"]].concat();
        self.cluster.helm_with_input(&arguments, values.as_bytes()).map(drop)
    }

    fn with(&self, more: &Value) -> Result<Value> {
        let mut values = self.values()?;
        let (Some(values_map), Some(more)) = (values.as_object_mut(), more.as_object()) else {
            bail!("values are a map, and {more} is none");
        };
        values_map.extend(more.clone());
        Ok(values)
    }

    fn pods(&self) -> String {
        let describe = ["describe", "pods", "--namespace", NAMESPACE, "--selector", SELECTOR];
        self.cluster.kubectl(&describe).unwrap_or_else(|error| format!("{error:#}"))
    }
}
