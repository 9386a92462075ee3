//! Promise 4 when the engine itself fetches one layer over many connections.

use anyhow::{Result, ensure};
use larder_test_node::containerd::ContainerdOptions;
use larder_test_node::engine::Engine as _;
use larder_test_node::larder::LarderOptions;
use larder_test_node::node::Node;
use larder_test_origin::{Behaviour, ImageSpec, Matcher};
use larder_test_parts::Line;

use crate::Case;

pub(crate) const CASES: &[Case] = &[Case::new("parallel_ranges_cost_the_origin_each_byte_once", ranges)
    .since(Line::V2_1, "earlier lines have no parallel layer fetch")];

fn ranges(line: Line) -> Result<()> {
    let options = ContainerdOptions {
        transfer_settings: "concurrent_layer_fetch_buffer = 1048576\nmax_concurrent_downloads = 4".into(),
        ..ContainerdOptions::default()
    };
    let spec = ImageSpec { layers: vec![24_000_000], ..ImageSpec::default() };
    let node = Node::with(line, options, &spec, |_, _| Ok(LarderOptions::default()))?;
    // Slow enough that the later ranges are asked for while the first is on its way.
    node.origin.behave(Matcher::path("/blobs/"), Behaviour::Shape(12_000_000));
    node.engine.pull(&node.by_tag())?;
    let layer = node.image.largest_layer();
    let (sent, length) = (node.origin.blob_bytes(&layer), node.image.blobs[&layer].len() as u64);
    ensure!(sent == length, "the origin sent {sent} bytes of a layer of {length}");
    ensure!(node.asked_by_engine() == 0, "the engine went to the origin itself");
    // The case shows something only if the engine did ask for ranges of that layer.
    let log = node.larder.log();
    let asked = log.lines().filter(|line| line.contains(layer.as_str()) && line.contains("status=206")).count();
    ensure!(asked >= 2, "the engine asked for {asked} ranges only: nothing was parallel");
    Ok(())
}
