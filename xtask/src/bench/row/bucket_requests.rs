//! Requests to the bucket for a pull, which are money: the first one of an image, one by a replica that has no copy, one by a replica that has.
//!
//! Counted by the S3 server, for Larder and for registry 3.1 alike, and compared with what `larder-cache` says of itself. What belongs to a
//! pull comes up to half a minute after it (its pin), and what was read is believed for a minute, so each kind of pull ends when nothing was
//! asked for longer than that.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_oci::media_type::ACCEPT_MANIFESTS;
use larder_test_bucket::Server as Bucket;
use larder_test_node::http;
use larder_test_node::node::folder;
use larder_test_node::wait::until;
use larder_test_origin::{Image, Origin};

use super::{REPOSITORY, Row, float, image_of};
use crate::bench::Bench;
use crate::bench::bucket_log::{Price, below, summary};
use crate::bench::server::{Cluster, Server, registry_on_bucket};
use crate::bench::sheet::{Compared, Finding, Sheet};

/// As real images have them: one big, some middling, one tiny.
const LAYERS: [usize; 5] = [30 << 20, 18 << 20, 11 << 20, 1 << 20, 4 << 10];
const PULLS: [&str; 3] = ["first pull", "another replica", "from a copy"];
/// Where each contender's own lies in the bucket.
const FOLDERS: [&str; 2] = ["larder", "registry"];
/// Longer than `larder-cache` waits before it pins what was pulled (30 s), and than it believes what it read (a minute).
const QUIET: Duration = Duration::from_secs(65);

fn writes(pull: &str) -> String {
    format!("{pull}, PUT, LIST and parts")
}

fn reads(pull: &str) -> String {
    format!("{pull}, GET and HEAD")
}

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let below_folder = |name: &str| folder.path().join(name);
    let origin = Origin::start();
    let bucket = Bucket::start_logging()?;
    let mut larders = Vec::new();
    let mut registries = Vec::new();
    for number in 1..=2 {
        let folder = below_folder(&format!("cluster-{number}"));
        let cluster = Cluster::on_bucket(bench, &folder, origin.address(), &bucket, 1, &[])?;
        larders.push(cluster);
        let folder = below_folder(&format!("registry-{number}"));
        registries.push(registry_on_bucket(bench, &folder, origin.address(), &bucket)?);
    }
    let images: Vec<Image> = (0..bench.rounds)
        .map(|round| {
            let image = image_of(LAYERS.to_vec(), 1 + u64::from(round));
            origin.push(REPOSITORY, &tag(round), &image);
            image
        })
        .collect();
    let (first, second) = ((0, "first"), (1, "second"));
    let mut sheet = Sheet::default();
    let mut notes = Vec::new();
    for (pull, (number, which)) in PULLS.into_iter().zip([first, second, second]) {
        let missing = || format!("the {which} of two is missing");
        // One that has nothing of it yet.
        let node = &larders.get(number).with_context(missing)?.node(bench, pull)?;
        let registry = registries.get(number).with_context(missing)?;
        until_quiet(bench, &bucket, Duration::from_secs(2))?;
        let before = FOLDERS.map(|folder| asked(&bucket, folder).map(|asked| asked.len()));
        for (round, image) in (0..bench.rounds).zip(&images) {
            for server in [node, registry] {
                pull_image(server, &tag(round), image)?;
            }
        }
        until_quiet(bench, &bucket, QUIET)?;
        for ((server, folder), before) in [node, registry].into_iter().zip(FOLDERS).zip(before) {
            let all = asked(&bucket, folder)?;
            let new = all.get(before?..).unwrap_or_default();
            let of = |price| {
                float(new.iter().filter(|asked| asked.price() == price).count() as u64) / f64::from(bench.rounds)
            };
            sheet.note(&writes(pull), server.name, of(Price::Write));
            sheet.note(&reads(pull), server.name, of(Price::Read));
            notes.push(format!("{}: {}", server.name, summary(new)));
        }
    }
    // Whoever watches larder_bucket_requests_total has to see what the provider bills.
    let counted = larders.iter().map(Cluster::bucket_requests).sum::<Result<f64>>()?;
    let billed = float(asked(&bucket, "larder")?.len() as u64);
    ensure!(
        (counted - billed).abs() < 0.5,
        "larder-cache counts {counted} requests to the bucket, the bucket {billed}"
    );
    Ok(findings(bench, &sheet, &notes))
}

fn findings(bench: &Bench, sheet: &Sheet, notes: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (pull, notes) in PULLS.into_iter().zip(notes.chunks(2)) {
        let of_all = format!("of {} pulls, {}", bench.rounds, notes.join("; "));
        for (quantity, note) in [(writes(pull), of_all), (reads(pull), String::new())] {
            findings.extend(
                sheet.finding(Row::BucketRequests, &quantity, Compared::Ratio).map(|finding| finding.noted(note)),
            );
        }
    }
    findings
}

fn tag(round: u16) -> String {
    format!("v{round}")
}

fn asked(bucket: &Bucket, folder: &str) -> Result<Vec<crate::bench::bucket_log::Asked>> {
    Ok(below(folder, &bucket.access_log()?))
}

/// Waits until the bucket was not asked for that long.
fn until_quiet(bench: &Bench, bucket: &Bucket, long: Duration) -> Result<()> {
    let mut last = (bucket.access_log()?.len(), Instant::now());
    until("nobody asks the bucket any more", Duration::from_mins(4), || {
        bench.settle()?;
        let length = bucket.access_log()?.len();
        if length != last.0 {
            last = (length, Instant::now());
        }
        ensure!(last.1.elapsed() >= long, "it was asked {:?} ago", last.1.elapsed());
        Ok(())
    })
}

/// As an engine pulls: what the tag is, then all by digest.
fn pull_image(server: &Server, tag: &str, image: &Image) -> Result<()> {
    let platform = image.host_platform();
    let manifest = |reference: &str| format!("/v2/{REPOSITORY}/manifests/{reference}");
    let mut requests = vec![
        ("HEAD", manifest(tag)),
        ("GET", manifest(image.index.as_str())),
        ("GET", manifest(platform.manifest.as_str())),
    ];
    requests.extend(platform.blobs.iter().map(|blob| ("GET", format!("/v2/{REPOSITORY}/blobs/{blob}"))));
    for (method, path) in requests {
        let reply = http::request(method, server.address, &server.target(&path), &[("accept", ACCEPT_MANIFESTS)])?;
        ensure!(reply.status == 200, "{} says {} to {path}", server.name, reply.status);
    }
    Ok(())
}
