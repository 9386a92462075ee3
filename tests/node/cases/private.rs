//! Promise 6: what needs credentials goes straight to the registry with the Pod's own, and is not kept.

use anyhow::{Result, ensure};
use larder_cri::Auth;
use larder_test_node::node::Node;
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[Case::any("what_needs_credentials_is_left_to_the_engine", private)];

fn private(line: EngineLine) -> Result<()> {
    let node = Node::on(line)?;
    // base64 of user:secret
    node.origin.require_token_from(&format!("{}/token", node.origin.url()), Some("dXNlcjpzZWNyZXQ="));
    ensure!(node.engine.pull(&node.by_tag()).is_err(), "the test origin gave it to anybody");
    node.engine.pull_as(&node.by_tag(), Some(Auth::new("user", "secret")))?;
    for digest in node.image.blobs.keys().chain(node.image.manifests.keys()) {
        ensure!(node.stored(digest).is_none(), "{digest} of a private image was kept");
    }
    node.engine.remove(&node.by_tag())?;
    ensure!(node.engine.pull(&node.by_tag()).is_err(), "a private image was served without credentials");
    // The second pull with credentials must not make Larder ask again: it remembers.
    node.origin.clear_log();
    node.engine.pull_as(&node.by_tag(), Some(Auth::new("user", "secret")))?;
    ensure!(node.asked_by_larder() == 0, "the origin was asked for nothing: {:#?}", node.origin.log());
    Ok(())
}
