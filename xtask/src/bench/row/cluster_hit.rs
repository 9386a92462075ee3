//! What the cluster cache holds, as clients of nodes get it that never had it: from a folder, from a copy of what is in the bucket, from the
//! bucket itself.
//!
//! Beside it registry 3.1, which keeps its content on the same S3 server and nothing else, and nginx, which has it on its own disk; both are asked
//! without a node between. Nobody may ask the origin for what is measured: that is looked at.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_oci::Digest;
use larder_test_bucket::Server as Bucket;
use larder_test_node::node::folder;
use larder_test_node::wait::until;
use larder_test_origin::Origin;

use super::{GIB, REPOSITORY, Row, blobs_asked_of, float, next_blob};
use crate::bench::Bench;
use crate::bench::bucket_log::below;
use crate::bench::load::all_at_once;
use crate::bench::server::{Cache, Cluster, Server, registry_on_bucket};
use crate::bench::sheet::{Compared, Finding, LARDER, Sheet};

/// That ask at once.
const NODES: usize = 8;

/// Where the cluster cache has it. A copy beside the bucket is a file in a folder as well, and found in another way.
const PLACES: [&str; 3] = ["folder", "copy of the bucket's", "bucket"];

fn first(place: &str) -> String {
    format!("{place}, first byte, ms")
}

fn alone(place: &str) -> String {
    format!("{place}, one node, all of it, s")
}

fn together(place: &str) -> String {
    format!("{place}, {NODES} nodes at once, until all have all, s")
}

fn cost(place: &str) -> String {
    format!("{place}, {NODES} nodes at once, processor s per GiB")
}

fn of_the_cache(place: &str) -> String {
    format!("{place}, the same of the cache alone")
}

/// Who is asked: nodes, or one server again and again.
struct Contender {
    name: &'static str,
    doors: Vec<Server>,
    cluster: Option<Cluster>,
}

impl Contender {
    fn server(server: Server) -> Self {
        Self { name: server.name, doors: vec![server], cluster: None }
    }

    fn nodes(bench: &Bench, cluster: Cluster) -> Result<Self> {
        // The first is the one by which it gets into the cluster cache.
        let doors = (0..=NODES).map(|number| cluster.node(bench, &format!("node-{number}"))).collect::<Result<_>>()?;
        Ok(Self { name: LARDER, doors, cluster: Some(cluster) })
    }

    /// All behind the first, and the only one where there is one only: each as often as it takes.
    fn askers(&self) -> impl Iterator<Item = &Server> {
        let nodes = self.doors.get(1..).filter(|nodes| !nodes.is_empty()).unwrap_or(&self.doors);
        nodes.iter().cycle()
    }

    fn fill(&self, path: &str) -> Result<()> {
        let door = self.doors.first().context("nobody is to be asked")?;
        all_at_once(vec![(door.address, vec![door.target(path)])])?;
        Ok(())
    }

    /// One asks, then others do at once, for something that no node has had; what comes of it is noted for these places.
    fn measure(&self, bench: &Bench, [one, other]: [&str; 2], places: &[&str], sheet: &mut Sheet) -> Result<()> {
        let ask = |door: &Server, path| (door.address, vec![door.target(path)]);
        bench.settle()?;
        let herd = all_at_once(self.askers().take(1).map(|door| ask(door, one)).collect())?;
        bench.settle()?;
        let before = self.spent()?;
        let crowd = all_at_once(self.askers().take(NODES).map(|door| ask(door, other)).collect())?;
        let after = self.spent()?;
        let gibibytes = float((bench.scale.blob * NODES) as u64) / GIB;
        for place in places {
            sheet.note(&first(place), self.name, herd.first * 1e3);
            sheet.note(&alone(place), self.name, herd.wall);
            sheet.note(&together(place), self.name, crowd.wall);
            sheet.note(&cost(place), self.name, (after.0 - before.0) / gibibytes);
            sheet.note(&of_the_cache(place), self.name, (after.1 - before.1) / gibibytes);
        }
        Ok(())
    }

    /// Processor seconds so far, of all of it and of the cache alone, which is all where there is no node.
    fn spent(&self) -> Result<(f64, f64)> {
        let doors = self.doors.iter().map(Server::own_processor_seconds).sum::<Result<f64>>()?;
        let Some(cluster) = &self.cluster else { return Ok((doors, doors)) };
        let caches = cluster.processor_seconds()?;
        Ok((doors + caches, caches))
    }
}

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let place = |name: &str| folder.path().join(name);
    let origin = Origin::start();
    let address = origin.address();
    let bucket = Bucket::start_logging()?;
    let folders = Contender::nodes(bench, Cluster::on_folder(bench, &place("on-folder"), address)?)?;
    // What one replica brings the other has to read from the bucket.
    let [copies, others] = ["one", "other"]
        .map(|name| Contender::nodes(bench, Cluster::on_bucket(bench, &place(name), address, &bucket, 1, &[])?));
    let (copies, others) = (copies?, others?);
    let registry = Contender::server(registry_on_bucket(bench, &place("registry"), address, &bucket)?);
    let nginx = Contender::server(Cache::Nginx.start(bench, folder.path(), address)?);

    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        let (one, one_digest) = next_blob(bench, &origin, bench.scale.blob);
        let fill = |path: &str, digest: &Digest| -> Result<()> {
            for contender in [&folders, &copies, &registry, &nginx] {
                contender.fill(path)?;
            }
            wait_until_in_registry(&bucket, digest)?;
            copies.cluster.iter().try_for_each(|cluster| cluster.wait_until_in_bucket(&bucket, digest))?;
            folders.cluster.iter().try_for_each(Cluster::wait_until_kept)
        };
        fill(&one, &one_digest)?;
        let (other, other_digest) = next_blob(bench, &origin, bench.scale.blob);
        fill(&other, &other_digest)?;
        // From here on the origin has nothing to say.
        origin.delete(REPOSITORY);
        origin.clear_log();
        let before = [&one_digest, &other_digest].map(|digest| reads(&bucket, digest));
        for (contender, places) in [
            (&folders, &PLACES[..1]),
            (&copies, &PLACES[1..2]),
            (&registry, &PLACES[..]),
            (&nginx, &PLACES[..]),
            (&others, &PLACES[2..]),
        ] {
            contender.measure(bench, [&one, &other], places, &mut sheet)?;
        }
        for (digest, before) in [&one_digest, &other_digest].into_iter().zip(before) {
            let new = reads(&bucket, digest)? - before?;
            ensure!(new == 1, "the bucket was read {new} times for what one of the caches was to get from it");
        }
        let asked = blobs_asked_of(&origin);
        ensure!(asked == 0, "the origin was asked for {asked} blobs: these were no hits");
    }
    Ok(findings(bench, &sheet))
}

fn findings(bench: &Bench, sheet: &Sheet) -> Vec<Finding> {
    let compared = |quantity: &str| sheet.finding(Row::ClusterHit, quantity, Compared::Ratio);
    let mut findings = Vec::new();
    for place in PLACES {
        let beside = "larder: node, TLS, cache; the peers are asked without a node";
        findings.extend(compared(&first(place)).map(|found| {
            let size = bench.scale.blob_size();
            found.noted(match place {
                "bucket" => format!("{size}; larder checks it and keeps a copy; the registry has it from there each time; nginx has it here"),
                _ => format!("{size}; {beside}"),
            })
        }));
        findings.extend(compared(&alone(place)));
        findings.extend(compared(&together(place)));
        findings.extend(compared(&cost(place)).map(|found| found.noted("without the S3 server's")));
        findings.extend(compared(&of_the_cache(place)));
    }
    findings
}

/// How often Larder has read a blob from the bucket until now.
fn reads(bucket: &Bucket, digest: &Digest) -> Result<usize> {
    Ok(below("larder", &bucket.access_log()?).iter().filter(|asked| asked.reads(digest)).count())
}

/// Waits until registry 3.1 has a blob in the bucket, which it writes beside what it sends.
pub(super) fn wait_until_in_registry(bucket: &Bucket, digest: &Digest) -> Result<()> {
    let registry = bucket.objects().join("registry/docker/registry/v2");
    let (two, hex) = (digest.hex().get(..2).unwrap_or_default(), digest.hex());
    let needed = [
        registry.join(format!("blobs/sha256/{two}/{hex}/data")),
        registry.join(format!("repositories/{REPOSITORY}/_layers/sha256/{hex}/link")),
    ];
    until("the registry has the blob in the bucket", Duration::from_mins(1), || {
        for file in &needed {
            ensure!(file.exists(), "{} is not there", file.display());
        }
        Ok(())
    })
}
