//! Thousands of Pods on hundreds of nodes that nobody has, and what the API server saw of the controller meanwhile.
//!
//! Pods and nodes are made here; [kwok](https://kwok.sigs.k8s.io) runs them, if it is wanted: it does what their kubelets would do at the API server
//! (`kwok.yaml`). What the controller writes is counted by a watch, in which each write of an object is one event: nothing that was written is missing.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request};
use kube::Client;
use kube::api::{Api, DynamicObject, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use larder_api::CachedImage;
use larder_oci::ImageReference;
use larder_test_callers::ControlPlane;
use larder_test_node::process::Process;
use larder_test_parts::Parts;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::world::client;

/// Requests of ours that are under way.
const AT_A_TIME: usize = 32;

/// Pods are spread over so many.
const NAMESPACES: usize = 10;

/// An image that Pods use.
#[derive(Debug, Clone)]
pub struct Used {
    /// As Pods name it.
    pub image: String,
    /// What a kubelet would say that it runs.
    pub image_id: String,
}

/// What was seen of one image.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When its first Pod was there.
    pub pod: Option<Instant>,
    /// When its object was.
    pub object: Option<Instant>,
    /// When that was written: the first is its making.
    pub writes: Vec<Instant>,
    /// When its object first said that it is cached.
    pub cached: Option<Instant>,
    /// How many objects were made of it.
    pub objects: usize,
}

impl Seen {
    /// The most writes within any span of this length.
    pub fn most_writes_within(&self, span: Duration) -> usize {
        let of = |(number, begin): (usize, &Instant)| {
            self.writes.iter().skip(number).take_while(|at| **at < *begin + span).count()
        };
        self.writes.iter().enumerate().map(of).max().unwrap_or_default()
    }
}

type Shared = Arc<Mutex<BTreeMap<String, Seen>>>;

/// The Pods of a cluster.
pub struct Crowd {
    runtime: Runtime,
    admin: Client,
    nodes: usize,
    pods: Vec<Pod>,
    seen: Shared,
    kwok: Option<Process>,
}

#[derive(Debug, Clone)]
struct Pod {
    number: usize,
    generation: usize,
    used: Used,
}

impl Pod {
    fn name(&self) -> String {
        format!("app-{}-{}", self.number, self.generation)
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/crowd-{}/pods", self.number % NAMESPACES)
    }
}

impl Crowd {
    /// Without any Pod yet, on so many nodes. What is written from now on is seen.
    pub fn on(plane: &ControlPlane, nodes: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let admin = client(&runtime, &plane.administrator())?;
        let seen = Shared::default();
        let crowd = Self { runtime, admin, nodes, pods: Vec::new(), seen, kwok: None };
        crowd.watch()?;
        let namespaces = (0..NAMESPACES).flat_map(|number| {
            let name = format!("crowd-{number}");
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
            [
                ("/api/v1/namespaces".to_owned(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})),
                (format!("/api/v1/namespaces/{name}/serviceaccounts"), account),
            ]
        });
        for (path, body) in namespaces {
            crowd.runtime.block_on(send(&crowd.admin, Method::POST, &path, &body))?;
        }
        let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
        let node = |number| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}"), "labels": labels}});
        crowd.post_all((0..nodes).map(|number| ("/api/v1/nodes".to_owned(), node(number))))?;
        Ok(crowd)
    }

    /// Has kwok run what there is and what will be.
    pub fn with_kwok(mut self, plane: &ControlPlane, parts: &Parts) -> Result<Self> {
        let config = plane.folder().join("kwok.yaml");
        std::fs::write(&config, include_str!("kwok.yaml"))?;
        let mut command = Command::new(parts.module("kwok")?.join("kwok"));
        command.arg("--kubeconfig").arg(plane.administrator()).arg("--config").arg(&config).arg("--manage-all-nodes");
        let process = Process::start("kwok", plane.folder(), &mut command)?;
        self.kwok = Some(process);
        Ok(self)
    }

    /// What kwok said last, if it was wanted.
    pub fn kwok_said(&self) -> String {
        self.kwok.as_ref().map(|kwok| kwok.last_lines(20)).unwrap_or_default()
    }

    /// Makes Pods, which use these images in turn.
    pub fn grow(&mut self, used: &[Used], count: usize) -> Result<()> {
        let begin = self.pods.len();
        let new: Vec<Pod> = used
            .iter()
            .cycle()
            .take(count)
            .enumerate()
            .map(|(number, used)| Pod { number: begin + number, generation: 0, used: used.clone() })
            .collect();
        let made = stream::iter(&new).map(|pod| Ok(self.make(pod)));
        self.runtime.block_on(made.try_for_each_concurrent(AT_A_TIME, |made| made))?;
        self.pods.extend(new);
        Ok(())
    }

    /// Replaces every Pod by a new one, as rolling restarts of all Deployments at once do: the new one first. How many a second at most. Meanwhile Pods of
    /// other images are made, evenly.
    pub fn restart(&mut self, a_second: u32, meanwhile: &[Used]) -> Result<()> {
        let this = &*self;
        let next: Vec<Pod> = this
            .pods
            .iter()
            .map(|pod| Pod { number: pod.number, generation: pod.generation + 1, used: pod.used.clone() })
            .collect();
        let begin = Instant::now();
        let one = |(count, (old, new)): (usize, (&Pod, &Pod))| {
            let due = begin + Duration::from_secs(1) / a_second * u32::try_from(count).unwrap_or(u32::MAX);
            let (old, new) = (old.clone(), new.clone());
            async move {
                tokio::time::sleep_until(due.into()).await;
                this.make(&new).await?;
                this.end(&old).await
            }
        };
        let all = this.pods.iter().zip(&next).enumerate().map(|both| Ok(one(both)));
        let replace = stream::iter(all).try_for_each_concurrent(AT_A_TIME, |replaced| replaced);
        let others: Vec<Pod> = meanwhile
            .iter()
            .enumerate()
            .map(|(number, used)| Pod { number: this.pods.len() + number, generation: 0, used: used.clone() })
            .collect();
        let pause = Duration::from_secs(1) / a_second * u32::try_from(this.pods.len() / (others.len() + 1))?;
        let make = async {
            for pod in &others {
                tokio::time::sleep(pause).await;
                this.make(pod).await?;
            }
            anyhow::Ok(())
        };
        this.runtime.block_on(async { tokio::try_join!(replace, make) })?;
        self.pods = next;
        self.pods.extend(others);
        Ok(())
    }

    /// Makes one Pod of an image; when it was there.
    pub fn one(&mut self, used: &Used) -> Result<()> {
        self.grow(std::slice::from_ref(used), 1)
    }

    /// Makes objects of the custom resource, as people do, of these images, with the names that the controller would give them.
    pub fn objects(&self, images: &[String]) -> Result<()> {
        let objects = images.iter().map(|image| {
            let object = CachedImage::of(&ImageReference::parse(image)?);
            Ok(("/apis/larder.dev/v1alpha1/cachedimages".to_owned(), serde_json::to_value(&object)?))
        });
        self.post_all(objects.collect::<Result<Vec<_>>>()?.into_iter())
    }

    /// What was seen, by image.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was written, but not what there is.
    pub fn forget_writes(&self) {
        for seen in self.seen.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            seen.writes.clear();
        }
    }

    /// How many Pods have this phase.
    pub fn in_phase(&self, phase: &str) -> Result<usize> {
        let path = format!("/api/v1/pods?limit=1&fieldSelector=status.phase={phase}");
        let list = self.runtime.block_on(send(&self.admin, Method::GET, &path, &Value::Null))?;
        let shown = list.get("items").and_then(Value::as_array).map_or(0, Vec::len);
        let rest = list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or_default();
        if shown == 0 || rest > 0 {
            return Ok(shown + usize::try_from(rest)?);
        }
        // With a selector nobody says how many more there are.
        let path = format!("/api/v1/pods?fieldSelector=status.phase={phase}");
        let list = self.runtime.block_on(send(&self.admin, Method::GET, &path, &Value::Null))?;
        Ok(list.get("items").and_then(Value::as_array).map_or(0, Vec::len))
    }

    fn post_all(&self, all: impl Iterator<Item = (String, Value)>) -> Result<()> {
        let all = all.map(|(path, body)| Ok((path, body)));
        self.runtime.block_on(stream::iter(all).try_for_each_concurrent(AT_A_TIME, |(path, body)| {
            let admin = self.admin.clone();
            async move { send(&admin, Method::POST, &path, &body).await.map(drop) }
        }))
    }

    async fn make(&self, pod: &Pod) -> Result<()> {
        let body = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod.name(),
                "labels": {"app": format!("app-{}", pod.number), "pod-template-hash": "6d5f8c7b9d"},
                "annotations": {"larder.dev/test-image-id": pod.used.image_id},
            },
            "spec": {
                "automountServiceAccountToken": false, "nodeName": format!("node-{}", (pod.number + pod.generation * 7) % self.nodes),
                "containers": [{"name": "main", "image": pod.used.image}],
            },
        });
        send(&self.admin, Method::POST, &pod.path(), &body).await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(pod.used.image.clone()).or_default().pod.get_or_insert_with(Instant::now);
        Ok(())
    }

    async fn end(&self, pod: &Pod) -> Result<()> {
        // Without kwok nobody would end it.
        let grace = u8::from(self.kwok.is_some());
        let path = format!("{}/{}?gracePeriodSeconds={grace}", pod.path(), pod.name());
        send(&self.admin, Method::DELETE, &path, &Value::Null).await.map(drop)
    }

    fn watch(&self) -> Result<()> {
        let (client, seen) = (self.admin.clone(), Arc::clone(&self.seen));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("larder.dev", "v1alpha1", "CachedImage"));
        let api = Api::<DynamicObject>::all_with(client, &resource);
        let listed = self.runtime.block_on(api.list(&kube::api::ListParams::default().limit(1)))?;
        let mut version = listed.metadata.resource_version.context("a list has a version")?;
        self.runtime.spawn(async move {
            loop {
                let Ok(events) = api.watch(&WatchParams::default(), &version).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let mut events = events.boxed();
                while let Ok(Some(event)) = events.try_next().await {
                    let (object, is_new) = match event {
                        WatchEvent::Added(object) => (object, true),
                        WatchEvent::Modified(object) => (object, false),
                        _ => continue,
                    };
                    if let Some(newer) = object.metadata.resource_version.clone() {
                        version = newer;
                    }
                    let Some(image) = object.data.pointer("/spec/image").and_then(Value::as_str) else { continue };
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let seen = seen.entry(image.to_owned()).or_default();
                    seen.writes.push(Instant::now());
                    if is_cached(&object.data) {
                        seen.cached.get_or_insert_with(Instant::now);
                    }
                    if is_new {
                        seen.objects += 1;
                        seen.object.get_or_insert_with(Instant::now);
                    }
                }
            }
        });
        Ok(())
    }
}

fn is_cached(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions
        .filter(|condition| condition.get("type") == Some(&json!("Cached")))
        .any(|condition| condition.get("status") == Some(&json!("True")))
}

/// Asks as an administrator, for whom no limits are.
async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method.clone()).uri(path).header("content-type", "application/json");
    client.request::<Value>(request.body(body)?).await.with_context(|| format!("{method} {path}"))
}

/// The middle one, and the one that 99 of 100 are not above, in seconds.
pub fn median_and_worst(mut times: Vec<f64>) -> Result<(f64, f64)> {
    ensure!(!times.is_empty(), "there is none");
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1)).copied().unwrap_or_default();
    Ok((at(50), at(99)))
}
