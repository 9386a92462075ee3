//! A manifest that is in the store: requests a second, and how long they take when there are not many.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_oci::media_type::ACCEPT_MANIFESTS;
use larder_test_node::node::folder;
use larder_test_origin::{Image, ImageSpec, Origin};
use larder_test_parts::Debian;

use super::{REPOSITORY, Row};
use crate::bench::Bench;
use crate::bench::load::{at_a_pace, at_once};
use crate::bench::server::{Cache, Files, Server};
use crate::bench::sheet::{Compared, Finding, Sheet};

const CONNECTIONS: usize = 16;
const BY_DIGEST: &str = "by digest, requests/s (more is better)";
const LATENCY: &str = "by digest, p99 at 1,000/s, ms";
const BY_TAG: &str = "by tag, requests/s (more is better)";
const TAG: &str = "v1";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let origin = Origin::start();
    let image = Image::build(&ImageSpec { layers: vec![1000; 10], ..ImageSpec::default() });
    origin.push(REPOSITORY, TAG, &image);
    let digest = &image.host_platform().manifest;
    let (_, manifest) = image.manifests.get(digest).context("the image has no manifest")?;
    let files = Files::start(bench, folder.path(), "nginx files")?;
    let by_digest = files.hold(&format!("manifests/{digest}"), manifest)?;
    let by_tag = format!("/v2/{REPOSITORY}/manifests/{TAG}");
    let caches = [Cache::Larder, Cache::Varnish, Cache::Registry3]
        .into_iter()
        .map(|cache| {
            let server = cache.start(bench, folder.path(), origin.address())?;
            for path in [&by_tag, &by_digest] {
                at_once(server.address, &server.target(path), 1)?;
            }
            Ok(server)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        for server in std::iter::once(&files.server).chain(&caches) {
            bench.settle()?;
            let target = server.target(&by_digest);
            sheet.note(BY_DIGEST, server.name, with_wrk(bench, server, &target)?);
            let lasting = bench.scale.load * 2;
            sheet.note(LATENCY, server.name, at_a_pace(server.address, &target, CONNECTIONS, 1000, lasting)?);
        }
        for server in &caches {
            bench.settle()?;
            sheet.note(BY_TAG, server.name, with_wrk(bench, server, &server.target(&by_tag))?);
        }
    }
    let findings = [
        sheet.finding(Row::Manifests, BY_DIGEST, Compared::Ratio).map(|finding| finding.goal("beside nginx")),
        sheet.finding(Row::Manifests, LATENCY, Compared::Ratio).map(|finding| finding.goal("beside nginx")),
        sheet
            .finding(Row::Manifests, BY_TAG, Compared::Ratio)
            .map(|finding| finding.noted("larder asks the origin what the tag is now; varnish does not")),
    ];
    Ok(findings.into_iter().flatten().collect())
}

/// Requests a second that `wrk` gets out of it over 16 connections.
fn with_wrk(bench: &Bench, server: &Server, target: &str) -> Result<f64> {
    let lasting = bench.scale.load.max(Duration::from_secs(1)).as_secs();
    let output = Command::new(bench.parts.debian(Debian::Wrk)?)
        .args(["--threads", "2", "--connections", &CONNECTIONS.to_string(), "--duration", &format!("{lasting}s")])
        .args(["--header", &format!("Accept: {ACCEPT_MANIFESTS}")])
        .arg(format!("http://{}{target}", server.address))
        .output()
        .context("failed to run wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "{} did not answer well: {said}",
        server.name
    );
    let number = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    number.with_context(|| format!("wrk says no number: {said}"))
}
