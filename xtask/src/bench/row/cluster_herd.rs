//! Many clients of several nodes ask for the same image at the same moment; the cluster cache has two replicas on one bucket.
//!
//! First nobody has the image, and the origin gives each connection so much and no more; then the bucket has it, and no replica has a copy.

use anyhow::{Context as _, Result, ensure};
use larder_test_bucket::Server as Bucket;
use larder_test_node::node::folder;
use larder_test_origin::{Image, Origin};

use super::cluster_hit::wait_until_in_registry;
use super::{REPOSITORY, Row, blobs_asked_of, float, next_image, shaped_origin};
use crate::bench::Bench;
use crate::bench::bucket_log::{Asked, below};
use crate::bench::load::all_at_once;
use crate::bench::server::{Cluster, Server, registry_on_bucket};
use crate::bench::sheet::{Compared, Finding, Sheet};

const REPLICAS: u8 = 2;
const NODES: usize = 8;
const CLIENTS: usize = 32;
const LAYERS: usize = 8;

const COLD: &str = "nobody has it, until all 32 have all, s";
const GETS: &str = "nobody has it, GETs of a layer at the origin";
const BYTES: &str = "nobody has it, bytes the origin sent, × the image";
const REQUESTS: &str = "nobody has it, requests at the origin";
const FROM_BUCKET: &str = "the bucket has it, until all 32 have all, s";
const BUCKET_GETS: &str = "the bucket has it, GETs of a layer at the bucket";

/// Who is asked, and where in the bucket its own lies.
struct Contender {
    doors: Vec<Server>,
    in_bucket: &'static str,
}

impl Contender {
    fn name(&self) -> Result<&'static str> {
        Ok(self.doors.first().context("nobody is to be asked")?.name)
    }

    /// All clients, spread over the doors, each wants all of these.
    fn pull(&self, clients: usize, paths: &[String]) -> Result<f64> {
        let clients: Vec<_> = self
            .doors
            .iter()
            .cycle()
            .take(clients)
            .map(|door| (door.address, paths.iter().map(|path| door.target(path)).collect()))
            .collect();
        Ok(all_at_once(clients)?.wall)
    }
}

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let below_folder = |name: &str| folder.path().join(name);
    let origin = shaped_origin(bench);
    let bucket = Bucket::start_logging()?;
    let cluster = Cluster::on_bucket(bench, &below_folder("cluster"), origin.address(), &bucket, REPLICAS, &[])?;
    let nodes = (1..=NODES).map(|number| cluster.node(bench, &format!("node-{number}"))).collect::<Result<_>>()?;
    let registries = (1..=REPLICAS)
        .map(|number| {
            let folder = below_folder(&format!("registry-{number}"));
            registry_on_bucket(bench, &folder, origin.address(), &bucket)
        })
        .collect::<Result<_>>()?;
    let contenders =
        [Contender { doors: nodes, in_bucket: "larder" }, Contender { doors: registries, in_bucket: "registry" }];
    // Another replica, by which an image gets into the bucket without a copy where it is measured.
    let filler = Cluster::on_bucket(bench, &below_folder("filler"), origin.address(), &bucket, 1, &[])?;
    let filling = Contender { doors: vec![filler.node(bench, "node")?], in_bucket: "larder" };
    let direct = Contender { doors: vec![Server::direct(origin.address())], in_bucket: "" };

    let mut sheet = Sheet::default();
    for round in 0..bench.rounds {
        let image = push(bench, &origin, u64::from(round) * 2 + 1);
        bench.settle()?;
        sheet.note(COLD, direct.name()?, direct.pull(1, &paths(&image))?);
        for contender in &contenders {
            bench.settle()?;
            origin.clear_log();
            sheet.note(COLD, contender.name()?, contender.pull(CLIENTS, &paths(&image))?);
            at_the_origin(&origin, &image, contender, &mut sheet)?;
        }
        cluster.wait_until_kept()?;

        let image = push(bench, &origin, u64::from(round) * 2 + 2);
        let [_, registries] = &contenders;
        for filling in [&filling, registries] {
            filling.pull(1, &paths(&image))?;
        }
        for blob in &image.host_platform().blobs {
            filler.wait_until_in_bucket(&bucket, blob)?;
            wait_until_in_registry(&bucket, blob)?;
        }
        origin.clear_log();
        for contender in &contenders {
            bench.settle()?;
            let before = below(contender.in_bucket, &bucket.access_log()?).len();
            sheet.note(FROM_BUCKET, contender.name()?, contender.pull(CLIENTS, &paths(&image))?);
            let asked = below(contender.in_bucket, &bucket.access_log()?);
            at_the_bucket(asked.get(before..).unwrap_or_default(), &image, contender, &mut sheet)?;
        }
        let gets = blobs_asked_of(&origin);
        ensure!(gets == 0, "the origin was asked for {gets} blobs that the bucket has");
    }
    Ok(findings(bench, &sheet))
}

fn push(bench: &Bench, origin: &Origin, seed: u64) -> Image {
    next_image(origin, vec![bench.scale.ranged_blob / LAYERS; LAYERS], seed)
}

fn paths(image: &Image) -> Vec<String> {
    let platform = image.host_platform();
    let manifests =
        ["v1".to_owned(), platform.manifest.to_string()].map(|name| format!("/v2/{REPOSITORY}/manifests/{name}"));
    manifests.into_iter().chain(platform.blobs.iter().map(|blob| format!("/v2/{REPOSITORY}/blobs/{blob}"))).collect()
}

fn at_the_origin(origin: &Origin, image: &Image, contender: &Contender, sheet: &mut Sheet) -> Result<()> {
    let blobs = &image.host_platform().blobs;
    let gets: usize = blobs.iter().map(|blob| origin.blob_gets(blob)).sum();
    let bytes: u64 = blobs.iter().map(|blob| origin.blob_bytes(blob)).sum();
    sheet.note(GETS, contender.name()?, float(gets as u64) / float(blobs.len() as u64));
    sheet.note(BYTES, contender.name()?, float(bytes) / float(image.host_size()));
    sheet.note(REQUESTS, contender.name()?, float(origin.log().len() as u64));
    Ok(())
}

fn at_the_bucket(asked: &[Asked], image: &Image, contender: &Contender, sheet: &mut Sheet) -> Result<()> {
    let blobs = &image.host_platform().blobs;
    let gets = asked.iter().filter(|asked| blobs.iter().any(|blob| asked.reads(blob))).count();
    sheet.note(BUCKET_GETS, contender.name()?, float(gets as u64) / float(blobs.len() as u64));
    Ok(())
}

fn findings(bench: &Bench, sheet: &Sheet) -> Vec<Finding> {
    let finding = |quantity, compared| sheet.finding(Row::ClusterHerd, quantity, compared);
    let (ratio, none) = (Compared::Ratio, Compared::NotAtAll);
    let size = format!("{LAYERS} × {} MB", bench.scale.ranged_blob / LAYERS / 1_000_000);
    let findings = [
        finding(COLD, ratio).map(|found| {
            let line = bench.scale.line_speed();
            found
                .goal("× direct ≤ 1.05")
                .noted(format!("{size}, {line}; {NODES} nodes, {REPLICAS} replicas (registries); direct is one client"))
        }),
        finding(GETS, none).map(|found| found.goal("1")),
        finding(BYTES, none).map(|found| found.goal("× 1.00")),
        finding(REQUESTS, none).map(|found| found.noted("a tag is asked of the origin by each node at most")),
        finding(FROM_BUCKET, ratio),
        finding(BUCKET_GETS, none).map(|found| found.goal("≤ 2").noted("once per replica at most")),
    ];
    findings.into_iter().flatten().collect()
}
