//! The controller in a cluster of thousands of Pods: real etcd, API server and `larder-cache`, nodes and Pods of kwok's, a registry of tiny images.
//!
//! The same at a tenth of the size stands beside it, so that the ratio says how a figure grows. How often the controller wrote is what the API server told of
//! in a watch, object by object, and nothing that the controller says of itself; that both agree is checked.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, Controller, Crowd, Seen, Start, Used, median_and_worst};
use larder_test_node::http::metric;
use larder_test_node::wait;

use super::{Row, float};
use crate::bench::Bench;
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet};
use crate::bench::usage::{peak_mebibytes, processor_seconds};

/// How large a cluster is.
#[derive(Clone, Copy)]
pub(in crate::bench) struct Size {
    pub(in crate::bench) pods: usize,
    pub(in crate::bench) nodes: usize,
    pub(in crate::bench) images: u64,
    /// Pods that are replaced in a second when all are restarted.
    pub(in crate::bench) restarted_a_second: u32,
}

impl Size {
    /// A tenth of it, in the same time.
    fn tenth(self) -> Self {
        Self {
            pods: self.pods / 10,
            nodes: self.nodes / 10,
            images: self.images / 10,
            restarted_a_second: (self.restarted_a_second / 10).max(1),
        }
    }
}

/// Images that come while everything is restarted.
const MEANWHILE: u64 = 20;
/// For anything that is waited for.
pub(super) const PATIENCE: Duration = Duration::from_mins(30);
const MINUTE: Duration = Duration::from_mins(1);
pub(super) const SMALL: &str = "a tenth";

const AT_ONCE: &str = "Pod to CachedImage, all Pods at once, s, half of the images";
const AT_ONCE_WORST: &str = "Pod to CachedImage, all Pods at once, s, 99 of 100";
const WHILE: &str = "Pod to CachedImage, while all are restarted, s, half";
const WHILE_WORST: &str = "Pod to CachedImage, while all are restarted, s, 99 of 100";
const COMPLETE: &str = "until all are cached and said to be, s";
const MOST: &str = "writes of an image in any minute of the restart, the most";
const MEAN: &str = "writes of an image in a minute of the restart, mean";
const MEMORY: &str = "peak memory of the controller, MiB";
const PROCESSOR: &str = "processor s of the controller, restart";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let mut sheet = Sheet::default();
    let mut restarted = String::new();
    let size = bench.scale.cluster;
    // Once, however many rounds are asked for: a figure is of hundreds of images, and most of them are counts.
    for (name, size) in [(SMALL, size.tenth()), (LARDER, size)] {
        bench.settle()?;
        restarted = cluster_of(bench, size, name, &mut sheet)?;
    }
    let Size { pods, nodes, images, .. } = size;
    let finding = |quantity| sheet.finding(Row::Controller, quantity, Compared::Ratio);
    let findings = [
        finding(AT_ONCE).map(|found| {
            found.goal("≤ 2 s").noted(format!("{pods} Pods on {nodes} nodes, {images} images, once; from the API server's answer to the event of the object"))
        }),
        finding(AT_ONCE_WORST),
        finding(COMPLETE),
        finding(WHILE).map(|found| found.goal("≤ 2 s").noted(format!("{MEANWHILE} new images"))),
        finding(WHILE_WORST),
        finding(MOST).map(|found| found.goal("≤ 2").noted(format!("counted by a watch; {restarted}"))),
        finding(MEAN),
        finding(MEMORY).map(|found| found.goal("≤ 150").noted("VmHWM")),
        finding(PROCESSOR),
    ];
    Ok(findings.into_iter().flatten().collect())
}

pub(super) fn cluster(bench: &Bench) -> Result<Cluster> {
    Cluster::start_with(bench.cache_program()?)
}

pub(super) fn start(bench: &Bench, cluster: &Cluster, words: &[&str]) -> Result<Controller> {
    let program: PathBuf = bench.controller_program()?;
    let start = Start { program, lease: "15s", log: "info" };
    Controller::start_as(&start, &cluster.kubeconfig()?, &cluster.cache, words)
}

/// All Pods come at once, and all of them are restarted. What was restarted, for people.
fn cluster_of(bench: &Bench, size: Size, name: &'static str, sheet: &mut Sheet) -> Result<String> {
    let cluster = cluster(bench)?;
    let mut images = cluster.push_tiny(size.images + MEANWHILE);
    let later = images.split_off(usize::try_from(size.images)?);
    let mut crowd = Crowd::on(&cluster.plane, size.nodes)?.with_kwok(&cluster.plane, &bench.parts)?;
    let controller = start(bench, &cluster, &["--concurrency", "16"])?;
    controller.until_it_leads()?;
    eprintln!("controller: {} Pods, {} images", size.pods, size.images);
    let began = Instant::now();
    crowd.grow(&images, size.pods)?;
    eprintln!("controller: {} Pods made in {:.1} s", size.pods, began.elapsed().as_secs_f64());
    all_have_objects(bench, &crowd, &images)?;
    let (median, worst) = delays(&crowd, &images)?;
    sheet.note(AT_ONCE, name, median);
    sheet.note(AT_ONCE_WORST, name, worst);
    sheet.note(COMPLETE, name, all_are_cached(bench, &crowd, &images)?.saturating_duration_since(began).as_secs_f64());
    wait::until("kwok runs all Pods", PATIENCE, || {
        bench.stop.check()?;
        let running = crowd.in_phase("Running")?;
        ensure!(running >= size.pods, "{running} run; {}", crowd.kwok_said());
        Ok(())
    })?;
    eprintln!("controller: all cached and running after {:.1} s", began.elapsed().as_secs_f64());
    crowd.forget_writes();
    let (began, spent) = (Instant::now(), processor_seconds(controller.pid())?);
    crowd.restart(size.restarted_a_second, &later)?;
    let took = began.elapsed();
    all_have_objects(bench, &crowd, &later)?;
    sheet.note(PROCESSOR, name, processor_seconds(controller.pid())? - spent);
    let (median, worst) = delays(&crowd, &later)?;
    sheet.note(WHILE, name, median);
    sheet.note(WHILE_WORST, name, worst);
    let seen = crowd.seen();
    let of_restarted: Vec<&Seen> = images.iter().filter_map(|used| seen.get(&used.image)).collect();
    ensure!(of_restarted.iter().all(|seen| seen.objects == 1), "an image has several objects");
    let most = of_restarted.iter().map(|seen| seen.most_writes_within(MINUTE)).max().unwrap_or_default();
    let written: usize = of_restarted.iter().map(|seen| seen.writes.len()).sum();
    sheet.note(MOST, name, float(most as u64));
    let minutes = (took.as_secs_f64() / 60.0).max(1.0);
    sheet.note(MEAN, name, float(written as u64) / float(of_restarted.len() as u64) / minutes);
    sheet.note(MEMORY, name, peak_mebibytes(controller.pid())?);
    // Whoever watches the controller's own count has to see what the API server saw.
    let all: usize = seen.values().map(|seen| seen.writes.len()).sum();
    let said = metric(&controller.page("/metrics")?, "larder_controller_writes_total")?;
    ensure!(said >= float(all as u64), "the controller counts {said} writes, the API server more than {all}");
    controller.terminate()?;
    Ok(format!("{} Pods restarted in {:.0} s, {written} writes", size.pods, took.as_secs_f64()))
}

fn all_have_objects(bench: &Bench, crowd: &Crowd, images: &[Used]) -> Result<()> {
    wait::until("each image has an object", PATIENCE, || {
        bench.stop.check()?;
        let seen = crowd.seen();
        let without =
            images.iter().filter(|used| seen.get(&used.image).is_none_or(|seen| seen.object.is_none())).count();
        ensure!(without == 0, "{without} images have none");
        Ok(())
    })
}

/// When the last one was.
fn all_are_cached(bench: &Bench, crowd: &Crowd, images: &[Used]) -> Result<Instant> {
    wait::until("all images are cached", PATIENCE, || {
        bench.stop.check()?;
        let seen = crowd.seen();
        let cached = images.iter().filter_map(|used| seen.get(&used.image)?.cached);
        ensure!(cached.clone().count() == images.len(), "{} of {}", cached.count(), images.len());
        cached.max().context("no image")
    })
}

/// From the first Pod of an image to its object, in seconds: half of them, and 99 of 100.
pub(super) fn delays(crowd: &Crowd, images: &[Used]) -> Result<(f64, f64)> {
    let seen = crowd.seen();
    let delay = |used: &Used| {
        let seen = seen.get(&used.image)?;
        Some(seen.object?.saturating_duration_since(seen.pod?).as_secs_f64())
    };
    median_and_worst(images.iter().filter_map(delay).collect())
}
