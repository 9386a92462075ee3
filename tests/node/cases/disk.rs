//! The store's disk: full, damaged.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::disk::SmallDisk;
use larder_test_node::engine::Engine;
use larder_test_node::http;
use larder_test_node::larder::LarderOptions;
use larder_test_node::node::Node;
use larder_test_node::wait::until;
use larder_test_origin::ImageSpec;
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::any("a_full_disk_turns_caching_off_and_pulls_go_on", full),
    Case::any("a_damaged_blob_does_not_fail_pulls_for_ever", damaged),
];

fn full(line: EngineLine) -> Result<()> {
    let disk = SmallDisk::mount(4)?;
    let spec = ImageSpec { layers: vec![9_000_000, 1000], ..ImageSpec::default() };
    let node = Node::on_with(line, &spec, |_, _| {
        Ok(LarderOptions { store: Some(disk.path().join("store")), ..LarderOptions::default() })
    })?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.engine.has(&node.by_tag())?, "the engine does not have the image");
    // The disk was full in the middle of the layer. Now somebody else fills it for good.
    let filler = disk.path().join("somebody-elses");
    let mut filler = std::fs::File::create(filler)?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    // It says so once, where a person and a scraper look.
    until("the store says that it is full", Duration::from_secs(10), || {
        ensure!(node.larder.metric("larder_store_writable")? < 1.0, "larder_store_writable is 1");
        Ok(())
    })?;
    let told = http::get(node.larder.proxy_admin, "/readyz", &[])?;
    ensure!(told.status == 200 && told.text().contains("full"), "/readyz says {}: {}", told.status, told.text());
    node.engine.remove(&node.by_tag())?;
    node.engine.pull(&node.by_tag())?;
    Ok(())
}

fn damaged(line: EngineLine) -> Result<()> {
    let spec = ImageSpec { layers: vec![1_500_000, 1000], ..ImageSpec::default() };
    let node = Node::on_with_image(line, &spec)?;
    node.warm()?;
    let layer = node.image.largest_layer();
    // Where the reply begins, and far behind it: the first pull that meets the damage succeeds.
    for offset in [1000, 900_000] {
        flip(&node.stored(&layer).context("the layer is not in the store")?, offset)?;
        pull(&node).with_context(|| format!("damage at {offset}"))?;
        ensure!(node.asked_by_larder() > 0, "the origin was not asked for what is damaged at {offset}");
        // Also the next one, from the engine's point of view a new image.
        node.wait_until_stored()?;
        node.engine.remove(&node.by_tag())?;
        node.origin.clear_log();
        pull(&node).with_context(|| format!("after damage at {offset}"))?;
        ensure!(node.origin.blob_gets(&layer) == 0, "the layer is not in the store again");
        node.engine.remove(&node.by_tag())?;
    }
    // With nobody to ask the pull fails, and it leaves nothing behind that the next one would stumble over.
    flip(&node.stored(&layer).context("the layer is not in the store")?, 900_000)?;
    node.origin.stop();
    ensure!(node.engine.pull(&node.by_tag()).is_err(), "a damaged layer and no origin made an image");
    node.origin.start_again();
    pull(&node).context("the origin is back")
}

fn pull(node: &Node<dyn Engine>) -> Result<()> {
    node.engine.pull(&node.by_tag()).with_context(|| node.larder.last_lines())?;
    ensure!(node.engine.has(&node.by_tag())?, "the engine does not have the image");
    Ok(())
}

/// Turns the bits of one byte over.
fn flip(path: &Path, offset: u64) -> Result<()> {
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&[byte[0] ^ 0xff])?;
    Ok(file.sync_all()?)
}
