//! The controller among many `CachedImages`: it describes all of them, and one that starts finds them described.
//!
//! The same at a tenth of the size stands beside it, as for [`controller`](super::controller).

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, Crowd, until};
use larder_test_node::http::metric;
use larder_test_node::wait;

use super::controller::{PATIENCE, SMALL, cluster, delays, start};
use super::{Row, float};
use crate::bench::Bench;
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet};
use crate::bench::usage::peak_mebibytes;

const LISTED: &str = "until the controller knows and works, s";
const PAGES: &str = "pages of the list";
const TOLD: &str = "until each says how it is, s";
const AMONG: &str = "Pod to CachedImage meanwhile, s";
const TELLING_MEMORY: &str = "peak memory of the controller that describes them, MiB";
const MEMORY: &str = "peak memory of the controller that finds them, MiB";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let mut sheet = Sheet::default();
    let objects = bench.scale.objects;
    // Once, as with Pods.
    for (name, objects) in [(SMALL, objects / 10), (LARDER, objects)] {
        bench.settle()?;
        many(bench, objects, name, &mut sheet)?;
    }
    let finding = |quantity| sheet.finding(Row::ManyImages, quantity, Compared::Ratio);
    let findings = [
        finding(TOLD).map(|found| found.noted("without a status before, one write each")),
        finding(TELLING_MEMORY).map(|found| found.noted("VmHWM")),
        finding(LISTED).map(|found| {
            found.noted(format!("{objects} of them, each with its status and its pin; the process starts"))
        }),
        finding(PAGES).map(|found| found.noted("lists that the API server counted, of 500 each")),
        finding(AMONG),
        finding(MEMORY).map(|found| found.noted("VmHWM, three passes among it")),
    ];
    Ok(findings.into_iter().flatten().collect())
}

/// So many objects that people made, each of another reference and all of them in the cache; the controller that finds them when it starts.
fn many(bench: &Bench, objects: usize, name: &'static str, sheet: &mut Sheet) -> Result<()> {
    let cluster = cluster(bench)?;
    let new = cluster.push_tiny(1).pop().context("one image")?;
    let mut crowd = Crowd::on(&cluster.plane, 10)?;
    let images = kept(bench, &cluster, &crowd, objects)?;
    let first = start(bench, &cluster, &[])?;
    let began = Instant::now();
    wait::until("each says that it is cached", PATIENCE, || {
        bench.stop.check()?;
        let seen = crowd.seen();
        let silent = images.iter().filter(|image| seen.get(*image).is_none_or(|seen| seen.cached.is_none())).count();
        ensure!(silent == 0, "{silent} do not");
        Ok(())
    })?;
    sheet.note(TOLD, name, began.elapsed().as_secs_f64());
    eprintln!("controller: {objects} said that they are cached after {:.1} s", began.elapsed().as_secs_f64());
    let memory = peak_mebibytes(first.pid())?;
    eprintln!("controller: it has had {memory:.0} MiB");
    sheet.note(TELLING_MEMORY, name, memory);
    first.terminate()?;
    let before = pages(&cluster)?;
    let began = Instant::now();
    let restarted = start(bench, &cluster, &[])?;
    wait::until("it knows all of them and leads", PATIENCE, || {
        bench.stop.check()?;
        let page = restarted.page("/metrics")?;
        let known = metric(&page, "larder_controller_known{kind=\"images\"}")?;
        ensure!(known >= float(objects as u64) && restarted.leads(), "{known} known");
        Ok(())
    })?;
    sheet.note(LISTED, name, began.elapsed().as_secs_f64());
    sheet.note(PAGES, name, pages(&cluster)? - before);
    crowd.one(&new)?;
    until("the image of a new Pod has its object", || {
        ensure!(crowd.seen().get(&new.image).is_some_and(|seen| seen.object.is_some()), "it has none");
        Ok(())
    })?;
    sheet.note(AMONG, name, delays(&crowd, &[new])?.0);
    // Passes are what takes the most.
    wait::until("it has gone through all of them twice more", PATIENCE, || {
        bench.stop.check()?;
        let passes = metric(&restarted.page("/metrics")?, "larder_controller_passes_total")?;
        ensure!(passes >= 3.0, "{passes} passes");
        Ok(())
    })?;
    let memory = peak_mebibytes(restarted.pid())?;
    eprintln!("controller: the one that found them has had {memory:.0} MiB");
    sheet.note(MEMORY, name, memory);
    restarted.terminate()
}

/// Objects that people made, so many, each of another reference. All of them are in the cache, and none of them says so yet.
pub(super) fn kept(bench: &Bench, cluster: &Cluster, crowd: &Crowd, objects: usize) -> Result<Vec<String>> {
    let images = cluster.push_tags(objects);
    let (model, others) = images.split_first().context("at least one")?;
    crowd.objects(std::slice::from_ref(model))?;
    let fetching = start(bench, cluster, &[])?;
    until("the first is cached", || {
        ensure!(crowd.seen().get(model).is_some_and(|seen| seen.cached.is_some()), "it is not");
        Ok(())
    })?;
    fetching.terminate()?;
    // Fetching each would take hours, and be the cache's figure.
    cluster.cache.keep_like(model, others)?;
    eprintln!("controller: making {objects} CachedImages");
    crowd.objects(others)?;
    Ok(images)
}

/// Lists of `CachedImages` that the API server has answered.
fn pages(cluster: &Cluster) -> Result<f64> {
    let page = cluster.plane.kubectl(&["get", "--raw=/metrics"], "")?;
    let is_one = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"cachedimages\"")
            && line.contains("verb=\"LIST\"")
    };
    Ok(page.lines().filter(is_one).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
