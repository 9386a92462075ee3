//! The objects of a rendering, and the parts of a Pod that invariants are about.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One document of a rendering.
#[derive(Clone, Debug)]
pub struct Object(pub Value);

/// Every document of a rendering. A key that stands twice in a map is an error, as it is for Kubernetes.
pub fn objects(rendered: &str) -> Result<Vec<Object>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).context("helm rendered no YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).map(Object).collect())
}

impl Object {
    /// `DaemonSet`, …
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// A text by its JSON pointer; empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The Pod that a `DaemonSet` makes, or that it is itself.
    pub fn pod(&self) -> Option<Pod<'_>> {
        let pointer = if self.kind() == "Pod" { "/spec" } else { "/spec/template/spec" };
        self.0.pointer(pointer).map(Pod)
    }

    /// Sent only by `helm test`, and not by an install.
    pub fn is_hook(&self) -> bool {
        !self.text("/metadata/annotations/helm.sh~1hook").is_empty()
    }
}

/// A Pod's specification.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a>(pub &'a Value);

impl<'a> Pod<'a> {
    /// Init containers first.
    pub fn containers(self) -> Vec<Container<'a>> {
        let of = |key: &str| self.0.get(key).and_then(Value::as_array).into_iter().flatten();
        of("initContainers").chain(of("containers")).map(Container).collect()
    }

    /// The one with this name.
    pub fn container(self, name: &str) -> Result<Container<'a>> {
        let mut all = self.containers().into_iter();
        all.find(|container| container.name() == name).with_context(|| format!("there is no container {name}"))
    }

    /// Its volumes.
    pub fn volumes(self) -> &'a [Value] {
        self.0.get("volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A container of a Pod.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a>(pub &'a Value);

impl<'a> Container<'a> {
    /// Its name.
    pub fn name(self) -> &'a str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// What it executes, word by word.
    pub fn command(self) -> Vec<&'a str> {
        self.0.get("command").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The values of a flag `--name=value`.
    pub fn flag(self, name: &str) -> Vec<&'a str> {
        let value = |word: &'a str| word.strip_prefix(name)?.strip_prefix('=');
        self.command().into_iter().filter_map(value).collect()
    }

    /// Something of it by its JSON pointer; null where there is nothing.
    pub fn get(self, pointer: &str) -> &'a Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The names of the volumes that it has, with whether each is read-only.
    pub fn mounts(self) -> Vec<(&'a str, bool)> {
        let mounts = self.get("/volumeMounts").as_array().into_iter().flatten();
        let name = |mount: &'a Value| mount.get("name").and_then(Value::as_str).unwrap_or_default();
        mounts.map(|mount| (name(mount), mount.get("readOnly") == Some(&Value::Bool(true)))).collect()
    }
}
