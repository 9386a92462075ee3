//! What a node has to do with the API server: `UpstreamRegistry` objects in, its `NodeMirror` out.

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{ControlPlane, DEFINITIONS, NODE_RIGHTS, Node, condition_of, until};
use serde_json::{Value, json};

const ACCESS: &str = include_str!("../../../chart/files/access.yaml");

/// An API server with the definitions, who may write what, and the rights that are documented.
fn plane() -> Result<ControlPlane> {
    let plane = ControlPlane::start()?;
    for (_, definition) in DEFINITIONS {
        plane.apply(definition)?;
    }
    plane.apply(ACCESS)?;
    plane.apply(NODE_RIGHTS)?;
    for kind in ["upstreamregistries", "nodemirrors"] {
        until("the kind is served", || plane.kubectl(&["get", kind], ""))?;
    }
    Ok(plane)
}

fn registry(plane: &ControlPlane, name: &str, spec: &Value) -> Result<()> {
    let mut spec = spec.clone();
    spec["registry"] = json!(name);
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": { "name": name }, "spec": spec,
    });
    plane.apply(&object.to_string()).map(drop)
}

fn until_reason(node: &Node, plane: &ControlPlane, condition: &str, reason: &str) -> Result<Value> {
    until(&format!("{condition} is {reason}"), || {
        let mirror = node.mirror(plane).with_context(|| node.last_lines())?;
        let found = condition_of(&mirror, condition);
        ensure!(found.is_some_and(|found| found["reason"] == reason), "{found:?}\n{}", node.last_lines());
        Ok(mirror)
    })
}

fn until_source(node: &Node, source: &str) -> Result<Value> {
    until(&format!("what is known is from {source}"), || {
        let status = node.status()?;
        ensure!(status["kubernetes"]["source"] == source, "{:#}\n{}", status["kubernetes"], node.last_lines());
        Ok(status)
    })
}

pub(crate) fn in_and_out() -> Result<()> {
    let mut plane = plane()?;
    let mut node = Node::new(&plane, "one", &[])?;
    registry(&plane, "a.example", &json!({ "endpoints": ["https://mirror.example/a"] }))?;
    node.start()?;
    node.until_the_proxy_is_told("https://mirror.example/a")?;

    let mirror = until_reason(&node, &plane, "Configured", "NoEngine")?;
    let owner = &mirror["metadata"]["ownerReferences"];
    ensure!(owner[0]["kind"] == "Node" && owner[0]["name"] == "one" && owner[1].is_null(), "{owner}");
    ensure!(mirror["status"]["seenAt"].is_string(), "{mirror:#}");
    ensure!(mirror["status"]["toDo"][0].as_str().is_some_and(|text| text.contains("none.sock")), "{mirror:#}");
    let words = ["get", "nodemirror", "one", "--output=json", "--show-managed-fields"];
    let whole: Value = serde_json::from_str(&plane.kubectl(&words, "")?)?;
    let managers = whole["metadata"]["managedFields"].as_array().context("who wrote it")?;
    ensure!(managers.iter().all(|manager| manager["manager"] == "larder-node"), "{managers:?}");

    // What nobody could check before: that registry alone is left out, and a person reads which.
    registry(&plane, "b.example", &json!({ "ca": "no certificate" }))?;
    let told = node.until_the_proxy_is_told("b.example")?;
    ensure!(told.contains("https://mirror.example/a") && told.contains("skip = true"), "{told}");
    let mirror = until("the NodeMirror names it", || {
        let mirror = node.mirror(&plane)?;
        ensure!(mirror["status"]["toDo"].to_string().contains("UpstreamRegistry b.example: ca:"), "{mirror:#}");
        Ok(mirror)
    })?;
    let page = node.printed_status()?;
    ensure!(
        page.contains("2 UpstreamRegistry objects") && page.contains("left out: UpstreamRegistry b.example"),
        "{page}"
    );

    // What is said of registries changes, and nothing of the node does.
    registry(&plane, "c.example", &json!({ "skip": true }))?;
    node.until_the_proxy_is_told("c.example")?;
    registry(&plane, "a.example", &json!({ "endpoints": ["https://mirror.example/other"] }))?;
    node.until_the_proxy_is_told("https://mirror.example/other")?;
    until("it is on the disk", || {
        let kept = std::fs::read_to_string(node.last_known())?;
        ensure!(kept.contains("https://mirror.example/other") && kept.contains("c.example"), "{kept}");
        Ok(())
    })?;

    let after = node.mirror(&plane)?;
    ensure!(after["metadata"]["resourceVersion"] == mirror["metadata"]["resourceVersion"], "{mirror:#}\n{after:#}");

    // The API server goes, and the agent is killed: the next one knows at once.
    plane.kill_api_server();
    node.kill()?;
    std::fs::remove_file(node.registries_file())?;
    node.start()?;
    let told = node.until_the_proxy_is_told("https://mirror.example/other")?;
    ensure!(told.contains("c.example"), "{told}");
    let status = until_source(&node, "disk")?;
    ensure!(status["kubernetes"]["objects"] == 3, "{status:#}");

    plane.start_api_server()?;
    until_source(&node, "api-server")?;
    // Its NodeMirror is as the one before it left it, but for what is new.
    until("it is written", || {
        ensure!(node.metric("larder_agent_node_mirror_writes_total")? >= 1.0, "{}", node.last_lines());
        Ok(())
    })?;
    let again = until_reason(&node, &plane, "Configured", "NoEngine")?;
    ensure!(again["status"]["conditions"] == mirror["status"]["conditions"], "{mirror:#}\n{again:#}");
    // What a person goes by who asks whether anybody is there: the one that was killed left its own behind.
    let seen = |mirror: &Value| mirror["status"]["seenAt"].as_str().map(str::to_owned);
    ensure!(seen(&again) > seen(&mirror), "{mirror:#}\n{again:#}");

    // Somebody deletes the definition, and with it its objects: nothing of what they said goes.
    plane.kubectl(&["delete", "crd", "upstreamregistries.larder.dev"], "")?;
    node.until_it_says("there is no kind UpstreamRegistry")?;
    let told = node.until_the_proxy_is_told("https://mirror.example/other")?;
    ensure!(told.contains("c.example"), "{told}");
    // It is there again, and what is said now counts.
    for (_, definition) in DEFINITIONS {
        plane.apply(definition)?;
    }
    until("the kind is served", || registry(&plane, "d.example", &json!({ "skip": true })))?;
    let told = node.until_the_proxy_is_told("d.example")?;
    ensure!(!told.contains("c.example"), "{told}");

    let log = node.terminate()?;
    let last = node.mirror(&plane)?;
    let is_stopping = condition_of(&last, "Withdrawn").is_some_and(|found| found["reason"] == "Stopping");
    // On a machine that is too slow for it the word is not waited for.
    ensure!(is_stopping || log.contains("said=false"), "{last:#}\n{log}");
    Ok(())
}
