//! One namespace fills neither the cache nor the API server's store.

use anyhow::{Result, ensure};
use larder_test_controller::{Cluster, until};
use serde_json::{Value, json};

use crate::life::pins;

/// A Pod of many images, which nobody runs.
fn pod(namespace: &str, name: &str, images: &[String]) -> Value {
    let containers = images.iter().enumerate().map(|(n, image)| json!({"name": format!("c{n}"), "image": image}));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": { "automountServiceAccountToken": false, "containers": containers.collect::<Vec<_>>() },
    })
}

fn images_of_all(cluster: &Cluster) -> Result<Vec<String>> {
    let all: Value = serde_json::from_str(&cluster.plane.kubectl(&["get", "cachedimages", "--output=json"], "")?)?;
    let items = all["items"].as_array().into_iter().flatten();
    let mut images: Vec<String> = items.filter_map(|item| item["spec"]["image"].as_str().map(str::to_owned)).collect();
    images.sort_unstable();
    Ok(images)
}

pub(crate) fn one_namespace_has_so_many_images() -> Result<()> {
    let cluster = Cluster::start()?;
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "other"}}),
    ] {
        cluster.plane.apply(&object.to_string())?;
    }
    let (image, _) = cluster.push("team/app", 1);
    let (theirs, _) = cluster.push("team/theirs", 2);
    let registry = cluster.origin.registry();
    cluster.run("web", &image)?;
    let controller = cluster.controller(&["--images-per-namespace", "3", "--expiry", "2s"])?;
    cluster.until_reason(&image, "Cached", "Complete")?;
    // Seventy misspelt names are no seventy objects, and keep nobody else's image out.
    let misspelt: Vec<String> = (0..70).map(|n| format!("{registry}/team/none-{n}:v1")).collect();
    cluster.plane.apply(&pod("default", "greedy", &misspelt).to_string())?;
    cluster.plane.apply(&pod("other", "web", &[theirs.clone(), image.clone()]).to_string())?;
    let object = cluster.until_reason(&theirs, "Cached", "Complete")?;
    ensure!(object.pointer("/status/namespaces") == Some(&json!(["other"])), "{object}");
    until("the namespace hears of it", || {
        let events = cluster.plane.kubectl(&["get", "events", "--namespace=default", "--output=json"], "")?;
        let events: Value = serde_json::from_str(&events)?;
        let is_it = |event: &Value| event["reason"] == "OverLimit" && event["involvedObject"]["name"] == "default";
        let found = events["items"].as_array().into_iter().flatten().find(|event| is_it(event));
        let message = found.and_then(|event| event["message"].as_str()).unwrap_or_default();
        ensure!(message.contains("namespace default has its 3 images already"), "{message:?} {events}");
        Ok(())
    })?;
    let there = images_of_all(&cluster)?;
    ensure!(there.len() == 4 && there.contains(&image) && there.contains(&theirs), "{there:#?}");
    // When the Pod goes, so do the objects of what nobody ever had, and there is room for others.
    cluster.stop("greedy")?;
    until("they are gone", || {
        let mut both = [image.clone(), theirs.clone()];
        both.sort_unstable();
        let there = images_of_all(&cluster)?;
        ensure!(there == both, "{there:?}");
        Ok(())
    })?;
    let (more, _) = cluster.push("team/more", 3);
    cluster.run("more", &more)?;
    cluster.until_reason(&more, "Cached", "Complete")?;
    controller.terminate()
}

pub(crate) fn one_namespace_has_so_many_bytes() -> Result<()> {
    let cluster = Cluster::start()?;
    let (first, _) = cluster.push("team/first", 1);
    cluster.run("first", &first)?;
    // Room for one of them, each of some 30 kB, and how large they are is known once they are there.
    let controller = cluster.controller(&["--bytes-per-namespace", "50kB"])?;
    cluster.until_reason(&first, "Cached", "Complete")?;
    let (second, _) = cluster.push("team/second", 2);
    cluster.run("second", &second)?;
    until("it was there once, and goes", || {
        let object = cluster.object(&second)?;
        let bytes = object.pointer("/status/sizeBytes").and_then(Value::as_u64);
        ensure!(bytes.is_some_and(|bytes| bytes > 25_000), "{object}");
        ensure!(pins(&cluster)? == [first.clone()], "{:?}", pins(&cluster)?);
        Ok(())
    })?;
    // Its object was written twice by now, which is all for this minute. Another leader may say at once what it finds, and begins nothing anew.
    controller.terminate()?;
    let controller = cluster.controller(&["--bytes-per-namespace", "50kB"])?;
    let object = cluster.until_reason(&second, "Cached", "OverLimit")?;
    ensure!(object.pointer("/status/digest").is_none(), "{object}");
    ensure!(pins(&cluster)? == [first.clone()], "{:?}", pins(&cluster)?);
    cluster.until_reason(&first, "Cached", "Complete")?;
    controller.terminate()
}
