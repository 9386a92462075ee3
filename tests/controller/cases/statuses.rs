//! What a `CachedImage` says where not everything is well.

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, condition_of};
use serde_json::{Value, json};

fn message(object: &Value, condition: &str) -> Result<String> {
    let message = condition_of(object, condition).and_then(|found| found.get("message")).and_then(Value::as_str);
    message.map(str::to_owned).with_context(|| format!("{object}"))
}

/// A misspelt name, a spec that nobody can do.
pub(crate) fn what_is_wrong_is_said() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    let misspelt = format!("{}/team/ap:v1", cluster.origin.registry());
    cluster.run("web", &image)?;
    cluster.run("misspelt", &misspelt)?;
    let odd = "o".repeat(40);
    let spec =
        json!({"image": format!("{}/team/odd:v1", cluster.origin.registry()), "platforms": [format!("linux/{odd}")]});
    let by_hand =
        json!({"apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": {"name": "odd"}, "spec": spec});
    cluster.plane.apply(&by_hand.to_string())?;
    let controller = cluster.controller(&[])?;
    let object = cluster.until_reason(&misspelt, "Cached", "NotFound")?;
    let words = message(&object, "Cached")?;
    ensure!(
        words.contains("does not have the manifest v1") && words.contains("see whether the name is right"),
        "{words}"
    );
    let object = cluster.until_reason(&format!("{}/team/odd:v1", cluster.origin.registry()), "Cached", "Invalid")?;
    ensure!(message(&object, "Cached")?.contains("spec.platforms"), "{object}");
    cluster.until_reason(&image, "Cached", "Complete")?;
    controller.terminate()
}
