//! A thousand Pods, counted: one object an image, few writes, and no change for which all objects are gone through.
//!
//! How long it takes, with ten times as many and with what kwok makes of them, is `cargo xtask bench controller`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_controller::{Cluster, Controller, Crowd, until};
use larder_test_node::http::metric;

const PODS: usize = 1_000;
const IMAGES: u32 = 100;

/// Writes of one image within a minute.
const MOST_WRITES: usize = 2;

/// Shorter than a minute by as much as an event may come late.
const ALMOST_A_MINUTE: Duration = Duration::from_secs(50);

/// Objects that may be looked at for one image that is: its own, what is pinned because of it, what was written of it.
const FOR_A_LOOK: f64 = 10.0;

/// The same for an image in a pass, which goes through all.
const FOR_A_PASS: f64 = 5.0;

/// One of the controller's counts, of all kinds.
fn count(controller: &Controller, name: &str) -> Result<f64> {
    let page = controller.page("/metrics")?;
    Ok(metric(&page, &format!("larder_controller_{name}_total")).unwrap_or_default())
}

pub(crate) fn a_thousand_pods() -> Result<()> {
    let cluster = Cluster::start()?;
    let images = cluster.push_tiny(u64::from(IMAGES));
    let mut crowd = Crowd::on(&cluster.plane, 50)?;
    let controller = cluster.controller(&["--concurrency", "16"])?;
    controller.until_it_leads()?;
    crowd.grow(&images, PODS)?;
    let with_objects = |crowd: &Crowd| -> Result<()> {
        let seen = crowd.seen();
        let made = seen.values().filter(|seen| seen.objects == 1).count();
        let all = images.len();
        ensure!(made == all && seen.len() == all, "{made} of {all} images have one object, {} were seen", seen.len());
        Ok(())
    };
    until("each image has one object", || with_objects(&crowd))?;
    // All of them are restarted, while the cache fetches what it can in that time.
    crowd.restart(1_000, &[])?;
    until("the restart is known", || {
        let page = controller.page("/metrics")?;
        let known = page.lines().find_map(|line| line.strip_prefix("larder_controller_known{kind=\"pods\"} "));
        let known: usize = known.context("a count")?.parse()?;
        ensure!(known == PODS, "{known} Pods");
        Ok(())
    })?;
    // Still one each, and nobody wrote more than twice a minute, however much there was to say.
    with_objects(&crowd)?;
    for (image, seen) in crowd.seen() {
        let most = seen.most_writes_within(ALMOST_A_MINUTE);
        ensure!(most <= MOST_WRITES, "{most} writes of {image} within {ALMOST_A_MINUTE:?}");
    }
    let (looks, visited) = (count(&controller, "looks")?, count(&controller, "objects_visited")?);
    let passes = count(&controller, "passes")?;
    let bound = FOR_A_LOOK * looks + FOR_A_PASS * f64::from(IMAGES) * (passes + 1.0);
    ensure!(looks >= 2.0 * f64::from(IMAGES), "only {looks} looks");
    ensure!(
        visited <= bound,
        "{visited} objects were looked at for {looks} looks and {passes} passes over {IMAGES} images: somebody goes through all of them for a change"
    );
    controller.terminate()
}
