//! Promise 1 and 5 against an origin that has a bad day while a blob is fetched for the first time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::engine::Engine;
use larder_test_node::larder::LarderOptions;
use larder_test_node::node::{Node, from_larder, listed};
use larder_test_origin::{Behaviour, ImageSpec, Matcher, Origin, OriginBuilder};
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("an_origin_that_truncates_is_resumed", truncates),
    Case::any("an_origin_that_resets_is_resumed", resets),
    Case::any("an_origin_that_drips", drips),
    Case::any("an_origin_that_lies_about_a_byte", lies),
    Case::any("an_origin_that_answers_500_at_first", server_error),
    Case::any("an_origin_that_hangs_on_an_unknown_image_does_not_hang_the_engine", hangs),
    Case::any("an_origin_that_demands_a_token", token),
    Case::any("a_redirect_to_storage_is_followed", redirect),
    Case::any("a_redirect_to_a_forbidden_address_is_refused", forbidden),
];

fn big() -> ImageSpec {
    ImageSpec { layers: vec![8_000_000], seed: 5, ..ImageSpec::default() }
}

fn truncates(line: EngineLine) -> Result<()> {
    let node = Node::on_with_image(line, &big())?;
    let layer = node.image.largest_layer();
    for at in [3_000_000, 1_000_000] {
        node.origin.behave_times(1, Matcher::path(layer.as_str()), Behaviour::Truncate(at));
    }
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine noticed");
    let total = node.image.blobs[&layer].len() as u64;
    ensure!(node.origin.blob_bytes(&layer) == total, "{} bytes for a layer of {total}", node.origin.blob_bytes(&layer));
    Ok(())
}

fn resets(line: EngineLine) -> Result<()> {
    let node = Node::on_with_image(line, &big())?;
    node.origin.behave_times(1, Matcher::path(node.image.largest_layer().as_str()), Behaviour::Reset(2_000_000));
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine noticed");
    Ok(())
}

fn drips(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.origin.behave(Matcher::path("/blobs/"), Behaviour::Shape(150_000));
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine did not wait");
    Ok(())
}

fn lies(line: EngineLine) -> Result<()> {
    let node = Node::on_with_image(line, &big())?;
    let layer = node.image.largest_layer();
    // In the tail, which is held back until the digest is known: the engine gets none of the wrong bytes.
    let last = node.image.blobs[&layer].len() as u64 - 10;
    node.origin.behave_times(1, Matcher::path(layer.as_str()), Behaviour::Lie(last));
    node.engine.pull_in_the_end(&node.by_tag())?;
    ensure!(node.engine.has(&node.by_tag())?, "the engine does not have the image");
    let log = node.origin.log();
    let told = log.iter().find(|access| access.is_blob_get() && access.path.ends_with(layer.as_str()));
    ensure!(told.is_some_and(from_larder), "the lie was not told to Larder: {log:#?}");
    if let Some(file) = node.stored(&layer) {
        ensure!(std::fs::read(file)? == node.image.blobs[&layer].as_ref(), "wrong bytes were stored");
    }
    Ok(())
}

fn server_error(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    let trouble = Matcher::path("/manifests/");
    node.origin.behave(trouble, Behaviour::Status(500, vec![]));
    // Neither we nor the engine can get it, and nobody is made to wait.
    let began = Instant::now();
    ensure!(node.engine.pull(&node.by_tag()).is_err(), "an image that nobody has was pulled");
    ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?} to say no", began.elapsed());
    ensure!(node.asked_by_engine() > 0, "the engine did not go on to the origin");
    node.origin.behave_well();
    node.engine.pull(&node.by_tag())?;
    Ok(())
}

fn hangs(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.origin.behave_times(1, Matcher::path("/manifests/").method("HEAD"), Behaviour::Hang);
    let pulled = node.engine.pull(&node.by_tag())?;
    // Headers within 10 s, else the engine goes to the origin itself, where nothing hangs any more.
    ensure!(pulled.took < Duration::from_secs(13), "took {:?}", pulled.took);
    let log = node.origin.log();
    let hung = log.iter().find(|access| access.method == "HEAD" && access.path.contains("/manifests/"));
    ensure!(hung.is_some_and(from_larder), "it was not Larder that the origin let hang: {log:#?}");
    Ok(())
}

fn token(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.origin.require_token();
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    let tokens = node.origin.log().iter().filter(|access| access.path == "/token").count();
    ensure!(tokens == 1, "one token serves one repository, {tokens} were asked for");
    Ok(())
}

fn with_storage(line: EngineLine, listing: impl Fn(&Origin, &Origin) -> String) -> Result<(Node<dyn Engine>, Origin)> {
    // Another host than the registry: what is listed for one is not listed for the other.
    let storage = OriginBuilder::default().address(([127, 0, 0, 2], 0).into()).start();
    let node = Node::on_with(line, &ImageSpec::default(), |_, origin| {
        Ok(LarderOptions { registries: listing(origin, &storage), ..LarderOptions::default() })
    })?;
    storage.push("team/app", "v1", &node.image);
    let layer = node.image.largest_layer();
    node.origin.behave(
        Matcher::path(layer.as_str()),
        Behaviour::Redirect(format!("{}/v2/team/app/blobs/{layer}", storage.url())),
    );
    Ok((node, storage))
}

fn redirect(line: EngineLine) -> Result<()> {
    // Where a registry leads may be on this machine only if it is among its endpoints.
    let (node, storage) = with_storage(line, |origin, storage| {
        format!("{}endpoints = [\"{}\", \"{}\"]\n", listed(origin), origin.url(), storage.url())
    })?;
    node.origin.require_token();
    node.engine.pull(&node.by_tag()).with_context(|| node.larder.last_lines())?;
    ensure!(node.asked_by_engine() == 0, "the engine followed it itself: {:#?}", node.origin.log());
    let log: Vec<_> = storage.log().into_iter().filter(larder_test_origin::Access::is_blob_get).collect();
    ensure!(log.len() == 1, "the storage was asked {} times", log.len());
    ensure!(log[0].header("authorization").is_none(), "the token followed the redirect to another host");
    Ok(())
}

fn forbidden(line: EngineLine) -> Result<()> {
    let (node, storage) = with_storage(line, |origin, _| listed(origin))?;
    // The engine itself follows: what it may reach is its own affair.
    node.engine.pull_in_the_end(&node.by_tag())?;
    let layer = node.image.largest_layer();
    let log = node.origin.log();
    ensure!(
        log.iter().any(|access| from_larder(access) && access.is_blob_get() && access.path.ends_with(layer.as_str())),
        "Larder was not told of the address: {log:#?}"
    );
    let ours: Vec<_> = storage.log().into_iter().filter(from_larder).collect();
    ensure!(ours.is_empty(), "Larder connected to an address that nobody listed: {ours:#?}");
    Ok(())
}
