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
    let (odd, content) = cluster.push("team/odd", 2);
    let spec = json!({"image": odd, "platforms": [format!("linux/{}", "o".repeat(40))]});
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
    // It is kept for the nodes there are, and says so; and what of its spec is no good.
    let object = cluster.until_reason(&odd, "Cached", "Complete")?;
    ensure!(object.pointer("/status/digest") == Some(&json!(content.index.as_str())), "{object}");
    let words = message(&object, "Cached")?;
    ensure!(words.contains("are kept") && words.contains("ignored, until it is corrected: spec.platforms"), "{words}");
    cluster.until_reason(&image, "Cached", "Complete")?;
    controller.terminate()
}
