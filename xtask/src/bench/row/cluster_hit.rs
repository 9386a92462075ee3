//! What the cluster cache holds, as a client of a node gets it: from a folder, from a copy of what is in the bucket, from the bucket itself.
//!
//! Beside it registry 3.1, which keeps its content on the same S3 server and nothing else, and is asked without a node between; and nginx, which has
//! it on its own disk. Nobody may ask the origin for what is measured: that is looked at.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_oci::Digest;
use larder_test_bucket::Server as Bucket;
use larder_test_node::node::folder;
use larder_test_node::wait::until;
use larder_test_origin::Origin;

use super::{REPOSITORY, Row, float};
use crate::bench::Bench;
use crate::bench::bucket_log::below;
use crate::bench::load::{as_much_as_goes, at_once, first_byte};
use crate::bench::server::{Cache, Cluster, Server, registry_on_bucket};
use crate::bench::sheet::{Compared, Finding, Sheet};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const CONNECTIONS: [usize; 2] = [1, 8];
/// Requests, of which the middle one counts.
const FIRST_BYTES: usize = 5;

/// Where the cluster cache has it. A copy beside the bucket is a file in a folder as well, and found in another way.
const PLACES: [&str; 2] = ["folder", "copy of the bucket's"];
const FROM_THE_BUCKET: &str = "from the bucket, all of it, s";
const FIRST_FROM_THE_BUCKET: &str = "from the bucket, first byte, ms";

fn speed(place: &str, connections: usize) -> String {
    format!("{place}, GiB/s, {connections} connections (more is better)")
}

fn cost(place: &str, connections: usize) -> String {
    format!("{place}, processor s per GiB, {connections} connections")
}

fn first(place: &str) -> String {
    format!("{place}, first byte, ms")
}

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let below = |name: &str| folder.path().join(name);
    let origin = Origin::start();
    let bucket = Bucket::start_logging()?;
    let on_folder = Cluster::on_folder(bench, &below("on-folder"), origin.address())?;
    let on_bucket = Cluster::on_bucket(bench, &below("on-bucket"), origin.address(), &bucket, 1, &[])?;
    // Another replica, by which things get into the bucket without a copy where it is measured.
    let filler = Cluster::on_bucket(bench, &below("filler"), origin.address(), &bucket, 1, &[])?;
    let (folders, copies, filling) =
        (on_folder.node(bench, "node")?, on_bucket.node(bench, "node")?, filler.node(bench, "node")?);
    let registry = registry_on_bucket(bench, &below("registry"), origin.address(), &bucket, false)?;
    let nginx = Cache::Nginx.start(bench, folder.path(), origin.address())?;
    let peers = [&registry, &nginx];

    let (path, digest) = push(bench, &origin);
    for server in [&folders, &copies].into_iter().chain(peers) {
        at_once(server.address, &server.target(&path), 1)?;
    }
    for cluster in [&on_folder, &on_bucket] {
        cluster.wait_until_kept()?;
    }
    wait_until_in_registry(&bucket, &digest)?;

    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        // From here on the origin has nothing to say.
        let (fresh, fresh_digest) = push(bench, &origin);
        for server in [&filling].into_iter().chain(peers) {
            at_once(server.address, &server.target(&fresh), 1)?;
        }
        filler.wait_until_in_bucket(&bucket, &fresh_digest)?;
        wait_until_in_registry(&bucket, &fresh_digest)?;
        origin.delete(REPOSITORY);
        origin.clear_log();

        for server in [&copies].into_iter().chain(peers) {
            bench.settle()?;
            let alone = at_once(server.address, &server.target(&fresh), 1)?;
            sheet.note(FROM_THE_BUCKET, server.name, alone.wall);
            sheet.note(FIRST_FROM_THE_BUCKET, server.name, alone.first * 1e3);
        }
        ensure!(reads(&bucket, &fresh_digest)? == 1, "what was to come from the bucket did not");
        on_bucket.wait_until_kept()?;
        at_rest(bench, &path, [&folders, &copies], peers, &mut sheet)?;
        ensure!(reads(&bucket, &digest)? == 0, "what was to be here was read from the bucket");
        let asked = origin.log().iter().filter(|access| access.is_blob_get()).count();
        ensure!(asked == 0, "the origin was asked for {asked} blobs: these were no hits");
    }
    Ok(findings(bench, &sheet))
}

/// The same for both places; peers have one sample for both.
fn at_rest(bench: &Bench, path: &str, places: [&Server; 2], peers: [&Server; 2], sheet: &mut Sheet) -> Result<()> {
    let contenders = places.into_iter().zip(PLACES).map(|(server, place)| (server, vec![place]));
    let contenders = contenders.chain(peers.into_iter().map(|server| (server, PLACES.to_vec())));
    for (server, places) in contenders {
        bench.settle()?;
        let target = server.target(path);
        let byte = first_byte(server.address, &target, FIRST_BYTES)?;
        for place in &places {
            sheet.note(&first(place), server.name, byte);
        }
        for connections in CONNECTIONS {
            bench.settle()?;
            let before = server.processor_seconds()?;
            let (bytes, took) = as_much_as_goes(server.address, &target, connections, bench.scale.load)?;
            let gibibytes = float(bytes) / GIB;
            let spent = (server.processor_seconds()? - before) / gibibytes;
            for place in &places {
                sheet.note(&speed(place, connections), server.name, gibibytes / took);
                sheet.note(&cost(place, connections), server.name, spent);
            }
        }
    }
    Ok(())
}

fn findings(bench: &Bench, sheet: &Sheet) -> Vec<Finding> {
    let compared = |quantity: &str| sheet.finding(Row::ClusterHit, quantity, Compared::Ratio);
    let mut findings = Vec::new();
    for place in PLACES {
        findings.extend(compared(&first(place)).map(|finding| {
            finding.noted(format!(
                "{}; larder: node, TLS, cache; the peers are asked without a node",
                bench.scale.blob_size()
            ))
        }));
        for connections in CONNECTIONS {
            findings.extend(compared(&speed(place, connections)));
            findings.extend(
                compared(&cost(place, connections))
                    .map(|finding| finding.noted("node and cache; without the S3 server's")),
            );
        }
    }
    findings.extend(compared(FIRST_FROM_THE_BUCKET));
    findings.extend(compared(FROM_THE_BUCKET).map(|finding| {
        finding.noted("larder checks it and keeps a copy; the registry does neither; nginx has it here")
    }));
    findings
}

/// A blob that nobody has seen, beside nothing else.
fn push(bench: &mut Bench, origin: &Origin) -> (String, Digest) {
    super::next_blob(bench, origin, bench.scale.blob)
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
