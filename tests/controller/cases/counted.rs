//! Which images of which Pods are cached, of all that a Pod can name and all that a person can say of it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, until};
use serde_json::{Value, json};

use crate::life::pins;

fn container(name: &str, image: &str) -> Value {
    json!({ "name": name, "image": image })
}

/// A Pod of one image, with a label `larder.dev/ignore` if there is a value of it.
fn pod(namespace: &str, name: &str, image: &str, ignore: Option<&str>) -> Value {
    let labels = ignore.map(|value| json!({ "larder.dev/ignore": value }));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "automountServiceAccountToken": false, "containers": [container("main", image)] },
    })
}

/// Adds an ephemeral container, as `kubectl debug` does.
fn debug(cluster: &Cluster, name: &str, image: &str) -> Result<()> {
    let pod = cluster.plane.kubectl(&["get", "pod", name, "--namespace=default", "--output=json"], "")?;
    let mut pod: Value = serde_json::from_str(&pod)?;
    pod["spec"]["ephemeralContainers"] = json!([container("debug", image)]);
    let path = format!("--raw=/api/v1/namespaces/default/pods/{name}/ephemeralcontainers");
    cluster.plane.kubectl(&["replace", &path, "--filename=-"], &pod.to_string()).map(drop)
}

pub(crate) fn what_pods_name_and_what_is_left_out() -> Result<()> {
    let cluster = Cluster::start()?;
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "left", "labels": {"larder.dev/ignore": "true"}}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "left"}}),
    ] {
        cluster.plane.apply(&object.to_string())?;
    }
    let mut number = 0;
    let mut image = |repository: &str| {
        number += 1;
        cluster.push(repository, number).0
    };
    let (init, main, volume, ephemeral) =
        (image("team/init"), image("team/main"), image("team/volume"), image("team/debug"));
    let (secret, never, other) = (image("team/secret"), image("team/never"), image("other/app"));
    let (ignored, of_namespace, counted) = (image("team/ignored"), image("team/left"), image("team/counted"));
    let every_kind = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "every-kind", "namespace": "default" },
        "spec": {
            "automountServiceAccountToken": false,
            "initContainers": [container("init", &init)],
            "containers": [
                container("main", &main), container("secret", &secret), container("other", &other),
                { "name": "never", "image": never, "imagePullPolicy": "Never" },
            ],
            "volumes": [{ "name": "data", "image": { "reference": volume, "pullPolicy": "IfNotPresent" } }],
        },
    });
    cluster.plane.apply(&every_kind.to_string())?;
    debug(&cluster, "every-kind", &ephemeral)?;
    cluster.plane.apply(&pod("default", "ignored", &ignored, Some("")).to_string())?;
    cluster.plane.apply(&pod("default", "counted", &counted, Some("false")).to_string())?;
    cluster.plane.apply(&pod("left", "web", &of_namespace, None).to_string())?;
    let include = format!("{}/team/**", cluster.origin.registry());
    let controller = cluster.controller(&["--include", &include, "--exclude", "**/secret"])?;
    let mut expected = BTreeSet::from([&init, &main, &volume, &ephemeral, &counted]);
    let are_kept = |expected: &BTreeSet<&String>| -> Result<()> {
        for image in expected {
            cluster.until_reason(image, "Cached", "Complete").with_context(|| (*image).clone())?;
        }
        let pins = pins(&cluster)?;
        ensure!(pins.iter().collect::<BTreeSet<_>>() == *expected, "{pins:#?}");
        let objects: Value =
            serde_json::from_str(&cluster.plane.kubectl(&["get", "cachedimages", "--output=json"], "")?)?;
        let objects = objects["items"].as_array().context("a list")?;
        ensure!(objects.len() == expected.len(), "{objects:#?}");
        Ok(())
    };
    are_kept(&expected)?;
    let left_out = |controller: &larder_test_controller::Controller, expected: &Value| {
        until("it says what is left out, and why", || {
            let report: Value = serde_json::from_str(&controller.page("/report")?)?;
            ensure!(report.pointer("/leftOut") == Some(expected), "{report:#}");
            Ok(())
        })
    };
    left_out(
        &controller,
        &json!({ "Excluded": 1, "NotIncluded": 1, "PullPolicy": 1, "PodIgnored": 1, "NamespaceIgnored": 1 }),
    )?;
    // Labels may be taken away.
    cluster.plane.kubectl(&["label", "pod", "ignored", "--namespace=default", "larder.dev/ignore-"], "")?;
    cluster.plane.kubectl(&["label", "namespace", "left", "larder.dev/ignore-"], "")?;
    expected.extend([&ignored, &of_namespace]);
    are_kept(&expected)?;
    controller.terminate()?;
    // What filters let in that are others comes at once; nothing that was cached goes because of a filter.
    let words = ["--exclude", "**/secret", "--exclude", "**/init", "--pull-policies", "Always,IfNotPresent,Never"];
    let controller = cluster.controller(&words)?;
    expected.extend([&never, &other]);
    are_kept(&expected)?;
    left_out(&controller, &json!({ "Excluded": 2 }))?;
    controller.terminate()
}
