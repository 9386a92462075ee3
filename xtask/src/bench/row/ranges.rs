//! One client fetches one cold blob in parallel, as containerd's concurrent fetch does: `bytes=N-`, closed when it has its part.

use anyhow::Result;
use larder_test_node::node::folder;

use super::{Row, float, next_blob, shaped_origin};
use crate::bench::Bench;
use crate::bench::client::Client;
use crate::bench::load::side_by_side;
use crate::bench::server::{Cache, Server};
use crate::bench::sheet::{Compared, Finding, Sheet};

const PARTS: u64 = 8;
const BYTES: &str = "bytes the origin sent, × the blob";
const WALL: &str = "8 open-ended ranges at once, s";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let origin = shaped_origin(bench);
    let mut servers = vec![Server::direct(origin.address())];
    for cache in [Cache::Larder, Cache::Nginx, Cache::Varnish] {
        servers.push(cache.start(bench, folder.path(), origin.address())?);
    }
    let mut sheet = Sheet::default();
    let size = bench.scale.ranged_blob as u64;
    for _ in 0..bench.rounds {
        let (path, digest) = next_blob(bench, &origin, bench.scale.ranged_blob);
        for server in &servers {
            bench.settle()?;
            origin.clear_log();
            let began = std::time::Instant::now();
            in_parts(server, &server.target(&path), size)?;
            sheet.note(WALL, server.name, began.elapsed().as_secs_f64());
            sheet.note(BYTES, server.name, float(origin.blob_bytes(&digest)) / float(size));
        }
    }
    let findings = [
        sheet.finding(Row::Ranges, BYTES, Compared::NotAtAll).map(|finding| {
            finding.goal("× 1.00").noted(format!("{} MB, {}", size / 1_000_000, bench.scale.line_speed()))
        }),
        sheet
            .finding(Row::Ranges, WALL, Compared::Ratio)
            .map(|finding| finding.noted("direct has the lines of 8 connections")),
    ];
    Ok(findings.into_iter().flatten().collect())
}

fn in_parts(server: &Server, target: &str, size: u64) -> Result<()> {
    let part = size / PARTS;
    side_by_side((0..PARTS).collect(), |number| {
        let first = part * number;
        let last = if number + 1 == PARTS { size } else { first + part };
        let mut client = Client::connect(server.address)?;
        let status = client.ask(target, Some(&format!("bytes={first}-")))?;
        // Who answers with all of it makes its client read up to its part.
        let mut left = if status == 206 { last - first } else { last };
        while left > 0 {
            left -= client.take(left)?;
        }
        Ok(())
    })?;
    Ok(())
}
