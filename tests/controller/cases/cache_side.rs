//! What the cluster cache takes from `UpstreamRegistry` objects: where a registry is asked, and whom it trusts for that.

use anyhow::{Result, ensure};
use larder_test_callers::Cache;
use larder_test_callers::cache::{AUDIENCE, CONFIGMAP};
use larder_test_controller::{ControlPlane, DEFINITIONS, until};
use larder_test_origin::{Image, ImageSpec, OriginBuilder};
use serde_json::{Value, json};

/// Nobody is there, and without a word of an administrator nobody may ask.
const REGISTRY: &str = "127.0.0.1:1";
const OBJECT: &str = "127.0.0.1.port-1";

fn say(plane: &ControlPlane, spec: &Value) -> Result<()> {
    let mut spec = spec.clone();
    spec["registry"] = json!(REGISTRY);
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": { "name": OBJECT }, "spec": spec,
    });
    plane.apply(&object.to_string()).map(drop)
}

/// An administrator says where a registry is, and by which authority: from then on the cache has its images, and nothing that happens to the object or
/// the API server takes that away.
pub(crate) fn endpoints_and_authority() -> Result<()> {
    let mut plane = ControlPlane::start()?;
    for (_, definition) in DEFINITIONS {
        plane.apply(definition)?;
    }
    until("the kind is served", || plane.kubectl(&["get", "upstreamregistries"], ""))?;
    let mirror = OriginBuilder::default().tls(&["127.0.0.1"]).start();
    let push = |tag: &str, seed: u64| {
        let image = Image::build(&ImageSpec { layers: vec![1000], seed, ..ImageSpec::default() });
        mirror.push("team/app", tag, &image);
    };
    let mut cache = Cache::start(&plane.kubeconfig_of_cache()?, &["--kubernetes"])?;
    cache.until_ready()?;
    let authority = plane.field("configmap", CONFIGMAP, "ca.crt")?;
    let token = plane.token("node", AUDIENCE)?;
    let pull = |cache: &Cache, tag: &str| {
        cache.ask_for(&format!("/v2/127.0.0.1__1/team/app/manifests/{tag}"), &authority, &token)
    };
    let until_pulled = |cache: &Cache, tag: &str| {
        until(&format!("{tag} is pulled"), || {
            let status = pull(cache, tag)?;
            ensure!(status == 200, "{status}\n{}{}", cache.page("/readyz")?, cache.log());
            Ok(())
        })
    };
    push("v1", 1);
    ensure!(pull(&cache, "v1")? != 200 && mirror.log().is_empty(), "nobody said where it is");

    say(&plane, &json!({ "endpoints": [mirror.url()], "ca": mirror.ca_pem() }))?;
    until_pulled(&cache, "v1")?;

    // What the API server cannot check.
    say(&plane, &json!({ "endpoints": [mirror.url()], "ca": "no certificate" }))?;
    cache.until_it_says(&format!("UpstreamRegistry {OBJECT}: ca: "))?;
    ensure!(cache.page("/readyz")?.contains("is reached as before"), "{}", cache.page("/readyz")?);
    push("v2", 2);
    until_pulled(&cache, "v2")?;

    // Somebody deletes the definition, and with it the object.
    plane.kubectl(&["delete", "crd", "upstreamregistries.larder.dev"], "")?;
    cache.until_it_says("there is no kind UpstreamRegistry")?;
    push("v3", 3);
    until_pulled(&cache, "v3")?;

    // The API server goes, and the container is started again.
    plane.kill_api_server();
    cache.kill();
    cache.start_again()?;
    cache.until_it_says("UpstreamRegistry objects are not watched now")?;
    push("v4", 4);
    until_pulled(&cache, "v4")
}
