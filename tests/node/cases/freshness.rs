//! Promise 3: a tag is what the origin says now, as long as it answers.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_test_node::engine::Engine;
use larder_test_node::node::Node;
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher};
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("a_tag_that_moved_is_the_new_image", moved).smoke(),
    Case::any("an_origin_that_needs_1200_ms_is_fresh", slow),
    Case::any("an_origin_that_hangs_costs_the_budget_once", hangs),
    Case::any("an_unchanged_tag_costs_no_pull", unchanged),
];

fn move_tag(node: &Node<dyn Engine>) -> Image {
    let image = Image::build(&ImageSpec { seed: 77, ..ImageSpec::default() });
    node.origin.push("team/app", "v1", &image);
    image
}

fn moved(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    let new = move_tag(&node);
    let pulled = node.engine.pull(&node.by_tag())?;
    ensure!(node.engine.has(&node.digest_reference(&new.index))?, "pulled {} is not the new image", pulled.image);
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself: {:#?}", node.origin.log());
    Ok(())
}

fn slow(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.origin.behave(Matcher::all(), Behaviour::Delay(Duration::from_millis(1200)));
    for seed in [77, 78, 79] {
        let image = Image::build(&ImageSpec { seed, layers: vec![2000], ..ImageSpec::default() });
        node.origin.push("team/app", "v1", &image);
        node.engine.pull(&node.by_tag())?;
        ensure!(node.engine.has(&node.digest_reference(&image.index))?, "the slow origin's answer was not used");
    }
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself: {:#?}", node.origin.log());
    Ok(())
}

fn hangs(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.origin.behave(Matcher::all(), Behaviour::Hang);
    let first = node.engine.pull(&node.by_tag())?;
    // 3 s for the tag; the rest of the pull is from the store.
    ensure!(first.took < Duration::from_secs(6), "the first pull took {:?}", first.took);
    node.engine.remove(&node.by_tag())?;
    for _ in 0..5 {
        let pulled = node.engine.pull(&node.by_tag())?;
        ensure!(pulled.took < Duration::from_secs(2), "a further pull paid for the outage again: {:?}", pulled.took);
        node.engine.remove(&node.by_tag())?;
    }
    Ok(())
}

fn unchanged(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    node.warm()?;
    node.engine.pull(&node.by_tag())?;
    let log = node.origin.log();
    ensure!(
        log.iter().any(|access| access.method == "HEAD" && access.path.ends_with("/manifests/v1")),
        "the origin was not asked: {log:#?}"
    );
    ensure!(
        log.iter().all(|access| access.method == "HEAD" || access.path == "/v2/"),
        "something was fetched again: {log:#?}"
    );
    Ok(())
}
