//! What a `CachedImage` says where not everything is well.

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, condition_of, until};
use larder_test_origin::{Behaviour, Matcher};
use serde_json::{Value, json};

use crate::life::pins;

fn message(object: &Value, condition: &str) -> Result<String> {
    let message = condition_of(object, condition).and_then(|found| found.get("message")).and_then(Value::as_str);
    message.map(str::to_owned).with_context(|| format!("{object}"))
}

fn reason(object: &Value, condition: &str) -> String {
    let reason = condition_of(object, condition).and_then(|found| found.get("reason")).and_then(Value::as_str);
    reason.unwrap_or_default().to_owned()
}

/// Its own turn to be checked is hours away.
pub(crate) fn what_a_fetch_heard() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, content) = cluster.push("team/app", 1);
    let (private, _) = cluster.push("team/private", 2);
    cluster.origin.behave(Matcher::path("/v2/team/private/"), Behaviour::Status(401, vec![]));
    let missing = format!("{}/team/ap:v1", cluster.origin.registry());
    let by_digest = format!("{}/team/app@{}", cluster.origin.registry(), content.index);
    for (pod, image) in [("web", &image), ("private", &private), ("missing", &missing), ("digest", &by_digest)] {
        cluster.run(pod, image)?;
    }
    let controller = cluster.controller(&["--monitoring-interval", "30d"])?;
    // The very status that says the one says the other.
    for (image, cached, available, current) in [
        (&image, "Complete", "Present", "Same"),
        (&by_digest, "Complete", "Present", "ByDigest"),
        (&private, "Private", "Denied", "NotCached"),
        (&missing, "NotFound", "NotFound", "NotCached"),
    ] {
        let object = cluster.until_reason(image, "Cached", cached)?;
        let said = (reason(&object, "UpstreamAvailable"), reason(&object, "UpToDate"));
        ensure!(said == (available.to_owned(), current.to_owned()), "{object:#} {}", controller.log());
        ensure!(object.pointer("/status/upstreamChecked").is_some_and(Value::is_string), "{object:#}");
        if cached == "Complete" {
            let digest = json!(content.index.as_str());
            ensure!(object.pointer("/status/upstreamDigest") == Some(&digest), "{object:#}");
            let held = json!([{"digest": digest, "upstream": true, "pods": 0, "cached": true}]);
            ensure!(object.pointer("/status/digests") == Some(&held), "{object:#}");
        }
    }
    controller.terminate()
}

/// Found in the cache, for its registry is away: what that said to somebody before is no word of now.
pub(crate) fn what_a_fetch_did_not_hear() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    cluster.wish("app", &image)?;
    let controller = cluster.controller(&["--monitoring-interval", "30d"])?;
    let object = cluster.until_reason(&image, "Cached", "Complete")?;
    ensure!(reason(&object, "UpstreamAvailable") == "Present", "{object:#}");
    cluster.plane.kubectl(&["delete", "cachedimage", "app"], "")?;
    until("it is not pinned any more", || {
        let pins = pins(&cluster)?;
        ensure!(pins.is_empty(), "{pins:?}");
        Ok(())
    })?;
    cluster.origin.stop();
    cluster.wish("app", &image)?;
    let object = cluster.until_reason(&image, "Cached", "Complete")?;
    ensure!(reason(&object, "UpstreamAvailable") != "Present", "{object:#}");
    cluster.until_reason(&image, "UpstreamAvailable", "Unreachable")?;
    controller.terminate()
}

/// A misspelt name, a spec that nobody can do.
pub(crate) fn what_is_wrong_is_said() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    let misspelt = format!("{}/team/ap:v1", cluster.origin.registry());
    cluster.run("web", &image)?;
    cluster.run("misspelt", &misspelt)?;
    let (odd, content) = cluster.push("team/odd", 2);
    let spec = json!({"image": odd, "platforms": [format!("linux/{}", "o".repeat(40))]});
    let by_hand =
        json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": "odd"}, "spec": spec});
    cluster.plane.apply(&by_hand.to_string())?;
    let controller = cluster.controller(&["--monitoring-interval", "2s"])?;
    let object = cluster.until_reason(&misspelt, "Cached", "NotFound")?;
    let words = message(&object, "Cached")?;
    ensure!(
        words.contains("does not have the manifest v1") && words.contains("see whether the name is right"),
        "{words}"
    );
    // It is kept for the nodes there are, and says so; and what of its spec is no good.
    let object = cluster.until_reason(&odd, "Cached", "Complete")?;
    ensure!(object.pointer("/status/digest") == Some(&json!(content.index.as_str())), "{object}");
    let words = message(&object, "Cached")?;
    ensure!(words.contains("are kept") && words.contains("ignored, until it is corrected: spec.platforms"), "{words}");
    cluster.until_reason(&image, "Cached", "Complete")?;
    // Nor is what never was taken for deleted once somebody has looked.
    let counted = r#"larder_controller_checks_total{outcome="gone"}"#;
    until("its registry was asked for it", || {
        let page = controller.page("/metrics")?;
        ensure!(page.lines().any(|line| line.starts_with(counted) && !line.ends_with(" 0")), "{page}");
        Ok(())
    })?;
    controller.terminate()?;
    // This one has not used up what it may write.
    let controller = cluster.controller(&["--monitoring-interval", "2s"])?;
    until("it was asked for again", || {
        let page = controller.page("/metrics")?;
        ensure!(page.lines().any(|line| line.starts_with(counted) && !line.ends_with(" 0")), "{page}");
        Ok(())
    })?;
    until("its registry misses nothing", || {
        let all = cluster.plane.kubectl(&["get", "upstreamregistries", "--output=json"], "")?;
        let all: Value = serde_json::from_str(&all)?;
        let counts = all.pointer("/items/0/status/images");
        ensure!(counts == Some(&json!({"known": 3, "cached": 2, "missingUpstream": 0})), "{all:#}");
        Ok(())
    })?;
    let object = cluster.object(&misspelt)?;
    ensure!(reason(&object, "UpstreamAvailable") == "NotFound", "{object:#}");
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let about = format!("--field-selector=involvedObject.name={name}");
    let events = cluster.plane.kubectl(&["get", "events", "--all-namespaces", &about, "--output=json"], "")?;
    let events: Value = serde_json::from_str(&events)?;
    let reasons: Vec<&Value> = events
        .pointer("/items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|event| event.get("reason"))
        .collect();
    ensure!(!reasons.is_empty() && reasons.iter().all(|reason| **reason == "NotFound"), "{events:#}");
    controller.terminate()
}
