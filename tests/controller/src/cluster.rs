//! All of it: the API server with the custom resources, a registry, the cluster cache.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use larder_test_callers::ControlPlane;
use larder_test_callers::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin};
use larder_test_parts::own::larder_cache;
use serde_json::{Value, json};

use crate::{Cache, Controller, Cut, DEFINITIONS, Used};

/// What the documentation says that the controller needs.
pub const RIGHTS: &str = include_str!("../../../docs/controller-rights.yaml");

/// One that tests break.
pub struct Cluster {
    /// The API server.
    pub plane: ControlPlane,
    /// A registry.
    pub origin: Origin,
    /// The cluster cache.
    pub cache: Cache,
}

impl Cluster {
    /// Starts one without a controller. Its Pods may name what [`Self::push`] pushes.
    pub fn start() -> Result<Self> {
        Self::start_with(larder_cache()?)
    }

    /// The same with another `larder-cache` than the one that was just built.
    pub fn start_with(cache: PathBuf) -> Result<Self> {
        Self::start_beside(cache, &[])
    }

    /// The same with more registries that may be asked without TLS.
    pub fn start_beside(cache: PathBuf, registries: &[String]) -> Result<Self> {
        let plane = ControlPlane::start()?;
        for (_, definition) in DEFINITIONS {
            plane.apply(definition)?;
        }
        plane.apply(RIGHTS)?;
        plane.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: default}}")?;
        plane.apply(
            "{apiVersion: v1, kind: Node, metadata: {name: one, labels: {kubernetes.io/os: linux, kubernetes.io/arch: amd64}}}",
        )?;
        for kind in ["cachedimages", "upstreamregistries", "leases", "pods"] {
            until("the kind is served", || plane.kubectl(&["get", kind, "--all-namespaces"], ""))?;
        }
        let origin = Origin::start();
        let registries = [&[origin.registry().to_string()], registries].concat();
        let cache = Cache::start_program(cache, &registries)?;
        Ok(Self { plane, origin, cache })
    }

    /// A kubeconfig of the controller's account.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        self.plane.kubeconfig_of("controller", None)
    }

    /// A controller with the rights that are documented, and no others.
    pub fn controller(&self, words: &[&str]) -> Result<Controller> {
        Controller::start(&self.kubeconfig()?, &self.cache, words)
    }

    /// One by another way to the API server.
    pub fn controller_by(&self, way: &Cut, words: &[&str]) -> Result<Controller> {
        Controller::start(&self.plane.kubeconfig_of("controller", Some(way.address()))?, &self.cache, words)
    }

    /// Makes a node of this architecture, on which nothing runs.
    pub fn node(&self, name: &str, architecture: &str) -> Result<()> {
        let labels = json!({ "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture });
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
        self.plane.apply(&node.to_string()).map(drop)
    }

    /// Makes an object as a person does.
    pub fn wish(&self, name: &str, image: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": { "name": name }, "spec": { "image": image },
        });
        self.plane.apply(&object.to_string()).map(drop)
    }

    /// Says a word to the brake, as a person does.
    pub fn say(&self, word: &str) -> Result<()> {
        let words = ["annotate", "--namespace=larder", "--overwrite", "lease", "larder-controller"];
        self.plane.kubectl(&[&words[..], &[&format!("larder.dev/remove={word}")]].concat(), "").map(drop)
    }

    /// Pushes an image of its own; how Pods name it.
    pub fn push(&self, repository: &str, seed: u64) -> (String, Image) {
        let image = Image::build(&ImageSpec { layers: vec![30_000, 1000], seed, ..ImageSpec::default() });
        self.origin.push(repository, "v1", &image);
        (format!("{}/{repository}:v1", self.origin.registry()), image)
    }

    /// Pushes so many images of a few bytes each, and says what Pods would say of them.
    pub fn push_tiny(&self, count: u64) -> Vec<Used> {
        let registry = self.origin.registry();
        let one = |number: u64| {
            let spec = ImageSpec { layers: vec![10], architectures: vec!["amd64"], seed: 1_000 + number };
            let image = Image::build(&spec);
            let repository = format!("crowd/app-{number}");
            self.origin.push(&repository, "v1", &image);
            Used {
                image: format!("{registry}/{repository}:v1"),
                image_id: format!("{registry}/{repository}@{}", image.index),
            }
        };
        (0..count).map(one).collect()
    }

    /// Pushes one image of a few bytes under so many tags; how people name them.
    pub fn push_tags(&self, count: usize) -> Vec<String> {
        let spec = ImageSpec { layers: vec![10], architectures: vec!["amd64"], seed: 999 };
        let image = Image::build(&spec);
        let one = |number: usize| {
            let tag = format!("v{number}");
            let repository = "team-of-a-name/its-application";
            self.origin.push(repository, &tag, &image);
            format!("{}/{repository}:{tag}", self.origin.registry())
        };
        (0..count).map(one).collect()
    }

    /// Makes a Pod of an image, which nobody runs.
    pub fn run(&self, name: &str, image: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": { "automountServiceAccountToken": false, "containers": [{ "name": "main", "image": image }] },
        });
        self.plane.apply(&pod.to_string()).map(drop)
    }

    /// Deletes a Pod, at once.
    pub fn stop(&self, name: &str) -> Result<()> {
        let words = ["delete", "pod", name, "--namespace=default", "--grace-period=0", "--force", "--wait=false"];
        self.plane.kubectl(&words, "").map(drop)
    }

    /// The objects of an image.
    pub fn objects(&self, image: &str) -> Result<Vec<Value>> {
        let all: Value = serde_json::from_str(&self.plane.kubectl(&["get", "cachedimages", "--output=json"], "")?)?;
        let items = all.get("items").and_then(Value::as_array).context("a list")?;
        Ok(items.iter().filter(|item| item.pointer("/spec/image") == Some(&json!(image))).cloned().collect())
    }

    /// The one object of an image.
    pub fn object(&self, image: &str) -> Result<Value> {
        let mut objects = self.objects(image)?;
        ensure!(objects.len() == 1, "{} objects of {image}", objects.len());
        objects.pop().context("one")
    }

    /// Waits until a condition of an image has this reason.
    pub fn until_reason(&self, image: &str, condition: &str, reason: &str) -> Result<Value> {
        until(&format!("{image}: {condition} is {reason}"), || {
            let object = self.object(image)?;
            let found = condition_of(&object, condition);
            let said = found.and_then(|found| found.get("reason")).and_then(Value::as_str);
            ensure!(said == Some(reason), "{condition} is {found:?}");
            Ok(object)
        })
    }

    /// Waits until an image has no object.
    pub fn until_gone(&self, image: &str) -> Result<()> {
        until(&format!("{image} has no CachedImage"), || {
            ensure!(self.objects(image)?.is_empty(), "it has one");
            Ok(())
        })
    }
}

/// A condition of an object.
pub fn condition_of<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(name))
}
