//! The control API's client against a real `larder-cache` behind TLS.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use larder_controller::cluster_cache::{CacheError, ClusterCache, ClusterCacheConfig, Fault, Limits, PinState};
use larder_oci::ImageReference;
use larder_test_controller::Cache;
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher, Origin};

/// Longer than anything takes on a busy machine.
const WAIT: Duration = Duration::from_mins(1);

fn client(cache: &Cache) -> Result<ClusterCache> {
    let config = ClusterCacheConfig {
        url: cache.url().parse()?,
        replicas: None,
        ca: Some(cache.authority_file()),
        token: cache.token_file(),
        holder: "me".to_owned(),
    };
    // Files are read again when they are found to be wrong; here only then.
    let limits = Limits { files: Duration::from_hours(1), ..Limits::default() };
    Ok(ClusterCache::new(config, limits)?)
}

async fn listed(client: &ClusterCache) -> Vec<Result<String, CacheError>> {
    client.pins().map(|pin| pin.map(|pin| pin.image.to_string())).collect().await
}

pub(crate) fn pins_over_tls() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let origin = Origin::start();
    let image = Image::build(&ImageSpec { layers: vec![30_000], seed: 1, ..ImageSpec::default() });
    let tags = 250;
    for tag in 0..tags {
        origin.push("team/app", &format!("v{tag}"), &image);
    }
    let reference = |tag: &str| ImageReference::parse(&format!("{}/team/app:{tag}", origin.registry()));
    // The one is left in peace for a while when it fails, and then everything of it has failed at once.
    let slow_origin = Origin::start();
    let mut cache = Cache::start(&[origin.registry().to_string(), slow_origin.registry().to_string()])?;
    let client = client(&cache)?;
    runtime.block_on(async {
        let first = reference("v0")?;
        ensure!(client.get(&first).await?.is_none(), "nothing is pinned yet");
        let pin = client.put(&first, &["linux/amd64".to_owned()], WAIT).await?;
        ensure!(pin.state == PinState::Complete && pin.held() == Some(&image.index), "{pin:?}");
        ensure!(client.get(&first).await? == Some(pin), "it is as it was answered");
        // Two pages.
        for tag in 1..tags {
            client.put(&reference(&format!("v{tag}"))?, &[], Duration::ZERO).await?;
        }
        let mut all = listed(&client).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        all.sort_unstable();
        all.dedup();
        ensure!(all.len() == tags, "{} of {tags} are listed", all.len());
        // What a tag means, and what does not say.
        let said = client.revalidate(&first).await?;
        ensure!(said.upstream.as_ref() == Some(&image.index) && said.verdict.is_none(), "{said:?}");
        origin.behave(Matcher::path("/v2/team/app/manifests/"), Behaviour::Status(404, vec![]));
        let said = client.revalidate(&first).await?;
        ensure!(said.upstream.is_none() && said.verdict.as_deref() == Some("not_found"), "{said:?}");
        origin.behave_well();
        // Everything else goes, so that the rest can be declared.
        for tag in 1..tags {
            client.delete(&reference(&format!("v{tag}"))?).await?;
        }
        let as_of = client.begin_declaration().await?;
        client.declare(as_of).await?;
        origin.behave(Matcher::path("/blobs/"), Behaviour::Status(503, vec![]));
        let other = Image::build(&ImageSpec { layers: vec![40_000], seed: 2, ..ImageSpec::default() });
        origin.push("team/other", "v1", &other);
        let other = ImageReference::parse(&format!("{}/team/other:v1", origin.registry()))?;
        let pin = client.put(&other, &[], WAIT).await?;
        ensure!(pin.state == PinState::Waiting && pin.error.is_some(), "{pin:?}");
        // What cannot be had is not waited for; what was not tried yet is.
        client.declare(client.begin_declaration().await?).await?;
        slow_origin.behave(Matcher::path("/blobs/"), Behaviour::Hang);
        let slow = Image::build(&ImageSpec { layers: vec![40_000], seed: 3, ..ImageSpec::default() });
        slow_origin.push("team/slow", "v1", &slow);
        let slow = ImageReference::parse(&format!("{}/team/slow:v1", slow_origin.registry()))?;
        client.put(&slow, &[], Duration::ZERO).await?;
        let refused = client.declare(client.begin_declaration().await?).await;
        ensure!(matches!(refused, Err(CacheError::Incomplete { .. })), "{refused:?}");
        anyhow::Ok(())
    })?;

    // The token is another one: it is read again, and only then is anybody bothered.
    cache.set_token("a-token-of-the-next-hour-1")?;
    let first = reference("v0")?;
    runtime.block_on(async {
        larder_test_controller::until("the new token is known", || {
            let got = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(client.get(&first)));
            ensure!(got?.is_some(), "no pin");
            Ok(())
        })
    })?;
    // Killed: it is away, whoever is asked again is not told anything else; and with it comes another certificate.
    cache.kill();
    let away = runtime.block_on(client.get(&first)).err().context("nobody answers")?;
    ensure!(matches!(away, CacheError::Away { .. }) && away.fault() == Fault::Cache, "{away}");
    ensure!(away.is_worth_retrying() && away.is_of_the_whole_cache());
    cache.set_certificate()?;
    cache.start_again()?;
    runtime.block_on(async {
        ensure!(client.get(&first).await?.is_some());
        anyhow::Ok(())
    })?;
    // One that nobody vouches for is not told the token.
    let stranger = Cache::start(&[])?;
    let config = ClusterCacheConfig {
        url: stranger.url().parse()?,
        replicas: None,
        ca: Some(cache.authority_file()),
        token: cache.token_file(),
        holder: "me".to_owned(),
    };
    let distrusted = ClusterCache::new(config, Limits::default())?;
    let error = runtime.block_on(distrusted.get(&first)).err().context("it was trusted")?;
    ensure!(error.to_string().contains("certificate"), "{error}");
    // One that does not know us says so, with the file to look at.
    let config = ClusterCacheConfig {
        url: stranger.url().parse()?,
        replicas: None,
        ca: Some(stranger.authority_file()),
        token: cache.token_file(),
        holder: "me".to_owned(),
    };
    let unknown = ClusterCache::new(config, Limits::default())?;
    let error = runtime.block_on(unknown.get(&first)).err().context("it knows us")?;
    ensure!(matches!(&error, CacheError::Unknown { .. }) && error.fault() == Fault::Settings, "{error}");
    ensure!(!format!("{error:?}{unknown:?}").contains("next-hour"), "the token is shown");
    Ok(())
}
