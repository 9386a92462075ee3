//! The cache's own certificate in a real Secret.

use anyhow::{Context as _, Result, ensure};
use larder_test_callers::cache::{AUDIENCE, CONFIGMAP, SECRET};
use larder_test_callers::control_plane::RIGHTS;
use larder_test_callers::wait::until;
use larder_test_callers::{Cache, ControlPlane};
use larder_test_origin::private_certificate;

/// The certificate that a process shows to whoever trusts the authority of the `ConfigMap`.
fn shown(plane: &ControlPlane, cache: &Cache) -> Result<Vec<u8>> {
    let token = plane.token("node", AUDIENCE)?;
    let (status, shown) = cache.ask(&plane.field("configmap", CONFIGMAP, "ca.crt")?, &token)?;
    ensure!(status == 200, "{status}: {}", cache.log());
    Ok(shown)
}

pub(crate) fn two_replicas_make_one() -> Result<()> {
    let mut plane = ControlPlane::start()?;
    let kubeconfig = plane.kubeconfig_of_cache()?;
    let replicas = [0; 4].map(|_| Cache::start(&kubeconfig, &[]).unwrap());
    let mut certificates = Vec::new();
    for replica in &replicas {
        replica.until_ready()?;
        certificates.push(shown(&plane, replica)?);
    }
    ensure!(certificates.iter().all(|one| *one == certificates[0]), "they show different ones");
    let written: usize =
        replicas.iter().map(|replica| replica.log().matches("there is no authority yet").count()).sum();
    ensure!(written == 1, "it was written {written} times");

    // One that starts while nobody can be asked has nothing to show: it lets nobody in, and says why.
    plane.kill_api_server();
    let late = Cache::start(&kubeconfig, &[])?;
    let said = late.until_it_says("there is no certificate, so everybody is refused")?;
    ensure!(said.starts_with("not ready\n") && said.contains("the API server does not answer"), "{said}");
    let authority = private_certificate(&["x"]).authority;
    let error = late.ask(&authority, "garbage").err().context("somebody was let in")?;
    ensure!(format!("{error:#}").contains("alert"), "it should refuse TLS: {error:#}");
    plane.start_api_server()?;
    late.until_ready()?;
    ensure!(shown(&plane, &late)? == certificates[0]);

    // A person damages it: nothing changes but what is said.
    let key = plane.field("secret", SECRET, "tls.key")?;
    plane.set_secret(SECRET, "tls.key", "nonsense")?;
    let said = late.until_it_says("it was damaged: tls.key holds no key")?;
    ensure!(said.starts_with("ready\n"), "{said}");
    ensure!(shown(&plane, &late)? == certificates[0]);
    ensure!(plane.field("secret", SECRET, "tls.key")? == "nonsense", "it was written over");
    plane.set_secret(SECRET, "tls.key", &key)?;
    late.until_ready()?;

    // cert-manager writes its own there: left alone, too.
    let theirs = private_certificate(&["larder-cache.larder.svc"]);
    let ours = plane.field("secret", SECRET, "tls.crt")?;
    plane.set_secret(SECRET, "tls.crt", &theirs.certificate)?;
    late.until_it_says("it is somebody else's and is left alone")?;
    ensure!(plane.field("secret", SECRET, "tls.crt")? == theirs.certificate, "it was written over");
    plane.set_secret(SECRET, "tls.crt", &ours)?;

    // Emptied by a person: a new authority, one for all, that nodes learn of; connections go on being taken all the while.
    let patch = "--patch=[{\"op\": \"remove\", \"path\": \"/data\"}]";
    plane.kubectl(&["patch", "secret", SECRET, "--namespace=larder", "--type=json", patch], "")?;
    until("all replicas show a new one", || {
        for replica in replicas.iter().chain([&late]) {
            ensure!(shown(&plane, replica)? != certificates[0], "it still shows the old one");
        }
        Ok(())
    })?;
    let key = plane.field("secret", SECRET, "ca.key")?;
    let line = key.lines().nth(1).context("a key has lines")?;
    for replica in &replicas {
        ensure!(!replica.log().contains(line), "the authority's key is in the log");
        for file in std::fs::read_dir(replica.saved())? {
            ensure!(!std::fs::read_to_string(file?.path())?.contains(line), "the authority's key is on the disk");
        }
    }
    Ok(())
}

pub(crate) fn an_upgrade_leaves_it_alone() -> Result<()> {
    let plane = ControlPlane::start()?;
    let cache = Cache::start(&plane.kubeconfig_of_cache()?, &[])?;
    cache.until_ready()?;
    let before = (shown(&plane, &cache)?, plane.field("secret", SECRET, "ca.key")?);
    plane.apply(RIGHTS)?;
    plane.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename=-"], RIGHTS)?;
    cache.until_ready()?;
    ensure!(before == (shown(&plane, &cache)?, plane.field("secret", SECRET, "ca.key")?), "it is another one");
    Ok(())
}
