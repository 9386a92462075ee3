//! `cargo xtask demo --cluster`: the same story on kind, with kubelets, helm and an application.
//!
//! The cluster is the one that the tests use (`tests/kind`), the image that of `cargo xtask image`, the chart the one in `chart/`.
//! The steps are in [`steps`], what they share is a [`stage::Stage`].

mod stage;
mod steps;

use std::process::ExitCode;

use anyhow::{Result, bail};
use larder_test_kind::machine;

use super::story::Story;
use stage::Stage;

pub(super) fn run(keep: bool) -> Result<ExitCode> {
    if let Some(reason) = machine::unfit() {
        bail!("no cluster can be made here: {reason}");
    }
    let mut story = Story::begin("Larder on a cluster: a Pod comes back on another node while its registry is gone");
    let stage =
        story.step("Get the stage ready: an image of Larder, a cluster on kind, a registry beside it", Stage::set)?;
    if let Err(error) = steps::tell(&mut story, &stage, keep) {
        story.failed(&error, &stage.logs());
        return Ok(ExitCode::FAILURE);
    }
    if keep {
        stage.play()?;
    }
    story.end();
    Ok(ExitCode::SUCCESS)
}
