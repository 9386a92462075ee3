//! Whose token it is: while the API server is there, when it was killed, when the cache was restarted meanwhile, and after its time.

use anyhow::{Result, ensure};
use larder_test_callers::cache::{AUDIENCE, CONFIGMAP, CONTROL_AUDIENCE};
use larder_test_callers::wait::until;
use larder_test_callers::{Cache, ControlPlane};

fn status(cache: &Cache, authority: &str, token: &str) -> Result<u16> {
    Ok(cache.ask(authority, token)?.0)
}

pub(crate) fn with_the_api_server_and_a_day_without_it() -> Result<()> {
    let (mut plane, other) = (ControlPlane::start()?, ControlPlane::start()?);
    let cache = &mut Cache::start(&plane.kubeconfig_of_cache()?, &[])?;
    let hurried = &mut Cache::start(&plane.kubeconfig_of_cache()?, &["--saved-keys-for", "8s"])?;
    cache.until_ready()?;
    hurried.until_ready()?;
    let authority = &plane.field("configmap", CONFIGMAP, "ca.crt")?;

    let node = &plane.token("node", AUDIENCE)?;
    let expired = &plane.expired(node)?;
    let wrong = [
        plane.token("node", "another")?,
        plane.token("stranger", AUDIENCE)?,
        other.token("node", AUDIENCE)?,
        format!("{node}x"),
        "garbage".to_owned(),
    ];
    ensure!(status(cache, authority, node)? == 200, "{}", cache.log());
    ensure!(status(cache, authority, expired)? == 401, "an expired token while somebody says so");
    for (number, wrong) in wrong.iter().enumerate() {
        ensure!(status(cache, authority, wrong)? == 401, "the wrong token {number}");
    }
    let controller = &plane.token("controller", CONTROL_AUDIENCE)?;
    ensure!(cache.ask_control(authority, controller)? == 200, "{}", cache.log());
    for (whose, token) in [
        ("a node's", node),
        ("a node's for the other audience", &plane.token("node", CONTROL_AUDIENCE)?),
        ("a stranger's for nodes", &wrong[1]),
        ("the controller's for nodes", &plane.token("controller", AUDIENCE)?),
        ("a stranger's", &plane.token("stranger", CONTROL_AUDIENCE)?),
    ] {
        ensure!(cache.ask_control(authority, token)? == 401, "{whose} opens the control API");
    }
    ensure!(status(cache, authority, controller)? == 401, "who says what is kept does not pull by that");
    let metrics = cache.page("/metrics")?;
    for line in [
        "larder_cache_token_reviews_total{outcome=\"accepted\"} 2\n",
        // The expired one, that of the other cluster. The rest cannot be good on its face,
        "larder_cache_token_reviews_total{outcome=\"refused\"} 2\n",
        // or was not signed with the key that it names: the one with a letter too many.
        "larder_cache_token_reviews_total{outcome=\"saved_keys_refused\"} 1\n",
    ] {
        ensure!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    ensure!(metrics.contains("larder_cache_certificate_expiry_timestamp_seconds "), "{metrics}");

    plane.kill_api_server();
    let days_without = |cache: &Cache| -> Result<()> {
        ensure!(status(cache, authority, node)? == 200, "{}", cache.log());
        ensure!(status(cache, authority, expired)? == 401, "it was over before: {}", cache.log());
        ensure!(cache.ask_control(authority, controller)? == 200, "{}", cache.log());
        for (number, wrong) in wrong.iter().enumerate() {
            // The other cluster's key might be a new one of ours, so once the API server's own word is forgotten nobody can tell.
            let said = status(cache, authority, wrong)?;
            ensure!(said == 401 || (number == 2 && said == 503), "the wrong token {number}: {said}");
        }
        Ok(())
    };
    days_without(cache)?;
    cache.until_it_says("saved keys say whose a token is, until ")?;
    cache.kill();
    cache.start_again()?;
    // It serves at once, with the certificate that was saved.
    until("it serves after its restart", || days_without(cache))?;

    hurried.until_it_says("saved keys are good for 8 s, which is over")?;
    ensure!(status(hurried, authority, node)? == 503, "{}", hurried.log());
    hurried.kill();
    hurried.start_again()?;
    hurried.until_it_says("which is over")?;
    ensure!(status(hurried, authority, node)? == 503, "a restart does not begin the time anew");

    plane.start_with_another_key()?;
    cache.until_ready()?;
    hurried.until_ready()?;
    ensure!(status(hurried, authority, node)? == 200);
    ensure!(status(cache, authority, expired)? == 401, "somebody says so again: {}", cache.log());
    let newer = &plane.token("node", AUDIENCE)?;
    ensure!(status(cache, authority, newer)? == 200);
    until("the new key is saved", || {
        let saved = std::fs::read_to_string(cache.saved().join("keys.json"))?;
        ensure!(saved.contains("ES256"), "{saved}");
        Ok(())
    })?;
    plane.kill_api_server();
    // Nothing of the first life is remembered.
    cache.kill();
    cache.start_again()?;
    until("it serves after its restart", || {
        ensure!(status(cache, authority, newer)? == 200);
        Ok(())
    })?;
    ensure!(status(cache, authority, node)? == 200, "the first key is still among them");

    let log = cache.log();
    for secret in [node, newer, expired].map(|token| token.rsplit_once('.').map_or("", |(_, signature)| signature)) {
        ensure!(!log.contains(secret), "a token is in the log");
    }
    Ok(())
}
