//! Pods of one container, which is all that it takes to see an image pulled or not.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Namespace, Node};

/// A Pod that was created.
pub struct Pod<'a> {
    namespace: &'a Namespace<'a>,
    name: String,
}

impl<'a> Pod<'a> {
    /// Creates one on a node. `policy` is an `imagePullPolicy`.
    pub fn create(namespace: &'a Namespace<'a>, name: &str, node: &Node, image: &str, policy: &str) -> Result<Self> {
        Self::create_with(namespace, name, node, image, policy, None)
    }

    /// The same with a Secret for its image.
    pub fn create_with(
        namespace: &'a Namespace<'a>,
        name: &str,
        node: &Node,
        image: &str,
        policy: &str,
        secret: Option<&str>,
    ) -> Result<Self> {
        let secrets: Vec<Value> = secret.into_iter().map(|secret| json!({"name": secret})).collect();
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node.name(),
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "imagePullSecrets": secrets,
                "containers": [{"name": "main", "image": image, "imagePullPolicy": policy}],
            },
        });
        let create = ["create", "--namespace", namespace.name(), "--filename", "-"];
        namespace.cluster().kubectl_with_input(&create, manifest.to_string().as_bytes())?;
        Ok(Self { namespace, name: name.to_owned() })
    }

    /// Waits until it runs.
    pub fn wait_until_running(&self) -> Result<()> {
        self.wait("condition=Ready").with_context(|| format!("Pod {} does not run: {}", self.name, self.events()))
    }

    /// Waits until kubelet has given up for now on its image, and says why.
    pub fn wait_until_refused(&self) -> Result<String> {
        self.wait("jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff")
            .with_context(|| format!("Pod {} was not refused its image: {}", self.name, self.events()))?;
        Ok(self.events())
    }

    /// The digest of the image that it runs, as the engine tells kubelet.
    pub fn image_id(&self) -> Result<String> {
        let object = self.namespace.cluster().get(&["pod", &self.name, "--namespace", self.namespace.name()])?;
        let id = object.pointer("/status/containerStatuses/0/imageID").and_then(Value::as_str);
        Ok(id.with_context(|| format!("Pod {} has no image", self.name))?.to_owned())
    }

    /// How long the pull of its image took in the end, by kubelet's word: `Successfully pulled image "…" in 1.2s (1.5s including waiting)`.
    pub fn pull_took(&self) -> Result<Duration> {
        let events = self.events();
        let (_, rest) = events.rsplit_once("Successfully pulled image").context("it pulled nothing")?;
        let words = rest.split_whitespace().skip_while(|word| *word != "in").nth(1);
        let took =
            words.and_then(duration).with_context(|| format!("kubelet does not say how long it took: {rest}"))?;
        Ok(took)
    }

    /// Deletes it, and waits until it is gone.
    pub fn delete(self) -> Result<()> {
        let delete = ["delete", "pod", &self.name, "--namespace", self.namespace.name(), "--timeout=60s"];
        self.namespace.cluster().kubectl(&delete).map(drop)
    }

    fn wait(&self, condition: &str) -> Result<()> {
        let (condition, pod) = (format!("--for={condition}"), format!("pod/{}", self.name));
        let wait = ["wait", &condition, &pod, "--namespace", self.namespace.name(), "--timeout=90s"];
        self.namespace.cluster().kubectl(&wait).map(drop)
    }

    /// What happened to it, for people.
    fn events(&self) -> String {
        let object = format!("pod/{}", self.name);
        let events = ["events", "--for", &object, "--namespace", self.namespace.name(), "--no-headers"];
        self.namespace.cluster().kubectl(&events).unwrap_or_else(|error| format!("{error:#}"))
    }
}

/// `1m2.5s` or `873ms`, as Go writes durations.
fn duration(text: &str) -> Option<Duration> {
    let (minutes, rest) = match text.split_once('m') {
        Some((minutes, rest)) if rest != "s" => (minutes.parse().ok()?, rest),
        _ => (0.0, text),
    };
    let seconds: f64 = match (rest.strip_suffix("ms"), rest.strip_suffix("µs")) {
        (Some(milliseconds), _) => milliseconds.parse::<f64>().ok()? / 1000.0,
        (None, Some(_)) => 0.0,
        (None, None) => rest.strip_suffix('s')?.parse().ok()?,
    };
    Some(Duration::from_secs_f64(minutes * 60.0 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in [("873ms", 873), ("1.5s", 1500), ("1m2.5s", 62_500), ("12s", 12_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(duration("soon"), None);
    }
}
