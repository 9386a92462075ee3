//! The rights of `docs/cluster-cache-rights.yaml`: every other case has them and no others; here each is taken away in turn.

use anyhow::{Result, ensure};
use larder_test_callers::cache::AUDIENCE;
use larder_test_callers::control_plane::RIGHTS;
use larder_test_callers::{Cache, ControlPlane};

pub(crate) fn enough_and_needed() -> Result<()> {
    let plane = ControlPlane::start()?;
    let kubeconfig = plane.kubeconfig_of_cache()?;
    // Beside our own there is a right to read the keys that every account has; without it, ours has to do.
    plane.kubectl(&["delete", "clusterrolebinding", "system:service-account-issuer-discovery"], "")?;
    for (right, without, said) in [
        ("verbs: [get, patch]", "verbs: [get]", "Secret larder/larder-cache-certificate: the API server refuses (403)"),
        (
            "resources: [secrets]",
            "resources: [endpoints]",
            "Secret larder/larder-cache-certificate: the API server refuses (403)",
        ),
        (
            "resources: [configmaps]",
            "resources: [endpoints]",
            "ConfigMap larder/larder-cache-authority: the API server refuses (403)",
        ),
        ("/openid/v1/jwks", "/openid/v1/none", "the keys of tokens cannot be read: the API server refuses (403)"),
        (
            "/.well-known/openid-configuration",
            "/.well-known/none",
            "the keys of tokens cannot be read: the API server refuses (403)",
        ),
        (
            "resources: [upstreamregistries]",
            "resources: [nodemirrors]",
            "the ClusterRole of docs/cluster-cache-rights.yaml is missing",
        ),
        ("resources: [tokenreviews]", "resources: [subjectaccessreviews]", "may this account create tokenreviews?"),
    ] {
        ensure!(RIGHTS.contains(right), "{right} is not documented");
        plane.apply(&RIGHTS.replace(right, without))?;
        let words: &[&str] = if right.contains("upstreamregistries") { &["--kubernetes"] } else { &[] };
        let cache = Cache::start(&kubeconfig, words)?;
        if right.contains("tokenreviews") {
            // Nobody has asked yet.
            cache.until_ready()?;
            let authority = plane.field("configmap", larder_test_callers::cache::CONFIGMAP, "ca.crt")?;
            let node = plane.token("node", AUDIENCE)?;
            let (status, _) = cache.ask(&authority, &node)?;
            ensure!(status == 200, "saved keys say whose it is: {status}: {}", cache.log());
            ensure!(cache.ask(&authority, &plane.expired(&node)?)?.0 == 401, "the API server is not away");
        }
        cache.until_it_says(said)?;
    }
    plane.apply(RIGHTS)?;
    let cache = Cache::start(&kubeconfig, &[])?;
    cache.until_ready()
}
