//! What the steps share: a cluster, the registry beside it, and what its nodes looked like before.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_kind::cluster::Node;
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Machine, Release, test_image};
use larder_test_node::tree::Tree;
use larder_test_node::wait::until;
use larder_test_parts::Parts;
use serde_json::{Value, json};

use super::super::story::{Told, short};
use crate::{image, workspace};

/// The application, and the image that it runs.
pub(super) const APPLICATION: &str = "shop";
const IMAGE: &str = "shop/frontend:v1";

/// Which images are safe, how their registries are, how the nodes are.
pub(super) const KINDS: &str = "ci,upr,nm";

pub(super) struct Stage {
    pub(super) cluster: Cluster,
    /// `/etc` of each node before anything was installed.
    pub(super) before: Vec<Tree>,
}

impl Stage {
    pub(super) fn set(told: &Told) -> Result<Self> {
        let parts = Parts::from_environment()?;
        let built = image::build_for_tests()?;
        told.saw(format!("image:    {} ({}), made without a container engine", built.reference, short(&built.digest)));
        let runtime = workspace::build_program("larder-test-kind", "dev")?;
        let cluster = Cluster::start(Machine::take(parts, &runtime)?)?;
        let lines: Vec<String> =
            cluster.nodes().iter().map(|node| format!("{} ({})", node.name(), node.engine())).collect();
        told.saw(format!("cluster:  {}", lines.join(", ")));
        cluster.load_image_archive(&built.path, &built.reference)?;
        let stage = Self { before: trees(&cluster)?, cluster };
        // This cluster has nobody who makes volumes, as a cloud has.
        Release::of(&stage.cluster).make_volume()?;
        told.saw("volume:   one for whoever asks for it, as every cloud has them");
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

    /// What a person would write into a file of values: the registry with its own authority and a private address. And what makes a demo of it: what the cluster itself
    /// is made of comes from no registry here, so only the application's namespace counts, and nobody wants to wait for hours until registries are looked at.
    pub(super) fn values(&self) -> Result<Value> {
        let ca = std::fs::read_to_string(self.cluster.authority())?;
        let registry = self.reference()?;
        let registry = registry.split('/').next().unwrap_or_default();
        // And that nothing depends on how full the machine's own disk is.
        let store = json!({"reserve": "0"});
        let controller = json!({"namespaces": "kubernetes.io/metadata.name=default", "monitoring": {"interval": "5s"}});
        Ok(json!({
            "registries": {registry: {"ca": ca}}, "store": store, "cache": {"store": store}, "controller": controller,
        }))
    }

    /// Deletes the application's image where it came from.
    pub(super) fn delete_upstream(&self) -> Result<()> {
        let origin = self.cluster.origin()?;
        let (repository, _) = IMAGE.split_once(':').context("the image has a tag")?;
        origin.delete(&format!("{repository}@{}", origin.digest(IMAGE)?))
    }

    /// What a person asks for, as it is printed.
    pub(super) fn overview(&self) -> Result<String> {
        self.cluster.kubectl(&["get", KINDS])
    }

    /// Waits until a condition of the application's image has this reason.
    pub(super) fn wait_until_image_is(&self, condition: &str, reason: &str) -> Result<()> {
        let image = json!(self.reference()?);
        until(&format!("{condition} of the image is {reason}"), Duration::from_mins(2), || {
            let list = self.cluster.get(&["cachedimages"])?;
            let mut items = list.get("items").and_then(Value::as_array).into_iter().flatten();
            let object = items.find(|item| item.pointer("/spec/image") == Some(&image)).context("no object yet")?;
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let mut conditions = conditions.filter(|it| it.get("type") == Some(&json!(condition)));
            ensure!(conditions.any(|it| it.get("reason") == Some(&json!(reason))), "{}", object["status"]);
            Ok(())
        })
    }

    /// Takes away what an uninstall leaves for whoever installs again: definitions with their objects, the claim with its images.
    pub(super) fn take_the_rest_away(&self) -> Result<()> {
        let definitions = ["cachedimages.larder.dev", "upstreamregistries.larder.dev"];
        self.cluster.kubectl(&[&["delete", "crd", "--timeout=60s"], &definitions[..]].concat())?;
        Release::of(&self.cluster).delete_namespace()
    }

    /// A Deployment of one Pod, whose image is asked for each time that it starts.
    pub(super) fn application(&self) -> Result<Value> {
        let labels = json!({"app": APPLICATION});
        Ok(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": APPLICATION},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "strategy": {"type": "Recreate"},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "frontend", "image": self.reference()?, "imagePullPolicy": "Always",
                        }],
                    },
                },
            },
        }))
    }

    /// The application's Pod: its node, and the image that it runs.
    pub(super) fn running(&self) -> Result<(&Node, String)> {
        let pods = self.cluster.get(&["pods", "--selector", &format!("app={APPLICATION}")])?;
        let pods = pods.pointer("/items").and_then(Value::as_array).context("no list of Pods")?;
        let [pod] = pods.as_slice() else { bail!("there are {} Pods", pods.len()) };
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let image = text("/status/containerStatuses/0/imageID").rsplit('@').next().unwrap_or_default().to_owned();
        ensure!(!image.is_empty(), "it has no image");
        let name = text("/spec/nodeName");
        let node = self.cluster.nodes().iter().find(|node| node.name() == name);
        Ok((node.with_context(|| format!("it is on {name:?}"))?, image))
    }

    /// Waits until the application runs, in one Pod.
    pub(super) fn wait_for_application(&self) -> Result<()> {
        let deployment = format!("deployment/{APPLICATION}");
        self.cluster.kubectl(&["rollout", "status", &deployment, "--timeout=90s"])?;
        // The Pod that goes is still listed for a moment.
        until("the application runs", Duration::from_secs(30), || self.running().map(drop))
    }

    /// Has the application's Pod go, and its next one come on this node.
    pub(super) fn move_to(&self, node: &Node) -> Result<()> {
        for other in self.cluster.workers() {
            let verb = if other == node { "uncordon" } else { "cordon" };
            self.cluster.kubectl(&[verb, other.name()])?;
        }
        let selector = format!("app={APPLICATION}");
        self.cluster.kubectl(&["delete", "pod", "--selector", &selector, "--wait", "--timeout=60s"])?;
        self.wait_for_application()?;
        let (there, _) = self.running()?;
        ensure!(there == node, "it came back on {}", there.name());
        Ok(())
    }

    /// Lets Pods onto every worker again.
    pub(super) fn open_all(&self) -> Result<()> {
        for worker in self.cluster.workers() {
            self.cluster.kubectl(&["uncordon", worker.name()])?;
        }
        Ok(())
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
             kubectl -n {NAMESPACE} logs larder-cache-0   # the cluster cache\n  \
             kubectl get pods -o wide                     # the application\n  \
             kubectl get {KINDS}                        # is it safe?\n  \
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
