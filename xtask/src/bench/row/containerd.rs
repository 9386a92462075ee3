//! An image of many layers, pulled through a real containerd: what a person waits for.
//!
//! Two engines take turns: one without Larder, one with it, as `larder-node run` sets it up. An image is pulled cold, removed from the
//! engine, and pulled again.

use anyhow::{Result, ensure};
use larder_test_node::containerd::{Containerd, ContainerdOptions};
use larder_test_node::engine::Engine as _;
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::{folder, listed};
use larder_test_origin::Origin;
use larder_test_parts::Line;

use super::{REPOSITORY, Row, blobs_asked_of, next_image};
use crate::bench::Bench;
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet};

const COLD: &str = "pull, cold, s";
const WARM: &str = "pull, warm, s";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    ensure!(nix::unistd::geteuid().is_root(), "containerd needs root");
    let (plain_folder, folder) = (folder()?, folder()?);
    let origin = Origin::start();
    let plain = Containerd::start(Line::V2_4, plain_folder.path(), ContainerdOptions::default())?;
    let engine = Containerd::start(Line::V2_4, folder.path(), ContainerdOptions::default())?;
    let options =
        LarderOptions { registries: listed(&origin), program: Some(bench.program()?), ..LarderOptions::default() };
    let larder = Larder::start(&engine, folder.path(), &options)?;
    let mut sheet = Sheet::default();
    for round in 0..bench.rounds {
        let seed = 1 + u64::from(round);
        let layers = vec![bench.scale.layer; bench.scale.layers];
        next_image(&origin, layers, seed);
        let reference = format!("{}/{REPOSITORY}:v1", origin.registry());
        let pull = |engine: &Containerd| -> Result<f64> {
            bench.settle()?;
            let took = engine.pull(&reference)?.took.as_secs_f64();
            engine.remove(&reference)?;
            Ok(took)
        };
        let direct = pull(&plain)?;
        for quantity in [COLD, WARM] {
            sheet.note(quantity, "direct", direct);
        }
        sheet.note(COLD, LARDER, pull(&engine)?);
        let asked = blobs_asked_of(&origin);
        sheet.note(WARM, LARDER, pull(&engine)?);
        let asked_again = blobs_asked_of(&origin);
        ensure!(asked == asked_again, "the warm pull was not warm: {}", larder.last_lines());
        origin.clear_log();
    }
    larder.stop()?;
    let (layers, size) = (bench.scale.layers, bench.scale.layer >> 20);
    let findings = [
        sheet.finding(Row::Containerd, COLD, Compared::Ratio).map(|finding| {
            finding.noted(format!("containerd 2.4, {layers} × {size} MiB, unpacked; the origin is not shaped"))
        }),
        sheet
            .finding(Row::Containerd, WARM, Compared::Ratio)
            .map(|finding| finding.noted("direct is the same sample as above: the engine itself keeps nothing")),
    ];
    Ok(findings.into_iter().flatten().collect())
}
