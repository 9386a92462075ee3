//! A cluster that grows by a thousand nodes, which all want an image that nobody has: what each costs beside one node alone.

use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_test_node::cache::TOKEN;
use larder_test_node::cluster::NAME;
use larder_test_node::node::folder;
use larder_test_origin::Origin;

use super::{REPOSITORY, Row, float, next_image};
use crate::bench::Bench;
use crate::bench::crowd::{Crowd, Pulled, Wish};
use crate::bench::server::Cluster;
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet, median};

/// A hundred of them a second.
const INTERVAL: Duration = Duration::from_millis(10);
/// One node alone does not cost enough to be measured: so many, one after the other.
const ALONE: u32 = 20;
const ALONE_INTERVAL: Duration = Duration::from_millis(100);
/// The last is the one whose first byte counts. What a thousand nodes take has to fit through this machine.
const LAYERS: [usize; 3] = [1000, 100_000, 400_000];

const FIRST: &str = "first byte of a layer, ms, half of the nodes";
const SLOWEST: &str = "first byte of a layer, ms, 99 of 100 nodes";
const ALL: &str = "all of the image, ms, half of the nodes";
const PROCESSOR: &str = "processor ms of the cluster cache for a node";
const MEMORY: &str = "anonymous MiB of the cluster cache";
const GETS: &str = "GETs at the origin, all nodes";
const HEADS: &str = "HEADs of the tag at the origin, for a node";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let mut sheet = Sheet::default();
    for round in 0..bench.rounds {
        // Memory of those before would be counted again.
        let folder = folder()?;
        let origin = Origin::start();
        let cluster = Cluster::on_folder(bench, folder.path(), origin.address())?;
        let crowd = Crowd::new(cluster.address()?, &cluster.authority()?, TOKEN)?;
        bench.settle()?;
        let alone = push(&origin, u64::from(round) * 2 + 1);
        crowd.come(1, INTERVAL, &alone)?;
        note(&origin, &cluster, &crowd, (ALONE, ALONE_INTERVAL), &alone, "one node", &mut sheet)?;
        bench.settle()?;
        let wish = push(&origin, u64::from(round) * 2 + 2);
        note(&origin, &cluster, &crowd, (bench.scale.nodes, INTERVAL), &wish, LARDER, &mut sheet)?;
    }
    let finding = |quantity, compared| sheet.finding(Row::ScaleUp, quantity, compared);
    let nodes = bench.scale.nodes;
    let findings = [
        finding(FIRST, Compared::Ratio).map(|found| {
            found.noted(format!("{nodes} nodes, 100 a second, over TLS; one node: the image is there, one at a time"))
        }),
        finding(SLOWEST, Compared::Ratio),
        finding(ALL, Compared::Ratio),
        finding(PROCESSOR, Compared::Ratio).map(|found| found.goal("≤ × one node")),
        finding(MEMORY, Compared::Ratio),
        finding(GETS, Compared::NotAtAll).map(|found| found.goal("6").noted("index, manifest and 4 blobs")),
        finding(HEADS, Compared::NotAtAll).map(|found| found.goal("≤ 1")),
    ];
    Ok(findings.into_iter().flatten().collect())
}

fn push(origin: &Origin, seed: u64) -> Wish {
    let image = next_image(origin, LAYERS.to_vec(), seed);
    let platform = image.host_platform();
    let target = |what: String| format!("/v2/{REPOSITORY}/{what}?ns={NAME}");
    let manifests = [&image.index, &platform.manifest].map(|digest| target(format!("manifests/{digest}")));
    let blobs = platform.blobs.iter().map(|digest| target(format!("blobs/{digest}")));
    Wish { head: target("manifests/v1".to_owned()), gets: manifests.into_iter().chain(blobs).collect() }
}

fn note(
    origin: &Origin,
    cluster: &Cluster,
    crowd: &Crowd,
    (nodes, interval): (u32, Duration),
    wish: &Wish,
    name: &'static str,
    sheet: &mut Sheet,
) -> Result<()> {
    origin.clear_log();
    let before = cluster.processor_seconds()?;
    let pulled = crowd.come(nodes, interval, wish)?;
    let spent = cluster.processor_seconds()? - before;
    let mut firsts: Vec<f64> = pulled.iter().map(|Pulled { first, .. }| *first).collect();
    firsts.sort_by(f64::total_cmp);
    sheet.note(FIRST, name, median(&firsts));
    sheet.note(SLOWEST, name, *firsts.get(firsts.len() * 99 / 100).context("no node came")?);
    let alls: Vec<f64> = pulled.iter().map(|Pulled { all, .. }| *all).collect();
    sheet.note(ALL, name, median(&alls));
    sheet.note(PROCESSOR, name, spent * 1e3 / f64::from(nodes));
    sheet.note(MEMORY, name, cluster.anonymous_mebibytes()?);
    let log = origin.log();
    let of = |method: &str| float(log.iter().filter(|access| access.method == method).count() as u64);
    if name == LARDER {
        sheet.note(GETS, name, of("GET"));
    }
    sheet.note(HEADS, name, of("HEAD") / f64::from(nodes));
    Ok(())
}
