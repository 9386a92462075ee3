//! Many clients ask for the same cold blob at the same moment, at an origin that gives each connection so much and no more.

use anyhow::Result;
use larder_test_node::node::folder;

use super::{Row, float, next_blob, shaped_origin};
use crate::bench::Bench;
use crate::bench::load::at_once;
use crate::bench::server::{Cache, Server};
use crate::bench::sheet::{Compared, Finding, Sheet};

const CLIENTS: usize = 32;
const WALL: &str = "until all 32 have all, s";
const FIRST: &str = "until half have a byte, ms";
const LAST_FIRST: &str = "until all have a byte, ms";
const GETS: &str = "GETs of the blob at the origin";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let origin = shaped_origin(bench);
    let mut servers = vec![Server::direct(origin.address())];
    for cache in [Cache::Larder, Cache::Nginx, Cache::Varnish, Cache::Registry2, Cache::Registry3] {
        servers.push(cache.start(bench, folder.path(), origin.address())?);
    }
    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        let (path, digest) = next_blob(bench, &origin, bench.scale.blob);
        for (number, server) in servers.iter().enumerate() {
            bench.settle()?;
            origin.clear_log();
            // What everybody is compared with is one download without anything between.
            let clients = if number == 0 { 1 } else { CLIENTS };
            let herd = at_once(server.address, &server.target(&path), clients)?;
            sheet.note(WALL, server.name, herd.wall);
            sheet.note(FIRST, server.name, herd.first * 1e3);
            sheet.note(LAST_FIRST, server.name, herd.last_first * 1e3);
            if number > 0 {
                sheet.note(GETS, server.name, float(origin.blob_gets(&digest) as u64));
            }
        }
    }
    let findings = [
        sheet.finding(Row::Herd, WALL, Compared::Ratio).map(|finding| {
            finding.goal("× direct ≤ 1.05").noted(format!(
                "{}, {}; direct is one client alone",
                bench.scale.blob_size(),
                bench.scale.line_speed()
            ))
        }),
        sheet
            .finding(Row::Herd, FIRST, Compared::Difference)
            .map(|finding| finding.goal("− direct ≤ 30").noted("with a sign: the difference")),
        sheet.finding(Row::Herd, LAST_FIRST, Compared::Difference),
        sheet.finding(Row::Herd, GETS, Compared::NotAtAll).map(|finding| finding.goal("1")),
    ];
    Ok(findings.into_iter().flatten().collect())
}
