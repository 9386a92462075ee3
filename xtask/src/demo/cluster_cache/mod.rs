//! `cargo xtask demo --cluster-cache`: three nodes, a registry, and two replicas of the cluster cache on one bucket, without Kubernetes.
//!
//! Nodes are real engines in folders of their own, each with its `larder-node`; the bucket is a real S3 server. The steps are in [`steps`],
//! what they share is a [`stage::Stage`].

mod stage;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use larder_test_parts::EngineLine;

use super::story::Story;
use stage::Stage;

pub(super) fn run(line: EngineLine, keep: bool) -> Result<ExitCode> {
    let mut story =
        Story::begin("Larder's cluster cache: an image crosses from its registry once, and stays when that is gone");
    let mut stage = story.step("Get the stage ready", |told| Stage::set(line, told))?;
    if let Err(error) = steps::tell(&mut story, &mut stage) {
        story.failed(&error, &stage.logs());
        return Ok(ExitCode::FAILURE);
    }
    if keep {
        stage.play()?;
    }
    story.end();
    Ok(ExitCode::SUCCESS)
}
