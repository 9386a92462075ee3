//! A blob that the bucket alone has: nodes that the cluster cache sends there (`--redirect nodes`), beside nodes that get it from the cluster cache.
//!
//! The bucket speaks TLS, since nobody who asked by https follows to plain http. A cluster cache that sends somebody on keeps no copy, so the second
//! node costs the bucket what the first one did: that is counted, too.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use larder_test_bucket::Server as Bucket;
use larder_test_node::node::folder;
use larder_test_origin::{Origin, private_certificate};

use super::{GIB, Row, blobs_asked_of, float, next_blob};
use crate::bench::Bench;
use crate::bench::load::{Herd, all_at_once};
use crate::bench::server::{Cluster, Server};
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet};

const NODES: usize = 8;

const ONE: &str = "one node, all of it, s";
const FIRST: &str = "one node, first byte, ms";
const NEXT: &str = "the next node, all of it, s";
const ALL: &str = "8 nodes at once, until all have all, s";
const CACHES_COST: &str = "8 nodes at once, processor s of the cache per GiB";
const NODES_COST: &str = "8 nodes at once, processor s of the nodes per GiB";

/// Nodes of a cluster.
struct Contender {
    name: &'static str,
    cluster: Cluster,
    nodes: Vec<Server>,
}

impl Contender {
    /// Some of its nodes want the same.
    fn pull(&self, which: Range<usize>, path: &str) -> Result<Herd> {
        let nodes = self.nodes.get(which).context("there are not so many nodes")?;
        all_at_once(nodes.iter().map(|node| (node.address, vec![node.target(path)])).collect())
    }

    fn spent_by_nodes(&self) -> Result<f64> {
        self.nodes.iter().map(Server::own_processor_seconds).sum()
    }
}

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let origin = Origin::start();
    let tls = private_certificate(&["127.0.0.1"]);
    let authority = folder.path().join("bucket.pem");
    std::fs::write(&authority, &tls.authority)?;
    let authority = authority.to_str().context("the folder's name is no text")?;
    let bucket = Bucket::start_tls(&tls.certificate, &tls.key)?;
    let start = |bench: &Bench, name, folder: &Path, nodes: usize, more: &[&str]| -> Result<Contender> {
        let told = [&["--endpoint-ca", authority], more].concat();
        let cluster = Cluster::on_bucket(bench, folder, origin.address(), &bucket, 1, &told)?;
        let cluster = cluster.telling_nodes(&["--upstream-ca", authority]);
        let node = |number| cluster.node(bench, &format!("node-{number}"));
        let nodes = (1..=nodes).map(node).collect::<Result<_>>()?;
        Ok(Contender { name, cluster, nodes })
    };
    let below = |name: &str| folder.path().join(name);
    let contenders = [
        start(bench, "not sent on", &below("plain"), NODES, &[])?,
        start(bench, LARDER, &below("redirect"), NODES, &["--redirect", "nodes"])?,
    ];
    // Another replica, by which things get into the bucket without a copy where it is measured.
    let filler = start(bench, "filler", &below("filler"), 1, &[])?;

    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        for contender in &contenders {
            let path = only_in_the_bucket(bench, &origin, &bucket, &filler)?;
            let alone = contender.pull(0..1, &path)?;
            sheet.note(ONE, contender.name, alone.wall);
            sheet.note(FIRST, contender.name, alone.first * 1e3);
            bench.settle()?;
            sheet.note(NEXT, contender.name, contender.pull(1..2, &path)?.wall);

            let path = only_in_the_bucket(bench, &origin, &bucket, &filler)?;
            let before = (contender.cluster.processor_seconds()?, contender.spent_by_nodes()?);
            sheet.note(ALL, contender.name, contender.pull(0..NODES, &path)?.wall);
            let gibibytes = float((bench.scale.blob * NODES) as u64) / GIB;
            let spent = contender.cluster.processor_seconds()? - before.0;
            sheet.note(CACHES_COST, contender.name, spent / gibibytes);
            sheet.note(NODES_COST, contender.name, (contender.spent_by_nodes()? - before.1) / gibibytes);
            let asked = blobs_asked_of(&origin);
            ensure!(asked == 0, "the origin was asked for {asked} blobs that the bucket has");
        }
    }
    let sent = contenders.iter().map(|contender| contender.cluster.sent_on()).collect::<Result<Vec<_>>>()?;
    // Each round a node alone, another one after it, and all of them.
    let expected = f64::from(bench.rounds) * float(2 + NODES as u64);
    ensure!(sent == [0.0, expected], "sent on were {sent:?}, not none and {expected}");
    let finding = |quantity| sheet.finding(Row::Redirect, quantity, Compared::Ratio);
    let size = bench.scale.blob_size();
    let findings = [
        finding(FIRST).map(|found| found.noted(format!("{size}; the bucket speaks TLS; only the bucket has it"))),
        finding(ONE),
        finding(NEXT)
            .map(|found| found.noted("who is not sent on finds the copy that the first one left in the cache")),
        finding(ALL).map(|found| found.noted("the bucket is read 8 times by nodes that are sent there, else once")),
        finding(CACHES_COST),
        finding(NODES_COST),
    ];
    Ok(findings.into_iter().flatten().collect())
}

/// A blob that nobody has seen and nobody has but the bucket; its path.
fn only_in_the_bucket(bench: &mut Bench, origin: &Origin, bucket: &Bucket, filler: &Contender) -> Result<String> {
    let (path, digest) = next_blob(bench, origin, bench.scale.blob);
    filler.pull(0..1, &path)?;
    filler.cluster.wait_until_in_bucket(bucket, &digest)?;
    origin.clear_log();
    bench.settle()?;
    Ok(path)
}
