//! How the controller that leads renews its lease among many `CachedImages`, on a machine whose processors others keep busy: while it describes all of them,
//! and goes through all of them once a minute.
//!
//! The same at a tenth of the size stands beside it. When a renewal was written it says itself; nothing that is watched late counts.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Crowd, Renewals};
use larder_test_node::http::metric;
use larder_test_node::wait;

use super::controller::{PATIENCE, SMALL, cluster, start};
use super::many_images::kept;
use super::{Row, float};
use crate::bench::Bench;
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet};
use crate::bench::usage::processor_seconds;

/// The first of them as soon as everything is listed.
const PASSES: f64 = 3.0;

const LONGEST: &str = "longest time between two renewals of the lease, s";
const TAKEN: &str = "times that the lease was taken";
const PROCESSOR: &str = "processor s of the controller";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let mut sheet = Sheet::default();
    let objects = bench.scale.objects;
    let mut renewals = 0;
    for (name, objects) in [(SMALL, objects / 10), (LARDER, objects)] {
        bench.settle()?;
        renewals = busy(bench, objects, name, &mut sheet)?;
    }
    let processors = processors()?;
    let finding = |quantity| sheet.finding(Row::Lead, quantity, Compared::Ratio);
    let findings = [
        finding(LONGEST).map(|found| {
            found.goal("< 10").noted(format!(
                "{objects} CachedImages, {PASSES} passes, {renewals} renewals, {processors} processors and as many loops that never end; one is due every 2 s"
            ))
        }),
        finding(TAKEN).map(|found| found.goal("1")),
        finding(PROCESSOR),
    ];
    Ok(findings.into_iter().flatten().collect())
}

/// How often the lease was renewed.
fn busy(bench: &Bench, objects: usize, name: &'static str, sheet: &mut Sheet) -> Result<usize> {
    let cluster = cluster(bench)?;
    let crowd = Crowd::on(&cluster.plane, 10)?;
    kept(bench, &cluster, &crowd, objects)?;
    let renewals = Renewals::of(&cluster.plane, "larder", "larder-controller")?;
    let spinning = Spinning::on(processors()?)?;
    let controller = start(bench, &cluster, &[])?;
    wait::until("it has gone through all of them", PATIENCE, || {
        bench.stop.check()?;
        let page = controller.page("/metrics")?;
        // One without the list of pins is none.
        let failed = metric(&page, "larder_controller_passes_total{outcome=\"failed\"}").unwrap_or_default();
        let passes = metric(&page, "larder_controller_passes_total")? - failed;
        let [images, pins] =
            ["images", "pins"].map(|kind| metric(&page, &format!("larder_controller_known{{kind=\"{kind}\"}}")));
        let all = float(objects as u64);
        ensure!(
            passes >= PASSES && images? >= all && pins? >= all,
            "{passes} passes over all of them, {failed} failed"
        );
        Ok(())
    })?;
    drop(spinning);
    let (count, longest, taken) = renewals.so_far();
    let longest = longest.as_secs_f64();
    eprintln!("controller: {objects} objects, {count} renewals, the longest pause {longest:.2} s, taken {taken} times");
    sheet.note(LONGEST, name, longest);
    sheet.note(TAKEN, name, float(taken as u64));
    sheet.note(PROCESSOR, name, processor_seconds(controller.pid())?);
    controller.terminate()?;
    Ok(count)
}

fn processors() -> Result<usize> {
    Ok(std::thread::available_parallelism().context("how many processors there are")?.get())
}

/// Processes that want a processor each and do nothing with it, until this is dropped.
struct Spinning(Vec<Child>);

impl Spinning {
    fn on(processors: usize) -> Result<Self> {
        let one = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().context("failed to start a shell")
        };
        let mut spinning = Self(Vec::new());
        for _ in 0..processors {
            spinning.0.push(one()?);
        }
        Ok(spinning)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that is gone does no harm.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
