//! Promise 2, 4 and 5: pulled once, pullable for ever; one fetch; the origin's bytes.

use anyhow::{Result, ensure};
use larder_oci::{Algorithm, Digest};
use larder_test_node::http;
use larder_test_node::node::Node;
use larder_test_origin::{Behaviour, Matcher};
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("pull_by_tag_costs_the_origin_each_thing_once", by_tag).smoke(),
    Case::any("pull_by_digest", by_digest),
    Case::any("registry_stopped_pulls_go_on_by_tag_and_by_digest", registry_stopped).smoke(),
    Case::any("image_deleted_at_the_origin", deleted),
    Case::any("origin_refuses_what_is_cached", refused),
    Case::any("the_bytes_are_the_origins", bytes),
    Case::any("other_platforms_stay_in_the_index", index),
];

fn by_tag(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.engine.has(&node.by_tag())?, "the engine does not have the image");
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself: {:#?}", node.origin.log());
    for digest in &node.image.host_platform().blobs {
        ensure!(node.origin.blob_gets(digest) == 1, "{digest} was fetched {} times", node.origin.blob_gets(digest));
    }
    let manifests = node.origin.log().iter().filter(|access| access.is_manifest_get()).count();
    ensure!(manifests == 2, "an index and a manifest are two GETs, not {manifests}: {:#?}", node.origin.log());
    Ok(())
}

fn by_digest(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.engine.pull(&node.by_digest())?;
    ensure!(node.engine.has(&node.by_digest())?, "the engine does not have the image");
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself: {:#?}", node.origin.log());
    Ok(())
}

fn registry_stopped(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.origin.stop();
    let pulled = node.engine.pull(&node.by_tag())?;
    ensure!(pulled.took.as_secs_f64() < 6.0, "a pull from the cache took {:?}", pulled.took);
    node.engine.remove(&node.by_tag())?;
    node.engine.pull(&node.by_digest())?;
    ensure!(node.engine.has(&node.by_digest())?, "the engine does not have the image");
    Ok(())
}

fn deleted(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.origin.delete("team/app");
    node.engine.pull(&node.by_tag())?;
    node.engine.remove(&node.by_tag())?;
    node.engine.pull(&node.by_digest())?;
    ensure!(node.origin.log().iter().all(|access| !access.is_blob_get()), "blobs were asked of the origin");
    Ok(())
}

fn refused(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    for status in [500, 503, 429, 403, 401, 404] {
        node.origin.behave_well();
        node.origin.behave(Matcher::all(), Behaviour::Status(status, vec![]));
        node.engine.pull(&node.by_tag()).map_err(|error| error.context(format!("origin answers {status}")))?;
        node.engine.remove(&node.by_tag())?;
    }
    Ok(())
}

fn bytes(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.origin.stop();
    for (digest, (media_type, bytes)) in &node.image.manifests {
        if *digest != node.image.index && *digest != node.image.host_platform().manifest {
            continue;
        }
        let reply = http::get(
            node.larder.listen,
            &format!("/v2/team/app/manifests/{digest}?ns={}", node.origin.registry()),
            &[],
        )?;
        ensure!(reply.status == 200 && reply.body == bytes.as_ref(), "{digest} is not the origin's");
        ensure!(reply.head.to_lowercase().contains(&format!("content-type: {media_type}")), "{}", reply.head);
    }
    for digest in &node.image.host_platform().blobs {
        let reply =
            http::get(node.larder.listen, &format!("/v2/team/app/blobs/{digest}?ns={}", node.origin.registry()), &[])?;
        ensure!(Digest::of(Algorithm::Sha256, &reply.body) == *digest, "{digest} is not the origin's");
    }
    Ok(())
}

fn index(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.origin.stop();
    let reply =
        http::get(node.larder.listen, &format!("/v2/team/app/manifests/v1?ns={}", node.origin.registry()), &[])?;
    let children = larder_oci::children(&reply.body)?;
    ensure!(children.manifests.len() == node.image.platforms.len(), "the index lost platforms");
    Ok(())
}
