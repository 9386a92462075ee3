//! What the steps share: a cluster, the registry beside it, and what its nodes looked like before.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Machine, test_image};
use larder_test_node::tree::Tree;
use larder_test_node::wait::until;
use larder_test_parts::Parts;
use serde_json::{Value, json};

use super::super::story::{Told, short};
use crate::{image, workspace};

/// The application, and the image that it runs.
pub(super) const APPLICATION: &str = "shop";
const IMAGE: &str = "shop/frontend:v1";

pub(super) struct Stage {
    pub(super) cluster: Cluster,
    /// `/etc` of each node before anything was installed.
    pub(super) before: Vec<Tree>,
}

impl Stage {
    pub(super) fn set(told: &Told) -> Result<Self> {
        let parts = Parts::from_environment()?;
        let built = image::build_default()?;
        told.saw(format!("image:    {} ({}), made without a container engine", built.reference, short(&built.digest)));
        let runtime = workspace::build_program("larder-test-kind", "dev")?;
        let cluster = Cluster::start(Machine::take(parts, &runtime)?)?;
        let lines: Vec<String> =
            cluster.nodes().iter().map(|node| format!("{} ({})", node.name(), node.engine())).collect();
        told.saw(format!("cluster:  {}", lines.join(", ")));
        cluster.load_image_archive(&built.path, &built.reference)?;
        let stage = Self { before: trees(&cluster)?, cluster };
        stage.push("today's frontend")?;
        told.saw(format!("registry: {}, which no node's engine was told about", stage.reference()?));
        Ok(stage)
    }

    /// Puts an application's image under the same tag as before.
    pub(super) fn push(&self, content: &str) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let archive = test_image::runnable(self.cluster.machine(), folder.path(), content)?;
        let origin = self.cluster.origin()?;
        origin.push(&archive, IMAGE)?;
        origin.digest(IMAGE)
    }

    pub(super) fn reference(&self) -> Result<String> {
        Ok(self.cluster.origin()?.reference(IMAGE))
    }

    /// The engines of the workers, on each of which a Pod of the application runs.
    pub(super) fn engines(&self) -> String {
        self.cluster.workers().map(|worker| worker.engine().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// What a person would write into a file of values: only the registry with its own authority and a private address.
    pub(super) fn values(&self) -> Result<Value> {
        let ca = std::fs::read_to_string(self.cluster.authority())?;
        let registry = self.reference()?;
        let registry = registry.split('/').next().unwrap_or_default();
        // And that nothing depends on how full the machine's own disk is.
        Ok(json!({"registries": {registry: {"ca": ca}}, "store": {"reserve": "0"}}))
    }

    /// A Deployment whose image is asked for each time that a Pod starts.
    pub(super) fn application(&self) -> Result<Value> {
        let labels = json!({"app": APPLICATION});
        Ok(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": APPLICATION},
            "spec": {
                "replicas": self.cluster.workers().count(),
                "selector": {"matchLabels": labels},
                // A Pod goes before its successor comes, for there is room for one on a node.
                "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                            "labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname",
                        }]}},
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "frontend", "image": self.reference()?, "imagePullPolicy": "Always",
                        }],
                    },
                },
            },
        }))
    }

    /// The image that the application's Pods have, when all of them have the same.
    pub(super) fn running_image(&self) -> Result<String> {
        let pods = self.cluster.get(&["pods", "--selector", &format!("app={APPLICATION}")])?;
        let pods = pods.pointer("/items").and_then(Value::as_array).context("no list of Pods")?;
        ensure!(pods.len() == self.cluster.workers().count(), "there are {} Pods", pods.len());
        let image = |pod: &Value| {
            let id = pod.pointer("/status/containerStatuses/0/imageID").and_then(Value::as_str).unwrap_or_default();
            id.rsplit('@').next().unwrap_or_default().to_owned()
        };
        let images: BTreeSet<String> = pods.iter().map(image).collect();
        ensure!(images.len() == 1, "they have {images:?}");
        images.into_iter().next().context("they have no image")
    }

    /// Waits until a Pod of the application runs on every worker.
    pub(super) fn wait_for_application(&self) -> Result<()> {
        let deployment = format!("deployment/{APPLICATION}");
        self.cluster.kubectl(&["rollout", "status", &deployment, "--timeout=90s"])?;
        // The Pod that goes is still listed for a moment.
        until("the application has a Pod on each worker", Duration::from_secs(30), || self.running_image().map(drop))
    }

    /// Deletes the application's Pods, and their image from every engine before the next ones start.
    pub(super) fn lose_pods_and_image(&self) -> Result<()> {
        let deployment = format!("deployment/{APPLICATION}");
        let selector = format!("app={APPLICATION}");
        self.cluster.kubectl(&["scale", &deployment, "--replicas=0"])?;
        self.cluster.kubectl(&["wait", "--for=delete", "pod", "--selector", &selector, "--timeout=60s"])?;
        let reference = self.reference()?;
        let workers = self.cluster.on_each_worker(|worker| self.cluster.remove_image(worker, &reference))?.len();
        self.cluster.kubectl(&["scale", &deployment, &format!("--replicas={workers}")]).map(drop)
    }

    /// How often the registry was asked by a program whose User-Agent holds this word.
    pub(super) fn asked_by(&self, agent: &str) -> Result<usize> {
        let log = self.cluster.origin()?.log()?;
        Ok(log.lines().filter(|line| line.contains("/v2/shop/") && line.contains(agent)).count())
    }

    pub(super) fn must_be_as_before(&self) -> Result<()> {
        for (node, (now, before)) in self.cluster.nodes().iter().zip(trees(&self.cluster)?.iter().zip(&self.before)) {
            now.must_equal(before).with_context(|| format!("/etc of {} is not what it was", node.name()))?;
        }
        Ok(())
    }

    pub(super) fn logs(&self) -> String {
        match self.cluster.gather("demo") {
            Ok(folder) => format!("what explains it is in {}", folder.display()),
            Err(error) => format!("{error:#}"),
        }
    }

    /// Leaves everything running until a person has had enough.
    pub(super) fn play(&self) -> Result<()> {
        let environment = self.cluster.environment();
        println!(
            "It is running. To play with, in another terminal:\n\n  {environment}\n  \
             kubectl -n {NAMESPACE} get pods -o wide\n  \
             kubectl -n {NAMESPACE} exec daemonset/larder-node -c agent -- /usr/local/bin/larder-node status\n  \
             kubectl get pods -o wide                     # the application\n  \
             docker stop registry.larder.test             # its registry\n\nPress Enter to end it."
        );
        let read = std::io::stdin().read_line(&mut String::new())?;
        ensure!(read > 0, "standard input is closed, so there is nobody to end it");
        Ok(())
    }
}

fn trees(cluster: &Cluster) -> Result<Vec<Tree>> {
    cluster.nodes().iter().map(|node| cluster.snapshot(node)).collect()
}
